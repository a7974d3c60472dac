//! Makes the survey of a segment while its bytes pass by.

use crate::first_page::SegmentPlace;
use crate::halt::Halt;
use crate::lsn::Lsn;
use crate::page::PAGE_SIZE;
use crate::stream::{Bodies, RecordStream};
use crate::survey::{Ending, Survey, SurveyError, SurveyOf};
use crate::tally::Tally;

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Surveys a segment that comes in pieces of any size.
///
/// Holds at most one page and the body of one record that must be looked into; a large
/// record of another kind passes through its CRC and costs no memory. So a clone is cheap.
#[derive(Debug, Clone)]
pub struct Surveyor {
    of: SurveyOf,
    fed: u64,
    /// A page of which a part has come.
    part: Vec<u8>,
    progress: Progress,
}

#[derive(Debug, Clone)]
enum Progress {
    /// The first page has not come yet.
    Waiting,
    Refused(SurveyError),
    Reading(Box<Reading>),
}

#[derive(Debug, Clone)]
struct Reading {
    place: SegmentPlace,
    stream: RecordStream,
    tally: Tally,
    next_page: Lsn,
    halted: Option<Halted>,
}

/// Reading came to an end before the segment did.
#[derive(Debug, Clone)]
struct Halted {
    halt: Halt,
    /// Nothing seen so far speaks against this being the end of WAL.
    may_be_end: bool,
}

impl Surveyor {
    /// Begins the survey of one file.
    pub fn new(of: SurveyOf) -> Surveyor {
        Surveyor { of, fed: 0, part: Vec::new(), progress: Progress::Waiting }
    }

    /// Takes the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        let mut rest = bytes;
        if !self.part.is_empty() {
            let missing = PAGE_SIZE.saturating_sub(self.part.len()).min(rest.len());
            let (now, later) = rest.split_at(missing);
            self.part.extend_from_slice(now);
            rest = later;
            if self.part.len() < PAGE_SIZE {
                return;
            }
            let page = std::mem::take(&mut self.part);
            self.page(&page);
            self.part = page;
            self.part.clear();
        }
        let (pages, rest) = rest.as_chunks::<PAGE_SIZE>();
        for page in pages {
            self.page(page);
        }
        self.part.extend_from_slice(rest);
    }

    /// Says what was found, once all bytes were fed.
    pub fn finish(self) -> Result<Survey, SurveyError> {
        match self.progress {
            Progress::Refused(error) => Err(error),
            _ if self.fed != self.of.file_size => {
                Err(SurveyError::WrongSize { expected: self.of.file_size, found: self.fed })
            }
            Progress::Waiting => Err(SurveyError::NotWal { reason: "it is shorter than a page".to_owned() }),
            Progress::Reading(reading) => Ok(reading.finish(&self.of)),
        }
    }

    /// Says what was found so far, as if only zeros followed to the segment's end. What is fed
    /// later is read as if this had not been asked.
    pub fn so_far(&self) -> Result<Survey, SurveyError> {
        let mut filled = self.clone();
        // The page begun, and one more: a page of zeros ends the WAL or changes nothing, so
        // those behind it cannot say anything else.
        let begun = filled.part.len().next_multiple_of(PAGE_SIZE) - filled.part.len();
        filled.feed(ZEROS.get(..begun).unwrap_or_default());
        if filled.fed < filled.of.file_size {
            filled.feed(&ZEROS);
        }
        filled.fed = filled.fed.max(filled.of.file_size);
        filled.finish()
    }

    fn page(&mut self, page: &[u8]) {
        if let Progress::Waiting = self.progress {
            self.progress = match Reading::begin(&mut self.of, page) {
                Ok(reading) => Progress::Reading(Box::new(reading)),
                Err(error) => Progress::Refused(error),
            };
        }
        if let Progress::Reading(reading) = &mut self.progress {
            reading.page(page);
        }
    }
}

impl Reading {
    fn begin(of: &mut SurveyOf, page: &[u8]) -> Result<Reading, SurveyError> {
        let place = SegmentPlace::read(of.name, page, of.expected)?;
        let expected = place.size.bytes();
        if of.file_size != expected {
            return Err(SurveyError::WrongSize { expected, found: of.file_size });
        }
        let carry = std::mem::replace(&mut of.carry, crate::Carry::Unknown);
        let carry = carry.for_segment(place.number, place.size, place.system_identifier);
        let stream = RecordStream::new(place.clone(), Bodies::Events, carry);
        let next_page = place.start;
        Ok(Reading { place, stream, tally: Tally::default(), next_page, halted: None })
    }

    fn page(&mut self, page: &[u8]) {
        let at = self.next_page;
        self.next_page = at.saturating_add(PAGE_SIZE as u64);
        match &mut self.halted {
            Some(halted) => halted.may_be_end = halted.may_be_end && halted.halt.allows(at, page),
            None => {
                let tally = &mut self.tally;
                if let Err(halt) = self.stream.page(at, page, &mut |found, event| tally.count(found, event)) {
                    let may_be_end = halt.allows(at, page);
                    self.halted = Some(Halted { halt, may_be_end });
                }
            }
        }
    }

    fn finish(self, of: &SurveyOf) -> Survey {
        let notes = self.stream.notes.clone();
        let ending = match self.halted {
            Some(Halted { halt, may_be_end }) if of.partial || may_be_end => Ending::Open { at: halt.at },
            Some(Halted { halt, .. }) => Ending::Damaged { at: halt.at, reason: halt.reason },
            None => notes.switch.map_or(Ending::Full, |at| Ending::Switched { at }),
        };
        let complete = matches!(ending, Ending::Full | Ending::Switched { .. });
        let tally = self.tally;
        Survey {
            name: of.name,
            major: self.place.major,
            system_identifier: self.place.system_identifier,
            segment_size: self.place.size,
            first_page_timeline: self.place.page_timeline,
            start: self.place.start,
            end: if complete { self.place.end() } else { notes.last_end },
            first_record: notes.first_record,
            first_prev: notes.first_prev,
            overwrites: tally.overwrites(notes.first_record),
            last_start: notes.last_start,
            last_complete: tally.last_complete,
            ending,
            edge: notes.edge,
            times: tally.times,
            first_time: tally.first_time,
            last_time: tally.last_time,
            known_time: tally.known_time,
            commits: tally.commits,
            aborts: tally.aborts,
            prepares: tally.prepares,
            parameter_changes: tally.parameter_changes,
            steps_back: tally.steps_back,
            restore_points: tally.restore_points,
            xids: tally.xids,
            file_copy: tally.file_copy,
            next_xid: tally.next_xid,
            carry_out: if complete { self.stream.carry_out() } else { None },
        }
    }
}
