//! Is this cluster protected? A judgement over a snapshot: pure, so that
//! every threshold can be tried on both sides.
//!
//! **Lag** is the age of the oldest WAL that is not in the archive, 0 when
//! there is none. Two things count, the older one: a file that waits for the
//! archiver (its `.ready`), from the moment it became ready; and the first
//! commit, abort, prepare or restore point of the oldest segment outside the
//! archive, be it waiting or still being written, from its own time. WAL that
//! an idle server writes for itself (checkpoints, running transactions) holds
//! nothing to lose and never makes it late.

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
    pub archive_mode: String,
    /// Is there an `archive_command` or `archive_library`?
    pub has_archiver: bool,
    pub timeline: TimelineId,
    /// Where WAL is inserted next; `None` in recovery.
    pub position: Option<Lsn>,
    /// Files with a `.ready`.
    pub waiting: Waiting,
    /// Time of the first commit, abort, prepare or restore point in the oldest
    /// segment that the archive does not have.
    pub unarchived_since: Option<Timestamp>,
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
    /// The newest backup of all, and the newest without damaged pages.
    pub last_backup: Option<KnownBackup>,
    pub last_good_backup: Option<KnownBackup>,
    /// End of the newest segment of the server's timeline.
    pub archived_to: Option<Lsn>,
    pub gaps: Vec<Gap>,
    pub damaged: Vec<Damage>,
    /// Names under which recovery finds two contents and no decision.
    pub ambiguous: Vec<String>,
    /// Names under which a second content was refused.
    pub refused: Vec<String>,
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

/// A segment whose WAL is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    pub segment: SegmentName,
    pub lsn: Lsn,
}

impl Snapshot {
    /// Age of the oldest WAL that is not in the archive; `None` when the
    /// server did not answer or is a standby, whose primary archives.
    pub fn lag(&self) -> Option<Duration> {
        let server = self.server.as_ref().ok()?;
        if server.is_in_recovery && server.archive_mode != "always" {
            return None;
        }
        let waiting = server.waiting.oldest.as_ref().map(|(_, since)| *since);
        let oldest = waiting.into_iter().chain(server.unarchived_since).min();
        Some(oldest.map_or(Duration::ZERO, |since| age(self.now, since)))
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
