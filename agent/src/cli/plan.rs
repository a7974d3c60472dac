use super::TargetArgs;
use clap::Args;

/// `plan`
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// Which moment.
    #[command(flatten)]
    pub target: TargetArgs,
}
