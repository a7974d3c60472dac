use crate::config::durations;
use clap::Args;
use std::time::Duration;
use walpoint_wal::SystemIdentifier;

/// Heading in the help.
const POLICY: &str = "What stays, instead of [retention] in the configuration";

/// `expire`
#[derive(Args, Clone, Debug, Default)]
pub struct ExpireArgs {
    /// Mark what goes, and delete what has been marked for the time of grace
    #[arg(long)]
    pub apply: bool,
    /// So many of the newest backups, and all WAL from them on
    #[arg(long, value_name = "N", help_heading = POLICY)]
    pub keep_last: Option<u32>,
    /// Every moment of this time back from now
    #[arg(long, value_name = "TIME", value_parser = durations::parse, help_heading = POLICY)]
    pub keep_window: Option<Duration>,
    /// The last backup of each of so many days
    #[arg(long, value_name = "N", help_heading = POLICY)]
    pub keep_daily: Option<u32>,
    /// … weeks
    #[arg(long, value_name = "N", help_heading = POLICY)]
    pub keep_weekly: Option<u32>,
    /// … months
    #[arg(long, value_name = "N", help_heading = POLICY)]
    pub keep_monthly: Option<u32>,
    /// … years
    #[arg(long, value_name = "N", help_heading = POLICY)]
    pub keep_yearly: Option<u32>,
    /// WAL of this time back from now
    #[arg(long, value_name = "TIME", value_parser = durations::parse, help_heading = POLICY)]
    pub keep_wal: Option<Duration>,
    /// Never fewer than so many backups that were verified
    #[arg(long, value_name = "N", help_heading = POLICY)]
    pub keep_min_verified: Option<u32>,
    /// The time zone whose days, weeks and months are meant
    #[arg(long, value_name = "ZONE", help_heading = POLICY)]
    pub keep_timezone: Option<String>,
    /// How long what goes stays marked before: longer than any backup or restore takes [default: 2d]
    #[arg(long, value_name = "TIME", value_parser = durations::parse, help_heading = POLICY)]
    pub grace: Option<Duration>,
    /// The cluster, when the archive holds several
    #[arg(long, value_name = "SYSTEM IDENTIFIER")]
    pub cluster: Option<SystemIdentifier>,
}
