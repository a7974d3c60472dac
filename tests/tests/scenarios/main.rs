//! Scenarios: one promise a file, each against real PostgreSQL.
//!
//! One binary, because linking is what a small test costs most.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent_backlog;
mod agent_hook;
mod agent_life;
mod agent_outage;
mod agent_promotion;
mod archive_path;
mod backup;
mod backup_files;
mod check;
mod check_archive;
mod check_truth;
mod clock_steps;
mod clones;
mod damaged_pages;
mod debian_layout;
mod encryption;
mod environment_alone;
mod exit_status;
mod failover;
mod forgotten_segment;
mod full_disk;
mod golden;
mod harness;
mod hooks;
mod idle_wal;
mod inherited_settings;
mod init_apply;
mod json_names;
mod killed;
mod live_tail;
mod many_files;
mod newer_majors;
mod odd_ends;
mod odd_paths;
mod outage;
mod prepared;
mod progress;
mod recovery_oracle;
mod rescue;
mod restore_as_root;
mod restore_points;
mod secrets;
mod segment_sizes;
mod spanning_records;
mod store_in_clear;
mod subscriptions;
mod tablespaces;
mod take_over;
mod take_over_rivals;
mod tampered_recovery;
mod target_actions;
mod torn_records;
mod wal_decoding;
mod without_the_key;
