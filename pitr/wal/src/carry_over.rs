//! What reading one segment leaves for the next.

use crate::first_page::SegmentPlace;
use crate::lsn::Lsn;
use crate::page::PAGE_SIZE;
use crate::segment::{SegmentName, SegmentSize};
use crate::stream::{Bodies, RecordStream};
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::unfinished::Unfinished;
use crate::version::Major;

/// State at the end of a segment: the last record's start, for the chain of
/// previous-record pointers, and the beginning of a record that spans into the next
/// segment. Lives in memory only; its size is a few hundred bytes, more only while a
/// record is unfinished whose content must be looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarryOver {
    pub(crate) next_segment: u64,
    pub(crate) size: SegmentSize,
    pub(crate) system_identifier: SystemIdentifier,
    pub(crate) major: Major,
    pub(crate) page_timeline: TimelineId,
    /// Start of the last complete record.
    pub(crate) prev: Option<Lsn>,
    pub(crate) unfinished: Option<Unfinished>,
}

impl CarryOver {
    /// What a whole segment leaves for the next one, out of its first page and its last pages:
    /// `tail` begins with any page and goes to the segment's end. `None` when that cannot be told
    /// from so little, or what is there is not sound.
    pub fn of_tail(name: SegmentName, first_page: &[u8], tail: &[u8]) -> Option<CarryOver> {
        let place = SegmentPlace::read(name, first_page, None).ok()?;
        let (pages, rest) = tail.as_chunks::<PAGE_SIZE>();
        if !rest.is_empty() {
            return None;
        }
        let skipped = place.size.bytes().checked_sub(u64::try_from(tail.len()).ok()?)?;
        let mut at = place.start.checked_add(skipped)?;
        let mut stream = RecordStream::new(place, Bodies::Events, None);
        for page in pages {
            stream.page(at, page, &mut |_, _| {}).ok()?;
            at = at.saturating_add(PAGE_SIZE as u64);
        }
        // Without a record before it, the next one could not be seen to follow.
        stream.carry_out().filter(|carry| carry.prev.is_some())
    }

    /// The segment that it is for, counted from the beginning of WAL.
    pub fn next_segment(&self) -> u64 {
        self.next_segment
    }

    /// Start of the last record that starts before that segment.
    pub fn last_start(&self) -> Option<Lsn> {
        self.unfinished.as_ref().map(|record| record.start).or(self.prev)
    }

    /// Bytes of a record that spans into that segment, 0 when none does.
    pub fn record_rest(&self) -> u32 {
        self.unfinished.as_ref().map_or(0, Unfinished::rest)
    }
}

/// What is known of the segment before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carry {
    /// Nothing: a record that spans in cannot be checked.
    Unknown,
    /// How it ended. One that is not of the segment directly before, or of another
    /// cluster, counts as unknown.
    Known(CarryOver),
}

impl Carry {
    /// The carry-over, when it is for this segment.
    pub(crate) fn for_segment(
        self,
        number: u64,
        size: SegmentSize,
        of: SystemIdentifier,
    ) -> Option<CarryOver> {
        let Carry::Known(carry) = self else { return None };
        let fits = carry.next_segment == number && carry.size == size && carry.system_identifier == of;
        if fits { Some(carry) } else { None }
    }
}
