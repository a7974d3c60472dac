//! Clocks that were set back: a time may have come twice.
//!
//! A target time means the records before the first commit or abort with a later time.
//! When the clock was set back behind it to the target or before, recovery could as well
//! go on to the next such record, and only the operator knows which is meant.

use walpoint_archive::{ArchiveError, WalFacts};
use walpoint_wal::{STEP_BACK_MICROS, Timestamp};

use super::Past;
use super::chain::{Chain, Run};
use super::scan::{EventAt, PathWal};
use super::search::{Search, find_end};
use crate::coverage::last_segment_before;

/// Another reading of a target time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecondReading {
    /// The record that shows the clock set back to the target time or before.
    pub step: EventAt,
    /// The first commit or abort behind it that this reading leaves out.
    pub first_excluded: Option<EventAt>,
}

/// The second reading of a target time whose first one leaves out `first`, in the chain
/// with number `at` of `chains`.
pub(crate) async fn second_reading(
    wal: &PathWal<'_>,
    chains: &[Chain],
    at: usize,
    first: &EventAt,
    past: Past,
) -> Result<Option<SecondReading>, ArchiveError> {
    let mut walk = Walk { past, after: first, time: first.end_time() };
    for chain in chains.iter().skip(at) {
        let search = Search { wal, chain };
        if let Some(step) = walk.step_in(search).await? {
            let first_excluded = first_past_behind(search, &step, past).await?;
            return Ok(Some(SecondReading { step, first_excluded }));
        }
    }
    Ok(None)
}

/// The first commit or abort behind `step` that is left out. Totals are no help here:
/// they have been higher than the target since before the step.
async fn first_past_behind(
    search: Search<'_>,
    step: &EventAt,
    past: Past,
) -> Result<Option<EventAt>, ArchiveError> {
    let behind = |events: &[EventAt]| {
        let at = events.partition_point(|event| event.spot.lsn <= step.spot.lsn);
        find_end(events.get(at..).unwrap_or_default(), |time| past.excludes(time))
    };
    let mut number = last_segment_before(step.spot.end, search.wal.size());
    loop {
        if let Some(found) = behind(&search.scanned(number).await?.events) {
            return Ok(Some(found));
        }
        let high = |facts: &WalFacts| facts.time_high.is_some_and(|time| past.excludes(time));
        let by_facts = search.next_by_facts(number + 1, search.chain.last(), high).await?;
        let spanning = search.chain.runs.iter().filter(|run| run.first > number && run.spanning.is_some());
        match spanning.map(|run| run.first).chain(by_facts).min() {
            Some(next) => number = next,
            None => return Ok(None),
        }
    }
}

/// A walk along the commits and aborts behind a record, past those that cannot matter.
struct Walk<'e> {
    past: Past,
    after: &'e EventAt,
    /// Time of the last one that was passed.
    time: Option<Timestamp>,
}

impl Walk<'_> {
    async fn step_in(&mut self, search: Search<'_>) -> Result<Option<EventAt>, ArchiveError> {
        let begin = last_segment_before(self.after.spot.end, search.wal.size());
        for run in search.chain.runs.iter().filter(|run| run.last >= begin) {
            if let Some(step) = self.step_in_run(search, run, begin).await? {
                return Ok(Some(step));
            }
        }
        Ok(None)
    }

    async fn step_in_run(
        &mut self,
        search: Search<'_>,
        run: &Run,
        begin: u64,
    ) -> Result<Option<EventAt>, ArchiveError> {
        let inherited = inherited_time(search, run).await?;
        let mut at = Some(run.first.max(begin));
        while let Some(number) = at {
            let facts = search.wal.facts(number).await?;
            let reaches_back = facts.time_low.is_some_and(|time| !self.past.excludes(time));
            let unknown = run.is_cut || number == begin || (number == run.first && run.spanning.is_some());
            let step = match unknown || reaches_back {
                true => self.step_in_events(&search.scanned(number).await?.events),
                false => None,
            };
            if step.is_some() {
                return Ok(step);
            }
            self.time = own_last_time(&facts, inherited).or(self.time);
            at = next_with_step(search, run, number, inherited).await?;
            if let Some(before) = at.and_then(|next| next.checked_sub(1)) {
                let before = search.wal.facts(before).await?;
                self.time = own_last_time(&before, inherited).or(self.time);
            }
        }
        self.time = own_last_time(&run.facts, inherited).filter(|_| !run.is_cut).or(self.time);
        Ok(None)
    }

    fn step_in_events(&mut self, events: &[EventAt]) -> Option<EventAt> {
        for event in events.iter().filter(|event| event.spot.lsn > self.after.spot.lsn) {
            let Some(time) = event.end_time() else { continue };
            let back = self.time.is_some_and(|before| time.0.saturating_add(STEP_BACK_MICROS) < before.0);
            self.time = Some(time);
            if back && !self.past.excludes(time) {
                return Some(event.clone());
            }
        }
        None
    }
}

/// The next segment of a run behind `number` in which a step can lie: one that the totals
/// count, or the one to the run's first commit or abort, which no total counts.
async fn next_with_step(
    search: Search<'_>,
    run: &Run,
    number: u64,
    inherited: Option<Timestamp>,
) -> Result<Option<u64>, ArchiveError> {
    let counted = search.next_in_run(number, |facts| facts.run.map_or(0, |run| run.run_steps)).await?;
    if run.is_cut || own_last_time(&run.facts, inherited).is_none() {
        return Ok(counted);
    }
    let ended = |facts: &WalFacts| own_last_time(facts, inherited).is_some();
    let first = search.bisect(run, run.first, ended).await?;
    Ok(Some(first).filter(|first| *first > number).into_iter().chain(counted).min())
}

/// Time of the last commit or abort that was counted before a run began to be on the path:
/// all that the totals have until one ends in it.
async fn inherited_time(search: Search<'_>, run: &Run) -> Result<Option<Timestamp>, ArchiveError> {
    if !run.began_before || run.is_cut {
        return Ok(None);
    }
    let first = search.wal.facts(run.first).await?;
    Ok(first.run.and_then(|run| run.run_last_time).filter(|_| first.time_last.is_none()))
}

/// Time of the last commit or abort from the run's beginning on the path to a segment's end.
fn own_last_time(facts: &WalFacts, inherited: Option<Timestamp>) -> Option<Timestamp> {
    facts.run.and_then(|run| run.run_last_time).filter(|time| Some(*time) != inherited)
}
