use crate::config::sizes;
use clap::Args;
use walpoint_wal::SystemIdentifier;

/// `verify`
#[derive(Args, Debug)]
pub struct VerifyArgs {
    /// Compare what is listed, and read no data
    #[arg(long)]
    pub quick: bool,
    /// Read about so many stored bytes, of what was verified longest ago
    #[arg(long, value_name = "SIZE", value_parser = sizes::parse, conflicts_with = "quick")]
    pub budget: Option<u64>,
    /// Read everything again, also what a run that was broken off has read
    #[arg(long, conflicts_with_all = ["quick", "budget"])]
    pub anew: bool,
    /// The cluster, when the archive holds several
    #[arg(long, value_name = "SYSTEM IDENTIFIER")]
    pub cluster: Option<SystemIdentifier>,
}
