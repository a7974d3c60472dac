//! Finds records in a chain by what the metadata of its segments say, reading only the
//! segments that hold them.
//!
//! Totals never fall along a run, so each question is a binary search with one look at a
//! segment's metadata per step.

use std::sync::Arc;

use walpoint_archive::{ArchiveError, WalFacts};
use walpoint_wal::{Lsn, Timestamp};

use super::CommitPoint;
use super::chain::{Chain, Run};
use super::scan::{EventAt, PathWal, Scan, Scanned, Spot};
use crate::coverage::last_segment_before;

/// Most segments whose metadata are asked for at a time where no binary search is possible.
const MOST_AT_A_TIME: u64 = 64;

/// A chain and the means to read it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search<'w> {
    pub wal: &'w PathWal<'w>,
    pub chain: &'w Chain,
}

impl<'w> Search<'w> {
    /// The records that end in a segment, one that spans into it included.
    pub async fn scanned(&self, number: u64) -> Result<Arc<Scanned>, ArchiveError> {
        let from = self.last_start_before(number).await?;
        self.wal.scanned(number, from).await
    }

    /// Start of the last record of the chain that starts before a segment, where known.
    pub async fn last_start_before(&self, number: u64) -> Result<Option<Lsn>, ArchiveError> {
        let Some(before) = number.checked_sub(1).filter(|before| self.chain.contains(*before)) else {
            return Ok(None);
        };
        let own = self.wal.facts(before).await?.run.and_then(|run| run.last_start);
        let earlier = self.chain.runs.iter().rev().filter(|run| run.last < before);
        let known = own.or_else(|| earlier.filter_map(|run| run.totals.last_start).next());
        Ok(known.filter(|lsn| self.chain.contains(lsn.segment_number(self.wal.size()))))
    }

    /// The record that starts here.
    pub async fn record_at(&self, lsn: Lsn) -> Result<Option<Spot>, ArchiveError> {
        if !self.chain.contains(lsn.segment_number(self.wal.size())) {
            return Ok(None);
        }
        let mut scan = Scan::at_record(self.wal, lsn, self.chain.last());
        let record = scan.next().await?.filter(|record| record.lsn == lsn);
        Ok(record.map(|record| Spot { lsn: record.lsn, end: record.end, prev: record.prev }))
    }

    /// The first record that starts at or after `lsn`.
    pub async fn first_record_from(&self, lsn: Lsn) -> Result<Option<Spot>, ArchiveError> {
        let number = lsn.segment_number(self.wal.size()).max(self.chain.first());
        let mut scan = Scan::at_segment(self.wal, number, self.chain.last());
        while let Some(record) = scan.next().await? {
            if record.lsn >= lsn {
                return Ok(Some(Spot { lsn: record.lsn, end: record.end, prev: record.prev }));
            }
        }
        Ok(None)
    }

    /// Start of the first record of the chain.
    pub async fn first_record(&self) -> Result<Option<Lsn>, ArchiveError> {
        let (first, last) = (self.chain.first(), self.chain.last());
        match self.next_by_facts(first, last, |facts| facts.first_record.is_some()).await? {
            Some(number) => Ok(self.wal.facts(number).await?.first_record),
            None => Ok(None),
        }
    }

    /// The last record of the chain.
    pub async fn last_record(&self) -> Result<Option<Spot>, ArchiveError> {
        self.last_record_ending_by(self.chain.last()).await
    }

    /// The last record that ends in segment `number` or before it. A record may be longer
    /// than many segments, so several may have to be looked at.
    pub async fn last_record_ending_by(&self, number: u64) -> Result<Option<Spot>, ArchiveError> {
        for number in (self.chain.first()..=number).rev() {
            if let Some(last) = self.scanned(number).await?.last {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// The first record that ends at or after `lsn`.
    pub async fn first_record_ending_at(&self, lsn: Lsn) -> Result<Option<Spot>, ArchiveError> {
        let number = last_segment_before(lsn, self.wal.size());
        let from = self.last_start_before(number).await?;
        let mut scan = match from {
            Some(start) => Scan::at_record(self.wal, start, self.chain.last()),
            None => Scan::at_segment(self.wal, number, self.chain.last()),
        };
        while let Some(record) = scan.next().await? {
            if record.end >= lsn {
                return Ok(Some(Spot { lsn: record.lsn, end: record.end, prev: record.prev }));
            }
        }
        Ok(None)
    }

    /// The first segment from `lowest` on that satisfies `holds`, which must hold from
    /// there to the end of the run.
    pub async fn bisect(
        &self,
        run: &Run,
        lowest: u64,
        holds: impl Fn(&WalFacts) -> bool,
    ) -> Result<u64, ArchiveError> {
        let (mut low, mut high) = (lowest, run.last);
        while low < high {
            let middle = low + (high - low) / 2;
            let facts = self.wal.facts(middle).await?;
            if run_of(&facts).map(|it| it.run_start) != Some(run.totals.run_start) {
                let what =
                    format!("its metadata do not continue the run that begins at {}", run.totals.run_start);
                return Err(self.wal.contradiction(middle, what));
            }
            if holds(&facts) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The first segment whose metadata satisfy `holds`, looking at one after the other.
    pub async fn next_by_facts(
        &self,
        first: u64,
        last: u64,
        holds: impl Fn(&WalFacts) -> bool,
    ) -> Result<Option<u64>, ArchiveError> {
        let (mut number, mut batch) = (first, 1);
        while number <= last {
            let until = last.min(number.saturating_add(batch - 1));
            let facts = self.wal.facts_from(number, until).await?;
            if let Some((found, _)) = (number..).zip(&facts).find(|(_, facts)| holds(facts)) {
                return Ok(Some(found));
            }
            number = until + 1;
            batch = next_batch(batch);
        }
        Ok(None)
    }

    /// The last one of these.
    pub async fn previous_by_facts(
        &self,
        first: u64,
        last: u64,
        holds: impl Fn(&WalFacts) -> bool,
    ) -> Result<Option<u64>, ArchiveError> {
        let (mut end, mut batch) = (last.checked_add(1), 1);
        while let Some(past) = end.filter(|past| *past > first) {
            let from = first.max(past.saturating_sub(batch));
            let facts = self.wal.facts_from(from, past - 1).await?;
            let matching = (from..).zip(&facts).filter(|(_, facts)| holds(facts));
            if let Some((found, _)) = matching.last() {
                return Ok(Some(found));
            }
            end = Some(from);
            batch = next_batch(batch);
        }
        Ok(None)
    }

    /// The next segment behind `number` in the same run at whose end `count` is higher.
    pub async fn next_in_run(
        &self,
        number: u64,
        count: impl Fn(&WalFacts) -> u64,
    ) -> Result<Option<u64>, ArchiveError> {
        let Some(run) = self.chain.run_of(number).filter(|run| !run.is_cut && run.last > number) else {
            return Ok(None);
        };
        let until_here = count(&*self.wal.facts(number).await?);
        if count(&run.facts) <= until_here {
            return Ok(None);
        }
        self.bisect(run, number + 1, |facts| count(facts) > until_here).await.map(Some)
    }

    /// The first commit that starts behind `lsn`, which lies in segment `number`.
    pub async fn first_commit_after(
        &self,
        lsn: Lsn,
        number: u64,
    ) -> Result<Option<CommitPoint>, ArchiveError> {
        let mut at = Some(number);
        while let Some(number) = at {
            let scanned = self.scanned(number).await?;
            let behind = scanned.events.iter().filter(|event| event.spot.lsn > lsn);
            if let Some(commit) = behind.filter_map(commit_point).next() {
                return Ok(Some(commit));
            }
            at = match self.next_in_run(number, run_commits).await? {
                Some(next) => Some(next),
                None => self.next_run_with_commits(number),
            };
        }
        Ok(None)
    }

    /// The first segment of the next run, when a transaction may commit in that run. The
    /// record that spans into a run is not in its totals.
    fn next_run_with_commits(&self, number: u64) -> Option<u64> {
        let later = self.chain.runs.iter().filter(|run| run.first > number);
        let commits = |run: &&Run| run.is_cut || run.spanning.is_some() || run.totals.run_commits > 0;
        later.filter(commits).map(|run| run.first).next()
    }

    /// The last commit that starts at or before `lsn`, which lies in segment `number`.
    pub async fn last_commit_until(
        &self,
        lsn: Lsn,
        number: u64,
    ) -> Result<Option<CommitPoint>, ArchiveError> {
        let mut at = Some(number);
        while let Some(number) = at {
            let scanned = self.scanned(number).await?;
            let before = scanned.events.iter().rev().filter(|event| event.spot.lsn <= lsn);
            if let Some(commit) = before.filter_map(commit_point).next() {
                return Ok(Some(commit));
            }
            at = self.segment_of_commit_before(number).await?;
        }
        Ok(None)
    }

    /// The last segment before `number` in which a transaction may commit.
    async fn segment_of_commit_before(&self, number: u64) -> Result<Option<u64>, ArchiveError> {
        for run in self.chain.runs.iter().rev().filter(|run| run.first < number) {
            let last = run.last.min(number - 1);
            let until = run_commits(&*self.wal.facts(last).await?);
            let first = self.wal.facts(run.first).await?;
            let before_run = run_commits(&first).saturating_sub(first.commits);
            if run.is_cut || until > before_run {
                let found = self.bisect(run, run.first, |facts| run_commits(facts) >= until).await?;
                // Metadata that lie must not lead forward again.
                return Ok(Some(found.min(last)));
            }
            if run.spanning.is_some() {
                return Ok(Some(run.first));
            }
        }
        Ok(None)
    }
}

/// What is looked for is often near, and sometimes very far.
fn next_batch(batch: u64) -> u64 {
    (batch * 4).min(MOST_AT_A_TIME)
}

pub(crate) fn run_of(facts: &WalFacts) -> Option<&walpoint_archive::RunFacts> {
    facts.run.as_ref()
}

fn run_commits(facts: &WalFacts) -> u64 {
    facts.run.map_or(0, |run| run.run_commits)
}

/// The first transaction's end whose time satisfies `wanted`.
pub(crate) fn find_end(events: &[EventAt], wanted: impl Fn(Timestamp) -> bool) -> Option<EventAt> {
    events.iter().find(|event| event.end_time().is_some_and(&wanted)).cloned()
}

/// The record as a commit, when it is one.
pub(crate) fn commit_point(event: &EventAt) -> Option<CommitPoint> {
    match event.event.ends_transaction() {
        Some((xid, time, true)) => Some(CommitPoint { xid, lsn: event.spot.lsn, time }),
        _ => None,
    }
}
