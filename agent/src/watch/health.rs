//! Is this cluster protected? A judgement over a snapshot: pure, so that
//! every threshold can be tried on both sides.
//!
//! **Lag** is the age of the oldest WAL that is not in the archive, 0 when
//! there is none. The oldest of these counts: a file that waits for the
//! archiver (its `.ready`), from the moment it became ready; a complete segment
//! that the archive lacks, whatever PostgreSQL says of it, from when it was last
//! written to; and the first commit, abort, prepare or restore point of the
//! oldest segment outside the archive, from its own time. What an idle server
//! writes for itself into the open segment (checkpoints, running transactions)
//! holds nothing to lose and never makes it late. A segment that cannot be
//! looked into may hold anything: then the lag is not known, which is no 0.

mod findings;
mod report;

use std::time::Duration;

use walpoint_archive::backup_id::BackupId;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::SegmentName;
use walpoint_wal::timeline::TimelineId;
use walpoint_wal::timestamp::Timestamp;

use crate::session::ArchiverStatistics;

pub use findings::{Finding, judge};
pub use report::{Report, level, text};

/// What monitoring plugins say, in the order of their exit statuses. The
/// fourth, UNKNOWN, is that of a failure: nothing was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    Warning,
    Critical,
}

impl Level {
    pub fn status(self) -> u8 {
        match self {
            Level::Ok => 0,
            Level::Warning => 1,
            Level::Critical => 2,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Warning => "WARNING",
            Level::Critical => "CRITICAL",
        }
    }
}

/// From which value on a figure is a warning, and critical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub warning: Duration,
    pub critical: Duration,
}

impl Limits {
    /// The limits themselves are over the limit.
    pub fn level(self, value: Duration) -> Level {
        if value >= self.critical {
            Level::Critical
        } else if value >= self.warning {
            Level::Warning
        } else {
            Level::Ok
        }
    }
}

/// An archiver that keeps up has files waiting now and then: only what has waited for so long tells that they grow
/// more, and how fast.
const GROWING: Duration = Duration::from_secs(300);

/// With so little time left until `pg_wal` is full somebody is to be told, and to be woken up. PostgreSQL stops
/// when it is.
const UNTIL_FULL: (Duration, Duration) = (Duration::from_secs(12 * 3600), Duration::from_secs(2 * 3600));

/// `[check]`, as far as the judgement needs it.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    pub wal_lag: Limits,
    pub backup_age: Limits,
    /// A hole among the newest segments that has been there for less than
    /// this is a file on its way.
    pub in_flight: Duration,
}

/// Everything that the judgement looks at.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The time of the look, by the server's clock when it answered.
    pub now: Timestamp,
    /// The server, or why it did not answer.
    pub server: Result<ServerState, String>,
    /// The archive, or why it did not answer.
    pub archive: Result<ArchiveState, String>,
}

/// What the server and its data directory say.
#[derive(Debug, Clone)]
pub struct ServerState {
    pub is_in_recovery: bool,
    /// It recovers to a target and follows no primary: a restored copy, also when it has paused there.
    pub is_restored_copy: bool,
    pub archive_mode: String,
    /// Is there an `archive_command` or `archive_library`?
    pub has_archiver: bool,
    /// Is it `archive-push`?
    pub archives_with_walpoint: bool,
    /// Whether what the server calls flushed has been told to the disk.
    pub has_fsync: bool,
    pub timeline: TimelineId,
    /// Where WAL is inserted next; `None` in recovery.
    pub position: Option<Lsn>,
    /// Files with a `.ready`.
    pub waiting: Waiting,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes that PostgreSQL can still write to the disk of `pg_wal`, where that can be seen.
    pub free_bytes: Option<u64>,
    /// Time of the first commit, abort, prepare or restore point in the oldest
    /// segment that the archive does not have.
    pub unarchived_since: Option<Timestamp>,
    /// Why a segment that the archive does not have could not be looked into.
    pub unseen: Option<String>,
    pub archiver: ArchiverStatistics,
}

/// WAL files that wait for the archiver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    pub count: u64,
    /// The one that waits longest, and since when.
    pub oldest: Option<(String, Timestamp)>,
}

/// What the archive holds from the last backup on.
#[derive(Debug, Clone, Default)]
pub struct ArchiveState {
    /// The newest backup on the way to the server's timeline, and the newest without damaged pages.
    pub last_backup: Option<KnownBackup>,
    pub last_good_backup: Option<KnownBackup>,
    /// Number of backups that are not on that way.
    pub off_the_way: usize,
    /// End of the newest segment of the server's timeline.
    pub archived_to: Option<Lsn>,
    pub gaps: Vec<Gap>,
    /// Segments behind the archive's end that the server has completed, oldest first.
    pub missing: Vec<MissingSegment>,
    /// The timeline that a restore takes when none is named.
    pub followed: Option<TimelineId>,
    pub damaged: Vec<Damage>,
    /// Names under which recovery finds two contents and no decision.
    pub ambiguous: Vec<String>,
    /// Names under which a second content was refused.
    pub refused: Vec<String>,
    /// Histories, summaries of backups and metadata of segments that are there and cannot be read: key
    /// and reason.
    pub unreadable: Vec<(String, String)>,
    /// Timelines of this cluster's history whose history file is missing.
    pub missing_histories: Vec<TimelineId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBackup {
    pub id: BackupId,
    /// When it was complete.
    pub stopped: Timestamp,
    pub damaged_pages: u64,
}

/// Segments that are missing, first to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub first: SegmentName,
    pub last: SegmentName,
    /// When the segment behind it arrived, if the store says so.
    pub followed_since: Option<Timestamp>,
}

/// A segment that the server has completed and the archive does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingSegment {
    pub name: SegmentName,
    pub missing: Missing,
}

/// What has become of it on the server. `written` is when its file was last
/// written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It waits for the archiver (`.ready`).
    Waits { written: Timestamp },
    /// PostgreSQL takes it for archived (`.done`), and it was ready since then.
    CalledArchived { written: Timestamp, since: Timestamp },
    /// PostgreSQL does not offer it to the archiver.
    NotOffered { written: Timestamp },
    /// `pg_wal` does not have it any more.
    Gone,
}

impl Missing {
    /// Will it not arrive by itself?
    pub fn is_lost(self) -> bool {
        !matches!(self, Missing::Waits { .. })
    }

    fn written(self) -> Option<Timestamp> {
        match self {
            Missing::Waits { written }
            | Missing::CalledArchived { written, .. }
            | Missing::NotOffered { written } => Some(written),
            Missing::Gone => None,
        }
    }
}

/// A segment whose WAL is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    pub segment: SegmentName,
    pub lsn: Lsn,
}

impl ServerState {
    /// A standby leaves archiving to its primary, whose WAL it replays, unless
    /// `archive_mode` is `always`.
    pub fn archives_itself(&self) -> bool {
        !self.is_in_recovery || self.archive_mode == "always"
    }
}

impl Snapshot {
    /// Age of the oldest WAL that is not in the archive; `None` when the
    /// server did not answer or is a standby, whose primary archives, and when
    /// nobody could look.
    pub fn lag(&self) -> Option<Duration> {
        let server = self.server.as_ref().ok()?;
        if !server.archives_itself() {
            return None;
        }
        let waiting = server.waiting.oldest.as_ref().map(|(_, since)| *since);
        let missing = self.archive.iter().flat_map(|archive| &archive.missing);
        let written = missing.filter_map(|it| it.missing.written());
        let oldest = waiting.into_iter().chain(server.unarchived_since).chain(written).min();
        match oldest {
            Some(since) => Some(age(self.now, since)),
            None => server.unseen.is_none().then_some(Duration::ZERO),
        }
    }

    /// When the disk of `pg_wal` is full if WAL comes on as it did since the oldest of what waits was ready, and
    /// none of it leaves. `None` while the archiver keeps up.
    pub fn full_in(&self) -> Option<Duration> {
        let server = self.server.as_ref().ok()?;
        let (_, since) = server.waiting.oldest.as_ref()?;
        let waited = age(self.now, *since);
        let waits = server.waiting.count.saturating_mul(server.segment_bytes);
        if waited < GROWING || waits == 0 {
            return None;
        }
        let per_byte = waited.as_secs_f64() / waits as f64;
        Duration::try_from_secs_f64(server.free_bytes? as f64 * per_byte).ok()
    }

    /// Bytes of WAL that the archive does not have.
    pub fn unarchived_bytes(&self) -> Option<u64> {
        let position = self.server.as_ref().ok()?.position?;
        let archived = self.archive.as_ref().ok()?.archived_to?;
        Some(position.0.saturating_sub(archived.0))
    }

    /// Age of the last backup without damaged pages.
    pub fn backup_age(&self) -> Option<Duration> {
        let archive = self.archive.as_ref().ok()?;
        archive.last_good_backup.as_ref().map(|backup| age(self.now, backup.stopped))
    }
}

/// Zero for a moment that lies in the future by a clock that differs.
pub(super) fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(now.0.saturating_sub(then.0)).unwrap_or(0))
}

#[cfg(test)]
mod tests;
