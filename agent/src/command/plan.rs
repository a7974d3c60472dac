//! `plan`: how a recovery target would be reached, or why it cannot be. Writes nothing.

use crate::cli::{PlanArgs, TargetArgs};
use crate::cluster_choice::{self, Chosen};
use crate::config::Settings;
use crate::exit::{Ending, Failure, Status};
use crate::output;
use walpoint_archive::catalog::CatalogScope;
use walpoint_pitr::plan::{PlanOutcome, plan};
use walpoint_pitr::target::TargetRequest;

pub mod report;

/// Carries out `plan`.
pub async fn run(settings: &Settings, args: &PlanArgs, as_json: bool) -> Result<Ending, Failure> {
    // Wrong usage is said before anybody waits for the archive.
    let request = args.target.request()?;
    let (_, outcome) = make(settings, &args.target, &request).await?;
    report(settings, &args.target, &outcome, as_json)
}

/// Plans with what the archive has now.
pub async fn make(
    settings: &Settings,
    args: &TargetArgs,
    request: &TargetRequest,
) -> Result<(Chosen, PlanOutcome), Failure> {
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let catalog = chosen.archive.catalog(CatalogScope::All).await?;
    let outcome = plan(&chosen.archive, &catalog, request).await?;
    Ok((chosen, outcome))
}

/// Says the outcome on standard output, and what it means as a status.
pub fn report(
    settings: &Settings,
    args: &TargetArgs,
    outcome: &PlanOutcome,
    as_json: bool,
) -> Result<Ending, Failure> {
    let (text, status) = match outcome {
        PlanOutcome::Reachable(plan) if as_json => {
            (output::json_line(&report::reachable_json(plan))?, Status::Done)
        }
        PlanOutcome::Reachable(plan) => {
            let command = report::restore_command_line(settings, args);
            (report::reachable_text(plan) + &format!("restore with        {command}\n"), Status::Done)
        }
        PlanOutcome::Unreachable(why) if as_json => {
            (output::json_line(&report::unreachable_json(why))?, Status::Unreachable)
        }
        PlanOutcome::Unreachable(why) => (report::unreachable_text(why), Status::Unreachable),
    };
    output::result(&text)?;
    Ok(Ending::Status(status))
}
