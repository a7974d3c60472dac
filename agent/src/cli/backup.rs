use clap::Args;

/// `backup`
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Take a full backup, whatever [backup] incremental says
    #[arg(long)]
    pub full: bool,
}
