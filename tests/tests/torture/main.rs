//! Every step of push, get, backup, restore and expire fails in turn, and every request
//! that they send to a real S3 server. What is acknowledged stays, what is half
//! done counts for nothing, and a plain retry succeeds.
//!
//! A test run tries a sample; `scripts/torture` tries all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod breaks;
mod bucket;
mod delta;
mod expire;
mod get;
mod in_steps;
mod large;
mod over_s3;
mod push;
mod requests;
mod restore;
mod shipped;
mod stage;
mod workplace;
