//! `verify`: reads back what a recovery needs and says what is proven. 0 when all that was looked at is sound, 5 with
//! each object that is not and the moments that it costs, 1 when nothing is known to be wrong and not all could be read.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use walpoint_pitr::progress::Progress;
use walpoint_pitr::verify::{Extent, Verified, VerifyRequest, verify};

use crate::cli::VerifyArgs;
use crate::config::Settings;
use crate::daemon::clock;
use crate::exit::{Ending, Failure, Status};
use crate::open::{self, Patience};
use crate::{cluster_choice, output, progress_bar};

mod report;

/// Carries out `verify`.
pub async fn run(settings: &Settings, args: &VerifyArgs, as_json: bool) -> Result<Ending, Failure> {
    if !args.quick {
        // What was verified when is written down in the archive.
        open::refuse_root(settings)?;
    }
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let archive = open::again(settings, &chosen.archive, Patience::Command).await?;
    let request = VerifyRequest { extent: extent(args), workers: settings.workers(), now: clock::now() };
    let progress = Arc::new(Progress::new());
    let work = progress_bar::shown("verify", &progress, verify(&archive, &request, &progress));
    let verified = tokio::select! {
        verified = work => verified?,
        name = interruption() => return Err(Failure::failed(format!(
            "could not verify all of the archive: interrupted by {}", name?
        )).with_hint("what was read is noted in the archive; start it again, and it goes on there")),
    };
    let report = report::Report::new(&verified, &request, &archive);
    output::result_of_work(&if as_json { output::json_line(&report.json())? } else { report.text() });
    Ok(ending(&verified))
}

fn extent(args: &VerifyArgs) -> Extent {
    match (args.quick, args.budget, args.anew) {
        (true, _, _) => Extent::Listings,
        (false, Some(bytes), _) => Extent::Oldest(bytes),
        (false, None, true) => Extent::EverythingAnew,
        (false, None, false) => Extent::Everything,
    }
}

fn ending(verified: &Verified) -> Ending {
    Ending::Status(match verified.findings.is_empty() {
        false => Status::Damaged,
        true if verified.is_sound() => Status::Done,
        true => Status::Failed,
    })
}

/// Waits for the signals by which people and service managers end a program.
async fn interruption() -> Result<&'static str, Failure> {
    let watch =
        |kind| signal(kind).map_err(|error| Failure::failed(format!("could not watch for signals: {error}")));
    let (mut interrupt, mut terminate) = (watch(SignalKind::interrupt())?, watch(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
    }
}
