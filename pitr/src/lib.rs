//! Recovery: what can be reached, the plan, the restore, and `archive-get`.

pub mod contract;
pub mod coverage;
pub mod data_dir;
pub mod decided;
pub mod get;
pub mod locate;
mod manifest_pipe;
pub mod path;
pub mod plan;
pub mod postgresql_conf;
pub mod prefetch;
pub mod progress;
pub mod recovery_settings;
pub mod restore;
pub mod spool;
pub mod target;
pub mod unbroken;
pub mod verify;
pub mod window;

#[cfg(test)]
mod testing;
