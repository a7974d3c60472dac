//! What the metadata of a segment's object says: enough to plan a recovery to
//! a segment without reading, and without a key for, any content.

use walpoint_wal::{Edge, Ending, Lsn, RestorePoint, Survey, TimelineId, Timestamp};

use crate::facts::Common;
use crate::run_facts::RunFacts;

mod metadata;

/// Most restore points that are listed; of more only the number is kept.
pub const MAX_LISTED_POINTS: usize = 8;

/// Most bytes of metadata written. A little below what a store takes, to leave
/// room for a signature.
pub const MAX_METADATA_BYTES: usize = 1400;

/// What is known of a segment, or of a partial one.
#[derive(Clone, PartialEq, Debug)]
pub struct WalFacts {
    /// What all objects have.
    pub common: Common,
    /// The timeline in its name.
    pub timeline: TimelineId,
    /// False when the page magic is unknown (a newer PostgreSQL): then nothing
    /// below is known but the start and the end of the file.
    pub validated: bool,
    /// Page magic of the first page.
    pub page_magic: Option<u16>,
    /// Address of the first byte.
    pub start: Lsn,
    /// How far the WAL in it reaches: the end of the segment or, when it is open or
    /// damaged, the end of the last complete record.
    pub end: Lsn,
    /// The first record that starts here.
    pub first_record: Option<Lsn>,
    /// What that record says of the start of the record before it.
    pub first_prev: Option<Lsn>,
    /// The last record that starts here, whole or not.
    pub last_start: Option<Lsn>,
    /// How the WAL in it ends.
    pub ending: WalEnding,
    /// False when a record spans in whose beginning was not at hand, so that
    /// its checksum is not verified and what it did is not known.
    pub edge_checked: bool,
    /// Lowest time of the commit and abort records that end here.
    pub time_low: Option<Timestamp>,
    /// Highest time of these.
    pub time_high: Option<Timestamp>,
    /// Time of the first of these.
    pub time_first: Option<Timestamp>,
    /// Time of the last of these.
    pub time_last: Option<Timestamp>,
    /// Highest time that any record carries that ends here.
    pub time_known: Option<Timestamp>,
    /// Number of commits.
    pub commits: u64,
    /// Number of aborts.
    pub aborts: u64,
    /// Times that the clock went back by more than a second.
    pub steps_back: u64,
    /// Number of restore points.
    pub point_count: u64,
    /// The restore points; `None` when they were too many or too long to list.
    pub restore_points: Option<Vec<RestorePoint>>,
    /// Lowest and highest xid committed or aborted, subtransactions included.
    pub xids: Option<(u32, u32)>,
    /// A database or tablespace was made or dropped by file copy.
    pub file_copy: bool,
    /// The next xid (64 bits) as of the last checkpoint record in it.
    pub next_xid: Option<u64>,
    /// The run it belongs to; `None` when not validated.
    pub run: Option<RunFacts>,
}

/// How the WAL in a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalEnding {
    /// Records to the last byte.
    Full,
    /// `XLOG_SWITCH`; the rest is zero.
    Switched {
        /// Start of the switch record.
        at: Lsn,
    },
    /// Zeros without a switch: still being written when it was read.
    Open {
        /// Where the WAL ends.
        at: Lsn,
    },
    /// A record that is not valid.
    Damaged {
        /// Where.
        at: Lsn,
    },
    /// Nobody looked: the page magic is unknown.
    Unknown,
}

impl From<&Ending> for WalEnding {
    fn from(ending: &Ending) -> Self {
        match ending {
            Ending::Full => Self::Full,
            Ending::Switched { at } => Self::Switched { at: *at },
            Ending::Open { at } => Self::Open { at: *at },
            Ending::Damaged { at, .. } => Self::Damaged { at: *at },
        }
    }
}

impl WalFacts {
    /// The facts of a surveyed segment that continues `run`.
    pub fn of_survey(common: Common, survey: &Survey, run: RunFacts) -> Self {
        Self {
            common,
            timeline: survey.name.timeline,
            validated: true,
            page_magic: Some(survey.major.page_magic()),
            start: survey.start,
            end: survey.end,
            first_record: survey.first_record,
            first_prev: survey.first_prev,
            last_start: survey.last_start,
            ending: WalEnding::from(&survey.ending),
            edge_checked: !matches!(survey.edge, Edge::Unchecked { .. }),
            time_low: survey.times.map(|(low, _)| low),
            time_high: survey.times.map(|(_, high)| high),
            time_first: survey.first_time,
            time_last: survey.last_time,
            time_known: survey.known_time,
            commits: survey.commits,
            aborts: survey.aborts,
            steps_back: survey.steps_back,
            point_count: survey.restore_points.len() as u64,
            restore_points: Some(survey.restore_points.clone()),
            xids: survey.xids,
            file_copy: survey.file_copy,
            next_xid: survey.next_xid,
            run: Some(run),
        }
    }

    /// The facts of a segment whose page magic no one here knows.
    pub fn unvalidated(common: Common, timeline: TimelineId, start: Lsn, page_magic: u16) -> Self {
        Self {
            common,
            timeline,
            validated: false,
            page_magic: Some(page_magic),
            start,
            end: start.checked_add(common.plain_size).unwrap_or(start),
            first_record: None,
            first_prev: None,
            last_start: None,
            ending: WalEnding::Unknown,
            edge_checked: false,
            time_low: None,
            time_high: None,
            time_first: None,
            time_last: None,
            time_known: None,
            commits: 0,
            aborts: 0,
            steps_back: 0,
            point_count: 0,
            restore_points: None,
            xids: None,
            file_copy: false,
            next_xid: None,
            run: None,
        }
    }

    /// Where it is damaged, if it is.
    pub fn damaged_at(&self) -> Option<Lsn> {
        match self.ending {
            WalEnding::Damaged { at } => Some(at),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "wal_facts/tests.rs"]
pub(crate) mod tests;
