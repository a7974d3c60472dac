use super::TargetArgs;
use clap::Args;
use std::path::PathBuf;

/// `plan`
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// Which moment.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where restore would be told to restore to: also say what stands in the way there
    #[arg(long, value_name = "DIRECTORY")]
    pub data_directory: Option<PathBuf>,
    /// As restore --delta would: into the cluster that is in the directory
    #[arg(long, requires = "data_directory")]
    pub delta: bool,
    /// Where restore would put a tablespace: its old path or its OID, and the new path
    #[arg(long = "tablespace", value_name = "OLD=NEW", requires = "data_directory")]
    pub tablespaces: Vec<String>,
}
