//! A base backup of the running cluster, step by step: session start → files
//! → packs → store → session stop → is its WAL in the archive, all of it, and
//! what leads to its timeline? → manifest, then summary. Before the summary is there no command sees it.

mod changed;
mod complete;
mod configuration;
mod entries;
mod files;
mod gate;
mod histories;
pub(crate) mod last_look;
mod late;
pub mod left_out;
mod manifest;
pub(crate) mod marked;
mod packs;
mod parent;
mod patience;
mod prepare;
mod read;
mod resume;
mod spool;
mod store;
mod unfinished;
pub mod wal_wait;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use walpoint_archive::{BackupId, BackupKind, BackupSummary};
use walpoint_pitr::progress::{Phase, Progress};
use walpoint_wal::backup_label::BackupLabel;
use walpoint_wal::control_file::{ControlFile, DbState};

use crate::config::Settings;
use crate::exit::{Failure, Status};
use crate::session::{Position, StoppedBackup};
use complete::Completion;
pub use complete::Taken;
use entries::Contents;
use files::{CONTROL_FILE, Listing};
use late::LateFile;
use marked::Marked;
use parent::comparison::Comparison;
use parent::manifest::ParentFiles;
use parent::{Base, NoParent};
use prepare::{Preparation, prepare};
use read::pace::Pace;
use read::{Compared, Means, ReadFiles};
use resume::Beginning;
use spool::Spool;
use store::Reading;

/// Which kind of backup is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Full,
    /// What has changed since the last one, where that can be told.
    Incremental,
    /// The same, but a full one when its time has come.
    IncrementalUnlessDue,
}

/// Takes a base backup. Returns when it is complete; every other way out
/// leaves no backup behind.
///
/// # Errors
/// Status 2 when the server does not archive, 4 when it is not the data
/// directory's, 1 for everything that may go better another time.
pub async fn take(settings: &Settings, wanted: Wanted, progress: &Arc<Progress>) -> Result<Taken, Failure> {
    progress.enter(Phase::Preparing);
    let preparation = prepare(settings).await?;
    let session = &preparation.session;
    let copied = tokio::select! {
        copied = copy(settings, &preparation, wanted, progress) => copied?,
        why = session.ended() => return Err(Failure::failed(format!(
            "could not go on with the base backup: the session with the server ended: {why}"
        )).with_hint("the backup was given up; start it again")),
    };
    // From here on the server may come and go.
    copied.complete(settings, &preparation, progress).await
}

/// Copies what is wanted; all of it when there is nothing to build on.
async fn copy(
    settings: &Settings,
    preparation: &Preparation,
    wanted: Wanted,
    progress: &Arc<Progress>,
) -> Result<Copied, Failure> {
    let reason = match copy_changes(settings, preparation, wanted, progress).await? {
        Ok(copied) => return Ok(copied),
        Err(reason) => reason,
    };
    if let Some(NoParent(reason)) = &reason {
        tracing::warn!("taking a full backup instead of an incremental one: {reason}");
    }
    let beginning = Beginning::of(settings, preparation, None).await?;
    let begun = Begun::new(preparation, BackupKind::Full, beginning).await?;
    let mut copied = begun.read(settings, preparation, None, progress).await?;
    copied.instead = reason;
    Ok(copied)
}

/// `Err` when the backup must be a full one, with the reason when another was asked for.
async fn copy_changes(
    settings: &Settings,
    preparation: &Preparation,
    wanted: Wanted,
    progress: &Arc<Progress>,
) -> Result<Result<Copied, Option<NoParent>>, Failure> {
    if wanted == Wanted::Full {
        return Ok(Err(None));
    }
    let parent = match parent::find(settings, preparation, wanted).await? {
        Ok(parent) => parent,
        Err(reason) => return Ok(Err(Some(reason))),
    };
    let beginning = Beginning::of(settings, preparation, Some(parent.summary())).await?;
    let begun = Begun::new(preparation, BackupKind::Incremental, beginning).await?;
    match parent.serve(settings, preparation, &begun.control, begun.started).await? {
        Ok(base) => begun.read(settings, preparation, Some(base), progress).await.map(Ok),
        Err(reason) => {
            preparation.session.stop_backup().await?;
            Ok(Err(Some(reason)))
        }
    }
}

/// A backup that the server has started.
struct Begun {
    id: BackupId,
    control: ControlFile,
    started: Position,
    beginning: Beginning,
    marked: Marked,
}

/// A backup all of whose files are in packs, stored or on their way.
struct Copied {
    id: BackupId,
    control: ControlFile,
    label: BackupLabel,
    started: Position,
    stopped: StoppedBackup,
    listing: Arc<Listing>,
    files: ReadFiles,
    spool: Arc<Spool>,
    late: Vec<LateFile>,
    reading: Reading,
    parent: Option<Arc<BackupSummary>>,
    beginning: Beginning,
    /// What stood in marks before anything of it was stored.
    marked: Marked,
    /// Why it is a full one although another was asked for.
    instead: Option<NoParent>,
}

impl Begun {
    async fn new(
        preparation: &Preparation,
        kind: BackupKind,
        beginning: Beginning,
    ) -> Result<Begun, Failure> {
        let Preparation { session, directory, archive, .. } = preparation;
        // What an interrupted one stored may stand in any of them.
        let marked = match beginning.left {
            None => Marked::now(archive).await?,
            Some(_) => Marked::default(),
        };
        let now = session.clock("name the base backup").await?;
        let id = beginning.backup().unwrap_or_else(|| BackupId::new(now, kind));
        tracing::info!(backup = %id, "base backup starts with a checkpoint");
        let started = session.start_backup(&format!("walpoint {id}")).await?;
        let (control, _) = control_file(&directory.path)?;
        must_be_where_it_started(&control, started, session.server.is_in_recovery, &directory.path)?;
        beginning.note(&id);
        Ok(Begun { id, control, started, beginning, marked })
    }

    /// Everything up to the stop, for which the session must stay open.
    async fn read(
        self,
        settings: &Settings,
        preparation: &Preparation,
        base: Option<Base>,
        progress: &Arc<Progress>,
    ) -> Result<Copied, Failure> {
        let Begun { id, control, started, beginning, marked } = self;
        let Preparation { session, directory, archive, .. } = preparation;
        let parent = base.as_ref().map(|base| Arc::clone(&base.summary));
        let compared = base.map(compared_with).transpose()?;
        let listing = Arc::new(list(preparation).await?);
        progress.expect(listing.bytes, listing.files);
        progress.enter(Phase::Copying);
        let spool = Arc::new(Spool::new(&directory.path));
        let reading = Reading::start(archive, &id, settings.workers(), &beginning);
        let means = Means {
            compared,
            spool: Arc::clone(&spool),
            notes: beginning.notes.clone(),
            left: beginning.left.clone(),
            pace: Pace::new(settings.backup.max_rate),
        };
        let (files, reading) = reading.read(&listing, directory, means, progress).await?;
        // After all other files: it must not be older than they are.
        let (control_at_end, control_bytes) = control_file(&directory.path)?;

        let stopped = session.stop_backup().await?;
        let label =
            must_agree(&stopped, started, session.server.is_in_recovery, [&control, &control_at_end])?;
        let late = LateFile::all(&stopped, &control_bytes, &preparation.configuration);
        let late = late.map_err(|error| broken(error.to_string()))?;
        Ok(Copied {
            id,
            control,
            label,
            started,
            stopped,
            listing,
            files,
            spool,
            late,
            reading,
            parent,
            beginning,
            marked,
            instead: None,
        })
    }
}

/// Opens the parent's manifest beside the files.
fn compared_with(base: Base) -> Result<Compared, Failure> {
    let Base { summary, manifest, comparison } = base;
    match comparison {
        Comparison::Lsn { since } => {
            tracing::info!(
                "pages are compared with {} by LSN: what was changed since {since} is stored",
                summary.id
            );
        }
        Comparison::Content(why) => tracing::warn!(
            "pages are compared with {} by content, in pieces of 1 MiB: their LSNs cannot be believed, because {why}",
            summary.id
        ),
    }
    let parent = ParentFiles::new(manifest, summary.id.clone()).map_err(|error| {
        Failure::failed(format!("could not read the manifest of {}: {error}", summary.id))
    })?;
    Ok(Compared { parent, comparison })
}

impl Copied {
    /// Stores what is left to store, the summary last of all.
    async fn complete(
        self,
        settings: &Settings,
        preparation: &Preparation,
        progress: &Progress,
    ) -> Result<Taken, Failure> {
        let Preparation { session, archive, .. } = preparation;
        let range = self.wal();
        let (late, packs) = self.reading.finish(self.late).await?;
        progress.enter(Phase::Waiting);
        wal_wait::wait(archive, session, &range, settings.backup.wal_timeout).await?;
        let pg_wal = preparation.directory.path.join("pg_wal");
        let path = histories::bring(archive, &pg_wal, range.timeline, preparation.writer).await?;
        progress.enter(Phase::Finishing);
        let tablespaces = complete::tablespaces(&self.stopped)?;
        let contents =
            Contents { listing: self.listing, files: self.files, spool: self.spool, late, tablespaces };
        let stored = self.beginning.left.iter().flat_map(|left| left.packs.clone());
        let completion = Completion {
            id: self.id,
            writer: preparation.writer,
            control: &self.control,
            version_num: session.server.version_num,
            subscriptions: session.server.subscriptions.clone(),
            archive_mode: session.server.archive_mode.clone(),
            label: &self.label,
            started: self.started,
            stopped: &self.stopped,
            contents: Arc::new(contents),
            packs: stored.chain(packs.into_iter().map(|pack| (pack.number, pack.object))).collect(),
            parent: self.parent,
            path,
            marked_at_begin: self.marked,
            server_started: session.server.started,
            directory: &preparation.directory.path,
        };
        let taken = completion.store(archive).await?;
        if let Some(notes) = &self.beginning.notes {
            notes.finish();
        }
        Ok(Taken { instead: self.instead.map(|NoParent(reason)| reason), ..taken })
    }

    /// The WAL without which the files are not consistent.
    fn wal(&self) -> wal_wait::Range {
        wal_wait::Range {
            purpose: "the base backup is not complete",
            timeline: self.label.start_segment.timeline,
            start: self.started.lsn,
            stop: self.stopped.position.lsn,
            size: self.control.segment_size,
        }
    }
}

async fn list(preparation: &Preparation) -> Result<Listing, Failure> {
    let scope = preparation.scope();
    let walked = tokio::task::spawn_blocking(move || files::walk(&scope)).await;
    let walked = walked.map_err(|error| Failure::failed(format!("could not list files: {error}")))?;
    walked.map_err(|error| Failure::failed(error.to_string()).with_hint(error.hint()))
}

/// The control file, and the bytes it was read from.
fn control_file(data_directory: &Path) -> Result<(ControlFile, Vec<u8>), Failure> {
    let path = data_directory.join(CONTROL_FILE);
    untorn(|| std::fs::read(&path).map_err(|error| error.to_string()))
        .map_err(|why| Failure::failed(format!("could not read \"{}\": {why}", path.display())))
}

/// The server may be writing it: what does not agree with its checksum is read again.
fn untorn(mut read: impl FnMut() -> Result<Vec<u8>, String>) -> Result<(ControlFile, Vec<u8>), String> {
    const TRIES: u32 = 20;
    let mut why = String::new();
    for _ in 0..TRIES {
        let bytes = read()?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error) => why = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(why)
}

/// A copy of the cluster elsewhere has its system identifier too. Only in the
/// directory of the server that made it is the checkpoint which the backup
/// started with.
fn must_be_where_it_started(
    control: &ControlFile,
    started: Position,
    is_standby: bool,
    data_directory: &Path,
) -> Result<(), Failure> {
    let state = if is_standby { DbState::InArchiveRecovery } else { DbState::InProduction };
    if control.state == state && control.redo >= started.lsn {
        return Ok(());
    }
    Err(Failure::new(
        Status::WrongCluster,
        format!(
            "could not back up \"{}\": the server that answered runs in another directory, a copy of this one",
            data_directory.display()
        ),
    )
    .with_hint("do [postgres] connection and [postgres] data_directory name the same server?"))
}

fn broken(what: String) -> Failure {
    Failure::failed(format!("could not complete the base backup: {what}"))
        .with_hint("nothing of it is visible; start it again, on a server that stays what it is meanwhile")
}

/// The label must be that of the backup that was started, the server what it
/// was then, and the timeline the same from beginning to end.
fn must_agree(
    stopped: &StoppedBackup,
    started: Position,
    is_standby: bool,
    controls: [&ControlFile; 2],
) -> Result<BackupLabel, Failure> {
    let label = BackupLabel::parse(&stopped.label_file).map_err(|error| broken(error.to_string()))?;
    if label.start != started.lsn {
        return Err(broken(format!("it started at {}, but its label says {}", started.lsn, label.start)));
    }
    let timeline = label.start_segment.timeline;
    if let Some(other) = controls.into_iter().find(|control| control.timeline != timeline) {
        return Err(broken(format!("the timeline changed from {timeline} to {} meanwhile", other.timeline)));
    }
    let was_promoted =
        controls.into_iter().any(|control| is_standby && control.state == DbState::InProduction);
    if label.from_standby != is_standby || was_promoted {
        return Err(broken("the standby was promoted meanwhile".into()));
    }
    Ok(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_file_that_is_being_written_is_read_again() {
        let sound = zstd::decode_all(&include_bytes!("../tests/fixtures/pg_control.zst")[..]).unwrap();
        let mut torn = sound.clone();
        torn[48] ^= 1;
        let mut reads = [torn.clone(), torn.clone(), sound.clone()].into_iter();
        let (control, bytes) = untorn(|| reads.next().ok_or_else(|| "no more reads".to_owned())).unwrap();
        assert!(bytes == sound && reads.next().is_none());
        assert_eq!(control.segment_size.bytes(), 1 << 20);
        // For ever torn is no tear: no backup has such a file.
        untorn(|| Ok(torn.clone())).unwrap_err();
    }
}
