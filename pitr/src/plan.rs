//! From a target to a plan, or to the reason why there is none.
//!
//! The catalog says what there is, [`crate::locate`] finds the record that the target
//! means, and what is left is decided here without further reading: which backup serves,
//! which timeline PostgreSQL is told, what to warn of.

mod backup;
mod build;
mod copies;
mod minimal;
mod outcome;
mod reach;
mod replay;
mod rising;
mod to_segment;
mod unreadable;
pub(crate) mod words;

use walpoint_archive::{Archive, ArchiveError, BackupHead, Catalog};
use walpoint_wal::Lsn;

use crate::coverage::{Coverage, Illegible};
use crate::locate::{Content, Finder, Missing, PathWal, Sought, WalSource, chains, find};
use crate::path::{Chosen, NoPath, choose, known};
use crate::target::TargetRequest;
use build::Builder;
use unreadable::Unreadable;

pub use outcome::{
    Candidate, Moment, Nearest, PlanError, PlanOutcome, RecoveryPlan, SegmentOutcome, SegmentPlan, Segments,
    Unreachable,
};
pub(crate) use reach::{Reachable, nearest, reachable, reachable_by_metadata};
pub use to_segment::plan_to_segment;

/// Plans a recovery.
///
/// Reads metadata of the objects that lie on the way, and the content of the few segments
/// that hold the records in question. What cannot be reached is an answer, not an error.
pub async fn plan(
    archive: &Archive,
    catalog: &Catalog,
    request: &TargetRequest,
) -> Result<PlanOutcome, PlanError> {
    let Way { unreadable, chosen, backups } = match way(archive, catalog, request)? {
        Ok(way) => way,
        Err(why) => return Ok(PlanOutcome::Unreachable(why)),
    };
    let source = WalSource::new(archive, catalog.cluster.system_identifier, catalog.cluster.segment_size);
    let mut illegible = Illegible::default();
    loop {
        let coverage = Coverage::without(catalog, chosen.path.clone(), &illegible);
        let wal = PathWal::new(&source, &coverage);
        match plan_with(catalog, request, &chosen, &wal, &backups).await {
            Ok(outcome) => return Ok(unreadable.told_in(request, outcome)),
            Err(error) if illegible.learns(&source, catalog, &error).await => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is known before any WAL is looked at.
struct Way<'c> {
    unreadable: Unreadable<'c>,
    chosen: Chosen,
    /// Those that may serve.
    backups: Vec<&'c BackupHead>,
}

/// Chooses the timeline, and what may serve on the way to it.
fn way<'c>(
    archive: &Archive,
    catalog: &'c Catalog,
    request: &TargetRequest,
) -> Result<Result<Way<'c>, Unreachable>, PlanError> {
    request.check()?;
    let unreadable = Unreadable::of(catalog, archive.layout());
    unreadable.check_backup(request)?;
    let allowed = allowed_backups(catalog, request)?;
    let choice = choose(catalog, request.timeline, &allowed);
    unreadable.check_choice(request, &choice)?;
    let chosen = match choice {
        Ok(chosen) => chosen,
        Err(NoPath::Unknown(timeline)) => {
            return Err(PlanError::UnknownTimeline { timeline, there: known_timelines(catalog) });
        }
        Err(why) => return Ok(Err(no_path(&why, request))),
    };
    let backups = on_path(&allowed, &chosen.path);
    Ok(Ok(Way { unreadable, chosen, backups }))
}

/// Plans with the WAL of the chosen path.
async fn plan_with(
    catalog: &Catalog,
    request: &TargetRequest,
    chosen: &Chosen,
    wal: &PathWal<'_>,
    backups: &[&BackupHead],
) -> Result<PlanOutcome, ArchiveError> {
    let chains = chains(wal, Content::Read).await?;
    let finder = Finder { wal, chains: &chains, backups, idle: &catalog.idle };
    match find(finder, &request.target, request.exclusive).await? {
        Sought::Found(hit) => Builder { catalog, request, chosen, finder }.build(hit).await,
        Sought::Missing(missing) => {
            let reason = format!("could not recover to {}: {}", request.target, missing.reason);
            refuse(finder, Missing { reason, ..missing }).await
        }
    }
}

/// The backups that the request lets be used.
fn allowed_backups<'c>(
    catalog: &'c Catalog,
    request: &TargetRequest,
) -> Result<Vec<&'c BackupHead>, PlanError> {
    let Some(wanted) = &request.backup else { return Ok(catalog.backups.iter().collect()) };
    let found: Vec<_> = catalog.backups.iter().filter(|backup| backup.id == *wanted).collect();
    if found.is_empty() {
        let ids: Vec<_> = catalog.backups.iter().rev().take(5).map(|backup| backup.id.to_string()).collect();
        let there = match ids.as_slice() {
            [] => "it has none".to_owned(),
            ids => format!("the newest it has are {}", ids.join(", ")),
        };
        return Err(PlanError::UnknownBackup { backup: wanted.clone(), there });
    }
    Ok(found)
}

/// Those that lie on a path, in the order of their ends.
pub(crate) fn on_path<'c>(
    backups: &[&'c BackupHead],
    path: &crate::path::TimelinePath,
) -> Vec<&'c BackupHead> {
    let mut backups: Vec<_> = backups.iter().copied().filter(|backup| path.holds(backup)).collect();
    backups.sort_by_key(|backup| (backup.stop.lsn, backup.id.clone()));
    backups
}

fn known_timelines(catalog: &Catalog) -> String {
    let known: Vec<_> = known(catalog).iter().map(ToString::to_string).collect();
    match known.as_slice() {
        [] => "it knows none".to_owned(),
        known => format!("it knows {}", known.join(", ")),
    }
}

fn no_path(why: &NoPath, request: &TargetRequest) -> Unreachable {
    let (reason, hint) = words::no_path(why);
    let reason = format!("could not recover to {}: {reason}", request.target);
    Unreachable { reason, nearest: Nearest::default(), hint, candidates: Vec::new() }
}

/// Says no, with what can be reached instead.
async fn refuse(finder: Finder<'_>, missing: Missing) -> Result<PlanOutcome, ArchiveError> {
    let nearest = match missing.near {
        Some(Lsn(place)) => nearest(&reachable(finder).await?, Lsn(place)),
        None => Nearest::default(),
    };
    let Missing { reason, hint, candidates, .. } = missing;
    let hint = hint.or_else(|| words::instead(&nearest));
    Ok(PlanOutcome::Unreachable(Unreachable { reason, nearest, hint, candidates }))
}

#[cfg(test)]
mod tests;
