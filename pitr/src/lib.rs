//! Recovery: what can be reached, the plan, the restore, and `archive-get`.

pub mod contract;
pub mod data_dir;
pub mod postgresql_conf;
pub mod progress;
pub mod recovery_settings;
