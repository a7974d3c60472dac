use crate::config::sizes;
use clap::Args;
use std::num::{NonZeroU64, NonZeroUsize};

/// `backup`
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Take a full backup, whatever the configuration says
    #[arg(long, conflicts_with = "incremental")]
    pub full: bool,
    /// Store only what has changed since the last backup, where that can be told; else a full one, and why
    #[arg(long)]
    pub incremental: bool,
    /// Read at most so much of the data directory in a second, like 100MiB
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub max_rate: Option<NonZeroU64>,
    /// Files that are read at once
    #[arg(long, value_name = "NUMBER")]
    pub workers: Option<NonZeroUsize>,
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(sizes::parse(text)?).ok_or_else(|| "at least 1B is needed".to_owned())
}
