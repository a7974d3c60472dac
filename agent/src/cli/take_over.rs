use clap::Args;

/// `take-over`
#[derive(Args, Debug)]
pub struct TakeOverArgs {}
