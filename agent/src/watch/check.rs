//! Takes the snapshot that [`super::health`] judges. Who does not answer is
//! part of the snapshot; what cannot be asked (a wrong setting, a missing
//! right, another cluster's server) is an error.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use walpoint_archive::{Archive, ArchiveError};
use walpoint_pitr::recovery_settings::{RECOVERY_SIGNAL, STANDBY_SIGNAL};
use walpoint_wal::control_file::ControlFile;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::{SegmentName, SegmentSize};
use walpoint_wal::timeline::TimelineId;
use walpoint_wal::timestamp::Timestamp;

use super::archive_view::{self, View, Wanted};
use super::health::{ArchiveState, Missing, MissingSegment, ServerState, Snapshot, Waiting};
use super::missing;
use super::unarchived::UnarchivedSegment;
use crate::config::{Connection, Settings};
use crate::exit::{Failure, Status};
use crate::session::Session;
use crate::ship::before::history_in;
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
                unless_absent(open::archive_to_write(settings, cluster, open::Patience::For(PATIENCE)).await)?
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
        let mut server = match &self.session {
            Ok(session) => unless_absent(self.server_state(session).await)?,
            Err(why) => Err(why.clone()),
        };
        let now = match &self.session {
            Ok(session) => session.clock("read the server's clock").await.unwrap_or_else(|_| clock()),
            Err(_) => clock(),
        };
        let wanted = Wanted {
            timeline: server.as_ref().ok().map(|server| server.timeline),
            position: server.as_ref().ok().and_then(|server| server.position),
            ancestry: self.ancestry(server.as_ref().ok().map(|server| server.timeline)),
            look_back: settings.check.look_back,
        };
        let archive = self.archive_state(&wanted, &mut server).await?;
        Ok(Snapshot { now, server, archive })
    }

    /// Completed segments are looked for after the server's position was read,
    /// and asked for again when they seem lost: they may just have arrived.
    async fn archive_state(
        &self,
        wanted: &Wanted,
        server: &mut Result<ServerState, String>,
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
            self.leave_out_what_is_shipped(session, server, &view);
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
                let event = self.first_event(session, oldest.name, size, Lsn::ZERO);
                server.unarchived_since = server.unarchived_since.into_iter().chain(event).min();
            }
        }
        Ok(Ok(state))
    }

    /// What was shipped of a segment before it was complete is in the archive, too.
    fn leave_out_what_is_shipped(&self, session: &Session, server: &mut ServerState, view: &View) {
        let size = SegmentSize::new(session.server.wal_segment_size).ok();
        let (Some(size), Some(position)) = (size, server.position) else { return };
        let oldest = oldest_unarchived(&server.waiting, server.timeline, position, size);
        let number = oldest.and_then(|name| name.number(size).ok());
        let Some(end) = number.and_then(|number| view.covered_from(number)) else { return };
        server.unarchived_since = match end < position {
            true => {
                let name = SegmentName::containing(server.timeline, end, size);
                self.first_event(session, name, size, end)
            }
            false => None,
        };
    }

    async fn fates(&self, session: &Session, names: &[SegmentName]) -> Result<Vec<MissingSegment>, Failure> {
        let statuses = missing::by_name(session.archive_statuses().await?);
        let files = missing::by_name(session.wal_files().await?);
        Ok(missing::fate(names, &files, &statuses))
    }

    async fn server_state(&self, session: &Session) -> Result<ServerState, Failure> {
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
        Ok(ServerState {
            is_in_recovery: server.is_in_recovery,
            is_restored_copy: server.is_in_recovery && self.has_recovery_target(session),
            archive_mode: server.archive_mode.clone(),
            has_archiver: server.has_archiver(),
            archives_with_walpoint: server.archives_with_walpoint(),
            timeline,
            position,
            waiting,
            unarchived_since: unarchived.and_then(|name| self.first_event(session, name, size, Lsn::ZERO)),
            archiver: session.archiver_statistics().await?,
        })
    }

    /// A standby has a signal file of its own, which counts more. `false` also where the data directory is
    /// not ours to read.
    fn has_recovery_target(&self, session: &Session) -> bool {
        let directory = self.data_directory.as_deref().unwrap_or(&session.server.data_directory);
        directory.join(RECOVERY_SIGNAL).exists() && !directory.join(STANDBY_SIGNAL).exists()
    }

    /// `None` also where the data directory is not ours to read.
    fn first_event(
        &self,
        session: &Session,
        name: SegmentName,
        size: SegmentSize,
        from: Lsn,
    ) -> Option<Timestamp> {
        let segment = UnarchivedSegment {
            data_directory: self.data_directory.as_deref().unwrap_or(&session.server.data_directory),
            system_identifier: session.server.system_identifier,
            name,
            size,
            from,
        };
        segment.first_event().unwrap_or_else(|error| {
            tracing::warn!("could not look into segment {name}: {error}");
            None
        })
    }

    /// The timelines that need a history file: the server's and those it
    /// comes from, as far as `pg_wal` tells.
    fn ancestry(&self, timeline: Option<TimelineId>) -> Vec<TimelineId> {
        let timeline = timeline.or(self.control.as_ref().map(|control| control.timeline));
        let Some(timeline) = timeline.filter(|timeline| *timeline != TimelineId::FIRST) else {
            return Vec::new();
        };
        let pg_wal = self.data_directory.as_deref().map(|path| path.join("pg_wal"));
        let history = pg_wal.as_deref().and_then(|pg_wal: &Path| history_in(pg_wal, timeline));
        let ancestors = history.map(|(history, _)| history.ancestors).unwrap_or_default();
        let ancestors = ancestors.into_iter().map(|ancestor| ancestor.timeline);
        ancestors.filter(|ancestor| *ancestor != TimelineId::FIRST).chain([timeline]).collect()
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
