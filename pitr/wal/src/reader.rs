//! Pulls records out of consecutive segments.

use crate::carry_over::CarryOver;
use crate::lsn::Lsn;
use crate::record::Record;
use crate::segment::{SegmentName, SegmentSize};
use crate::system_identifier::SystemIdentifier;
use crate::version::Major;

/// Where and with what knowledge reading starts.
#[derive(Debug, Clone)]
pub struct ReaderStart {
    /// Segment size of the cluster.
    pub size: SegmentSize,
    /// Segments of another cluster are refused, when given.
    pub system_identifier: Option<SystemIdentifier>,
    /// How the segment before the first one ended, where known.
    pub carry: Option<CarryOver>,
    /// The first record wanted.
    pub at: Start,
}

/// Where reading starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the first segment fed. The rest of a record that spans in is skipped when
    /// there is no carry-over.
    SegmentStart,
    /// At this record; earlier ones in the segment are not looked at.
    Record(Lsn),
}

/// What the reader came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The next record.
    Record(Record),
    /// Nothing more until this segment (counted from the beginning of WAL) is fed.
    NeedSegment(u64),
    /// WAL ends here: zeros, or in an open segment anything that is no record.
    EndOfWal {
        /// Where the next record would have started.
        at: Lsn,
    },
}

/// The WAL is damaged, or a segment does not belong here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read WAL at {at}: {reason}")]
pub struct ReadError {
    /// Where.
    pub at: Lsn,
    /// What is wrong.
    pub reason: String,
}

/// Reads records, checking every page header, CRC and previous-record pointer.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// A reader that has no segment yet.
    pub fn new(_start: ReaderStart) -> Reader {
        todo!()
    }

    /// Hands over the next whole segment: the one that [`Step::NeedSegment`] named.
    pub fn feed(&mut self, _name: SegmentName, _bytes: Vec<u8>) -> Result<(), ReadError> {
        todo!()
    }

    /// Hands over a segment that is not filled to its end: a `.partial` or a live tail,
    /// also shorter than a segment. What is no record in it ends the WAL and is no damage.
    pub fn feed_open(&mut self, _name: SegmentName, _bytes: Vec<u8>) -> Result<(), ReadError> {
        todo!()
    }

    /// The next record, or what is missing to have it.
    #[allow(clippy::should_implement_trait, reason = "it can fail and go on, an iterator cannot")]
    pub fn next(&mut self) -> Result<Step, ReadError> {
        todo!()
    }

    /// Which PostgreSQL wrote the WAL; known once a segment was fed.
    pub fn major(&self) -> Option<Major> {
        todo!()
    }
}
