use clap::Args;
use std::path::PathBuf;

/// `init`
#[derive(Args, Debug)]
pub struct InitArgs {
    /// The archive: s3://bucket/prefix or file:///directory (made when it is not there)
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The cluster's data directory
    #[arg(long, value_name = "DIRECTORY")]
    pub data_directory: Option<PathBuf>,
    /// Set archive_mode, archive_command and archive_timeout in the running cluster with ALTER SYSTEM
    #[arg(long)]
    pub apply: bool,
}
