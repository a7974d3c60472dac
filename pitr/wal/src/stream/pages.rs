//! What a page begins with: its header, and the rest of a record from before.

use super::{CHAIN_HINT, Found, Page, RecordStream, State, aligned};
use crate::event::Event;
use crate::halt::{Halt, is_zero};
use crate::lsn::Lsn;
use crate::page::{PAGE_SIZE, PageHeader};
use crate::record::ALIGNMENT;
use crate::survey::Edge;

impl RecordStream {
    /// Checks the page's header (`XLogReaderValidatePageHeader`, and that what it leaves
    /// open is as PostgreSQL writes it).
    pub(super) fn check_page(&self, page: Page<'_>) -> Result<PageHeader, String> {
        let header = PageHeader::parse(page.bytes).map_err(|error| error.to_string())?;
        let (expected, timeline) = (self.place.major.page_magic(), header.timeline);
        if header.magic != expected {
            return Err(format!("the page's magic is {:04X}, not {expected:04X}", header.magic));
        }
        if header.address != page.at {
            return Err(format!("the page says that it belongs at {}", header.address));
        }
        if header.long.is_some() != (page.at == self.place.start) {
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
    pub(super) fn bad_page(&self, page_start: Lsn, reason: String) -> Halt {
        match &self.state {
            State::Within(record) => {
                let reason = format!("the record goes on at {page_start}, where {reason}");
                let zero_from = if record.hides_switch { None } else { Some(page_start) };
                Halt { at: self.here(record.start), reason, zero_from }
            }
            _ => Halt::unless_zero_from(page_start, page_start, reason),
        }
    }

    /// Deals with what the page begins with; returns where its first own record may start.
    pub(super) fn enter_page<F>(
        &mut self,
        page: Page<'_>,
        header: &PageHeader,
        on: &mut F,
    ) -> Result<usize, Halt>
    where
        F: FnMut(&Found<'_>, Option<&Event>),
    {
        if page.at == self.place.start && header.continues_record() {
            self.notes.edge = Edge::Unchecked { record_rest: header.remaining };
        }
        let state = std::mem::replace(&mut self.state, State::Between);
        if let State::Seeking(lsn) = state {
            return sought(lsn, page.at, header);
        }
        if header.overwrites_record() {
            return self.overwrite(page.at, header, state);
        }
        match state {
            State::Within(record) => self.go_on(page, header, record, on),
            State::Unknown => Ok(self.skip(header)),
            State::Skipping { rest } if rest == header.remaining => Ok(self.skip(header)),
            State::Skipping { rest } => {
                let says = header.remaining;
                let reason = format!("{rest} bytes of a record should continue here, the page says {says}");
                Err(Halt::damage(page.at, reason))
            }
            _ if header.continues_record() => {
                let reason = format!("a record goes on here that did not begin{}", self.page_hint(page.at));
                Err(Halt::damage(page.at, reason))
            }
            _ => Ok(header.size()),
        }
    }

    /// The rest of a record was never written; the page begins anew.
    fn overwrite(&mut self, at: Lsn, header: &PageHeader, state: State) -> Result<usize, Halt> {
        if header.continues_record() {
            return Err(Halt::damage(at, "the page both continues a record and overwrites it"));
        }
        self.must_overwrite = Some(match state {
            State::Within(record) => Some(record.start),
            _ => None,
        });
        Ok(header.size())
    }

    /// Passes over the rest of a record whose beginning is not known.
    fn skip(&mut self, header: &PageHeader) -> usize {
        let room = PAGE_SIZE - header.size();
        let rest = header.remaining as usize;
        if rest > room {
            self.state = State::Skipping { rest: (rest - room) as u32 };
            return PAGE_SIZE;
        }
        header.size() + aligned(rest)
    }

    /// What is wrong with the first page may be that it belongs to another history.
    pub(super) fn page_hint(&self, at: Lsn) -> &'static str {
        if at == self.place.start { CHAIN_HINT } else { "" }
    }

    pub(super) fn check_after_switch(&self, page: Page<'_>, position: usize) -> Result<(), Halt> {
        if matches!(self.state, State::AfterSwitch) { after_switch(page, position) } else { Ok(()) }
    }
}

/// PostgreSQL itself leaves what follows a switch unread; it has no CRC but zero bytes.
pub(super) fn after_switch(page: Page<'_>, position: usize) -> Result<(), Halt> {
    let rest = page.from(position);
    if is_zero(rest) {
        return Ok(());
    }
    let offset = position + rest.iter().position(|&byte| byte != 0).unwrap_or_default();
    Err(Halt::damage(page.address(offset), "the bytes after the switch record are not all zero"))
}

/// Where on the page the record that is sought must start.
fn sought(lsn: Lsn, at: Lsn, header: &PageHeader) -> Result<usize, Halt> {
    let offset = lsn.0.checked_sub(at.0).and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.ok_or_else(|| Halt::damage(lsn, "the record lies before the segment"))?;
    let position = if offset == 0 { header.size() } else { offset };
    let first = header.size() + aligned(header.remaining as usize);
    if position < first || !position.is_multiple_of(ALIGNMENT) {
        return Err(Halt::damage(lsn, "no record starts here"));
    }
    Ok(position)
}
