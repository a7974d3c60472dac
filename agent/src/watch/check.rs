//! Takes the snapshot that [`super::health`] judges. Who does not answer is
//! part of the snapshot; what cannot be asked (a wrong setting, a missing
//! right, another cluster's server) is an error.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use walpoint_archive::{Archive, ArchiveError};
use walpoint_wal::control_file::ControlFile;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::{SegmentName, SegmentSize};
use walpoint_wal::timeline::{TimelineHistory, TimelineId};
use walpoint_wal::timestamp::Timestamp;

use super::archive_view::{self, View, Wanted};
use super::health::{ArchiveState, Missing, MissingSegment, ServerState, Snapshot, Waiting};
use super::missing;
use super::server_directory::ServerDirectory;
use super::unarchived::UnarchivedSegment;
use crate::config::{Connection, Settings};
use crate::data_directory::free_bytes;
use crate::exit::{Failure, Status};
use crate::session::Session;
use crate::ship::before::history_in;
use crate::ship::ground::PG_WAL;
use crate::{data_directory, open};

/// A monitoring system waits a minute at most for its plugins.
const PATIENCE: Duration = Duration::from_secs(15);

/// The cluster and how it is reached, as far as it answers.
pub struct Asked {
    data_directory: Option<PathBuf>,
    control: Option<ControlFile>,
    session: Result<Session, String>,
    archive: Result<Archive, String>,
}

impl Asked {
    /// Connects to the server and opens the archive.
    ///
    /// # Errors
    /// When something is wrong with the settings or the rights, or the server
    /// is not the data directory's.
    pub async fn open(settings: &Settings) -> Result<Asked, Failure> {
        let data_directory = settings.postgres.data_directory.clone();
        let control = match data_directory.as_deref() {
            Some(path) => data_directory::open(path)?.map(|found| found.control),
            None => None,
        };
        let connection = settings.postgres.connection.as_ref().map(Connection::reveal);
        let session =
            unless_absent(Session::open(connection, data_directory.as_deref()).await.map_err(Failure::from))?;
        if let (Ok(session), Some(control), Some(path)) = (&session, &control, &data_directory) {
            session.server.must_own(path, control)?;
        }
        let cluster = session.as_ref().map(|session| session.server.system_identifier).ok();
        let archive = match cluster.or(control.as_ref().map(|control| control.system_identifier)) {
            Some(cluster) => {
                unless_absent(open::archive_in_clear(settings, cluster, open::Patience::For(PATIENCE)).await)?
            }
            None => {
                Err("the archive was not looked at: no server and no data directory say which cluster it is"
                    .into())
            }
        };
        Ok(Asked { data_directory, control, session, archive })
    }

    /// The server's session and the archive, when both answer.
    pub fn both(&self) -> Option<(&Session, &Archive)> {
        Some((self.session.as_ref().ok()?, self.archive.as_ref().ok()?))
    }

    /// Asks everything that the judgement needs.
    ///
    /// # Errors
    /// When the server answers but does not let itself be asked.
    pub async fn snapshot(&self, settings: &Settings) -> Result<Snapshot, Failure> {
        let directory = match &self.session {
            Ok(session) => self.server_directory(session).await,
            Err(why) => Err(why.clone()),
        };
        let mut server = match &self.session {
            Ok(session) => unless_absent(server_state(session, &directory).await)?,
            Err(why) => Err(why.clone()),
        };
        let now = match &self.session {
            Ok(session) => session.clock("read the server's clock").await.unwrap_or_else(|_| clock()),
            Err(_) => clock(),
        };
        let history = self.history(server.as_ref().ok(), directory.as_ref().ok());
        let wanted = Wanted {
            timeline: server.as_ref().ok().filter(|it| !it.is_in_recovery).map(|it| it.timeline),
            position: server.as_ref().ok().and_then(|server| server.position),
            ancestry: self.ancestry(server.as_ref().ok(), history.as_ref()),
            history,
            look_back: settings.check.look_back,
        };
        let archive = self.archive_state(&wanted, &mut server, &directory).await?;
        Ok(Snapshot { now, server, archive })
    }

    async fn server_directory(&self, session: &Session) -> Result<ServerDirectory, String> {
        let path = self.data_directory.as_deref().unwrap_or(&session.server.data_directory);
        ServerDirectory::at(path, session).await
    }

    /// Completed segments are looked for after the server's position was read,
    /// and asked for again when they seem lost: they may just have arrived.
    async fn archive_state(
        &self,
        wanted: &Wanted,
        server: &mut Result<ServerState, String>,
        directory: &Result<ServerDirectory, String>,
    ) -> Result<Result<ArchiveState, String>, Failure> {
        let archive = match &self.archive {
            Ok(archive) => archive,
            Err(why) => return Ok(Err(why.clone())),
        };
        let view = match archive_view::look(archive, wanted).await {
            Ok(view) => view,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let (Ok(server), Ok(session)) = (&mut *server, &self.session) {
            leave_out_what_is_shipped(session, directory, server, &view);
        }
        let View { mut state, unarchived, .. } = view;
        if let (Ok(server), Ok(session), false) = (server, &self.session, unarchived.is_empty()) {
            let fates = self.fates(session, &unarchived).await?;
            match still_missing(archive, wanted, fates).await {
                Ok(missing) => state.missing = missing,
                Err(error) => return Ok(Err(error.to_string())),
            }
            let oldest = state.missing.iter().find(|it| it.missing != Missing::Gone);
            let size = SegmentSize::new(session.server.wal_segment_size).ok();
            if let (Some(oldest), Some(size)) = (oldest, size) {
                note(server, first_event(session, directory, oldest.name, size, Lsn::ZERO));
            }
        }
        Ok(Ok(state))
    }

    async fn fates(&self, session: &Session, names: &[SegmentName]) -> Result<Vec<MissingSegment>, Failure> {
        let statuses = missing::by_name(session.archive_statuses().await?);
        let files = missing::by_name(session.wal_files().await?);
        Ok(missing::fate(names, &files, &statuses))
    }

    /// The history of the timeline that is written, as the server's `pg_wal` tells it.
    fn history(
        &self,
        server: Option<&ServerState>,
        directory: Option<&ServerDirectory>,
    ) -> Option<TimelineHistory> {
        let of_stopped = self.data_directory.as_deref().filter(|_| server.is_none());
        let directory = directory.map(|it| it.path.as_path()).or(of_stopped)?;
        history_in(&directory.join("pg_wal"), self.timeline(server)?).map(|(history, _)| history)
    }

    /// The timelines that need a history file: the server's and those it
    /// comes from, as far as `pg_wal` tells.
    fn ancestry(&self, server: Option<&ServerState>, history: Option<&TimelineHistory>) -> Vec<TimelineId> {
        let ancestors = history.into_iter().flat_map(|history| &history.ancestors);
        let ancestors = ancestors.map(|ancestor| ancestor.timeline);
        ancestors.chain(self.timeline(server)).filter(|timeline| *timeline != TimelineId::FIRST).collect()
    }

    fn timeline(&self, server: Option<&ServerState>) -> Option<TimelineId> {
        let stopped = self.control.as_ref().map(|control| control.timeline);
        server.map(|server| server.timeline).or(stopped)
    }
}

async fn server_state(
    session: &Session,
    directory: &Result<ServerDirectory, String>,
) -> Result<ServerState, Failure> {
    let server = &session.server;
    let (position, timeline) = if server.is_in_recovery {
        (None, session.checkpoint_timeline().await?)
    } else {
        let (position, timeline) = session.wal_position().await?;
        (Some(position), timeline)
    };
    let (count, oldest) = session.waiting_files().await?;
    let waiting = Waiting { count, oldest };
    let size =
        SegmentSize::new(server.wal_segment_size).map_err(|error| Failure::failed(error.to_string()))?;
    let unarchived = position.and_then(|position| oldest_unarchived(&waiting, timeline, position, size));
    let mut state = ServerState {
        is_in_recovery: server.is_in_recovery,
        is_restored_copy: server.is_in_recovery && is_restored_copy(session, directory).await?,
        archive_mode: server.archive_mode.clone(),
        has_archiver: server.has_archiver(),
        archives_with_walpoint: server.archives_with_walpoint(),
        has_fsync: server.has_fsync,
        timeline,
        position,
        waiting,
        segment_bytes: size.bytes(),
        free_bytes: directory.as_ref().ok().and_then(|it| free_bytes(&it.path.join(PG_WAL))),
        unarchived_since: None,
        unseen: None,
        archiver: session.archiver_statistics().await?,
    };
    if let Some(name) = unarchived {
        note(&mut state, first_event(session, directory, name, size, Lsn::ZERO));
    }
    Ok(state)
}

/// By its signal files; by its settings where those cannot be seen.
async fn is_restored_copy(
    session: &Session,
    directory: &Result<ServerDirectory, String>,
) -> Result<bool, Failure> {
    match directory {
        Ok(directory) => Ok(directory.is_restored_copy()),
        Err(_) => Ok(session.recovers_to_a_target().await?),
    }
}

/// What was shipped of a segment before it was complete is in the archive, too.
fn leave_out_what_is_shipped(
    session: &Session,
    directory: &Result<ServerDirectory, String>,
    server: &mut ServerState,
    view: &View,
) {
    let size = SegmentSize::new(session.server.wal_segment_size).ok();
    let (Some(size), Some(position)) = (size, server.position) else { return };
    let oldest = oldest_unarchived(&server.waiting, server.timeline, position, size);
    let number = oldest.and_then(|name| name.number(size).ok());
    let Some(end) = number.and_then(|number| view.covered_from(number)) else { return };
    (server.unarchived_since, server.unseen) = (None, None);
    if end < position {
        let name = SegmentName::containing(server.timeline, end, size);
        note(server, first_event(session, directory, name, size, end));
    }
}

/// The first thing to lose in a segment from there on; an error says why it cannot be looked into.
fn first_event(
    session: &Session,
    directory: &Result<ServerDirectory, String>,
    name: SegmentName,
    size: SegmentSize,
    from: Lsn,
) -> Result<Option<Timestamp>, String> {
    let segment = UnarchivedSegment {
        data_directory: &directory.as_ref().map_err(Clone::clone)?.path,
        system_identifier: session.server.system_identifier,
        name,
        size,
        from,
    };
    segment.first_event().map_err(|error| format!("could not look into segment {name}: {error}"))
}

fn note(server: &mut ServerState, first_event: Result<Option<Timestamp>, String>) {
    match first_event {
        Ok(event) => server.unarchived_since = server.unarchived_since.into_iter().chain(event).min(),
        Err(why) => server.unseen = Some(why),
    }
}

/// Leaves out what has arrived since the archive was listed.
async fn still_missing(
    archive: &Archive,
    wanted: &Wanted,
    fates: Vec<MissingSegment>,
) -> Result<Vec<MissingSegment>, ArchiveError> {
    if !fates.iter().any(|it| it.missing.is_lost()) {
        return Ok(fates);
    }
    let again = archive_view::look(archive, wanted).await?.unarchived;
    let is_missing = |it: &MissingSegment| again.contains(&it.name);
    Ok(fates.into_iter().filter(is_missing).collect())
}

/// The segment that holds the oldest WAL outside the archive: the one that
/// waits longest, else the one that is being written.
fn oldest_unarchived(
    waiting: &Waiting,
    timeline: TimelineId,
    position: Lsn,
    size: SegmentSize,
) -> Option<SegmentName> {
    let waits = waiting.oldest.as_ref().and_then(|(name, _)| name.parse().ok());
    // Right at a border nothing is written yet.
    let is_open = position.offset_in_segment(size) > 0;
    waits.or_else(|| is_open.then(|| SegmentName::containing(timeline, position, size)))
}

/// Not to answer is something to report; to be asked wrongly is not.
fn unless_absent<T>(answer: Result<T, Failure>) -> Result<Result<T, String>, Failure> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(failure) if failure.status == Status::Failed => Ok(Err(failure.error)),
        Err(failure) => Err(failure),
    }
}

/// The clock of this machine, where the server's cannot be asked.
#[expect(clippy::disallowed_methods, reason = "the snapshot is where the time is read")]
fn clock() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since_1970.as_micros()).ok();
    micros.and_then(Timestamp::from_unix_micros).unwrap_or(Timestamp(0))
}
