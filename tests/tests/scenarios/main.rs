//! Scenarios: one promise a file, each against real PostgreSQL.
//!
//! One binary, because linking is what a small test costs most.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backup;
mod check;
mod clones;
mod damaged_pages;
mod debian_layout;
mod encryption;
mod exit_status;
mod failover;
mod harness;
mod hooks;
mod inherited_settings;
mod outage;
mod recovery_oracle;
mod tablespaces;
mod take_over;
mod wal_decoding;
