use super::TargetArgs;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `restore`
#[derive(Args, Debug)]
pub struct RestoreArgs {
    /// Which moment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where to restore to, empty or not there yet [default: the one in the configuration]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_directory: Option<PathBuf>,
    /// Make the cluster that is in the directory into what the backup has: fetch only what differs, remove what the
    /// backup does not have. No server must run there; WAL of its own that was not archived is lost
    #[arg(long)]
    pub delta: bool,
    /// With --delta, give up WAL that was never archived and is nowhere but in the directory
    #[arg(long, requires = "delta")]
    pub discard_wal: bool,
    /// Put a tablespace elsewhere: its old path or its OID, and the new path
    #[arg(long = "tablespace", value_name = "OLD=NEW")]
    pub tablespaces: Vec<String>,
    /// Restore this database, and of those that are not named only zeros: they can be dropped and not be used. The
    /// databases that initdb makes are always restored. The cluster that this gives can take nobody's place
    #[arg(long = "include-database", value_name = "NAME", conflicts_with_all = ["take_over", "standby"])]
    pub databases: Vec<String>,
    /// What the server does when it has reached the target [default: promote]
    #[arg(long, value_name = "ACTION", value_enum)]
    pub target_action: Option<TargetAction>,
    /// Leave archiving on: the restored cluster takes the place of the old one in this archive
    #[arg(long)]
    pub take_over: bool,
    /// Make a standby, which follows the archive instead of stopping at a target
    #[arg(long, conflicts_with_all = ["target_action", "take_over"])]
    pub standby: bool,
    /// Connection to the primary that the standby streams from
    #[arg(long, value_name = "CONNECTION", requires = "standby")]
    pub primary_conninfo: Option<String>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What the server does at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TargetAction {
    /// Open for writing, on a new timeline
    #[default]
    Promote,
    /// Wait, open for reading
    Pause,
    /// Stop
    Shutdown,
}
