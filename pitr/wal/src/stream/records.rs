//! The records of a page, whole ones and pieces.

use super::{Bodies, CHAIN_HINT, Found, Page, RecordStream, State, aligned};
use crate::event::{Event, carries_event, decode_event};
use crate::halt::{Halt, ends_with_switch};
use crate::lsn::Lsn;
use crate::page::{PAGE_SIZE, PageHeader};
use crate::record::{ALIGNMENT, RECORD_HEADER, RecordError, RecordHeader, check_length};
use crate::survey::Edge;
use crate::unfinished::{Unfinished, compare_crc};

impl RecordStream {
    /// Reads the records that start on the page from `position` on.
    pub(super) fn records<F>(&mut self, page: Page<'_>, mut position: usize, on: &mut F) -> Result<(), Halt>
    where
        F: FnMut(&Found<'_>, Option<&Event>),
    {
        while position < PAGE_SIZE && !matches!(self.state, State::AfterSwitch) {
            let start = page.address(position);
            let bytes = page.from(position);
            let total_len = record_length(start, bytes)?;
            let header = RecordHeader::parse(bytes);
            if let Some(header) = &header {
                self.check_header(start, start.saturating_add(20), header)?;
            }
            self.note_start(start, header.map(|header| header.prev));
            match header.zip(bytes.get(..total_len as usize)) {
                Some((header, record)) => position = self.whole(page, position, header, record, on)?,
                None => return self.begin_unfinished(page, position, total_len),
            }
        }
        Ok(())
    }

    /// A record that lies on the page with all its bytes.
    fn whole<F>(
        &mut self,
        page: Page<'_>,
        position: usize,
        header: RecordHeader,
        record: &[u8],
        on: &mut F,
    ) -> Result<usize, Halt>
    where
        F: FnMut(&Found<'_>, Option<&Event>),
    {
        let (head, body) = record.split_at_checked(RECORD_HEADER).unwrap_or_default();
        let (lsn, end) = (page.address(position), position + record.len());
        compare_crc(crc32c::crc32c(body), head).map_err(|error| Halt {
            at: lsn,
            reason: error.to_string(),
            zero_from: self.incomplete_from(page, end, false),
        })?;
        let next = aligned(end);
        let found = Found { lsn, end: page.address(next), header, head, body: Some(body) };
        self.found(found, on)?;
        self.check_after_switch(page, next)?;
        Ok(next)
    }

    /// A record goes on beyond the page.
    fn begin_unfinished(&mut self, page: Page<'_>, position: usize, total_len: u32) -> Result<(), Halt> {
        let mut record = Unfinished::new(page.address(position), total_len);
        self.append(&mut record, page, position, PAGE_SIZE)?;
        record.hides_switch = ends_with_switch(page.bytes);
        self.state = State::Within(record);
        Ok(())
    }

    /// Adds the page to the record that goes on here.
    pub(super) fn go_on<F>(
        &mut self,
        page: Page<'_>,
        header: &PageHeader,
        mut record: Unfinished,
        on: &mut F,
    ) -> Result<usize, Halt>
    where
        F: FnMut(&Found<'_>, Option<&Event>),
    {
        if header.remaining != record.rest() {
            let (rest, says, at) = (record.rest(), header.remaining, page.at);
            let reason = format!("{rest} bytes of it should continue at {at}, the page says {says}");
            return Err(Halt::damage(self.here(record.start), format!("{reason}{}", self.page_hint(at))));
        }
        if page.at == self.place.start {
            self.notes.edge = Edge::Checked;
        }
        let room = PAGE_SIZE - header.size();
        let end = header.size() + room.min(record.rest() as usize);
        self.append(&mut record, page, header.size(), end)?;
        if record.rest() > 0 {
            self.state = State::Within(record);
            return Ok(PAGE_SIZE);
        }
        self.completed(&record, page, end, on)
    }

    /// All bytes of a record that spans pages are there.
    fn completed<F>(
        &mut self,
        record: &Unfinished,
        page: Page<'_>,
        end: usize,
        on: &mut F,
    ) -> Result<usize, Halt>
    where
        F: FnMut(&Found<'_>, Option<&Event>),
    {
        let at = self.here(record.start);
        record.check_crc().map_err(|error| Halt {
            at,
            reason: error.to_string(),
            zero_from: self.incomplete_from(page, end, record.hides_switch),
        })?;
        let header = record.header().ok_or_else(|| Halt::damage(at, RecordError::Parts.to_string()))?;
        let (head, body) = (record.head(), record.body());
        let next = aligned(end);
        let found = Found { lsn: record.start, end: page.address(next), header, head, body };
        self.found(found, on)?;
        self.check_after_switch(page, next)?;
        Ok(next)
    }

    /// Adds a part of the page to an unfinished record and checks that record's header as
    /// soon as it is whole.
    fn append(
        &mut self,
        record: &mut Unfinished,
        page: Page<'_>,
        from: usize,
        to: usize,
    ) -> Result<(), Halt> {
        let had_header = record.header().is_some();
        let bytes = page.bytes.get(from..to).unwrap_or_default();
        let body = record.take_head(bytes);
        if let (false, Some(header)) = (had_header, record.header()) {
            let crc_at = page.address(to - body.len() - 4);
            self.check_header(record.start, crc_at, &header)?;
            if self.notes.first_record == Some(record.start) {
                self.notes.first_prev = Some(header.prev);
            }
            if self.bodies == Bodies::All || carries_event(&header) {
                record.keep_body();
            }
        }
        record.take_body(body);
        Ok(())
    }

    /// Checks a record's header. `crc_at` is where its last field lies: when that and all
    /// that follows is zero, the header itself was not written to its end.
    fn check_header(&self, start: Lsn, crc_at: Lsn, header: &RecordHeader) -> Result<(), Halt> {
        header.check(start, self.prev, self.place.major).map_err(|error| {
            // Until a first record was found, the chain is broken between segments.
            let first = self.notes.first_record.is_none_or(|first| first == start);
            let hint = match error {
                RecordError::Prev { .. } if first => CHAIN_HINT,
                _ => "",
            };
            Halt::unless_zero_from(crc_at, self.here(start), format!("{error}{hint}"))
        })
    }

    fn note_start(&mut self, start: Lsn, prev: Option<Lsn>) {
        if self.notes.first_record.is_none() {
            self.notes.first_record = Some(start);
            self.notes.first_prev = prev;
        }
        self.notes.last_start = Some(start);
    }

    /// Takes note of a complete record, finds out what it means, and hands it on.
    fn found<F>(&mut self, mut found: Found<'_>, on: &mut F) -> Result<(), Halt>
    where
        F: FnMut(&Found<'_>, Option<&Event>),
    {
        let broken = |reason: String| Halt::damage(found.lsn.max(self.place.start), reason);
        let event = match found.body {
            Some(body) if carries_event(&found.header) => {
                decode_event(&found.header, body, self.place.major).map_err(|e| broken(e.to_string()))?
            }
            _ => None,
        };
        if let Some(begun) = self.must_overwrite.take() {
            check_overwrite(event.as_ref(), begun).map_err(broken)?;
        }
        if found.header.is_switch() {
            self.notes.switch = Some(found.lsn);
            self.state = State::AfterSwitch;
            found.end = self.place.end();
        }
        self.prev = Some(found.lsn);
        self.notes.last_end = found.end;
        on(&found, event.as_ref());
        Ok(())
    }

    /// A record ending at `end` on the page has a wrong CRC. Was it not written to its end?
    /// Then its last 8 bytes and at least one possible record start after it are zero.
    fn incomplete_from(&self, page: Page<'_>, end: usize, hides_switch: bool) -> Option<Lsn> {
        let last_word = aligned(end) - ALIGNMENT;
        let last_of_segment = page.address(aligned(end)) >= self.place.end();
        let cannot = hides_switch || last_of_segment || ends_with_switch(page.bytes);
        if cannot { None } else { Some(page.address(last_word)) }
    }
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
