//! `restore`: plans, says what it will do, does it, and says how the cluster is started.

use super::plan::Answer;
use super::plan::report::{reachable_json, reachable_text, restore_command_line};
use crate::cli::{RestoreArgs, TargetAction, TargetArgs};
use crate::config::{Settings, sizes};
use crate::exit::{Ending, Failure};
use crate::open::{self, Patience};
use crate::{command, logging, output, postgres_command, progress_bar, writer_id};
use serde_json::json;
use walpoint_archive::config::ArchiveUrl;
use walpoint_pitr::contract::CONTRACT_FILE;
use walpoint_pitr::data_dir::{self, Refusal};
use walpoint_pitr::plan::{PlanOutcome, RecoveryPlan};
use walpoint_pitr::progress::Progress;
use walpoint_pitr::recovery_settings;
use walpoint_pitr::restore::{
    Destination, Ground, RestoreError, RestoreRequest, Restored, Standby, carry_out, prepare, survey,
};
use walpoint_pitr::target::{Target, TargetRequest};

pub mod destination;
mod environment;
mod owner;

/// Carries out `restore`.
pub async fn run(settings: &Settings, args: &RestoreArgs, as_json: bool) -> Result<Ending, Failure> {
    let target = target(args)?;
    let request = request(settings, args)?;
    if !args.dry_run && !args.delta {
        // Where nothing may be written, nobody need wait for a plan.
        data_dir::examine(&request.data_directory).map_err(RestoreError::Refused)?;
    }
    let (chosen, mut outcome) = command::plan::make(settings, &args.target, &target).await?;
    let PlanOutcome::Reachable(plan) = &mut outcome else {
        let answer = Answer { outcome: &outcome, destination: None, neutralised: None };
        return command::plan::report(settings, &args.target, &answer, as_json);
    };
    if args.dry_run {
        let ground = survey(&chosen.archive, plan, &request.destination()).await?;
        refuse(&ground)?;
        command::plan::add(plan, &ground);
        let destination = request.destination();
        let answer =
            Answer { outcome: &outcome, destination: Some(&destination), neutralised: ground.neutralised };
        return command::plan::report(settings, &args.target, &answer, as_json);
    }
    // The answer came; from here on the store may be away for a while without all being lost.
    let archive = open::again(settings, &chosen.archive, Patience::Work).await?;
    let prepared = prepare(&archive, plan, &request.destination()).await?;
    refuse(prepared.ground())?;
    command::plan::add(plan, prepared.ground());
    logging::tell(&reachable_text(plan));
    let progress = Progress::new();
    let work = carry_out(&archive, plan, &request, prepared, &progress);
    let restored = progress_bar::shown("restore", &progress, work).await?;
    // Before anybody can copy the directory: the writer's id is this one's.
    writer_id::of(&restored.data_directory);
    // The cluster is there: that nobody could be told so does not make it less so.
    output::result_of_work(&if as_json {
        let command = restore_command_line(settings, &args.target, Some(&request.destination()));
        json_text(settings, plan, &restored, &command)?
    } else {
        text(settings, args, &restored)
    });
    Ok(Ending::DONE)
}

/// Says all that is in the way at once, before anything is written.
fn refuse(ground: &Ground) -> Result<(), Failure> {
    Refusal::of_all(&ground.refusals).map_or(Ok(()), |refusal| Err(RestoreError::Refused(refusal).into()))
}

/// A standby follows the archive to its end; that is what it is planned for when nothing else is said.
fn target(args: &RestoreArgs) -> Result<TargetRequest, Failure> {
    if args.standby && !args.target.names_a_target() {
        let args = TargetArgs { latest: true, ..args.target.clone() };
        return args.request();
    }
    let request = args.target.request()?;
    if args.standby && !matches!(request.target, Target::Latest) {
        return Err(Failure::usage("a standby has no target: it follows the archive")
            .with_hint("leave out the target, or leave out --standby to stop at it"));
    }
    Ok(request)
}

fn request(settings: &Settings, args: &RestoreArgs) -> Result<RestoreRequest, Failure> {
    let Destination { data_directory, delta, is_configured, discard_wal, tablespaces, databases, take_over } =
        destination(settings, args)?;
    let program = postgres_command::this_program()?;
    // The server is to find all three again, and so is whoever reads where it was restored to.
    for path in [Some(&program), settings.source.as_ref(), Some(&data_directory)].into_iter().flatten() {
        postgres_command::writable(path)?;
    }
    let contract = (!args.standby).then_some(CONTRACT_FILE);
    Ok(RestoreRequest {
        owner: owner::of_restored(&data_directory)?,
        data_directory,
        delta,
        is_configured,
        discard_wal,
        tablespaces,
        databases,
        action: match args.target_action.unwrap_or_default() {
            TargetAction::Promote => recovery_settings::TargetAction::Promote,
            TargetAction::Pause => recovery_settings::TargetAction::Pause,
            TargetAction::Shutdown => recovery_settings::TargetAction::Shutdown,
        },
        take_over,
        standby: args.standby.then(|| Standby { primary_conninfo: args.primary_conninfo.clone() }),
        restore_command: postgres_command::restore_command(&program, settings.source.as_deref(), contract),
        workers: settings.workers(),
    })
}

fn destination(settings: &Settings, args: &RestoreArgs) -> Result<Destination, Failure> {
    let path = args.data_directory.as_deref().or(settings.postgres.data_directory.as_deref());
    let path = path.ok_or_else(|| {
        Failure::usage("it is not said where to restore to")
            .with_hint("name a directory with --data-directory")
    })?;
    let destination = destination::of(settings, path, args.delta, &args.tablespaces, args.take_over)?;
    Ok(Destination { databases: args.databases.clone(), discard_wal: args.discard_wal, ..destination })
}

fn json_text(
    settings: &Settings,
    plan: &RecoveryPlan,
    restored: &Restored,
    command: &str,
) -> Result<String, Failure> {
    output::json_line(&json!({
        "data_directory": restored.data_directory,
        "start_command": restored.start_command,
        "neutralised": restored.neutralised,
        "configuration": restored.configuration,
        "bytes": restored.bytes,
        "fetched_bytes": restored.fetched_bytes,
        "transferred_bytes": restored.transferred_bytes,
        "left_out": restored.left_out.iter().map(|it| json!({ "oid": it.oid, "name": it.name })).collect::<Vec<_>>(),
        "files": restored.files,
        "warnings": restored.warnings,
        "server_needs_environment": environment_needed(settings),
        "plan": reachable_json(plan, Some(command), Some(&restored.neutralised)),
    }))
}

fn text(settings: &Settings, args: &RestoreArgs, restored: &Restored) -> String {
    let mut text = format!("restored to {}\n", restored.data_directory.display());
    if args.delta {
        let (fetched, all) = (sizes::human(restored.fetched_bytes), sizes::human(restored.bytes));
        let stored = sizes::human(restored.transferred_bytes);
        text += &format!(
            "restored {fetched} of {all}, which took {stored} from the archive; the rest was there\n"
        );
    }
    if !restored.left_out.is_empty() {
        let names = restored.left_out.iter().map(|it| it.name.clone().unwrap_or_else(|| it.oid.to_string()));
        text += &format!(
            "not restored: {}: their files hold only zeros. Nobody can connect to them; drop them once the server \
             has reached its target\n",
            names.collect::<Vec<_>>().join(", ")
        );
    }
    for warning in &restored.warnings {
        text += &format!("warning: {warning}\n");
    }
    if !restored.neutralised.is_empty() {
        text += &format!("not taken over from the backup's settings: {}\n", restored.neutralised.join(", "));
    }
    if let Some(configuration) = &restored.configuration {
        text += &format!("configuration from outside the data directory: {}\n", configuration.display());
    }
    if args.standby {
        text += "the standby does not archive, after a promotion neither; to let it then, run walpoint take-over\n";
    } else if !args.take_over {
        text += "the restored cluster does not archive; to let it, run walpoint take-over once it is up\n";
    }
    let environment = environment_needed(settings);
    if !environment.is_empty() {
        text += &format!(
            "the server runs archive-get: start it with these variables set as they are now: {}\n",
            environment.join(", ")
        );
    }
    text + &format!("start it with:\n{}\n", restored.start_command)
}

fn environment_needed(settings: &Settings) -> Vec<String> {
    let is_s3 = settings.archive().is_ok_and(|archive| matches!(archive.url, ArchiveUrl::S3 { .. }));
    environment::needed(is_s3)
}
