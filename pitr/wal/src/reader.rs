//! Pulls records out of consecutive segments.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::carry_over::{Carry, CarryOver};
use crate::first_page::SegmentPlace;
use crate::halt::Halt;
use crate::lsn::Lsn;
use crate::page::PAGE_SIZE;
use crate::record::{Record, RecordHeader};
use crate::segment::{SegmentName, SegmentSize};
use crate::stream::{Bodies, Found, RecordStream};
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
    /// At this record; earlier ones in the segment are not looked at, and a carry-over
    /// is not used.
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
///
/// Shares the segment that was fed, and holds the records of one page and a record that
/// spans pages. After an error or the end of WAL it says the same again for ever.
#[derive(Debug)]
pub struct Reader {
    start: ReaderStart,
    bodies: Bodies,
    stream: Option<RecordStream>,
    segment: Option<Fed>,
    ready: VecDeque<Record>,
    next_segment: Option<u64>,
    major: Option<Major>,
    ended: Option<Result<Lsn, ReadError>>,
}

/// A segment being read.
#[derive(Debug)]
struct Fed {
    bytes: Arc<Vec<u8>>,
    first: Lsn,
    pages: usize,
    next_page: usize,
    open: bool,
}

impl Reader {
    /// A reader that has no segment yet.
    pub fn new(start: ReaderStart) -> Reader {
        let next_segment = match start.at {
            Start::Record(lsn) => Some(lsn.segment_number(start.size)),
            Start::SegmentStart => start.carry.as_ref().map(CarryOver::next_segment),
        };
        Reader {
            start,
            bodies: Bodies::Events,
            stream: None,
            segment: None,
            ready: VecDeque::new(),
            next_segment,
            major: None,
            ended: None,
        }
    }

    /// Puts together the bodies of all records that span pages, not only of those that
    /// carry an [`crate::Event`]. One record can be as large as 1020 MiB.
    pub fn keeping_all_bodies(mut self) -> Reader {
        self.bodies = Bodies::All;
        self
    }

    /// Which PostgreSQL wrote the WAL; known once a segment was fed.
    pub fn major(&self) -> Option<Major> {
        self.major
    }

    /// Hands over the next whole segment: the one that [`Step::NeedSegment`] named, of
    /// the same timeline or a later one.
    pub fn feed(&mut self, name: SegmentName, bytes: impl Into<Arc<Vec<u8>>>) -> Result<(), ReadError> {
        self.take_segment(name, bytes.into(), false)
    }

    /// Hands over a segment that is not filled to its end: a `.partial` or a live tail,
    /// also shorter than a segment. What is no record in it ends the WAL and is no damage.
    pub fn feed_open(&mut self, name: SegmentName, bytes: impl Into<Arc<Vec<u8>>>) -> Result<(), ReadError> {
        self.take_segment(name, bytes.into(), true)
    }

    /// The next record, or what is missing to have it. Before the first segment of a
    /// reader that begins anywhere, `NeedSegment` says 0.
    #[allow(clippy::should_implement_trait, reason = "it can ask for more and go on, an iterator cannot")]
    pub fn next(&mut self) -> Result<Step, ReadError> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Step::Record(record));
            }
            match &self.ended {
                Some(Ok(at)) => return Ok(Step::EndOfWal { at: *at }),
                Some(Err(error)) => return Err(error.clone()),
                None => {}
            }
            if !self.read_page() {
                return Ok(Step::NeedSegment(self.next_segment.unwrap_or_default()));
            }
        }
    }

    fn take_segment(
        &mut self,
        name: SegmentName,
        mut bytes: Arc<Vec<u8>>,
        open: bool,
    ) -> Result<(), ReadError> {
        let place = self.place(name, &bytes, open)?;
        // The rest of a page that was not written yet reads as zeros, like that of a file.
        if !bytes.len().is_multiple_of(PAGE_SIZE) {
            let whole_pages = bytes.len().next_multiple_of(PAGE_SIZE);
            Arc::make_mut(&mut bytes).resize(whole_pages, 0);
        }
        let pages = usize::try_from(place.size.bytes()).unwrap_or(usize::MAX) / PAGE_SIZE;
        self.segment = Some(Fed { bytes, first: place.start, pages, next_page: 0, open });
        self.next_segment = Some(place.number + 1);
        self.major = Some(place.major);
        match &mut self.stream {
            Some(stream) => stream.enter_segment(place),
            None => self.stream = Some(self.first_stream(place)),
        }
        Ok(())
    }

    /// Checks that the segment is the one to come.
    fn place(&self, name: SegmentName, bytes: &[u8], open: bool) -> Result<SegmentPlace, ReadError> {
        let at = name.start(self.start.size).unwrap_or_default();
        let refused = |reason: String| ReadError { at, reason };
        let expected = self.start.system_identifier;
        let place = SegmentPlace::read(name, bytes, expected).map_err(|error| refused(error.to_string()))?;
        if place.size != self.start.size {
            let (found, size) = (place.size.bytes(), self.start.size.bytes());
            return Err(refused(format!("the segment's size is {found}, the cluster's is {size}")));
        }
        let (length, size) = (bytes.len() as u64, place.size.bytes());
        if length > size || (!open && length != size) {
            return Err(refused(format!("{name} has {length} bytes, not {size}")));
        }
        if self.major.is_some_and(|major| major != place.major) {
            return Err(refused(format!("{name} was written by another PostgreSQL version")));
        }
        match self.next_segment {
            Some(next) if next != place.number => {
                Err(refused(format!("{name} is segment number {}, not {next}", place.number)))
            }
            _ => Ok(place),
        }
    }

    fn first_stream(&mut self, place: SegmentPlace) -> RecordStream {
        let carry = match self.start.at {
            Start::SegmentStart => self.start.carry.take().map(Carry::Known),
            Start::Record(_) => None,
        };
        let carry = carry.unwrap_or(Carry::Unknown);
        let carry = carry.for_segment(place.number, place.size, place.system_identifier);
        let mut stream = RecordStream::new(place, self.bodies, carry);
        if let Start::Record(lsn) = self.start.at {
            stream.seek(lsn);
        }
        stream
    }

    /// Reads one page; `false` when there is none left.
    fn read_page(&mut self) -> bool {
        let (Some(stream), Some(fed), Some(major)) = (&mut self.stream, &mut self.segment, self.major) else {
            return false;
        };
        if fed.next_page >= fed.pages {
            self.segment = None;
            return false;
        }
        let at = fed.first.saturating_add((fed.next_page * PAGE_SIZE) as u64);
        // Past the end of an open segment's bytes nothing was written.
        let page = fed.page(fed.next_page).unwrap_or(&[0; PAGE_SIZE]);
        let ready = &mut self.ready;
        let halt = stream.page(at, page, &mut |found, _| ready.push_back(record(found, major)));
        if let Err(halt) = halt {
            self.ended = Some(fed.judge(halt));
        }
        fed.next_page += 1;
        true
    }
}

impl Fed {
    fn page(&self, number: usize) -> Option<&[u8]> {
        self.bytes.get(number * PAGE_SIZE..(number + 1) * PAGE_SIZE)
    }

    /// End of WAL or damage?
    fn judge(&self, halt: Halt) -> Result<Lsn, ReadError> {
        let rest = self.bytes.get(self.next_page * PAGE_SIZE..).unwrap_or_default();
        let page_start = self.first.saturating_add((self.next_page * PAGE_SIZE) as u64);
        if self.open || halt.allows(page_start, rest) {
            Ok(halt.at)
        } else {
            Err(ReadError { at: halt.at, reason: halt.reason })
        }
    }
}

fn record(found: &Found<'_>, major: Major) -> Record {
    let RecordHeader { total_len, xid, prev, info, rmid, .. } = found.header;
    let bytes = [found.head, found.body.unwrap_or_default()].concat();
    Record { lsn: found.lsn, end: found.end, prev, xid, rmid, info, total_len, major, bytes }
}
