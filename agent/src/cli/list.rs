use clap::Args;
use walpoint_wal::{SystemIdentifier, WalFileName};

/// `list`
#[derive(Args, Debug)]
pub struct ListArgs {
    /// List WAL by timeline, or every stored content of one WAL file
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub wal: Option<Option<WalFileName>>,
    /// The cluster, when the archive holds several
    #[arg(long, value_name = "SYSTEM IDENTIFIER")]
    pub cluster: Option<SystemIdentifier>,
}

/// `window`
#[derive(Args, Debug)]
pub struct WindowArgs {
    /// The cluster, when the archive holds several
    #[arg(long, value_name = "SYSTEM IDENTIFIER")]
    pub cluster: Option<SystemIdentifier>,
}
