//! Where a target lies, as far as the metadata of segments show it: all that can be said of
//! encrypted WAL without the key. No content is read.
//!
//! The record that is meant lies between two bounds. Where metadata do not prove that there
//! is such a record, or that there is none, the answer is that they do not.

use std::sync::Arc;

use walpoint_archive::{ArchiveError, BackupHead, WalEnding, WalFacts};
use walpoint_wal::{Lsn, Timestamp};

use super::search::Search;
use super::targets::Finder;
use super::{Missing, Sought};
use crate::coverage::last_segment_before;
use crate::plan::words;
use crate::target::Target;

/// Bytes of the shortest record: its header (`SizeOfXLogRecord`, access/xlogrecord.h).
const SHORTEST: u64 = 24;
/// Bytes of the longest page header (`SizeOfXLogLongPHD`, access/xlog_internal.h): as far
/// apart can one record's end and the next one's start be.
const PAGE_HEADER: u64 = 40;
/// Bytes that an `XLOG_OVERWRITE_CONTRECORD` takes, at the beginning of a page.
const OVERWRITE: u64 = 48;
/// Bytes that a checkpoint record can take, a page header inside it included (13–18).
const CHECKPOINT: u64 = 160;

/// Start and end of a record, or bounds of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub start: Lsn,
    pub end: Lsn,
}

/// A whole record lies between these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Number of the chain that it lies in.
    pub chain: usize,
    /// It neither starts nor ends before this one does.
    pub low: Extent,
    /// It neither starts nor ends behind this one.
    pub high: Extent,
}

/// What metadata show of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The last record to replay is there.
    Between(Bounds),
    /// There is no such record.
    Missing(Missing),
    /// Neither: why the content is needed to tell.
    Unknown(String),
}

/// What metadata show of a target.
pub(crate) async fn show(
    finder: Finder<'_>,
    target: &Target,
    exclusive: bool,
) -> Result<Shown, ArchiveError> {
    match target {
        Target::Lsn(lsn) if !exclusive => finder.shows_lsn(*lsn).await,
        Target::Immediate => finder.shows_end_of_backup().await,
        Target::Latest => finder.shows_latest().await,
        _ => Ok(Shown::Unknown(words::exact_record_asked_for())),
    }
}

/// The records of a segment that metadata name.
struct Known {
    /// The first that starts here.
    first: Lsn,
    /// The last one, or where that is cut off or damaged the first again.
    last: Lsn,
    /// Where the WAL in it ends, when no record spans out.
    end: Option<Lsn>,
}

impl<'f> Finder<'f> {
    async fn shows_lsn(&self, lsn: Lsn) -> Result<Shown, ArchiveError> {
        let Some(chain) = self.chain_reaching(lsn) else { return Ok(as_shown(self.lsn_beyond(lsn))) };
        let Some(search) = self.search(chain).filter(|search| self.start_of(search.chain) <= lsn) else {
            return Ok(as_shown(self.lsn_in_break(chain, lsn)));
        };
        let starts = |facts: &WalFacts| facts.last_start.is_some_and(|last| last >= lsn);
        let number = lsn.segment_number(self.wal.size());
        let Some(number) = search.next_by_facts(number, search.chain.last(), starts).await? else {
            return self.shows_end(chain, search, lsn).await;
        };
        let unknown = Shown::Unknown(words::record_unknown(lsn));
        let Some(known) = self.known(number).await? else { return Ok(unknown) };
        let start = lsn.max(known.first);
        let low = Extent { start, end: Lsn(start.0.saturating_add(SHORTEST)) };
        let high = match () {
            () if lsn <= known.first && known.first < known.last => {
                Some(Extent { start: known.first, end: known.last })
            }
            () if lsn <= known.last => self.spanning_end(search, number, &known).await?,
            () => None,
        };
        let bounds =
            |high: Extent| Bounds { chain, low, high: Extent { end: high.end.max(low.end), ..high } };
        Ok(high.map_or(unknown, |high| Shown::Between(bounds(high))))
    }

    /// No record starts at or behind `lsn`, which can still be where all ends.
    async fn shows_end(&self, chain: usize, search: Search<'f>, lsn: Lsn) -> Result<Shown, ArchiveError> {
        let number = search.chain.last();
        let cut = self.wal.link(number).and_then(|link| link.cut);
        let at_edge = cut.is_some() || lsn == self.wal.start_of(number.saturating_add(1));
        match self.known(number).await? {
            Some(Known { last, end: Some(end), .. }) if end == lsn && cut.is_none() => {
                let last = Extent { start: last, end };
                Ok(Shown::Between(Bounds { chain, low: last, high: last }))
            }
            Some(Known { end: Some(_), .. }) if cut.is_none() => Ok(self.shows_none(chain, lsn)),
            _ if at_edge => Ok(Shown::Unknown(words::record_unknown(lsn))),
            _ => Ok(self.shows_none(chain, lsn)),
        }
    }

    fn shows_none(&self, chain: usize, lsn: Lsn) -> Shown {
        as_shown(match self.break_after(chain) {
            Some(_) => self.lsn_in_break(chain + 1, lsn),
            None => self.lsn_beyond(lsn),
        })
    }

    /// The same backup as with the key: the newest whose WAL is all there.
    async fn shows_end_of_backup(&self) -> Result<Shown, ArchiveError> {
        for backup in self.backups.iter().rev() {
            let first = backup.redo.segment_number(self.wal.size());
            let Some(chain) = self.chains.iter().position(|chain| chain.contains(first)) else { continue };
            let Some(search) = self.search(chain) else { continue };
            match self.ends_in(search, backup).await? {
                Some(true) => return Ok(Shown::Between(end_of(backup, chain))),
                Some(false) => {}
                None => return Ok(Shown::Unknown(words::record_unknown(backup.stop.lsn))),
            }
        }
        let (reason, near) = (words::no_backup_with_its_wal(), None);
        Ok(Shown::Missing(Missing { reason, near, hint: None, candidates: Vec::new() }))
    }

    /// Whether a whole record ends at or behind the end of a backup.
    async fn ends_in(&self, search: Search<'f>, backup: &BackupHead) -> Result<Option<bool>, ArchiveError> {
        let stop = backup.stop.lsn;
        let number = last_segment_before(stop, self.wal.size());
        if !search.chain.contains(number) {
            return Ok(Some(false));
        }
        let Some(known) = self.known(number).await? else { return Ok(None) };
        let starts_behind = known.last.0 >= stop.0.saturating_add(PAGE_HEADER);
        let is_cut = self.wal.link(number).is_some_and(|link| link.cut.is_some());
        Ok(match known.end {
            _ if starts_behind => Some(true),
            Some(_) if is_cut => None,
            Some(end) => Some(end >= stop),
            None => self.first_behind(search, number).await?.map(|_| true),
        })
    }

    async fn shows_latest(&self) -> Result<Shown, ArchiveError> {
        let at = self.chains.len().checked_sub(1).and_then(|at| Some((at, self.search(at)?)));
        let Some((chain, search)) = at else {
            let (reason, near) = (words::no_wal(), None);
            return Ok(Shown::Missing(Missing { reason, near, hint: None, candidates: Vec::new() }));
        };
        if let Some((reason, hint)) = self.break_after(chain) {
            let (reason, near) = (words::latest_in_break(&reason), Some(Lsn(u64::MAX)));
            return Ok(Shown::Missing(Missing { reason, near, hint, candidates: Vec::new() }));
        }
        let number = search.chain.last();
        let unknown = Shown::Unknown(words::end_unknown());
        let Some(Known { first, last, end }) = self.known(number).await? else { return Ok(unknown) };
        let is_cut = self.wal.link(number).is_some_and(|link| link.cut.is_some());
        let first_end = Lsn(first.0.saturating_add(SHORTEST));
        let (low, high) = match end {
            Some(end) if is_cut => {
                (Extent { start: first, end: first_end }, Extent { start: before(end, 1), end })
            }
            Some(end) => (Extent { start: last, end }, Extent { start: before(end, 1), end }),
            // The last to start here may not be whole; the one before it is.
            None if first < last => {
                let end = self.wal.start_of(number.saturating_add(1));
                let low = Extent { start: first, end: first_end.max(before(last, PAGE_HEADER)) };
                (low, Extent { start: last, end })
            }
            None => return Ok(unknown),
        };
        Ok(Shown::Between(Bounds { chain, low, high }))
    }

    /// The last place of a chain that metadata prove can be recovered to, the last start of
    /// a record that they name up to there, and the highest time that had come.
    pub async fn last_shown(
        &self,
        search: Search<'f>,
    ) -> Result<Option<(Extent, Option<Timestamp>)>, ArchiveError> {
        for number in (search.chain.first()..=search.chain.last()).rev() {
            let Some(Known { first, last, end }) = self.known(number).await? else { continue };
            let facts = self.wal.facts(number).await?;
            let is_cut = self.wal.link(number).is_some_and(|link| link.cut.is_some());
            let time = facts.time_known.max(facts.run.and_then(|run| run.run_last_time));
            match end {
                Some(_) if is_cut => return Ok(Some((Extent { start: first, end: first }, None))),
                Some(end) => return Ok(Some((Extent { start: last, end }, time))),
                None if first < last => return Ok(Some((Extent { start: first, end: first }, time))),
                None => {}
            }
        }
        Ok(None)
    }

    async fn known(&self, number: u64) -> Result<Option<Known>, ArchiveError> {
        let facts: Arc<WalFacts> = self.wal.facts(number).await?;
        let cut = self.wal.link(number).and_then(|link| link.cut);
        let stops = match facts.ending {
            WalEnding::Unknown => return Ok(None),
            WalEnding::Full | WalEnding::Switched { .. } => None,
            WalEnding::Open { .. } | WalEnding::Damaged { .. } => Some(facts.end),
        };
        let limit = [stops, cut].into_iter().flatten().min();
        let whole = |start: &Lsn| limit.is_none_or(|limit| *start < limit);
        let Some(first) = facts.first_record.filter(whole) else { return Ok(None) };
        let last = facts.last_start.filter(whole).unwrap_or(first);
        let end = match facts.ending {
            WalEnding::Switched { .. } => limit.or(Some(self.wal.start_of(number.saturating_add(1)))),
            _ => limit,
        };
        Ok(Some(Known { first, last, end }))
    }

    /// Not behind which the last record that starts in a segment starts and ends, when it
    /// is whole. Where a crash cut that off, what stands for it takes its place.
    async fn spanning_end(
        &self,
        search: Search<'f>,
        number: u64,
        known: &Known,
    ) -> Result<Option<Extent>, ArchiveError> {
        if let Some(end) = known.end {
            return Ok(Some(Extent { start: known.last, end }));
        }
        let next = self.first_behind(search, number).await?;
        Ok(next.map(|start| Extent { start, end: Lsn(start.0.saturating_add(OVERWRITE)) }))
    }

    /// The first record that starts in a later segment of the chain.
    async fn first_behind(&self, search: Search<'f>, number: u64) -> Result<Option<Lsn>, ArchiveError> {
        let starts = |facts: &WalFacts| facts.first_record.is_some();
        let next = search.next_by_facts(number.saturating_add(1), search.chain.last(), starts).await?;
        match next {
            Some(next) => Ok(self.known(next).await?.map(|known| known.first)),
            None => Ok(None),
        }
    }
}

fn end_of(backup: &BackupHead, chain: usize) -> Bounds {
    let end = backup.stop.lsn;
    // The backup's checkpoint can itself be the last record only where it is that short.
    let is_behind = end.0 > backup.checkpoint.0.saturating_add(CHECKPOINT);
    let start = if is_behind { Lsn(backup.checkpoint.0 + 1) } else { backup.redo };
    Bounds { chain, low: Extent { start, end }, high: Extent { start: before(end, 1), end } }
}

fn before(lsn: Lsn, bytes: u64) -> Lsn {
    Lsn(lsn.0.saturating_sub(bytes))
}

fn as_shown(sought: Sought) -> Shown {
    match sought {
        Sought::Missing(missing) => Shown::Missing(missing),
        Sought::Found(_) => Shown::Unknown(words::exact_record_asked_for()),
    }
}
