//! A base backup of the running cluster, step by step: session start → files
//! → packs → store → session stop → is its WAL in the archive, all of it, and
//! what leads to its timeline? → manifest, then summary. Before the summary is there no command sees it.

mod complete;
mod configuration;
mod entries;
mod files;
mod gate;
mod histories;
mod late;
pub mod left_out;
mod packs;
mod prepare;
mod read;
mod store;
pub mod wal_wait;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use walpoint_archive::{BackupId, BackupKind};
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
use prepare::{Preparation, prepare};
use read::ReadFile;
use store::Reading;

/// Takes a full base backup. Returns when it is complete; every other way out
/// leaves no backup behind.
///
/// # Errors
/// Status 2 when the server does not archive, 4 when it is not the data
/// directory's, 1 for everything that may go better another time.
pub async fn take(settings: &Settings, progress: &Arc<Progress>) -> Result<Taken, Failure> {
    progress.enter(Phase::Preparing);
    let preparation = prepare(settings).await?;
    let session = &preparation.session;
    let copied = tokio::select! {
        copied = copy(settings, &preparation, progress) => copied?,
        why = session.ended() => return Err(Failure::failed(format!(
            "could not go on with the base backup: the session with the server ended: {why}"
        )).with_hint("the backup was given up; start it again")),
    };
    // From here on the server may come and go.
    copied.complete(settings, &preparation, progress).await
}

/// A backup all of whose files are in packs, stored or on their way.
struct Copied {
    id: BackupId,
    control: ControlFile,
    label: BackupLabel,
    started: Position,
    stopped: StoppedBackup,
    listing: Arc<Listing>,
    files: Vec<ReadFile>,
    late: Vec<LateFile>,
    reading: Reading,
}

/// Everything between start and stop, for which the session must stay open.
async fn copy(
    settings: &Settings,
    preparation: &Preparation,
    progress: &Arc<Progress>,
) -> Result<Copied, Failure> {
    let Preparation { session, directory, archive, .. } = preparation;
    let id = BackupId::new(session.clock("name the base backup").await?, BackupKind::Full);
    tracing::info!(backup = %id, "base backup starts with a checkpoint");
    let started = session.start_backup(&format!("walpoint {id}")).await?;
    let (control, _) = control_file(&directory.path)?;
    must_be_where_it_started(&control, started, &directory.path)?;

    let listing = Arc::new(list(preparation).await?);
    progress.expect(listing.bytes, listing.files);
    progress.enter(Phase::Copying);
    let reading = Reading::start(archive, &id, settings.workers());
    let (files, reading) = reading.read(&listing, directory, progress).await?;
    // After all other files: it must not be older than they are.
    let (control_at_end, control_bytes) = control_file(&directory.path)?;

    let stopped = session.stop_backup().await?;
    let label = must_agree(&stopped, started, [&control, &control_at_end])?;
    let late = LateFile::all(&stopped, &control_bytes, &preparation.configuration);
    let late = late.map_err(|error| broken(error.to_string()))?;
    Ok(Copied { id, control, label, started, stopped, listing, files, late, reading })
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
        histories::bring(archive, &pg_wal, range.timeline, preparation.writer).await?;
        progress.enter(Phase::Finishing);
        let tablespaces = complete::tablespaces(&self.stopped)?;
        let contents = Contents { listing: self.listing, files: self.files, late, tablespaces };
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
            contents: &contents,
            packs,
        };
        completion.store(archive).await
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
    data_directory: &Path,
) -> Result<(), Failure> {
    if control.state == DbState::InProduction && control.redo >= started.lsn {
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
        .with_hint("nothing of it is visible; start it again, on a primary that stays one meanwhile")
}

/// The label must be that of the backup that was started, on a primary, and
/// the timeline the same from beginning to end.
fn must_agree(
    stopped: &StoppedBackup,
    started: Position,
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
    if label.from_standby {
        return Err(broken("the server was in recovery when it started".into()));
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
