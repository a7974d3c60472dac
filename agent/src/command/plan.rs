//! `plan`: how a recovery target would be reached, or why it cannot be. Writes nothing.

use crate::cli::{PlanArgs, TargetArgs};
use crate::cluster_choice::{self, Chosen};
use crate::command::restore::destination;
use crate::config::Settings;
use crate::exit::{Ending, Failure, Status};
use crate::output;
use walpoint_archive::catalog::CatalogScope;
use walpoint_pitr::plan::{PlanOutcome, RecoveryPlan, plan};
use walpoint_pitr::restore::{Destination, Ground, RestoreError, survey};
use walpoint_pitr::target::TargetRequest;

pub mod report;

/// Carries out `plan`.
pub async fn run(settings: &Settings, args: &PlanArgs, as_json: bool) -> Result<Ending, Failure> {
    // Wrong usage is said before anybody waits for the archive.
    let request = args.target.request()?;
    let destination = match &args.data_directory {
        Some(directory) => Some(destination::of(directory, &args.tablespaces, false)?),
        None => None,
    };
    let (chosen, mut outcome) = make(settings, &args.target, &request).await?;
    if let (PlanOutcome::Reachable(plan), Some(destination)) = (&mut outcome, &destination) {
        look(&chosen, plan, destination).await?;
    }
    report(settings, &args.target, destination.as_ref(), &outcome, as_json)
}

/// Plans with what the archive has now.
pub async fn make(
    settings: &Settings,
    args: &TargetArgs,
    request: &TargetRequest,
) -> Result<(Chosen, PlanOutcome), Failure> {
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let catalog = chosen.archive.catalog(CatalogScope::All).await?;
    let mut outcome = plan(&chosen.archive, &catalog, request).await?;
    if let PlanOutcome::Reachable(plan) = &mut outcome {
        plan.notes.extend(report::subscriptions(&plan.backup));
    }
    Ok((chosen, outcome))
}

/// Adds to a plan what would go wrong there. The target can be reached all the same.
async fn look(chosen: &Chosen, plan: &mut RecoveryPlan, destination: &Destination) -> Result<(), Failure> {
    match survey(&chosen.archive, plan, destination).await {
        Ok(ground) => add(plan, &ground),
        Err(error @ RestoreError::TablespaceMapping { .. }) => plan.warnings.push(error.to_string()),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Adds what was found on the ground to what the plan says.
pub fn add(plan: &mut RecoveryPlan, ground: &Ground) {
    plan.warnings.extend(ground.refusals.iter().map(|refusal| format!("{}: {}", refusal.why, refusal.hint)));
    plan.warnings.extend(ground.warnings.iter().cloned());
    if !ground.neutralised.is_empty() {
        plan.notes.push(format!("not taken over from the backup: {}", ground.neutralised.join(", ")));
    }
}

/// Says the outcome on standard output, and what it means as a status.
pub fn report(
    settings: &Settings,
    args: &TargetArgs,
    destination: Option<&Destination>,
    outcome: &PlanOutcome,
    as_json: bool,
) -> Result<Ending, Failure> {
    let (text, status) = match outcome {
        PlanOutcome::Reachable(plan) if as_json => {
            (output::json_line(&report::reachable_json(plan))?, Status::Done)
        }
        PlanOutcome::Reachable(plan) => {
            let command = report::restore_command_line(settings, args, destination);
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
