//! What a chain says about times: the first one past a target, the last one known.

use walpoint_archive::{ArchiveError, WalFacts};
use walpoint_wal::{Event, Lsn, Timestamp};

use super::Past;
use super::chain::Run;
use super::scan::EventAt;
use super::search::{Search, find_end, run_of};
use crate::coverage::last_segment_before;

impl Search<'_> {
    /// The first commit or abort that a time target leaves out.
    pub async fn first_past(&self, past: Past) -> Result<Option<EventAt>, ArchiveError> {
        for run in &self.chain.runs {
            if let Some(number) = self.segment_past(run, past).await? {
                let found = find_end(&self.scanned(number).await?.events, |time| past.excludes(time));
                match found {
                    Some(event) => return Ok(Some(event)),
                    None if run.is_cut => {}
                    None => {
                        let what = "its metadata name a commit time that none of its records has";
                        return Err(self.wal.contradiction(number, what));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The first segment of a run in which a transaction that is left out ends.
    async fn segment_past(&self, run: &Run, past: Past) -> Result<Option<u64>, ArchiveError> {
        let spanning = run.spanning.as_ref().and_then(EventAt::end_time);
        if run.is_cut || spanning.is_some_and(|time| past.excludes(time)) {
            return Ok(Some(run.first));
        }
        let excluded = |time: Option<Timestamp>| time.is_some_and(|time| past.excludes(time));
        if !excluded(run.totals.run_high) {
            return Ok(None);
        }
        let found =
            self.bisect(run, run.first, |facts| excluded(run_of(facts).and_then(|run| run.run_high))).await?;
        if found > run.first || !run.began_before {
            return Ok(Some(found));
        }
        // The clock was ahead in WAL that has been expired: its time stands in all totals.
        self.next_by_facts(run.first, run.last, |facts| excluded(facts.time_high)).await
    }

    /// The highest time that is known to have passed when the chain ends.
    pub async fn last_known_time(&self) -> Result<Option<Timestamp>, ArchiveError> {
        let mut known = None;
        let mut last = self.chain.last();
        for run in &self.chain.runs {
            let spanning = run.spanning.as_ref().and_then(|event| event.event.time());
            known = known.max(spanning);
            if run.is_cut {
                let scanned = self.scanned(run.first).await?;
                known = known.max(scanned.events.iter().filter_map(|event| event.event.time()).max());
                last = run.first.saturating_sub(1);
            } else {
                known = known.max(self.highest_time(run).await?);
            }
        }
        if last < self.chain.first() {
            return Ok(known);
        }
        let timed = |facts: &WalFacts| facts.time_known.is_some();
        match self.previous_by_facts(self.chain.first(), last, timed).await? {
            Some(number) => Ok(known.max(self.wal.facts(number).await?.time_known)),
            None => Ok(known),
        }
    }

    /// The highest time of the commits and aborts that end in a run.
    async fn highest_time(&self, run: &Run) -> Result<Option<Timestamp>, ArchiveError> {
        let high = run.totals.run_high;
        let first = self.wal.facts(run.first).await?;
        let until_first = run_of(&first).and_then(|run| run.run_high);
        if !run.began_before || high > until_first || until_first == first.time_high {
            return Ok(high);
        }
        // The clock was ahead in WAL that has been expired: its time stands in all totals.
        let facts = self.wal.facts_from(run.first, run.last).await?;
        Ok(facts.iter().filter_map(|facts| facts.time_high).max())
    }

    /// Whether the chain shows that it had begun by the time `past` speaks of: a record
    /// with such a time lies in it, before `until` when that is given; or, where nothing older
    /// is there, in what was before it.
    pub async fn begins_by(
        &self,
        past: Past,
        until: Option<&EventAt>,
        is_oldest: bool,
    ) -> Result<bool, ArchiveError> {
        let size = self.wal.size();
        let last = until.map_or(self.chain.last(), |event| last_segment_before(event.spot.end, size));
        if self.last_end_time(last, until, is_oldest).await?.is_some_and(|time| !past.excludes(time)) {
            return Ok(true);
        }
        let mut number = self.chain.first();
        let start = self.wal.start_of(number);
        let timed = |facts: &WalFacts| facts.time_known.is_some();
        loop {
            let scanned = self.scanned(number).await?;
            let before = scanned
                .events
                .iter()
                .take_while(|event| until.is_none_or(|until| event.spot.lsn < until.spot.lsn));
            if let Some(time) = before.filter_map(|event| time_since(event, start)).next() {
                return Ok(!past.excludes(time));
            }
            match self.next_timed(number, last, timed).await? {
                Some(next) => number = next,
                None => return Ok(false),
            }
        }
    }

    /// Time of the last commit or abort before `until`, or up to the end of segment
    /// `last`, by metadata where it is not in that segment. It may lie before the chain where
    /// `may_be_older`.
    async fn last_end_time(
        &self,
        last: u64,
        until: Option<&EventAt>,
        may_be_older: bool,
    ) -> Result<Option<Timestamp>, ArchiveError> {
        let scanned = self.scanned(last).await?;
        let before =
            scanned.events.iter().filter(|event| until.is_none_or(|until| event.spot.lsn < until.spot.lsn));
        if let Some(time) = before.filter_map(EventAt::end_time).next_back() {
            return Ok(Some(time));
        }
        for run in self.chain.runs.iter().rev().filter(|run| run.first < last) {
            let until = run.last.min(last - 1);
            let is_of_chain = may_be_older || !run.began_before || self.has_end(run.first, until).await?;
            let by_facts = self.wal.facts(until).await?.run.and_then(|run| run.run_last_time);
            let by_facts = by_facts.filter(|_| is_of_chain);
            let spanning = run.spanning.as_ref().and_then(EventAt::end_time);
            if let Some(time) = by_facts.or(spanning) {
                return Ok(Some(time));
            }
        }
        Ok(None)
    }

    /// Whether a transaction ends in one of these segments.
    async fn has_end(&self, first: u64, last: u64) -> Result<bool, ArchiveError> {
        let ends = |facts: &WalFacts| facts.time_high.is_some();
        Ok(self.previous_by_facts(first, last, ends).await?.is_some())
    }

    async fn next_timed(
        &self,
        number: u64,
        last: u64,
        timed: impl Fn(&WalFacts) -> bool,
    ) -> Result<Option<u64>, ArchiveError> {
        let by_facts = self.next_by_facts(number + 1, last, timed).await?;
        let spanning = self.chain.runs.iter().filter(|run| run.spanning.is_some() && run.first > number);
        Ok(spanning.map(|run| run.first).filter(|first| *first <= last).chain(by_facts).min())
    }
}

/// The time that a record proves to have come at or after `start`. A checkpoint's record
/// has the time when the checkpoint began, which may lie before.
fn time_since(event: &EventAt, start: Lsn) -> Option<Timestamp> {
    match event.event {
        Event::Checkpoint { redo, .. } if redo < start => None,
        _ => event.event.time(),
    }
}
