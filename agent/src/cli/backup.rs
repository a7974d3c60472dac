use clap::Args;

/// `backup`
#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Take a full backup; the only kind in this version
    #[arg(long)]
    pub full: bool,
}
