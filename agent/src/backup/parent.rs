//! The backup that an incremental one builds on: which one it is, whether it serves, and how it is told what has
//! changed since. Where none serves the backup is a full one, and says why.

mod candidates;
pub mod choice;
pub mod comparison;
mod in_between;
pub mod manifest;

use std::sync::Arc;

use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::{Archive, ArchiveError, BackupSummary, Catalog, CatalogScope, Verification};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::control_file::ControlFile;
use walpoint_wal::{Lsn, TimelineHistory, TimelineId};

use super::Wanted;
use super::marked::Marked;
use super::prepare::Preparation;
use crate::config::Settings;
use crate::exit::Failure;
use crate::keep::look::unreadable_note;
use crate::session::Position;
use crate::ship::before::history_in;
use candidates::{Candidate, Candidates};
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
    found: Candidate,
    /// What may serve in its place.
    older: Candidates,
    /// Without backups and without WAL.
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
    let mut catalog = archive.catalog(CatalogScope::NoWal).await?;
    if wanted == Wanted::IncrementalUnlessDue {
        let now = session.clock("look when the last full backup was taken").await?;
        if let Err(due) = choice::full_is_due(&catalog.backups, settings.backup.full_every, now) {
            return Ok(Err(due));
        }
    }
    // So that nothing is done in vain; what counts is the look at the end.
    let marked = Marked::now(archive).await?;
    let verification = match verified(archive).await? {
        Ok(verification) => verification,
        Err(reason) => return Ok(Err(reason)),
    };
    let now = choice::Now {
        path: &path,
        block_size: control.block_size,
        data_checksums: control.data_checksum_version != 0,
        marked: &marked,
        verification: &verification,
        layout: archive.layout(),
    };
    let mut older = Candidates::of(std::mem::take(&mut catalog.backups), &now);
    match older.next(archive, &directory.path).await? {
        Some(found) => Ok(Ok(Parent { found, older, catalog, path })),
        None => Ok(Err(older.none())),
    }
}

/// What `verify` noted. Where it cannot be read anything may be damaged, and a child would lack what its parent lacks.
async fn verified(archive: &Archive) -> Result<Result<Verification, NoParent>, Failure> {
    match archive.verification_and_unreadable().await {
        Ok((verification, unreadable)) => Ok(match unreadable.first() {
            None => Ok(verification),
            Some(note) => Err(NoParent(unreadable_note(note))),
        }),
        Err(error) if is_denied(&error) => Ok(Err(NoParent(format!(
            "what verify noted cannot be read, so nobody knows what it found damaged: {error}"
        )))),
        Err(error) => Err(error.into()),
    }
}

/// That is an answer, and the same tomorrow.
fn is_denied(error: &ArchiveError) -> bool {
    matches!(error, ArchiveError::Store(error) if error.kind == StoreErrorKind::Denied)
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

impl Parent {
    /// The one that serves so far.
    pub fn summary(&self) -> &BackupSummary {
        &self.found.summary
    }

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
        let Parent { found, mut older, catalog, path } = self;
        if control.timeline != path.timeline {
            return Ok(Err(NoParent(format!("the timeline changed to {} meanwhile", control.timeline))));
        }
        let server = &preparation.session.server;
        let is_standby = server.is_in_recovery;
        if let Some(newest) = older.newest().filter(|_| !is_standby)
            && let Err(reason) = choice::must_lie_before(newest, started.lsn, false)
        {
            // Nobody knows from where on its WAL is another than the archive's, so no older one serves.
            return Ok(Err(older.none_after(reason)));
        }
        let found = match choice::must_lie_before(&found.summary, started.lsn, is_standby) {
            Ok(()) => found,
            Err(reason) => {
                older.pass(&found.summary.id, reason);
                older.end_before(started.lsn);
                match older.next(&preparation.archive, &preparation.directory.path).await? {
                    Some(found) => found,
                    None => return Ok(Err(older.none())),
                }
            }
        };
        let Candidate { summary, manifest } = found;
        let stretch = in_between::Stretch { from: summary.start.lsn, to: started.lsn, catalog, path };
        let told = match in_between::told(settings, preparation, stretch).await? {
            Ok(told) => told,
            // What is broken since then is broken since any older one.
            Err(reason) => return Ok(Err(older.none_after(reason))),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::store::dir::DirStore;
    use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
    use walpoint_archive::verification::RecordId;
    use walpoint_archive::{KeyRing, Sealer};
    use walpoint_wal::SystemIdentifier;

    use super::*;

    /// What is damaged and not known as such would be named again.
    #[tokio::test]
    async fn nothing_is_built_on_where_it_is_not_known_what_verify_found() {
        let root = tempfile::tempdir().unwrap();
        let store = Faulty::new(Arc::new(DirStore::open(root.path()).await.unwrap()));
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(Arc::new(store.clone()), SystemIdentifier(7), sealer);
        assert!(verified(&archive).await.unwrap().is_ok(), "nobody has verified anything yet");
        let fail = |kind| store.fail(Verb::List, store.calls(Verb::List), Fault::Before(kind));
        fail(StoreErrorKind::Transient);
        assert!(verified(&archive).await.is_err());
        fail(StoreErrorKind::Denied);
        let NoParent(why) = verified(&archive).await.unwrap().unwrap_err();
        assert!(why.contains("nobody knows"), "{why}");

        let note = RecordId::random();
        archive.put_verification(note, &Verification::new().to_record(None, true)).await.unwrap();
        assert!(verified(&archive).await.unwrap().is_ok());
        let key = archive.layout().verification(note);
        std::fs::write(root.path().join(key.as_str()), "{").unwrap();
        let NoParent(why) = verified(&archive).await.unwrap().unwrap_err();
        assert!(why.contains(key.as_str()) && why.contains("nobody knows"), "{why}");
    }
}
