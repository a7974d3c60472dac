//! `resolve`: the operator's decision which content of a WAL file recovery uses.

use crate::cli::ResolveArgs;
use crate::config::Settings;
use crate::exit::{Ending, Failure};
use crate::{cluster_choice, output};
use serde_json::json;

/// Carries out `resolve`.
pub async fn run(settings: &Settings, args: &ResolveArgs, as_json: bool) -> Result<Ending, Failure> {
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    chosen.archive.resolve(&args.name, args.keep).await?;
    let text = if as_json {
        output::json_line(&json!({ "file": args.name, "used": args.keep }))?
    } else {
        format!("recovery uses content {} of {}; every other content is refused\n", args.keep, args.name)
    };
    output::result_of_work(&text);
    Ok(Ending::DONE)
}
