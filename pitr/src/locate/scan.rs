//! Reads records from stored segments, one after the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use walpoint_archive::{ArchiveError, WalEnding, WalFacts};
use walpoint_wal::{Event, Lsn, ReadError, Reader, ReaderStart, Record, SegmentSize, Start, Step, Timestamp};

use super::source::WalSource;
use crate::coverage::{Coverage, Link, last_segment_before};

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Its start.
    pub lsn: Lsn,
    /// Its end.
    pub end: Lsn,
    /// Start of the record before it.
    pub prev: Lsn,
}

/// A record that planning takes notice of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventAt {
    /// Where it lies.
    pub spot: Spot,
    /// What it says.
    pub event: Event,
}

impl EventAt {
    /// Its time, when it is the end of a transaction.
    pub fn end_time(&self) -> Option<Timestamp> {
        self.event.ends_transaction().map(|(_, time, _)| time)
    }
}

/// The records that end in one segment.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Those that say something, in order of address.
    pub events: Vec<EventAt>,
    /// The last of all.
    pub last: Option<Spot>,
}

/// The WAL of a path, by segment number.
#[derive(Debug)]
pub(crate) struct PathWal<'a> {
    pub source: &'a WalSource<'a>,
    pub coverage: &'a Coverage<'a>,
    scans: Mutex<HashMap<u64, Arc<Scanned>>>,
}

impl<'a> PathWal<'a> {
    pub fn new(source: &'a WalSource<'a>, coverage: &'a Coverage<'a>) -> PathWal<'a> {
        PathWal { source, coverage, scans: Mutex::default() }
    }

    pub fn size(&self) -> SegmentSize {
        self.coverage.size
    }

    /// Address of a segment's first byte.
    pub fn start_of(&self, number: u64) -> Lsn {
        Lsn(number.saturating_mul(self.size().bytes()))
    }

    /// The segment that serves this number.
    pub fn link(&self, number: u64) -> Option<Link<'a>> {
        self.coverage.link(number)
    }

    /// What the metadata of a segment that must be there says.
    pub async fn facts(&self, number: u64) -> Result<Arc<WalFacts>, ArchiveError> {
        let link = self.link(number).ok_or_else(|| self.not_there(number))?;
        let facts = self.source.facts(link.variant).await?;
        if facts.start != self.start_of(number) {
            let what = format!("its metadata says that it begins at {}", facts.start);
            return Err(self.contradiction(number, what));
        }
        Ok(facts)
    }

    /// The same of consecutive segments.
    pub async fn facts_from(&self, first: u64, last: u64) -> Result<Vec<Arc<WalFacts>>, ArchiveError> {
        let links: Option<Vec<_>> = (first..=last).map(|number| self.link(number)).collect();
        let links = links.ok_or_else(|| self.not_there(first))?;
        let variants: Vec<_> = links.iter().map(|link| link.variant).collect();
        self.source.facts_of(&variants).await
    }

    /// A segment's metadata and its content disagree.
    pub fn contradiction(&self, number: u64, what: impl Into<String>) -> ArchiveError {
        let key = self.link(number).map_or_else(|| number.to_string(), |link| link.variant.key().to_string());
        ArchiveError::Damaged { key, what: what.into() }
    }

    fn not_there(&self, number: u64) -> ArchiveError {
        self.contradiction(number, "another segment's metadata leads to it, and it is not on the path")
    }

    /// The records that end in `number`. `from` is the start of a record that is the last
    /// to start before it, where known; `first` and `last` bound what is read.
    pub async fn scanned(&self, number: u64, from: Option<Lsn>) -> Result<Arc<Scanned>, ArchiveError> {
        let kept = self.scans.lock().unwrap_or_else(PoisonError::into_inner).get(&number).map(Arc::clone);
        if let Some(scanned) = kept {
            return Ok(scanned);
        }
        let mut scanned = Scanned::default();
        let mut scan = match from {
            Some(lsn) => Scan::at_record(self, lsn, number),
            None => Scan::at_segment(self, number, number),
        };
        while let Some(record) = scan.next().await? {
            if last_segment_before(record.end, self.size()) != number {
                continue;
            }
            let spot = Spot { lsn: record.lsn, end: record.end, prev: record.prev };
            scanned.last = Some(spot);
            if let Some(event) = scan.event(&record)? {
                scanned.events.push(EventAt { spot, event });
            }
        }
        let scanned = Arc::new(scanned);
        self.scans.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&scanned));
        Ok(scanned)
    }
}

/// Records one by one, up to the end of a segment or of the WAL before it.
#[derive(Debug)]
pub(crate) struct Scan<'w> {
    wal: &'w PathWal<'w>,
    reader: Reader,
    /// The segment fed last.
    fed: Option<u64>,
    first: u64,
    last: u64,
    /// Why the segment fed last was not taken.
    refused: Option<ReadError>,
    ended: bool,
}

/// What came next.
#[derive(Debug)]
pub(crate) enum Advance {
    Record(Record),
    /// The last segment asked for, or that there is, was read.
    End,
    /// What is there is no record, or does not follow what was read.
    Invalid(ReadError),
}

impl<'w> Scan<'w> {
    /// From the first record that starts in segment `first`, through segment `last`.
    pub fn at_segment(wal: &'w PathWal<'w>, first: u64, last: u64) -> Scan<'w> {
        Scan::new(wal, Start::SegmentStart, first, last)
    }

    /// From this record, through segment `last`.
    pub fn at_record(wal: &'w PathWal<'w>, lsn: Lsn, last: u64) -> Scan<'w> {
        Scan::new(wal, Start::Record(lsn), lsn.segment_number(wal.size()), last)
    }

    fn new(wal: &'w PathWal<'w>, at: Start, first: u64, last: u64) -> Scan<'w> {
        let system_identifier = Some(wal.source.system_identifier);
        let reader = Reader::new(ReaderStart { size: wal.size(), system_identifier, carry: None, at });
        Scan { wal, reader, fed: None, first, last, refused: None, ended: false }
    }

    /// The next record; `None` where the WAL, or what was asked for, ends.
    pub async fn next(&mut self) -> Result<Option<Record>, ArchiveError> {
        match self.advance().await? {
            Advance::Record(record) => Ok(Some(record)),
            Advance::End => Ok(None),
            Advance::Invalid(error) => {
                self.must_end_at(error.at, &error.reason).await?;
                Ok(None)
            }
        }
    }

    /// The same where what follows need not continue what was read.
    pub async fn advance(&mut self) -> Result<Advance, ArchiveError> {
        if self.fed.is_none() {
            self.feed(self.first).await?;
        }
        while !self.ended {
            let invalid = match self.refused.take().map_or_else(|| self.reader.next(), Err) {
                Ok(Step::Record(record)) if !self.is_cut_off(record.end) => {
                    return Ok(Advance::Record(record));
                }
                Ok(Step::Record(_)) => break,
                Ok(Step::NeedSegment(number)) => {
                    self.feed(number).await?;
                    continue;
                }
                Ok(Step::EndOfWal { at }) => ReadError { at, reason: "no record is there".to_owned() },
                Err(error) => error,
            };
            self.ended = true;
            return Ok(Advance::Invalid(invalid));
        }
        self.ended = true;
        Ok(Advance::End)
    }

    /// What a record says.
    pub fn event(&self, record: &Record) -> Result<Option<Event>, ArchiveError> {
        let number = record.lsn.segment_number(self.wal.size());
        let damaged = |error| self.wal.contradiction(number, format!("record at {}: {error}", record.lsn));
        record.event().map_err(damaged)
    }

    async fn feed(&mut self, number: u64) -> Result<(), ArchiveError> {
        let expected = self.fed.map_or(self.first, |fed| fed.saturating_add(1));
        let link = self.wal.link(number).filter(|_| number == expected && number <= self.last);
        let Some(link) = link else {
            self.ended = true;
            return Ok(());
        };
        let bytes = self.wal.source.segment(link.variant).await?;
        self.fed = Some(number);
        self.refused = self.reader.feed(link.name, bytes).err();
        Ok(())
    }

    fn is_cut_off(&self, end: Lsn) -> bool {
        let link = self.fed.and_then(|number| self.wal.link(number));
        link.and_then(|link| link.cut).is_some_and(|cut| end > cut)
    }

    /// WAL ends where the metadata says that it does; anywhere else they contradict what
    /// was read.
    async fn must_end_at(&self, at: Lsn, reason: &str) -> Result<(), ArchiveError> {
        let number = self.fed.unwrap_or(self.first);
        let facts = self.wal.facts(number).await?;
        let open = matches!(facts.ending, WalEnding::Open { .. } | WalEnding::Damaged { .. });
        let cut_off = self.wal.link(number).and_then(|link| link.cut).is_some_and(|cut| at >= cut);
        if open || cut_off {
            return Ok(());
        }
        let what = format!("its metadata says that it is sound, and at {at} it is not: {reason}");
        Err(self.wal.contradiction(number, what))
    }
}
