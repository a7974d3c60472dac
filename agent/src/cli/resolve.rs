use clap::Args;
use walpoint_archive::content::ContentId;
use walpoint_wal::{SystemIdentifier, WalFileName};

/// `resolve`
#[derive(Args, Debug)]
pub struct ResolveArgs {
    /// The WAL file that has several contents
    #[arg(value_name = "FILE")]
    pub name: WalFileName,
    /// Content that recovery shall use; "walpoint list --wal FILE" shows them
    #[arg(long, value_name = "CONTENT ID")]
    pub keep: Option<ContentId>,
    /// The cluster, when the archive holds several
    #[arg(long, value_name = "SYSTEM IDENTIFIER")]
    pub cluster: Option<SystemIdentifier>,
}
