//! The backup that an incremental one builds on: which one it is, whether it serves, and how it is told what has
//! changed since. Where none serves the backup is a full one, and says why.

pub mod choice;
pub mod comparison;
mod in_between;
pub mod manifest;

use std::sync::Arc;

use walpoint_archive::{Archive, BackupSummary, Catalog, CatalogScope, Verification};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::control_file::ControlFile;
use walpoint_wal::{Lsn, TimelineHistory, TimelineId};

use super::Wanted;
use super::marked::Marked;
use super::prepare::Preparation;
use crate::config::Settings;
use crate::exit::Failure;
use crate::session::Position;
use crate::ship::before::history_in;
use comparison::Comparison;
use manifest::LocalManifest;

/// Why a backup is a full one although an incremental one was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoParent(pub String);

impl NoParent {
    pub fn new(reason: &str) -> NoParent {
        NoParent(reason.to_owned())
    }
}

/// A parent that serves as far as can be said before the backup starts.
#[derive(Debug)]
pub struct Parent {
    pub summary: BackupSummary,
    pub manifest: LocalManifest,
    catalog: Catalog,
    path: TimelinePath,
}

/// What an incremental backup is made with.
#[derive(Debug)]
pub struct Base {
    pub summary: Arc<BackupSummary>,
    pub manifest: LocalManifest,
    pub comparison: Comparison,
}

/// Finds the parent.
///
/// # Errors
/// When the archive does not answer.
pub async fn find(
    settings: &Settings,
    preparation: &Preparation,
    wanted: Wanted,
) -> Result<Result<Parent, NoParent>, Failure> {
    let Preparation { session, directory, archive, .. } = preparation;
    let control = &directory.control;
    let Some(path) = path_to(preparation, control.timeline) else {
        return Ok(Err(NoParent(format!("pg_wal lacks the history of timeline {}", control.timeline))));
    };
    let catalog = archive.catalog(CatalogScope::NoWal).await?;
    if wanted == Wanted::IncrementalUnlessDue {
        let now = session.clock("look when the last full backup was taken").await?;
        if let Err(due) = choice::full_is_due(&catalog.backups, settings.backup.full_every, now) {
            return Ok(Err(due));
        }
    }
    // So that nothing is done in vain; what counts is the look at the end.
    let marked = Marked::now(archive).await?;
    let verification = verified(archive).await;
    let now = choice::Now {
        path: &path,
        block_size: control.block_size,
        data_checksums: control.data_checksum_version != 0,
        marked: &marked,
        verification: &verification,
        layout: archive.layout(),
    };
    let summary = match choice::choose(&catalog.backups, &now) {
        Ok(summary) => summary.clone(),
        Err(reason) => return Ok(Err(reason)),
    };
    if let Some(reason) = packs_missing(archive, &summary).await? {
        return Ok(Err(reason));
    }
    match LocalManifest::of(archive, &summary, &directory.path).await? {
        Ok(manifest) => Ok(Ok(Parent { summary, manifest, catalog, path })),
        Err(reason) => Ok(Err(reason)),
    }
}

/// What `verify` noted. Where its notes cannot be read nothing is known to be damaged.
async fn verified(archive: &Archive) -> Verification {
    archive.verification().await.unwrap_or_else(|error| {
        tracing::debug!("could not read what verify found, and go by the rest: {error}");
        Verification::new()
    })
}

/// The way to a timeline, by the history in `pg_wal`, which the server itself goes by.
fn path_to(preparation: &Preparation, timeline: TimelineId) -> Option<TimelinePath> {
    let pg_wal = preparation.directory.path.join("pg_wal");
    let history = match timeline {
        TimelineId::FIRST => TimelineHistory::first(),
        _ => history_in(&pg_wal, timeline)?.0,
    };
    Some(TimelinePath { timeline, steps: history.path() })
}

async fn packs_missing(archive: &Archive, summary: &BackupSummary) -> Result<Option<NoParent>, Failure> {
    let missing = archive.missing_packs(&summary.packs).await?;
    Ok(missing.first().map(|first| {
        NoParent(format!(
            "{} of the {} packs of {} are not in the archive as they were stored, the first is \"{first}\"",
            missing.len(),
            summary.packs.len(),
            summary.id
        ))
    }))
}

impl Parent {
    /// Decides, once the backup has started, whether the parent serves and how pages are compared with it.
    ///
    /// # Errors
    /// When the archive does not answer.
    pub async fn serve(
        self,
        settings: &Settings,
        preparation: &Preparation,
        control: &ControlFile,
        started: Position,
    ) -> Result<Result<Base, NoParent>, Failure> {
        let Parent { summary, manifest, catalog, path } = self;
        if control.timeline != path.timeline {
            return Ok(Err(NoParent(format!("the timeline changed to {} meanwhile", control.timeline))));
        }
        let server = &preparation.session.server;
        let is_standby = server.is_in_recovery;
        if let Err(reason) = choice::must_lie_before(&summary, started.lsn, is_standby) {
            return Ok(Err(reason));
        }
        let stretch = in_between::Stretch { from: summary.start.lsn, to: started.lsn, catalog, path };
        let told = match in_between::told(settings, preparation, stretch).await? {
            Ok(told) => told,
            Err(reason) => return Ok(Err(reason)),
        };
        let now = comparison::Now {
            writer: preparation.writer,
            server_started: server.started,
            timeline: control.timeline,
            from_standby: is_standby,
            data_checksums: control.data_checksum_version != 0,
            wal_log_hints: control.wal_log_hints && server.wal_log_hints,
            version_num: server.version_num,
        };
        let comparison = comparison::comparison(&summary, &now, told);
        Ok(Ok(Base { summary: Arc::new(summary), manifest, comparison }))
    }
}

/// Start of the segment that holds this position.
fn segment_start(lsn: Lsn, segment_bytes: u64) -> Lsn {
    Lsn(lsn.0 - lsn.0 % segment_bytes)
}
