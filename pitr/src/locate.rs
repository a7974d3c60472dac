//! Which record of the WAL a target means: the only part of planning whose reads depend
//! on what was read before.
//!
//! The rules are PostgreSQL's own (`recoveryStopsBefore`, `recoveryStopsAfter`,
//! access/transam/xlogrecovery.c, 13–18), brought to one form: the last record to replay.
//! They are applied to the WAL of the path as it is, not to what one backup would replay,
//! so that a target means the same record whichever backup serves.

mod by_metadata;
mod chain;
mod name;
mod scan;
mod search;
mod source;
mod steps;
mod targets;
mod times;
mod xid;

use serde::Serialize;
use walpoint_wal::{Lsn, TimelineId, Timestamp};

use crate::plan::Candidate;

pub(crate) use by_metadata::{Bounds, Shown, show};
pub(crate) use chain::{Chain, ChainEnd, Content, chains};
pub(crate) use scan::{EventAt, PathWal, Scan, Spot};
pub(crate) use search::Search;
pub(crate) use source::WalSource;
pub(crate) use targets::{Finder, find};

/// A transaction's end in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CommitPoint {
    /// Its top-level number; of a prepared transaction the number it was prepared under.
    pub xid: u32,
    /// Start of the record, as `pg_waldump` prints it.
    pub lsn: Lsn,
    /// What the record says; clocks can have been wrong.
    pub time: Timestamp,
}

/// A transaction that was prepared and, at the target, neither committed nor rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prepared {
    /// Its number.
    pub xid: u32,
    /// The name it was prepared under, where it can be read.
    pub gid: Option<String>,
    /// Start of the `PREPARE` record.
    pub lsn: Lsn,
}

/// The end of a recovery, as a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The timeline that the record is on.
    pub timeline: TimelineId,
    /// Start of the last record to replay.
    pub last_record: Lsn,
    /// Where that record ends.
    pub last_record_end: Lsn,
    /// The last commit that will be there, where the WAL that has it is in the archive.
    pub last_included: Option<CommitPoint>,
    /// The first commit that will not, as far as the WAL goes on without a break.
    pub first_excluded: Option<CommitPoint>,
}

/// Which commits and aborts a target time leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Past {
    /// The target time.
    pub target: Timestamp,
    /// Those at exactly that time too.
    pub exclusive: bool,
}

impl Past {
    /// Whether a commit or abort at `time` is left out.
    pub fn excludes(&self, time: Timestamp) -> bool {
        time > self.target || (self.exclusive && time == self.target)
    }
}

/// What looking for a target came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sought {
    /// The last record to replay.
    Found(Hit),
    /// There is no such record, or there are several.
    Missing(Missing),
}

/// The last record to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    /// Number of the chain that it lies in.
    pub chain: usize,
    /// Where it lies.
    pub last: Spot,
}

/// Why there is no record to recover to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// One sentence without a full stop.
    pub reason: String,
    /// Where the target would lie, as far as that can be said.
    pub near: Option<Lsn>,
    /// The next step.
    pub hint: Option<String>,
    /// What it can mean.
    pub candidates: Vec<Candidate>,
}
