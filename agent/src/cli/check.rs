use clap::Args;

/// `check`
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Switch WAL, and wait for that segment to arrive in the archive
    #[arg(long)]
    pub probe: bool,
}
