//! Scenarios: one promise a file, each against real PostgreSQL.
//!
//! One binary, because linking is what a small test costs most.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod debian_layout;
mod exit_status;
mod harness;
mod hooks;
mod outage;
mod recovery_oracle;
