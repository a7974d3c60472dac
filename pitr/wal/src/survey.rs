//! What one pass over a segment finds out: is it valid, and what is in it?
//! [`crate::Surveyor`] makes it.

use crate::carry_over::{Carry, CarryOver};
use crate::lsn::Lsn;
use crate::segment::{SegmentName, SegmentSize};
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::timestamp::Timestamp;
use crate::version::Major;

/// How far a commit or abort time must fall below the one before it to count as the
/// clock having been set back, in microseconds. Times are taken before the record is
/// placed, so concurrent transactions fall back by less all the time.
pub const STEP_BACK_MICROS: i64 = 1_000_000;

/// Which file is looked at.
#[derive(Debug, Clone)]
pub struct SurveyOf {
    /// The name it has.
    pub name: SegmentName,
    /// It is a `.partial`: valid up to the first byte that is not.
    pub partial: bool,
    /// Bytes in it.
    pub file_size: u64,
    /// The cluster it should belong to.
    pub expected: Option<SystemIdentifier>,
    /// What is known of the segment before.
    pub carry: Carry,
}

/// What a segment holds. A record belongs to the segment where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    /// Name of the file.
    pub name: SegmentName,
    /// Version that wrote it.
    pub major: Major,
    /// Cluster that wrote it.
    pub system_identifier: SystemIdentifier,
    /// Segment size of that cluster.
    pub segment_size: SegmentSize,
    /// Timeline in the header of the first page: in the first segment after a fork the parent's.
    pub first_page_timeline: TimelineId,
    /// Address of the segment.
    pub start: Lsn,
    /// How far the WAL in it reaches: the end of the segment or, when it is open or
    /// damaged, the end of the last complete record.
    pub end: Lsn,
    /// First record that starts here.
    pub first_record: Option<Lsn>,
    /// That record's pointer to the record before it.
    pub first_prev: Option<Lsn>,
    /// When that record stands for the rest of one that was never completed: the start of that one.
    pub overwrites: Option<Lsn>,
    /// Start of the last record that starts here, complete or not.
    pub last_start: Option<Lsn>,
    /// Start of the last record that ends here.
    pub last_complete: Option<Lsn>,
    /// How it ends.
    pub ending: Ending,
    /// What became of the record that spans in.
    pub edge: Edge,
    /// Lowest and highest time of commits and aborts.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Time of the first commit or abort in order of address.
    pub first_time: Option<Timestamp>,
    /// Time of the last one.
    pub last_time: Option<Timestamp>,
    /// Highest time of any record.
    pub known_time: Option<Timestamp>,
    /// Number of commits.
    pub commits: u64,
    /// Number of aborts.
    pub aborts: u64,
    /// Number of `PREPARE TRANSACTION`s.
    pub prepares: u64,
    /// How often settings changed that a standby must match (`XLOG_PARAMETER_CHANGE`).
    pub parameter_changes: u64,
    /// How often a commit or abort lies more than [`STEP_BACK_MICROS`] below the one before it.
    pub steps_back: u64,
    /// Restore points, in order of address.
    pub restore_points: Vec<RestorePoint>,
    /// Lowest and highest transaction of commits and aborts, subtransactions included, as plain numbers.
    pub xids: Option<(u32, u32)>,
    /// A database or tablespace was made by copying files.
    pub file_copy: bool,
    /// Next transaction by the last checkpoint, with its epoch in the high half.
    pub next_xid: Option<u64>,
    /// For the next segment; `None` when how this one ends is not known.
    pub carry_out: Option<CarryOver>,
}

/// A named place to recover to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePoint {
    /// Its name.
    pub name: String,
    /// Start of its record.
    pub lsn: Lsn,
    /// When it was made.
    pub time: Timestamp,
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// WAL to the last byte.
    Full,
    /// A switch record, then zeros.
    Switched {
        /// Start of the switch record.
        at: Lsn,
    },
    /// Zeros without a switch or, in a `.partial`, anything that is no record.
    Open {
        /// Where the WAL ends: the first record that is not complete would start here.
        at: Lsn,
    },
    /// A record or page that cannot be right.
    Damaged {
        /// Where.
        at: Lsn,
        /// What is wrong with it.
        reason: String,
    },
}

/// What became of a record that spans into the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// There is none.
    Clean,
    /// It was checked with the carry-over from the segment before.
    Checked,
    /// Its beginning is not known, so its CRC was not checked.
    Unchecked {
        /// How many of its bytes are in this segment and later ones.
        record_rest: u32,
    },
}

/// The file is not the segment it is said to be. Nothing of it should be archived under this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SurveyError {
    /// It belongs to another cluster.
    #[error("the file belongs to system identifier {found}, the cluster's is {expected}")]
    WrongCluster {
        /// The cluster's.
        expected: SystemIdentifier,
        /// In the file.
        found: SystemIdentifier,
    },
    /// Its first page belongs to another segment.
    #[error("the file is named {name}, its first page is of timeline {header_timeline} at {header_address}")]
    NameContradicted {
        /// Name of the file.
        name: SegmentName,
        /// Timeline in the header.
        header_timeline: TimelineId,
        /// Address in the header.
        header_address: Lsn,
    },
    /// It has another size than its header says, or than was announced.
    #[error("the file has {found} bytes, {expected} are expected")]
    WrongSize {
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// It is no WAL at all.
    #[error("the file is not a WAL segment: {reason}")]
    NotWal {
        /// Why.
        reason: String,
    },
    /// WAL of a PostgreSQL version that this program does not know.
    #[error("the file is WAL of an unknown PostgreSQL version (page magic {0:04X})")]
    UnknownMagic(u16),
    /// Its header is right and its pages have another size than those this program reads.
    #[error("the file is WAL in pages of {bytes} bytes, not of 8192")]
    UnknownPageSize {
        /// Bytes in a page, as the header says.
        bytes: u32,
        /// Magic of the first page.
        magic: u16,
    },
}
