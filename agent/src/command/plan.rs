//! `plan`: how a recovery target would be reached, or why it cannot be. Writes nothing.

use crate::cli::{PlanArgs, TargetArgs};
use crate::cluster_choice::{self, Chosen};
use crate::command::restore::destination;
use crate::config::Settings;
use crate::exit::{Ending, Failure, Status};
use crate::output;
use walpoint_archive::ArchiveError;
use walpoint_archive::catalog::{Catalog, CatalogScope};
use walpoint_archive::verification::ReadSpeed;
use walpoint_pitr::plan::{PlanError, PlanOutcome, RecoveryPlan, SegmentOutcome, plan, plan_to_segment};
use walpoint_pitr::restore::{Destination, Ground, RestoreError, look_into, survey};
use walpoint_pitr::target::TargetRequest;

pub mod report;

/// Carries out `plan`.
pub async fn run(settings: &Settings, args: &PlanArgs, as_json: bool) -> Result<Ending, Failure> {
    // Wrong usage is said before anybody waits for the archive.
    let request = args.target.request()?;
    let destination = match &args.data_directory {
        Some(directory) => Some(destination::of(settings, directory, args.delta, &args.tablespaces, false)?),
        None => None,
    };
    let chosen = cluster_choice::open(settings, args.target.cluster).await?;
    let mut catalog = list(&chosen).await?;
    let mut outcome = match planned(&chosen, &mut catalog, &request).await {
        Err(PlanError::Archive(ArchiveError::NoKey { .. })) => {
            return to_segment(&chosen, &mut catalog, &request, destination.as_ref(), as_json).await;
        }
        outcome => outcome?,
    };
    let neutralised = match &mut outcome {
        PlanOutcome::Reachable(plan) => look(&chosen, plan, destination.as_ref()).await?,
        PlanOutcome::Unreachable(_) => None,
    };
    let answer = Answer { outcome: &outcome, destination: destination.as_ref(), neutralised };
    report(settings, &args.target, &answer, as_json)
}

/// What came of planning.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The plan, or why there is none.
    pub outcome: &'a PlanOutcome,
    /// Where to, when that is said.
    pub destination: Option<&'a Destination>,
    /// What a restore puts out of action, when it could be read.
    pub neutralised: Option<Vec<String>>,
}

/// Plans with what the archive has now.
pub async fn make(
    settings: &Settings,
    args: &TargetArgs,
    request: &TargetRequest,
) -> Result<(Chosen, PlanOutcome), Failure> {
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let mut catalog = list(&chosen).await?;
    let outcome = planned(&chosen, &mut catalog, request).await?;
    Ok((chosen, outcome))
}

async fn list(chosen: &Chosen) -> Result<Catalog, ArchiveError> {
    chosen.archive.catalog(CatalogScope::All).await
}

async fn planned(
    chosen: &Chosen,
    catalog: &mut Catalog,
    request: &TargetRequest,
) -> Result<PlanOutcome, PlanError> {
    let mut outcome = match plan(&chosen.archive, catalog, request).await {
        // The pieces of a tail go when the whole segment has come, and a backup when it expires, also while
        // somebody plans.
        Err(PlanError::Archive(error)) if error.is_not_found() => {
            // Two large ones would not fit.
            catalog.wal.clear();
            *catalog = list(chosen).await?;
            plan(&chosen.archive, catalog, request).await?
        }
        outcome => outcome?,
    };
    if let PlanOutcome::Reachable(plan) = &mut outcome {
        plan.notes.extend(report::subscriptions(&plan.backup));
        plan.measured = measured(chosen).await;
    }
    Ok(outcome)
}

/// How fast the archive was read when that was last measured. The estimate is poorer without it, and the plan as good.
async fn measured(chosen: &Chosen) -> Option<ReadSpeed> {
    match chosen.archive.verification().await {
        Ok(verification) => verification.speed(),
        Err(error) => {
            tracing::debug!("how fast the archive was read before is not known: {error}");
            None
        }
    }
}

/// Plans encrypted WAL for which there is no key: what its metadata show.
async fn to_segment(
    chosen: &Chosen,
    catalog: &mut Catalog,
    request: &TargetRequest,
    destination: Option<&Destination>,
    as_json: bool,
) -> Result<Ending, Failure> {
    let mut outcome = match plan_to_segment(&chosen.archive, catalog, request).await {
        Err(PlanError::Archive(error)) if error.is_not_found() => {
            catalog.wal.clear();
            *catalog = list(chosen).await?;
            plan_to_segment(&chosen.archive, catalog, request).await?
        }
        outcome => outcome?,
    };
    let mut neutralised = None;
    if let SegmentOutcome::Reachable(plan) = &mut outcome {
        let plan = plan.bounds_mut();
        plan.notes.extend(report::subscriptions(&plan.backup));
        plan.measured = measured(chosen).await;
        neutralised = look(chosen, plan, destination).await?;
    }
    report_to_segment(&outcome, neutralised, as_json)
}

fn report_to_segment(
    outcome: &SegmentOutcome,
    neutralised: Option<Vec<String>>,
    as_json: bool,
) -> Result<Ending, Failure> {
    let status = match outcome {
        SegmentOutcome::Reachable(_) => Status::Done,
        SegmentOutcome::Unreachable(_) => Status::Unreachable,
    };
    output::result(&match outcome {
        SegmentOutcome::Reachable(plan) if as_json => {
            output::json_line(&report::to_segment_json(plan, neutralised.as_deref()))?
        }
        SegmentOutcome::Reachable(plan) => report::to_segment_text(plan),
        SegmentOutcome::Unreachable(why) if as_json => {
            output::json_line(&report::unreachable_json(why, false))?
        }
        SegmentOutcome::Unreachable(why) => report::unreachable_text(why),
    })?;
    Ok(Ending::Status(status))
}

/// Adds to a plan what would go wrong there. The target can be reached all the same. What a restore would put
/// out of action is the answer, where it can be read.
async fn look(
    chosen: &Chosen,
    plan: &mut RecoveryPlan,
    destination: Option<&Destination>,
) -> Result<Option<Vec<String>>, Failure> {
    let Some(destination) = destination else { return look_anywhere(chosen, plan).await };
    match survey(&chosen.archive, plan, destination).await {
        Ok(ground) => {
            add(plan, &ground);
            Ok(ground.neutralised)
        }
        Err(error @ RestoreError::TablespaceMapping { .. }) => {
            plan.warnings.push(error.to_string());
            look_anywhere(chosen, plan).await
        }
        Err(error) => Err(error.into()),
    }
}

/// The same of the backup alone, wherever it is restored to.
async fn look_anywhere(chosen: &Chosen, plan: &mut RecoveryPlan) -> Result<Option<Vec<String>>, Failure> {
    let Some(brought) = look_into(&chosen.archive, plan).await? else { return Ok(None) };
    plan.warnings.extend(brought.warnings);
    let tablespaces = brought.tablespaces.iter();
    plan.notes.extend(tablespaces.map(|(oid, path)| format!("tablespace {oid} was in {}", path.display())));
    plan.notes.extend(not_taken_over(&brought.neutralised));
    Ok(Some(brought.neutralised))
}

fn not_taken_over(neutralised: &[String]) -> Option<String> {
    (!neutralised.is_empty()).then(|| format!("not taken over from the backup: {}", neutralised.join(", ")))
}

/// Adds what was found on the ground to what the plan says.
pub fn add(plan: &mut RecoveryPlan, ground: &Ground) {
    plan.warnings.extend(ground.refusals.iter().map(|refusal| format!("{}: {}", refusal.why, refusal.hint)));
    plan.warnings.extend(ground.warnings.iter().cloned());
    plan.notes.extend(not_taken_over(ground.neutralised.as_deref().unwrap_or_default()));
}

/// Says the outcome on standard output, and what it means as a status.
pub fn report(
    settings: &Settings,
    args: &TargetArgs,
    answer: &Answer<'_>,
    as_json: bool,
) -> Result<Ending, Failure> {
    let command = report::restore_command_line(settings, args, answer.destination);
    let (text, status) = match answer.outcome {
        PlanOutcome::Reachable(plan) if as_json => {
            let object = report::reachable_json(plan, Some(&command), answer.neutralised.as_deref());
            (output::json_line(&object)?, Status::Done)
        }
        PlanOutcome::Reachable(plan) => {
            (report::reachable_text(plan) + &format!("restore with        {command}\n"), Status::Done)
        }
        PlanOutcome::Unreachable(why) if as_json => {
            (output::json_line(&report::unreachable_json(why, true))?, Status::Unreachable)
        }
        PlanOutcome::Unreachable(why) => (report::unreachable_text(why), Status::Unreachable),
    };
    output::result(&text)?;
    Ok(Ending::Status(status))
}
