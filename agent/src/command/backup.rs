//! `backup`: takes a base backup and prints its id.

use std::sync::Arc;

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use walpoint_archive::summary::{BackupBytes, Position};
use walpoint_archive::{BackupId, BackupKind};
use walpoint_pitr::progress::Progress;
use walpoint_wal::timeline::TimelineId;

use crate::backup::{self, Taken, Wanted};
use crate::cli::BackupArgs;
use crate::config::{Settings, sizes};
use crate::exit::{Ending, Failure, Status};
use crate::{output, progress_bar};

/// Most damaged pages that are listed one by one.
const LISTED_PAGES: usize = 1000;

/// Carries out `backup`.
pub async fn run(settings: &Settings, args: &BackupArgs, json: bool) -> Result<Ending, Failure> {
    let wanted = match (args.incremental, args.full) {
        (true, _) => Wanted::Incremental,
        (false, false) if settings.backup.incremental => Wanted::IncrementalUnlessDue,
        (false, _) => Wanted::Full,
    };
    take_and_tell(&settings.for_backup(args.max_rate, args.workers), wanted, json).await
}

/// Takes a backup and prints its id. A backup with damaged pages is one, with
/// the status of damage.
///
/// # Errors
/// As [`backup::take`], and status 1 when a signal came.
pub async fn take_and_tell(settings: &Settings, wanted: Wanted, json: bool) -> Result<Ending, Failure> {
    let taken = take(settings, wanted).await?;
    tell(&taken, json)?;
    Ok(if taken.damaged.is_empty() { Ending::DONE } else { Ending::Status(Status::Damaged) })
}

/// Takes a backup, showing how far it is; a signal ends it.
async fn take(settings: &Settings, wanted: Wanted) -> Result<Taken, Failure> {
    let progress = Arc::new(Progress::new());
    let work = progress_bar::shown("backup", &progress, backup::take(settings, wanted, &progress));
    tokio::select! {
        taken = work => taken,
        name = interruption() => Err(Failure::failed(format!(
            "could not complete the base backup: interrupted by {}", name?
        )).with_hint("nothing of it is visible; start it again: it goes on with what it has stored")),
    }
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

fn tell(taken: &Taken, json: bool) -> Result<(), Failure> {
    for page in taken.damaged.iter().take(LISTED_PAGES) {
        tracing::error!(
            "page damaged on disk: file \"{}\", block {}; the backup holds it as it is",
            page.file.display(),
            page.block
        );
    }
    if taken.damaged.len() > LISTED_PAGES {
        tracing::error!("and {} more damaged pages", taken.damaged.len() - LISTED_PAGES);
    }
    let summary = &taken.summary;
    tracing::info!(
        backup = %summary.id,
        "base backup complete: {} files, {} of data, {} stored, WAL from {} to {}",
        summary.files,
        sizes::human(summary.bytes.data),
        sizes::human(summary.bytes.stored),
        summary.start.lsn,
        summary.stop.lsn
    );
    let text = if json { output::json_line(&Told::new(taken))? } else { format!("{}\n", summary.id) };
    // The backup is there, whether or not somebody reads its name.
    output::result_of_work(&text);
    Ok(())
}

/// The object of `backup --json`.
#[derive(Debug, Serialize)]
struct Told<'a> {
    id: &'a BackupId,
    kind: BackupKind,
    parent: Option<&'a BackupId>,
    /// Why it is a full one although an incremental one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of_incremental: Option<&'a str>,
    timeline: TimelineId,
    start: Position,
    stop: Position,
    bytes: BackupBytes,
    files: u64,
    damaged_pages: u64,
    damaged: Vec<ToldPage>,
}

#[derive(Debug, Serialize)]
struct ToldPage {
    file: String,
    block: u32,
}

impl<'a> Told<'a> {
    fn new(taken: &'a Taken) -> Told<'a> {
        let summary = &taken.summary;
        let damaged = taken.damaged.iter().take(LISTED_PAGES);
        Told {
            id: &summary.id,
            kind: summary.kind,
            parent: summary.parent.as_ref(),
            instead_of_incremental: taken.instead.as_deref(),
            timeline: summary.timeline,
            start: summary.start,
            stop: summary.stop,
            bytes: summary.bytes,
            files: summary.files,
            damaged_pages: summary.damaged_pages,
            damaged: damaged
                .map(|page| ToldPage { file: page.file.display().to_string(), block: page.block })
                .collect(),
        }
    }
}
