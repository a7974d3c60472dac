//! What a record means for recovery.

use crate::lsn::Lsn;
use crate::record::{Record, RecordError};
use crate::timeline::TimelineId;
use crate::timestamp::Timestamp;
use crate::version::Major;

/// A record that recovery, or planning one, takes notice of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A transaction committed.
    Commit {
        /// Its top-level transaction; for `COMMIT PREPARED` the one that was prepared.
        xid: u32,
        /// When.
        time: Timestamp,
        /// Its subtransactions, which have no commit record of their own.
        subxids: Vec<u32>,
        /// `COMMIT PREPARED`.
        prepared: bool,
    },
    /// A transaction or, by `ROLLBACK TO SAVEPOINT`, a subtransaction was rolled back.
    Abort {
        /// For `ROLLBACK PREPARED` the transaction that was prepared.
        xid: u32,
        /// When.
        time: Timestamp,
        /// Its subtransactions.
        subxids: Vec<u32>,
        /// `ROLLBACK PREPARED`.
        prepared: bool,
    },
    /// `PREPARE TRANSACTION`.
    Prepare {
        /// The transaction.
        xid: u32,
        /// Its name; `None` when it is not UTF-8.
        gid: Option<String>,
        /// When.
        time: Timestamp,
        /// Its subtransactions.
        subxids: Vec<u32>,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        /// Its name; bytes that are not UTF-8 are replaced.
        name: String,
        /// When.
        time: Timestamp,
    },
    /// A checkpoint's record, written at its end.
    Checkpoint {
        /// The server stopped after it, or changed its timeline.
        shutdown: bool,
        /// Where replay from it begins.
        redo: Lsn,
        /// Its timeline.
        timeline: TimelineId,
        /// Another one when this record begins a timeline.
        previous_timeline: TimelineId,
        /// Next transaction, with its epoch in the high half.
        next_xid: u64,
        /// When it began; `None` when the number is out of range.
        time: Option<Timestamp>,
    },
    /// A base backup ended here.
    BackupEnd {
        /// Where replay from the backup begins.
        start: Lsn,
    },
    /// A promoted server's first record, where it made no checkpoint first.
    EndOfRecovery {
        /// When.
        time: Timestamp,
        /// The new timeline.
        timeline: TimelineId,
        /// The one that was left.
        previous_timeline: TimelineId,
    },
    /// Settings that a standby must match changed.
    ParameterChange(ParameterChange),
    /// The rest of the segment is unused.
    Switch,
    /// Stands where the rest of a record should be that was never completed.
    OverwriteContrecord {
        /// Start of the record that was not completed.
        overwritten: Lsn,
        /// When.
        time: Timestamp,
    },
    /// A database or tablespace was made by copying files: their pages are older than this.
    FileCopy,
}

/// `xl_parameter_change` (access/xlog_internal.h; the same in 13–18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are PostgreSQL's settings, name by name")]
pub struct ParameterChange {
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_xacts: i32,
    pub max_locks_per_xact: i32,
    /// 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    pub wal_log_hints: bool,
    pub track_commit_timestamp: bool,
}

impl Record {
    /// What the record means for recovery; `None` for the many that only change pages.
    pub fn event(&self, _major: Major) -> Result<Option<Event>, RecordError> {
        todo!()
    }
}

impl Event {
    /// Transaction, time and whether it committed, for what a recovery target looks at.
    pub fn ends_transaction(&self) -> Option<(u32, Timestamp, bool)> {
        match *self {
            Event::Commit { xid, time, .. } => Some((xid, time, true)),
            Event::Abort { xid, time, .. } => Some((xid, time, false)),
            _ => None,
        }
    }

    /// The time that the record carries, of whatever kind.
    pub fn time(&self) -> Option<Timestamp> {
        match *self {
            Event::Commit { time, .. }
            | Event::Abort { time, .. }
            | Event::Prepare { time, .. }
            | Event::RestorePoint { time, .. }
            | Event::EndOfRecovery { time, .. }
            | Event::OverwriteContrecord { time, .. } => Some(time),
            Event::Checkpoint { time, .. } => time,
            Event::BackupEnd { .. } | Event::ParameterChange(_) | Event::Switch | Event::FileCopy => None,
        }
    }
}
