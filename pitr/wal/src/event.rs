//! What a record means for recovery.

use crate::fields::{u8_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::record::{
    RM_DATABASE, RM_TABLESPACE, RM_XACT, RM_XLOG, Record, RecordError, RecordHeader, XLOG_SWITCH, main_data,
};
use crate::timeline::TimelineId;
use crate::timestamp::Timestamp;
use crate::transaction;
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
    pub fn event(&self) -> Result<Option<Event>, RecordError> {
        decode_event(&self.header(), self.body(), self.major)
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

/// `xl_info` of the XLOG resource manager (catalog/pg_control.h, 13–18).
const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const BACKUP_END: u8 = 0x50;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// `XLOG_DBASE_CREATE` of 13 and 14, `XLOG_DBASE_CREATE_FILE_COPY` of 15 and later
/// (commands/dbcommands_xlog.h).
const DATABASE_CREATE_FILE_COPY: u8 = 0x00;
/// `XLOG_TBLSPC_CREATE` (commands/tablespace.h).
const TABLESPACE_CREATE: u8 = 0x00;

/// Can an event be read from this record? Its body is needed only then.
pub(crate) fn carries_event(header: &RecordHeader) -> bool {
    let operation = header.operation();
    match header.rmid {
        RM_XACT => transaction::carries_event(operation),
        RM_DATABASE => operation == DATABASE_CREATE_FILE_COPY,
        RM_TABLESPACE => operation == TABLESPACE_CREATE,
        RM_XLOG => matches!(
            operation,
            CHECKPOINT_SHUTDOWN
                | CHECKPOINT_ONLINE
                | XLOG_SWITCH
                | BACKUP_END
                | PARAMETER_CHANGE
                | RESTORE_POINT
                | END_OF_RECOVERY
                | OVERWRITE_CONTRECORD
        ),
        _ => false,
    }
}

/// Reads the event from a record's body (what follows its header).
pub(crate) fn decode_event(
    header: &RecordHeader,
    body: &[u8],
    major: Major,
) -> Result<Option<Event>, RecordError> {
    if !carries_event(header) {
        return Ok(None);
    }
    let data = main_data(body, major)?;
    match header.rmid {
        RM_XACT => transaction::decode(header, data, major).map(Some),
        RM_XLOG => decode_xlog(header.operation(), data).map(Some),
        _ => Ok(Some(Event::FileCopy)),
    }
}

fn decode_xlog(operation: u8, data: &[u8]) -> Result<Event, RecordError> {
    let address = |at| u64_at(data, at).map(Lsn);
    let moment = |at| u64_at(data, at).map(|micros| Timestamp(micros as i64));
    let (event, what) = match operation {
        XLOG_SWITCH => (Some(Event::Switch), "switch"),
        CHECKPOINT_SHUTDOWN => (checkpoint(data, true), "checkpoint"),
        CHECKPOINT_ONLINE => (checkpoint(data, false), "checkpoint"),
        BACKUP_END => (address(0).map(|start| Event::BackupEnd { start }), "backup end"),
        PARAMETER_CHANGE => (parameter_change(data), "parameter change"),
        RESTORE_POINT => (restore_point(data), "restore point"),
        END_OF_RECOVERY => (end_of_recovery(data), "end of recovery"),
        _ => {
            let event = address(0).zip(moment(8));
            let event = event.map(|(overwritten, time)| Event::OverwriteContrecord { overwritten, time });
            (event, "overwritten record")
        }
    };
    event.ok_or(RecordError::MainData(what))
}

/// `CheckPoint` (catalog/pg_control.h): these fields lie in the same places in 13–18.
fn checkpoint(data: &[u8], shutdown: bool) -> Option<Event> {
    Some(Event::Checkpoint {
        shutdown,
        redo: Lsn(u64_at(data, 0)?),
        timeline: TimelineId::new(u32_at(data, 8)?)?,
        previous_timeline: TimelineId::new(u32_at(data, 12)?)?,
        next_xid: u64_at(data, 24)?,
        time: Timestamp::from_unix_seconds(u64_at(data, 64)? as i64),
    })
}

/// `xl_restore_point`: time, then the name, ended by a zero byte, in 64 bytes.
fn restore_point(data: &[u8]) -> Option<Event> {
    let time = Timestamp(u64_at(data, 0)? as i64);
    let name = data.get(8..72)?.split(|&byte| byte == 0).next()?;
    Some(Event::RestorePoint { name: String::from_utf8_lossy(name).into_owned(), time })
}

/// `xl_end_of_recovery`; 17 added the WAL level at its end.
fn end_of_recovery(data: &[u8]) -> Option<Event> {
    Some(Event::EndOfRecovery {
        time: Timestamp(u64_at(data, 0)? as i64),
        timeline: TimelineId::new(u32_at(data, 8)?)?,
        previous_timeline: TimelineId::new(u32_at(data, 12)?)?,
    })
}

fn parameter_change(data: &[u8]) -> Option<Event> {
    let number = |at| u32_at(data, at).map(|value| value as i32);
    Some(Event::ParameterChange(ParameterChange {
        max_connections: number(0)?,
        max_worker_processes: number(4)?,
        max_wal_senders: number(8)?,
        max_prepared_xacts: number(12)?,
        max_locks_per_xact: number(16)?,
        wal_level: number(20)?,
        wal_log_hints: u8_at(data, 24)? != 0,
        track_commit_timestamp: u8_at(data, 25)? != 0,
    }))
}
