//! Proves walpoint against real PostgreSQL and a real S3 store.
//!
//! The harness starts programs, never imitates them: clusters made by
//! `initdb`, a single-node Garage, a proxy that breaks connections, and the
//! `walpoint` binary itself, always called as the user that owns the data
//! directory. Nothing here uses the product's libraries, so the judge cannot
//! share a mistake with the judged.
//!
//! A program that is not installed skips a test out loud ("skipped: …"); with
//! `CI=true` or `WALPOINT_TEST_STRICT` set it fails the test instead.

pub mod age;
pub mod agent;
pub mod archive_files;
pub mod cluster;
pub mod garage;
pub mod keeper;
pub mod ledger;
pub mod oracle;
pub mod prefetch;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod runtime;
pub mod scene;
pub mod scratch;
pub mod stage;
pub mod torture;
pub mod user;
pub mod wait;
pub mod wal_dump;
pub mod walpoint;
