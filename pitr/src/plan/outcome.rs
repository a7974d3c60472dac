//! What planning comes to.

use serde::Serialize;
use walpoint_archive::verification::ReadSpeed;
use walpoint_archive::{ArchiveError, BackupId, BackupSummary};
use walpoint_wal::{Lsn, PathStep, SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp};

use crate::locate::{CommitPoint, Prepared};
use crate::target::{Target, TargetError};

/// A plan, or why there is none. Both are answers; only [`PlanError`] is a failure.
#[derive(Debug, Clone)]
pub enum PlanOutcome {
    /// Everything that the recovery needs is in the archive.
    Reachable(Box<RecoveryPlan>),
    /// The target cannot be reached.
    Unreachable(Unreachable),
}

/// All that a recovery needs to know.
#[derive(Debug, Clone)]
pub struct RecoveryPlan {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Size of its WAL segments.
    pub segment_size: SegmentSize,
    /// The base backup to begin with.
    pub backup: BackupSummary,
    /// Why this one.
    pub why_backup: String,
    /// Path of [`RecoveryPlan::timeline`], oldest step first.
    pub path: Vec<PathStep>,
    /// The timeline to hand to PostgreSQL (`recovery_target_timeline`).
    pub timeline: TimelineId,
    /// The timeline that the last record is on: this one or an ancestor of it.
    pub record_timeline: TimelineId,
    /// Start of the last record to replay (`recovery_target_lsn`, inclusive).
    pub last_record: Lsn,
    /// Where that record ends.
    pub last_record_end: Lsn,
    /// The WAL to replay.
    pub segments: Segments,
    /// The last commit that will be there.
    pub last_included: Option<CommitPoint>,
    /// The first commit that will not.
    pub first_excluded: Option<CommitPoint>,
    /// Prepared transactions that will be open.
    pub prepared_open: Vec<Prepared>,
    /// Bytes to fetch in all: the backup's and the WAL's, as stored.
    pub bytes_to_fetch: u64,
    /// How fast this archive was read when that was last measured.
    pub measured: Option<ReadSpeed>,
    /// What was asked for.
    pub target: Target,
    /// Whether what the target names was to be left out.
    pub exclusive: bool,
    /// What could go wrong at this recovery.
    pub warnings: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// What planning by metadata comes to.
#[derive(Debug, Clone)]
pub enum SegmentOutcome {
    /// Everything that the recovery needs is in the archive.
    Reachable(Box<SegmentPlan>),
    /// The target cannot be reached.
    Unreachable(Unreachable),
}

/// A plan that names segments and no record, so that nothing can be restored by it.
#[derive(Debug, Clone)]
pub struct SegmentPlan(pub(crate) RecoveryPlan);

impl SegmentPlan {
    /// The plan. What it says of the last record is a bound; of commits and of prepared
    /// transactions it says nothing. The last segment is the one where the LSN lies; the
    /// record there may end in the next one, which is in the archive then.
    pub fn bounds(&self) -> &RecoveryPlan {
        &self.0
    }

    /// To add warnings and notes to.
    pub fn bounds_mut(&mut self) -> &mut RecoveryPlan {
        &mut self.0
    }
}

/// The segments that a recovery replays, without a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Segments {
    /// Holds the backup's redo position.
    pub first: SegmentName,
    /// Holds the last byte of the last record.
    pub last: SegmentName,
    /// How many.
    pub count: u64,
    /// Their size as stored.
    pub bytes: u64,
}

/// A point that can be reached. Its LSN can be given as `--target-lsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// Where.
    pub lsn: Lsn,
    /// When, where the WAL or the backup says so.
    pub time: Option<Timestamp>,
}

/// What can be reached instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Nearest {
    /// The last point before the target.
    pub before: Option<Moment>,
    /// The first point after it.
    pub after: Option<Moment>,
}

/// Why a target cannot be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// One sentence without a full stop.
    pub reason: String,
    /// What can be reached instead.
    pub nearest: Nearest,
    /// The next step.
    pub hint: Option<String>,
    /// The records that the target can mean, when it can mean several.
    pub candidates: Vec<Candidate>,
}

/// One of several records that a target can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Start of the record.
    pub lsn: Lsn,
    /// What it says.
    pub time: Option<Timestamp>,
    /// Its transaction, when it is one's end.
    pub xid: Option<u32>,
    /// The timeline it is on.
    pub timeline: TimelineId,
}

/// Planning itself failed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Wrong usage.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Wrong usage: the archive has no such backup, or it is not complete.
    #[error("could not plan with backup \"{backup}\": the archive has no such backup; {there}")]
    UnknownBackup {
        /// As asked for.
        backup: BackupId,
        /// What there is, in words.
        there: String,
    },
    /// Wrong usage: neither a history nor WAL nor a backup of that timeline.
    #[error("could not plan on timeline {timeline}: the archive knows no such timeline; {there}")]
    UnknownTimeline {
        /// As asked for.
        timeline: TimelineId,
        /// What there is, in words.
        there: String,
    },
    /// What metadata show does not decide it, and the WAL is encrypted.
    #[error("could not plan to {target} without the key: {why}")]
    NeedsKey {
        /// What was asked for.
        target: Target,
        /// What is not known, in words.
        why: String,
    },
    /// The archive could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}
