//! The record that each kind of target means.

use std::collections::BTreeMap;

use walpoint_archive::{ArchiveError, BackupHead, IdleProof};
use walpoint_wal::{Lsn, TimelineId, Timestamp};

use super::chain::{Chain, ChainEnd};
use super::name::points_named;
use super::scan::{EventAt, PathWal, Spot};
use super::search::Search;
use super::steps::{SecondReading, second_reading};
use super::xid::ends_of;
use super::{Hit, Missing, Past, Sought};
use crate::coverage::last_segment_before;
use crate::plan::Candidate;
use crate::plan::words;
use crate::target::Target;

/// All that a target is looked for in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finder<'f> {
    pub wal: &'f PathWal<'f>,
    /// In order of address.
    pub chains: &'f [Chain],
    /// The backups that may be used, on the path, oldest end first.
    pub backups: &'f [&'f BackupHead],
    /// Until when nothing was written, by timeline.
    pub idle: &'f BTreeMap<TimelineId, IdleProof>,
}

/// Finds the last record to replay for a target.
pub(crate) async fn find(
    finder: Finder<'_>,
    target: &Target,
    exclusive: bool,
) -> Result<Sought, ArchiveError> {
    match target {
        Target::Time(target) => finder.time(Past { target: *target, exclusive }).await,
        Target::Lsn(lsn) if exclusive => finder.before_lsn(*lsn).await,
        Target::Lsn(lsn) => finder.at_lsn(*lsn).await,
        Target::Xid(xid) => finder.transaction(*xid, exclusive).await,
        Target::Name(name) => finder.restore_point(name).await,
        Target::Immediate => finder.end_of_backup().await,
        Target::Latest => finder.latest().await,
    }
}

impl<'f> Finder<'f> {
    pub(super) fn search(&self, at: usize) -> Option<Search<'f>> {
        self.chains.get(at).map(|chain| Search { wal: self.wal, chain })
    }

    pub(super) fn start_of(&self, chain: &Chain) -> Lsn {
        self.wal.start_of(chain.first())
    }

    /// Where the segments of a chain end.
    fn end_of(&self, chain: &Chain) -> Lsn {
        let cut = self.wal.link(chain.last()).and_then(|link| link.cut);
        cut.unwrap_or_else(|| self.wal.start_of(chain.last().saturating_add(1)))
    }

    async fn last_of(&self, at: usize) -> Result<Option<Spot>, ArchiveError> {
        match self.search(at) {
            Some(search) => search.last_record().await,
            None => Ok(None),
        }
    }

    /// The newest chain that had begun by then decides: with clocks that go forward the
    /// target can lie in no other.
    async fn time(&self, past: Past) -> Result<Sought, ArchiveError> {
        for (at, chain) in self.chains.iter().enumerate().rev() {
            let search = Search { wal: self.wal, chain };
            let first = search.first_past(past).await?;
            if !self.begins_by(search, past, first.as_ref(), at == 0).await? {
                continue;
            }
            return match first {
                Some(first) => self.before_excluded(at, &first, past).await,
                None => self.all_of(at, past).await,
            };
        }
        Ok(match self.chains.first() {
            Some(chain) => missing(words::before_all_wal(past.target), Some(self.start_of(chain))),
            None => missing(words::no_wal(), None),
        })
    }

    /// A backup knows the time too: when it ended, its end had been written.
    async fn begins_by(
        &self,
        search: Search<'_>,
        past: Past,
        first: Option<&EventAt>,
        is_oldest: bool,
    ) -> Result<bool, ArchiveError> {
        let before = |backup: &&BackupHead| {
            let behind = first.is_none_or(|first| backup.stop.lsn <= first.spot.lsn);
            let inside = search.chain.contains(backup.redo.segment_number(self.wal.size()));
            inside && behind && backup.stop.time <= past.target
        };
        if self.backups.iter().copied().any(|backup| before(&backup)) {
            return Ok(true);
        }
        search.begins_by(past, first, is_oldest).await
    }

    async fn before_excluded(&self, at: usize, first: &EventAt, past: Past) -> Result<Sought, ArchiveError> {
        if let Some(second) = second_reading(self.wal, self.chains, at, first, past).await? {
            return Ok(Sought::Missing(self.two_readings(first, &second, past)));
        }
        self.before(at, first.spot).await
    }

    fn two_readings(&self, first: &EventAt, second: &SecondReading, past: Past) -> Missing {
        let excluded = [Some(first), second.first_excluded.as_ref()];
        let candidates = excluded.into_iter().flatten().map(|event| self.candidate(event)).collect();
        Missing {
            reason: words::two_readings(past.target, first, &second.step, second.first_excluded.as_ref()),
            near: None,
            hint: Some(words::choose_reading(first, second.first_excluded.as_ref())),
            candidates,
        }
    }

    fn candidate(&self, event: &EventAt) -> Candidate {
        let newest = self.wal.coverage.path.timeline;
        let step = self.wal.coverage.path.step_at(event.spot.lsn);
        Candidate {
            lsn: event.spot.lsn,
            time: event.event.time(),
            xid: event.event.ends_transaction().map(|(xid, _, _)| xid),
            timeline: step.map_or(newest, |step| step.timeline),
        }
    }

    /// The record just before another one.
    async fn before(&self, at: usize, spot: Spot) -> Result<Sought, ArchiveError> {
        let record = match self.search(at) {
            Some(search) => search.record_at(spot.prev).await?,
            None => None,
        };
        Ok(match record {
            Some(last) => Sought::Found(Hit { chain: at, last }),
            None => missing(words::no_record_before(spot.lsn), Some(spot.prev)),
        })
    }

    /// Nothing is left out: right only when the chain shows that the time had come.
    async fn all_of(&self, at: usize, past: Past) -> Result<Sought, ArchiveError> {
        let Some(search) = self.search(at) else { return Ok(missing(words::no_wal(), None)) };
        let Some(last) = search.last_record().await? else { return Ok(missing(words::no_wal(), None)) };
        let known = self.known_time(search, last).await?;
        if known.is_some_and(|known| known >= past.target) {
            return Ok(Sought::Found(Hit { chain: at, last }));
        }
        Ok(Sought::Missing(self.behind_chain(at, past.target, known)))
    }

    /// The highest time that is known to have passed when a chain ends with `last`: by its
    /// records, by the backups that ended in it, and by the proof that nothing came after it.
    pub async fn known_time(
        &self,
        search: Search<'_>,
        last: Spot,
    ) -> Result<Option<Timestamp>, ArchiveError> {
        let inside = |lsn: Lsn| search.chain.contains(lsn.segment_number(self.wal.size()));
        let ended = self.backups.iter().filter(|backup| inside(backup.redo) && backup.stop.lsn <= last.end);
        let backups = ended.map(|backup| backup.stop.time).max();
        Ok(search.last_known_time().await?.max(backups).max(self.idle_until(search, last)))
    }

    /// Until when nothing was written behind the WAL that a chain ends with. What an older
    /// timeline's server says of itself says nothing of the one that the way leads to.
    fn idle_until(&self, search: Search<'_>, last: Spot) -> Option<Timestamp> {
        let path = &self.wal.coverage.path;
        let begin = path.steps.last().map_or(Lsn::ZERO, |step| step.begin);
        let proof = self.idle.get(&path.timeline)?;
        let ends_in = last_segment_before(proof.flush_lsn, self.wal.size());
        let has_it = search.chain.contains(ends_in) && proof.flush_lsn <= last.end;
        (has_it && proof.flush_lsn > begin).then_some(proof.time)
    }

    fn behind_chain(&self, at: usize, target: Timestamp, known: Option<Timestamp>) -> Missing {
        let near = self.chains.get(at).map(|chain| self.end_of(chain));
        match self.break_after(at) {
            Some((reason, hint)) => Missing {
                reason: words::time_in_break(target, known, &reason),
                near,
                hint,
                candidates: Vec::new(),
            },
            None => Missing {
                reason: words::after_all_known(target, known),
                near,
                hint: Some(words::try_latest()),
                candidates: Vec::new(),
            },
        }
    }

    /// Why WAL that existed cannot be had behind a chain, and what to do about it.
    pub fn break_after(&self, at: usize) -> Option<(String, Option<String>)> {
        let chain = self.chains.get(at)?;
        let is_last = at + 1 == self.chains.len();
        match &chain.ends {
            ChainEnd::Open { .. } if !is_last => Some(words::chain_end(&chain.ends)),
            ChainEnd::Names | ChainEnd::Open { .. } => {
                self.wal.coverage.gap_after(chain.last()).map(words::gap)
            }
            ends => Some(words::chain_end(ends)),
        }
    }

    /// PostgreSQL's inclusive rule: the first record that starts at or after the LSN. The
    /// end of all WAL, which no record starts at, means all of it.
    async fn at_lsn(&self, lsn: Lsn) -> Result<Sought, ArchiveError> {
        let Some(at) = self.chain_reaching(lsn) else { return Ok(self.lsn_beyond(lsn)) };
        let Some(search) = self.search(at).filter(|search| self.start_of(search.chain) <= lsn) else {
            return Ok(self.lsn_in_break(at, lsn));
        };
        if let Some(last) = search.first_record_from(lsn).await? {
            return Ok(Sought::Found(Hit { chain: at, last }));
        }
        self.end_of_chain(at, lsn, |last| lsn == last.end).await
    }

    /// PostgreSQL's exclusive rule: the last record that starts before the LSN.
    async fn before_lsn(&self, lsn: Lsn) -> Result<Sought, ArchiveError> {
        let Some(at) = self.chain_reaching(lsn) else { return Ok(self.lsn_beyond(lsn)) };
        let Some(search) = self.search(at).filter(|search| self.start_of(search.chain) < lsn) else {
            return Ok(self.lsn_in_break(at, lsn));
        };
        if let Some(next) = search.first_record_from(lsn).await? {
            return self.before(at, next).await;
        }
        self.end_of_chain(at, lsn, |last| last.lsn < lsn && lsn <= last.end).await
    }

    /// The first chain whose segments end at or behind `lsn`.
    pub(super) fn chain_reaching(&self, lsn: Lsn) -> Option<usize> {
        self.chains.iter().position(|chain| lsn <= self.end_of(chain))
    }

    async fn end_of_chain(
        &self,
        at: usize,
        lsn: Lsn,
        is_meant: impl Fn(&Spot) -> bool,
    ) -> Result<Sought, ArchiveError> {
        Ok(match self.last_of(at).await? {
            Some(last) if is_meant(&last) => Sought::Found(Hit { chain: at, last }),
            _ if self.break_after(at).is_some() => self.lsn_in_break(at + 1, lsn),
            _ => self.lsn_beyond(lsn),
        })
    }

    pub(super) fn lsn_beyond(&self, lsn: Lsn) -> Sought {
        match self.chains.len().checked_sub(1).and_then(|last| self.break_after(last)) {
            Some((reason, hint)) => {
                let reason = words::lsn_in_break(lsn, &reason);
                Sought::Missing(Missing { reason, near: Some(lsn), hint, candidates: Vec::new() })
            }
            None => missing(words::lsn_beyond(lsn), Some(lsn)),
        }
    }

    /// The LSN lies before chain `at` and behind the one before it.
    pub(super) fn lsn_in_break(&self, at: usize, lsn: Lsn) -> Sought {
        let broken = at.checked_sub(1).and_then(|before| self.break_after(before));
        let (reason, hint) = match broken {
            Some((reason, hint)) => (words::lsn_in_break(lsn, &reason), hint),
            None => (words::lsn_before_all(lsn), None),
        };
        Sought::Missing(Missing { reason, near: Some(lsn), hint, candidates: Vec::new() })
    }

    async fn transaction(&self, xid: u64, exclusive: bool) -> Result<Sought, ArchiveError> {
        let reference = |event: &EventAt| {
            let before = self.backups.iter().rev().find(|backup| backup.redo <= event.spot.lsn);
            before.or(self.backups.first()).map_or(0, |backup| backup.next_xid)
        };
        let found = ends_of(self.wal, self.chains, xid, reference).await?;
        match found.as_slice() {
            [] => Ok(self.not_on_the_way(words::no_such_transaction(xid))),
            [(at, end)] if exclusive => self.before(*at, end.spot).await,
            [(at, end)] => Ok(Sought::Found(Hit { chain: *at, last: end.spot })),
            several => {
                Ok(Sought::Missing(self.several(words::several_transactions(xid, several.len()), several)))
            }
        }
    }

    async fn restore_point(&self, name: &str) -> Result<Sought, ArchiveError> {
        let found = points_named(self.wal, self.chains, name).await?;
        match found.as_slice() {
            [] => Ok(self.not_on_the_way(words::no_such_point(name))),
            [(at, point)] => Ok(Sought::Found(Hit { chain: *at, last: point.spot })),
            several => Ok(Sought::Missing(self.several(words::several_points(name, several.len()), several))),
        }
    }

    fn not_on_the_way(&self, reason: String) -> Sought {
        let hint = Some(words::only_looked_at(self.wal.coverage.path.timeline));
        Sought::Missing(Missing { reason, near: None, hint, candidates: Vec::new() })
    }

    fn several(&self, reason: String, found: &[(usize, EventAt)]) -> Missing {
        let candidates: Vec<_> = found.iter().map(|(_, event)| self.candidate(event)).collect();
        let hint = Some(words::choose_candidate(&candidates));
        Missing { reason, near: None, hint, candidates }
    }

    /// The end of the newest backup whose WAL is all there.
    async fn end_of_backup(&self) -> Result<Sought, ArchiveError> {
        for backup in self.backups.iter().rev() {
            let first = backup.redo.segment_number(self.wal.size());
            let Some(at) = self.chains.iter().position(|chain| chain.contains(first)) else { continue };
            let Some(search) = self.search(at) else { continue };
            if let Some(last) = search.first_record_ending_at(backup.stop.lsn).await? {
                return Ok(Sought::Found(Hit { chain: at, last }));
            }
        }
        Ok(missing(words::no_backup_with_its_wal(), None))
    }

    async fn latest(&self) -> Result<Sought, ArchiveError> {
        let Some(at) = self.chains.len().checked_sub(1) else { return Ok(missing(words::no_wal(), None)) };
        if let Some((reason, hint)) = self.break_after(at) {
            let reason = words::latest_in_break(&reason);
            let near = Some(Lsn(u64::MAX));
            return Ok(Sought::Missing(Missing { reason, near, hint, candidates: Vec::new() }));
        }
        Ok(match self.last_of(at).await? {
            Some(last) => Sought::Found(Hit { chain: at, last }),
            None => missing(words::no_wal(), None),
        })
    }
}

fn missing(reason: String, near: Option<Lsn>) -> Sought {
    Sought::Missing(Missing { reason, near, hint: None, candidates: Vec::new() })
}
