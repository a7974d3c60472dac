//! A base backup of the running cluster, step by step: session start → files
//! → packs → store → session stop → is its WAL in the archive, all of it? →
//! manifest, then summary. Before the summary is there no command sees it.

mod complete;
mod configuration;
mod entries;
mod files;
mod gate;
mod late;
mod packs;
mod read;
mod store;
pub mod wal_wait;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use walpoint_archive::config::ArchiveUrl;
use walpoint_archive::manifest::CONFIG_FOLDER;
use walpoint_archive::{Archive, BackupId, BackupKind, WriterId};
use walpoint_pitr::progress::{Phase, Progress};
use walpoint_wal::backup_label::BackupLabel;
use walpoint_wal::control_file::ControlFile;

use crate::config::{Connection, Settings};
use crate::data_directory::{self, DataDirectory};
use crate::exit::Failure;
use crate::session::{Position, Session, StoppedBackup};
use crate::{open, writer_id};
use complete::Completion;
pub use complete::Taken;
use configuration::ConfigurationFile;
use entries::Contents;
use files::{CONTROL_FILE, Listing, Scope};
use late::LateFile;
use store::Reading;

/// Everything that is known before the backup starts.
struct Preparation {
    session: Session,
    directory: DataDirectory,
    archive: Arc<Archive>,
    writer: WriterId,
    configuration: Vec<ConfigurationFile>,
}

/// Takes a full base backup. Returns when it is complete; every other way out
/// leaves no backup behind.
///
/// # Errors
/// Status 2 when the server does not archive, 4 when it is not the data
/// directory's, 5 when WAL that the backup needs is damaged in the archive, 1
/// for everything that may go better another time.
pub async fn take(settings: &Settings, progress: &Arc<Progress>) -> Result<Taken, Failure> {
    progress.enter(Phase::Preparing);
    let preparation = prepare(settings).await?;
    let session = &preparation.session;
    tokio::select! {
        taken = carry_out(settings, &preparation, progress) => taken,
        why = session.ended() => Err(Failure::failed(format!(
            "could not go on with the base backup: the session with the server ended: {why}"
        )).with_hint("the backup was given up; start it again")),
    }
}

async fn prepare(settings: &Settings) -> Result<Preparation, Failure> {
    let directory = data_directory::configured(settings)?;
    let connection = settings.postgres.connection.as_ref().map(Connection::reveal);
    let session = Session::open(connection, Some(&directory.path)).await?;
    session.server.must_own(&directory.path, &directory.control)?;
    for doubt in gate::pass(&session.server)? {
        tracing::warn!("{doubt}");
    }
    must_not_hold_the_archive(settings, &directory.path)?;
    let archive =
        open::archive_to_write(settings, directory.control.system_identifier, open::Patience::Command)
            .await?;
    archive.ensure_cluster(&directory.as_cluster()?).await?;
    let server = &session.server;
    let roots: Vec<PathBuf> =
        [&server.config_file, &server.hba_file, &server.ident_file].into_iter().flatten().cloned().collect();
    let configuration = configuration::outside(&directory.path, &roots)
        .map_err(|error| Failure::failed(error.to_string()))?;
    let writer = writer_id::of(&directory.path);
    Ok(Preparation { session, directory, archive: Arc::new(archive), writer, configuration })
}

/// A backup that holds the archive it goes to would never end.
fn must_not_hold_the_archive(settings: &Settings, data_directory: &Path) -> Result<(), Failure> {
    match &settings.archive()?.url {
        ArchiveUrl::Dir(path) if path.starts_with(data_directory) => Err(Failure::usage(format!(
            "could not back up into \"{}\": it lies in the data directory",
            path.display()
        ))
        .with_hint("set [archive] url to a place outside, best on another machine")),
        _ => Ok(()),
    }
}

async fn carry_out(
    settings: &Settings,
    preparation: &Preparation,
    progress: &Arc<Progress>,
) -> Result<Taken, Failure> {
    let Preparation { session, directory, archive, .. } = preparation;
    let id = BackupId::new(session.clock("name the base backup").await?, BackupKind::Full);
    tracing::info!(backup = %id, "base backup starts with a checkpoint");
    let started = session.start_backup(&format!("walpoint {id}")).await?;
    let control = control_file(&directory.path)?.0;

    let listing = list(preparation).await?;
    progress.expect(listing.bytes, listing.files);
    progress.enter(Phase::Copying);
    let reading = Reading::start(archive, &id, settings.workers());
    let (files, reading) = reading.read(&listing, directory, progress).await?;
    // After all other files: it must not be older than they are.
    let (control_at_end, control_bytes) = control_file(&directory.path)?;

    progress.enter(Phase::Waiting);
    let stopped = session.stop_backup().await?;
    let label = must_agree(&stopped, started, [&control, &control_at_end])?;
    let late = LateFile::all(&stopped, &control_bytes, &preparation.configuration);
    let (late, packs) = reading.finish(late.map_err(|error| broken(error.to_string()))?).await?;
    let range = wal_wait::Range {
        purpose: "the base backup is not complete",
        timeline: label.start_segment.timeline,
        start: started.lsn,
        stop: stopped.position.lsn,
        size: control.segment_size,
    };
    wal_wait::wait(archive, session, &range, settings.backup.wal_timeout).await?;

    progress.enter(Phase::Finishing);
    let tablespaces = complete::tablespaces(&stopped)?;
    let contents = Contents { listing, files, late, tablespaces };
    let completion = Completion {
        id,
        writer: preparation.writer,
        control: &control,
        version_num: session.server.version_num,
        label: &label,
        started,
        stopped: &stopped,
        contents: &contents,
        packs,
    };
    completion.store(archive).await
}

async fn list(preparation: &Preparation) -> Result<Listing, Failure> {
    let scope = scope(preparation);
    let walked = tokio::task::spawn_blocking(move || files::walk(&scope)).await;
    let walked = walked.map_err(|error| Failure::failed(format!("could not list files: {error}")))?;
    walked.map_err(|error| Failure::failed(error.to_string()).with_hint(error.hint()))
}

fn scope(preparation: &Preparation) -> Scope {
    let Preparation { session, directory, configuration, .. } = preparation;
    let control = &directory.control;
    let major = control.major.map_or(0, |major| major.number());
    let inside = |path: &PathBuf| path.strip_prefix(&directory.path).map(Path::to_path_buf).ok();
    let temporary_statistics = session.server.stats_temp_directory.as_ref();
    let emptied = temporary_statistics.map(|path| directory.path.join(path)).as_ref().and_then(inside);
    // What an earlier restore put there has its successor in what is kept
    // from outside now.
    let is_replaced = !configuration.is_empty() && !uses_restored_configuration(preparation);
    Scope {
        data_directory: directory.path.clone(),
        tablespace_version: format!("PG_{major}_{}", control.catalog_version),
        major,
        emptied: emptied.into_iter().collect(),
        left: if is_replaced { vec![CONFIG_FOLDER.into()] } else { Vec::new() },
    }
}

fn uses_restored_configuration(preparation: &Preparation) -> bool {
    let Preparation { session, directory, .. } = preparation;
    let restored = directory.path.join(CONFIG_FOLDER);
    let server = &session.server;
    [&server.config_file, &server.hba_file, &server.ident_file]
        .into_iter()
        .flatten()
        .any(|file| file.starts_with(&restored))
}

/// The control file, and the bytes it was read from. The server may be
/// writing it: what does not agree with its checksum is read again.
fn control_file(data_directory: &Path) -> Result<(ControlFile, Vec<u8>), Failure> {
    const TRIES: u32 = 20;
    let path = data_directory.join(CONTROL_FILE);
    let unreadable =
        |error: String| Failure::failed(format!("could not read \"{}\": {error}", path.display()));
    let mut why = String::new();
    for _ in 0..TRIES {
        let bytes = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok((control, bytes)),
            Err(error) => why = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(unreadable(why))
}

fn broken(what: String) -> Failure {
    Failure::failed(format!("could not complete the base backup: {what}"))
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
