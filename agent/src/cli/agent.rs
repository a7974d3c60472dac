use clap::Args;

/// `agent`
#[derive(Args, Debug)]
pub struct AgentArgs {}

/// `status`
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Show it again every second, in place
    #[arg(long)]
    pub watch: bool,
}
