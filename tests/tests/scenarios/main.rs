//! Scenarios: one promise a file, each against real PostgreSQL.
//!
//! One binary, because linking is what a small test costs most.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clones;
mod debian_layout;
mod encryption;
mod exit_status;
mod failover;
mod harness;
mod hooks;
mod outage;
mod recovery_oracle;
mod take_over;
mod wal_decoding;
