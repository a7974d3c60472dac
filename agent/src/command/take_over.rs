//! `take-over`: a restored cluster becomes the one that archives from now on.
//! Histories first, so that nobody takes its timeline's number again; then
//! archiving; then a base backup, because what was written while archiving was
//! off is gone.
//!
//! `archive_mode` takes effect at a restart only, which is the operator's to
//! choose. So the command is called twice: the first call says that the server
//! must be restarted, the second goes on from there.

mod settings;

use std::path::Path;

use walpoint_archive::durable::{self, Placement};
use walpoint_archive::{Archive, ArchiveError, CatalogScope, ObjectKey, SegmentState, WriterId};
use walpoint_pitr::postgresql_conf::UnwritableValue;
use walpoint_pitr::recovery_settings::without_recovery;
use walpoint_wal::control_file::DbState;
use walpoint_wal::file_name::WalFileName;
use walpoint_wal::timeline::TimelineId;

use super::backup;
use crate::backup::{Wanted, left_out};
use crate::cli::TakeOverArgs;
use crate::config::{Connection, Settings};
use crate::data_directory::{self, DataDirectory};
use crate::exit::{Ending, Failure, Status};
use crate::session::Session;
use crate::ship::before::history_in;
use crate::{open, postgres_command, writer_id};

/// What PostgreSQL reads last of its configuration.
const AUTO_CONF: &str = "postgresql.auto.conf";

/// Carries out `take-over`.
pub async fn run(settings: &Settings, _args: &TakeOverArgs, json: bool) -> Result<Ending, Failure> {
    let directory = data_directory::configured(settings)?;
    let connection = settings.postgres.connection.as_ref().map(Connection::reveal);
    let session = Session::open(connection, Some(&directory.path)).await?;
    session.server.must_own(&directory.path, &directory.control)?;
    if session.server.is_in_recovery {
        return Err(Failure::usage("could not take over: the server is still in recovery")
            .with_hint("let recovery end, or promote the server, and run take-over again"));
    }
    must_be_where_it_runs(settings, &session).await?;
    left_out::must_be_whole(&session, &directory.path, "take over").await?;
    let (_, timeline) = session.wal_position().await?;
    let archive =
        open::archive_to_write(settings, directory.control.system_identifier, open::Patience::Command)
            .await?;
    let ours = writer_id::of(&directory.path);
    must_be_ours(&archive, timeline, ours).await?;
    push_histories(&archive, &directory, timeline, ours).await?;
    turn_archiving_on(settings, &session, &directory)?;
    drop(session);
    backup::take_and_tell(settings, Wanted::Full, json).await
}

/// A copy of the cluster elsewhere has its system identifier too. Its control file stays behind at the
/// server's next checkpoint.
async fn must_be_where_it_runs(settings: &Settings, session: &Session) -> Result<(), Failure> {
    let redo = session.checkpoint_redo().await?;
    let directory = data_directory::configured(settings)?;
    if directory.control.state == DbState::InProduction && directory.control.redo >= redo {
        return Ok(());
    }
    Err(Failure::new(
        Status::WrongCluster,
        format!(
            "could not take over with \"{}\": the server that answered runs in another directory, a copy of this one",
            directory.path.display()
        ),
    )
    .with_hint("do [postgres] connection and [postgres] data_directory name the same server?"))
}

/// Refuses when somebody else already writes this timeline: the two would
/// archive different WAL under the same names.
async fn must_be_ours(archive: &Archive, timeline: TimelineId, ours: WriterId) -> Result<(), Failure> {
    for key in objects_of(archive, timeline).await? {
        let writer = archive.common(&key).await?.writer;
        if writer != ours {
            return Err(Failure::new(
                Status::Refused,
                format!(
                    "could not take over timeline {timeline}: the archive already has \"{key}\", written by {writer}, and this cluster is {ours}"
                ),
            )
            .with_hint(
                "another copy has taken over already, or still archives (or this directory is itself a copy of the one that did): give this cluster an archive url of its own, or restore it again, which gives it a timeline of its own",
            ));
        }
    }
    Ok(())
}

/// The history of the timeline, and its first and last segment: whoever wrote
/// those has written the others.
async fn objects_of(archive: &Archive, timeline: TimelineId) -> Result<Vec<ObjectKey>, Failure> {
    let mut keys = Vec::new();
    if timeline != TimelineId::FIRST {
        let history = archive.wal_variants(&WalFileName::History(timeline)).await?;
        keys.extend(history.standing().into_iter().map(|variant| variant.key()));
    }
    if archive.cluster().await?.is_none() {
        return Ok(keys);
    }
    let catalog = archive.catalog(CatalogScope::All).await?;
    let segments = catalog.wal.get(&timeline).into_iter().flat_map(|segments| segments.values());
    let objects = |state: &SegmentState| {
        let stored = state.standing().into_iter().chain(state.tail.as_deref());
        stored.map(|variant| variant.key()).collect::<Vec<_>>()
    };
    let with_content: Vec<_> = segments.map(objects).filter(|keys| !keys.is_empty()).collect();
    for own in [with_content.first(), with_content.last()].into_iter().flatten() {
        keys.extend(own.iter().cloned());
    }
    Ok(keys)
}

/// Stores the history files of the timeline and of all that it comes from.
async fn push_histories(
    archive: &Archive,
    directory: &DataDirectory,
    timeline: TimelineId,
    writer: WriterId,
) -> Result<(), Failure> {
    if timeline == TimelineId::FIRST {
        return Ok(());
    }
    let pg_wal = directory.path.join("pg_wal");
    let (history, _) = history_in(&pg_wal, timeline).ok_or_else(|| no_history(&pg_wal, timeline))?;
    let ancestors = history.ancestors.iter().map(|ancestor| ancestor.timeline);
    for timeline in ancestors.chain([timeline]).filter(|timeline| *timeline != TimelineId::FIRST) {
        match history_in(&pg_wal, timeline) {
            Some((_, bytes)) => {
                let outcome = archive.put_history(timeline, bytes.into(), writer).await.map_err(refused)?;
                tracing::info!(?outcome, "the history of timeline {timeline} is in the archive");
            }
            None => must_be_there(archive, &pg_wal, timeline).await?,
        }
    }
    Ok(())
}

/// Another history of the same timeline stands in the way as another writer does.
fn refused(error: ArchiveError) -> Failure {
    let is_conflict = matches!(error, ArchiveError::Conflict { .. });
    let failure = Failure::from(error);
    if is_conflict { Failure { status: Status::Refused, ..failure } } else { failure }
}

async fn must_be_there(archive: &Archive, pg_wal: &Path, timeline: TimelineId) -> Result<(), Failure> {
    let there = archive.wal_variants(&WalFileName::History(timeline)).await?;
    if there.standing().is_empty() { Err(no_history(pg_wal, timeline)) } else { Ok(()) }
}

fn no_history(pg_wal: &Path, timeline: TimelineId) -> Failure {
    let name = WalFileName::History(timeline);
    Failure::failed(format!(
        "could not take over: \"{}\" cannot be read and the archive does not have it",
        pg_wal.join(name.to_string()).display()
    ))
    .with_hint(format!("without {name} nothing of this cluster could ever be restored: find a copy of it"))
}

/// Writes the settings that are missing.
///
/// # Errors
/// Status 1 when the server must be restarted before they take effect.
fn turn_archiving_on(
    settings: &Settings,
    session: &Session,
    directory: &DataDirectory,
) -> Result<(), Failure> {
    let server = &session.server;
    let has_archiver = !(server.archive_command.trim().is_empty() && server.archive_library.is_empty());
    if server.archive_mode == "on" && has_archiver {
        // With archiving turned on by hand there is still what the recovery has left.
        if change_settings(&directory.path, |text| Ok(without_recovery(text)))? {
            tracing::warn!(
                "the settings of the recovery are taken out of {AUTO_CONF}; subscriptions run from the next restart of PostgreSQL on"
            );
        }
        return Ok(());
    }
    let program = postgres_command::this_program()?;
    let command = postgres_command::archive_command(&program, settings.source.as_deref());
    let command = (!has_archiver).then_some(command.as_str());
    change_settings(&directory.path, |text| settings::with_archiving(&without_recovery(text), command))?;
    Err(Failure::failed(
        "could not take over yet: archiving is set on and takes effect when PostgreSQL is restarted",
    )
    .with_hint("restart PostgreSQL and run \"walpoint take-over\" again: it then takes the base backup"))
}

/// Whether there was anything to change.
fn change_settings(
    data_directory: &Path,
    change: impl FnOnce(&str) -> Result<String, UnwritableValue>,
) -> Result<bool, Failure> {
    let path = data_directory.join(AUTO_CONF);
    let failed = |error: String| Failure::failed(format!("could not change \"{}\": {error}", path.display()));
    let old = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error.to_string())),
    };
    let new = change(&old).map_err(|error| failed(error.to_string()))?;
    if new == old {
        return Ok(false);
    }
    let placed = durable::write_file(&path, new.as_bytes(), durable::FILE_MODE, Placement::Replace);
    placed.map(|_| true).map_err(|error| failed(error.to_string()))
}
