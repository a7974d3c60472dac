//! Turns the pages of consecutive segments into records: the one place that follows
//! `XLogDecodeNextRecord` (access/transam/xlogreader.c, 13–18). Survey and reader are
//! two ways of driving it.
//!
//! Covered by what it checks: every byte of every record (CRC), magic, flags, address
//! and timeline of every page, the length of what continues on it, and the zeros after
//! a switch. Not covered by anything: the flag `XLP_BKP_REMOVABLE` and the 4 bytes of
//! padding in page headers, the up to 7 bytes between records, and a timeline in the
//! first page that is lower than the name's (as it is after a fork).

use crate::carry_over::CarryOver;
use crate::event::{Event, carries_event, decode_event};
use crate::first_page::SegmentPlace;
use crate::halt::{Halt, ends_with_switch, is_zero};
use crate::lsn::Lsn;
use crate::page::{PAGE_SIZE, PageHeader};
use crate::record::{ALIGNMENT, RECORD_HEADER, RecordError, RecordHeader, check_length};
use crate::survey::Edge;
use crate::timeline::TimelineId;
use crate::unfinished::{Unfinished, compare_crc};

const CHAIN_HINT: &str = ": it does not continue the segment before";

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
    /// What it means.
    pub(crate) event: Option<Event>,
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

#[derive(Debug)]
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
#[derive(Debug)]
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

    /// Reads one page of [`PAGE_SIZE`] bytes, hands each record that ends on it to `on`.
    pub(crate) fn page<F>(&mut self, at: Lsn, page: &[u8], on: &mut F) -> Result<(), Halt>
    where
        F: FnMut(Found<'_>),
    {
        match self.state {
            State::AfterSwitch => return after_switch(at, page, 0),
            State::Seeking(lsn) if lsn.0 >= at.0 + PAGE_SIZE as u64 => return Ok(()),
            _ => {}
        }
        let header = self.check_page(at, page).map_err(|reason| self.bad_page(at, reason))?;
        self.page_timeline = Some(header.timeline);
        let position = self.enter_page(at, page, &header, on)?;
        self.records(at, page, position, on)
    }

    fn check_page(&self, at: Lsn, page: &[u8]) -> Result<PageHeader, String> {
        let header = PageHeader::parse(page).map_err(|error| error.to_string())?;
        let (expected, timeline) = (self.place.major.page_magic(), header.timeline);
        if header.magic != expected {
            return Err(format!("the page's magic is {:04X}, not {expected:04X}", header.magic));
        }
        if header.address != at {
            return Err(format!("the page says that it belongs at {}", header.address));
        }
        if header.long.is_some() != (at == self.place.start) {
            return Err("the page header has the wrong form for its place in the segment".to_owned());
        }
        if timeline > self.place.timeline {
            return Err(format!(
                "the page is of timeline {timeline}, the segment of {}",
                self.place.timeline
            ));
        }
        match self.page_timeline {
            Some(before) if timeline < before => {
                Err(format!("the page is of timeline {timeline}, one before it of {before}"))
            }
            _ => Ok(header),
        }
    }

    /// A page header that is wrong. Where a record goes on here, it is that record that is lost.
    fn bad_page(&self, page_start: Lsn, reason: String) -> Halt {
        match &self.state {
            State::Within(record) => {
                let at = record.start.max(self.place.start);
                let reason = format!("the record goes on at {page_start}, where {reason}");
                let zero_from = if record.hides_switch { None } else { Some(page_start) };
                Halt { at, reason, zero_from }
            }
            _ => Halt::unless_zero_from(page_start, page_start, reason),
        }
    }

    /// Deals with what the page begins with; returns where its first own record may start.
    fn enter_page<F>(&mut self, at: Lsn, page: &[u8], header: &PageHeader, on: &mut F) -> Result<usize, Halt>
    where
        F: FnMut(Found<'_>),
    {
        if at == self.place.start && header.continues_record() {
            self.notes.edge = Edge::Unchecked { record_rest: header.remaining };
        }
        if let State::Seeking(lsn) = self.state {
            self.state = State::Between;
            return sought(lsn, at, header);
        }
        if header.overwrites_record() {
            return self.overwrite(at, header);
        }
        match std::mem::replace(&mut self.state, State::Between) {
            State::Within(record) => self.go_on(at, page, header, record, on),
            State::Unknown => Ok(self.skip(header.remaining, header)),
            State::Skipping { rest } if rest == header.remaining => Ok(self.skip(rest, header)),
            State::Skipping { rest } => Err(Halt::damage(
                at,
                format!("{rest} bytes of a record should continue here, the page says {}", header.remaining),
            )),
            _ if header.continues_record() => {
                let reason = format!("a record goes on here that did not begin{}", self.page_hint(at));
                Err(Halt::damage(at, reason))
            }
            _ => Ok(header.size()),
        }
    }

    /// The rest of a record was never written; the page begins anew.
    fn overwrite(&mut self, at: Lsn, header: &PageHeader) -> Result<usize, Halt> {
        if header.continues_record() {
            return Err(Halt::damage(at, "the page both continues a record and overwrites it"));
        }
        let begun = match std::mem::replace(&mut self.state, State::Between) {
            State::Within(record) => Some(record.start),
            _ => None,
        };
        self.must_overwrite = Some(begun);
        Ok(header.size())
    }

    /// Passes over the rest of a record whose beginning is not known.
    fn skip(&mut self, rest: u32, header: &PageHeader) -> usize {
        let room = PAGE_SIZE - header.size();
        match (rest as usize).checked_sub(room) {
            Some(more) if more > 0 => {
                self.state = State::Skipping { rest: more as u32 };
                PAGE_SIZE
            }
            _ => header.size() + aligned(rest as usize),
        }
    }

    /// Adds the page to the record that goes on here.
    fn go_on<F>(
        &mut self,
        at: Lsn,
        page: &[u8],
        header: &PageHeader,
        mut record: Unfinished,
        on: &mut F,
    ) -> Result<usize, Halt>
    where
        F: FnMut(Found<'_>),
    {
        let lost = record.start.max(self.place.start);
        if header.remaining != record.rest() {
            let (rest, says) = (record.rest(), header.remaining);
            let reason = format!("{rest} bytes of it should continue at {at}, the page says {says}");
            return Err(Halt::damage(lost, format!("{reason}{}", self.page_hint(at))));
        }
        if at == self.place.start {
            self.notes.edge = Edge::Checked;
        }
        let room = PAGE_SIZE - header.size();
        let count = room.min(record.rest() as usize);
        let end = header.size() + count;
        self.append(&mut record, at, header.size(), page.get(header.size()..end).unwrap_or_default())?;
        if record.rest() > 0 {
            self.state = State::Within(record);
            return Ok(PAGE_SIZE);
        }
        let crc_wrong = |error: RecordError| Halt {
            at: lost,
            reason: error.to_string(),
            zero_from: self.incomplete_from(at, page, end, record.hides_switch),
        };
        record.check_crc().map_err(crc_wrong)?;
        let next = aligned(end);
        let header = record.header().ok_or_else(|| Halt::damage(lost, RecordError::Parts.to_string()))?;
        self.found(record.start, at.saturating_add(next as u64), header, record.head(), record.body(), on)?;
        self.check_after_switch(at, page, next)?;
        Ok(next)
    }

    /// Adds bytes to an unfinished record and checks its header as soon as that is whole.
    fn append(
        &mut self,
        record: &mut Unfinished,
        at: Lsn,
        position: usize,
        bytes: &[u8],
    ) -> Result<(), Halt> {
        let had_header = record.header().is_some();
        let body = record.take_head(bytes);
        if let (false, Some(header)) = (had_header, record.header()) {
            let crc_at = at.0 + (position + bytes.len() - body.len()) as u64 - 4;
            self.check_header(record.start, Lsn(crc_at), &header)?;
            if self.wants_body(&header) {
                record.keep_body();
            }
        }
        record.take_body(body);
        Ok(())
    }

    fn wants_body(&self, header: &RecordHeader) -> bool {
        self.bodies == Bodies::All || carries_event(header)
    }

    /// Reads the records that start on the page from `position` on.
    fn records<F>(&mut self, at: Lsn, page: &[u8], mut position: usize, on: &mut F) -> Result<(), Halt>
    where
        F: FnMut(Found<'_>),
    {
        while position < PAGE_SIZE && !matches!(self.state, State::AfterSwitch) {
            let bytes = page.get(position..).unwrap_or_default();
            let start = at.saturating_add(position as u64);
            let total_len = record_length(start, bytes)?;
            let header = RecordHeader::parse(bytes);
            if let Some(header) = &header {
                self.check_header(start, start.saturating_add(20), header)?;
            }
            self.note_start(start, header.map(|header| header.prev));
            let whole = bytes.split_at_checked(RECORD_HEADER).zip(bytes.get(..total_len as usize));
            match (header, whole) {
                (Some(header), Some(((head, _), whole))) => {
                    let body = whole.get(RECORD_HEADER..).unwrap_or_default();
                    let end = position + whole.len();
                    position = aligned(end);
                    compare_crc(crc32c::crc32c(body), head).map_err(|error| Halt {
                        at: start,
                        reason: error.to_string(),
                        zero_from: self.incomplete_from(at, page, end, false),
                    })?;
                    let record_end = at.saturating_add(position as u64);
                    self.found(start, record_end, header, head, Some(body), on)?;
                    self.check_after_switch(at, page, position)?;
                }
                _ => {
                    self.begin_unfinished(at, page, position, total_len)?;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// A record goes on beyond the page.
    fn begin_unfinished(
        &mut self,
        at: Lsn,
        page: &[u8],
        position: usize,
        total_len: u32,
    ) -> Result<(), Halt> {
        let mut record = Unfinished::new(at.saturating_add(position as u64), total_len);
        self.append(&mut record, at, position, page.get(position..).unwrap_or_default())?;
        record.hides_switch = ends_with_switch(page);
        self.state = State::Within(record);
        Ok(())
    }

    /// Checks a record's header. `crc_at` is where its last field lies: when that and all
    /// that follows is zero, the header itself was not written to its end.
    fn check_header(&self, start: Lsn, crc_at: Lsn, header: &RecordHeader) -> Result<(), Halt> {
        header.check(start, self.prev, self.place.major).map_err(|error| {
            let hint = match error {
                RecordError::Prev { .. } => self.record_hint(start),
                _ => "",
            };
            Halt::unless_zero_from(crc_at, start.max(self.place.start), format!("{error}{hint}"))
        })
    }

    /// A broken chain at the first page or record is one between segments.
    fn page_hint(&self, at: Lsn) -> &'static str {
        if at == self.place.start { CHAIN_HINT } else { "" }
    }

    fn record_hint(&self, start: Lsn) -> &'static str {
        if self.notes.first_record.is_none_or(|first| first == start) { CHAIN_HINT } else { "" }
    }

    fn note_start(&mut self, start: Lsn, prev: Option<Lsn>) {
        if self.notes.first_record.is_none() {
            self.notes.first_record = Some(start);
            self.notes.first_prev = prev;
        }
        self.notes.last_start = Some(start);
    }

    /// Takes note of a complete record and hands it on.
    fn found<F>(
        &mut self,
        lsn: Lsn,
        end: Lsn,
        header: RecordHeader,
        head: &[u8],
        body: Option<&[u8]>,
        on: &mut F,
    ) -> Result<(), Halt>
    where
        F: FnMut(Found<'_>),
    {
        let broken = |reason: String| Halt::damage(lsn.max(self.place.start), reason);
        let event = match body {
            Some(body) if carries_event(&header) => {
                decode_event(&header, body, self.place.major).map_err(|error| broken(error.to_string()))?
            }
            _ => None,
        };
        if let Some(begun) = self.must_overwrite.take() {
            check_overwrite(event.as_ref(), begun).map_err(broken)?;
        }
        let mut end = end;
        if header.is_switch() {
            self.notes.switch = Some(lsn);
            self.state = State::AfterSwitch;
            end = self.place.end();
        }
        self.prev = Some(lsn);
        self.notes.last_end = end;
        on(Found { lsn, end, header, head, body, event });
        Ok(())
    }

    fn check_after_switch(&self, at: Lsn, page: &[u8], position: usize) -> Result<(), Halt> {
        if matches!(self.state, State::AfterSwitch) { after_switch(at, page, position) } else { Ok(()) }
    }

    /// A record ending at `end` on the page has a wrong CRC. Was it not written to its end?
    /// Then its last bytes and at least one possible record start after it are zero.
    fn incomplete_from(&self, at: Lsn, page: &[u8], end: usize, hides_switch: bool) -> Option<Lsn> {
        let next = at.saturating_add(aligned(end) as u64);
        let cannot = hides_switch || ends_with_switch(page) || next >= self.place.end();
        if cannot { None } else { Some(at.saturating_add(end.saturating_sub(4) as u64)) }
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

fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// Length of the record that starts here. Zero is where WAL was not written further.
fn record_length(start: Lsn, bytes: &[u8]) -> Result<u32, Halt> {
    let total_len = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    match check_length(total_len) {
        Ok(()) => Ok(total_len),
        Err(error) if total_len == 0 => Err(Halt::unless_zero_from(start, start, error.to_string())),
        Err(error) => Err(Halt::damage(start, error.to_string())),
    }
}

/// PostgreSQL itself leaves what follows a switch unread; it has no CRC but zero bytes.
fn after_switch(at: Lsn, page: &[u8], position: usize) -> Result<(), Halt> {
    let rest = page.get(position..).unwrap_or_default();
    if is_zero(rest) {
        return Ok(());
    }
    let offset = position + rest.iter().position(|&byte| byte != 0).unwrap_or_default();
    let at = at.saturating_add(offset as u64);
    Err(Halt::damage(at, "the bytes after the switch record are not all zero"))
}

/// Where on the page the record that is sought must start.
fn sought(lsn: Lsn, at: Lsn, header: &PageHeader) -> Result<usize, Halt> {
    let offset = lsn.0.checked_sub(at.0).and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.ok_or_else(|| Halt::damage(lsn, "the record lies before the segment"))?;
    let position = if offset == 0 { header.size() } else { offset };
    let first = header.size() + aligned(header.remaining as usize);
    if position < first || position % ALIGNMENT != 0 {
        return Err(Halt::damage(lsn, "no record starts here"));
    }
    Ok(position)
}

/// The first record after a page that overwrites must say what it overwrites.
fn check_overwrite(event: Option<&Event>, begun: Option<Lsn>) -> Result<(), String> {
    match event {
        Some(Event::OverwriteContrecord { overwritten, .. }) => match begun {
            Some(begun) if begun != *overwritten => {
                Err(format!("the record stands for one at {overwritten}, the unfinished one is at {begun}"))
            }
            _ => Ok(()),
        },
        _ => Err("the page overwrites a record, and its first record does not say which".to_owned()),
    }
}
