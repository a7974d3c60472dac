//! Turns the pages of consecutive segments into records: the one place that follows
//! `XLogDecodeNextRecord` (access/transam/xlogreader.c, 13–18). Survey and reader are
//! two ways of driving it.
//!
//! Covered by what it checks: every byte of every record (CRC), magic, flags, address
//! and timeline of every page, the length of what continues on it, and the zeros after
//! a switch. Not covered by anything: the flag `XLP_BKP_REMOVABLE` and the 4 bytes of
//! padding in page headers, the up to 7 bytes between records, and a timeline in the
//! first page that is lower than the name's (as it is after a fork).

mod pages;
mod records;

use crate::carry_over::CarryOver;
use crate::event::Event;
use crate::first_page::SegmentPlace;
use crate::halt::Halt;
use crate::lsn::Lsn;
use crate::page::PAGE_SIZE;
use crate::record::{ALIGNMENT, RecordHeader};
use crate::survey::Edge;
use crate::timeline::TimelineId;
use crate::unfinished::Unfinished;
use pages::after_switch;

/// Which records' bodies are put together when they span pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    /// Those that an event can be read from.
    Events,
    All,
}

/// A complete record whose header and CRC are right.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) lsn: Lsn,
    pub(crate) end: Lsn,
    pub(crate) header: RecordHeader,
    pub(crate) head: &'a [u8],
    /// What follows the header, unless it spanned pages and was not wanted.
    pub(crate) body: Option<&'a [u8]>,
}

/// What a segment has shown so far.
#[derive(Debug, Clone)]
pub(crate) struct Notes {
    pub(crate) edge: Edge,
    pub(crate) first_record: Option<Lsn>,
    pub(crate) first_prev: Option<Lsn>,
    pub(crate) last_start: Option<Lsn>,
    pub(crate) last_end: Lsn,
    pub(crate) switch: Option<Lsn>,
}

#[derive(Debug, Clone)]
enum State {
    /// Nothing is known of what was before this page.
    Unknown,
    /// Nothing before this record is to be looked at.
    Seeking(Lsn),
    /// The next page begins with a record.
    Between,
    /// The next page goes on with this record.
    Within(Unfinished),
    /// The next page goes on with a record whose beginning is not known.
    Skipping { rest: u32 },
    /// The rest of the segment must be zero.
    AfterSwitch,
}

/// Reads pages in order of address.
#[derive(Debug, Clone)]
pub(crate) struct RecordStream {
    place: SegmentPlace,
    bodies: Bodies,
    state: State,
    /// Start of the last complete record, where known.
    prev: Option<Lsn>,
    page_timeline: Option<TimelineId>,
    /// The next record must stand for one that was never completed, at this start where known.
    must_overwrite: Option<Option<Lsn>>,
    pub(crate) notes: Notes,
}

impl RecordStream {
    /// Begins with the segment at `place`, after what the carry-over says.
    pub(crate) fn new(place: SegmentPlace, bodies: Bodies, carry: Option<CarryOver>) -> RecordStream {
        let notes = Notes::new(&place);
        let mut stream = RecordStream {
            place,
            bodies,
            state: State::Unknown,
            prev: None,
            page_timeline: None,
            must_overwrite: None,
            notes,
        };
        if let Some(carry) = carry {
            stream.state = carry.unfinished.map_or(State::Between, State::Within);
            stream.prev = carry.prev;
            stream.page_timeline = Some(carry.page_timeline);
        }
        stream
    }

    /// Nothing before the record at `lsn` is looked at, except the segment's first header.
    pub(crate) fn seek(&mut self, lsn: Lsn) {
        self.state = State::Seeking(lsn);
    }

    /// Goes on with the next segment.
    pub(crate) fn enter_segment(&mut self, place: SegmentPlace) {
        self.notes = Notes::new(&place);
        self.place = place;
        if matches!(self.state, State::AfterSwitch) {
            self.state = State::Between;
        }
    }

    /// What the next segment needs to know; `None` when this one is not read to its end.
    pub(crate) fn carry_out(self) -> Option<CarryOver> {
        let unfinished = match self.state {
            State::Between | State::AfterSwitch => None,
            State::Within(record) => Some(record),
            State::Unknown | State::Seeking(_) | State::Skipping { .. } => return None,
        };
        Some(CarryOver {
            next_segment: self.place.number + 1,
            size: self.place.size,
            system_identifier: self.place.system_identifier,
            major: self.place.major,
            page_timeline: self.page_timeline?,
            prev: self.prev,
            unfinished,
        })
    }

    /// Reads one page of [`PAGE_SIZE`] bytes, hands each record that ends on it, and what it means, to `on`.
    pub(crate) fn page<F>(&mut self, at: Lsn, bytes: &[u8], on: &mut F) -> Result<(), Halt>
    where
        F: FnMut(&Found<'_>, Option<&Event>),
    {
        let page = Page { at, bytes };
        match self.state {
            State::AfterSwitch => return after_switch(page, 0),
            State::Seeking(lsn) if lsn >= page.address(PAGE_SIZE) => return Ok(()),
            _ => {}
        }
        let header = self.check_page(page).map_err(|reason| self.bad_page(at, reason))?;
        self.page_timeline = Some(header.timeline);
        let position = self.enter_page(page, &header, on)?;
        self.records(page, position, on)
    }

    /// Where damage to a record is said to be: not before the segment that is read.
    fn here(&self, record: Lsn) -> Lsn {
        record.max(self.place.start)
    }
}

/// A page and its address.
#[derive(Debug, Clone, Copy)]
struct Page<'a> {
    at: Lsn,
    bytes: &'a [u8],
}

impl<'a> Page<'a> {
    fn address(self, position: usize) -> Lsn {
        self.at.saturating_add(position as u64)
    }

    fn from(self, position: usize) -> &'a [u8] {
        self.bytes.get(position..).unwrap_or_default()
    }
}

impl Notes {
    fn new(place: &SegmentPlace) -> Notes {
        Notes {
            edge: Edge::Clean,
            first_record: None,
            first_prev: None,
            last_start: None,
            last_end: place.start,
            switch: None,
        }
    }
}

/// Added where a chain is broken between two segments.
const CHAIN_HINT: &str = ": it does not continue the segment before";

fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}
