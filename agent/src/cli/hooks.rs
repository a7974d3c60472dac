//! The two commands that PostgreSQL calls, and the one that the second of them leaves running.

use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

/// `archive-push %p`
#[derive(Args, Debug)]
pub struct PushArgs {
    /// The finished WAL file: %p in archive_command
    #[arg(value_name = "%p")]
    pub path: PathBuf,
}

/// `archive-get [--contract FILE] %f %p`
#[derive(Args, Debug)]
pub struct GetArgs {
    /// Recovery contract that "restore" wrote; relative to the data directory
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
    /// Name of the file wanted: %f in restore_command
    #[arg(value_name = "%f")]
    pub name: OsString,
    /// Where to put it: %p in restore_command
    #[arg(value_name = "%p")]
    pub destination: PathBuf,
}

/// `prefetch [--contract FILE] DIRECTORY`
#[derive(Args, Debug)]
pub struct PrefetchArgs {
    /// Recovery contract that "restore" wrote
    #[arg(long, value_name = "FILE")]
    pub contract: Option<PathBuf>,
    /// Data directory of the cluster that recovers
    #[arg(value_name = "DIRECTORY")]
    pub data_directory: PathBuf,
}
