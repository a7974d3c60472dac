//! Runs: unbroken, undamaged, chained WAL, and what is known from a run's
//! beginning up to the end of each of its segments.
//!
//! The values never fall along a run. So the segment where a time is first
//! passed, or where a restore point lies, is found by binary search over object
//! metadata, although commit times do fall when a clock is set back and many
//! segments hold no commit at all.

use walpoint_wal::{Edge, Lsn, STEP_BACK_MICROS, Survey, Timestamp};

use crate::wal_facts::{WalEnding, WalFacts};

/// What is known of a run at the end of one of its segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RunFacts {
    /// Where the run begins: the start of its first segment.
    pub run_start: Lsn,
    /// Highest commit or abort time since then.
    pub run_high: Option<Timestamp>,
    /// Time of the last commit or abort since then, in LSN order.
    pub run_last_time: Option<Timestamp>,
    /// Commits since then.
    pub run_commits: u64,
    /// Steps of the clock backwards since then.
    pub run_steps: u64,
    /// Restore points since then.
    pub run_points: u64,
    /// `PREPARE TRANSACTION`s since then, ended by now or not; `None` when whoever
    /// archived an earlier segment did not count them.
    pub run_prepares: Option<u64>,
    /// `XLOG_PARAMETER_CHANGE` records since then; `None` likewise.
    pub run_parameter_changes: Option<u64>,
    /// Start of the last record since then; a long record may leave whole
    /// segments in which none starts.
    pub last_start: Option<Lsn>,
}

impl RunFacts {
    /// The run of a surveyed segment, given what the archive says of the one
    /// before it: on the same timeline, or on the parent's for the first
    /// segment of a timeline.
    pub fn continue_from(previous: Option<&WalFacts>, survey: &Survey) -> Self {
        match previous.and_then(|previous| run_that_leads_to(previous, survey)) {
            Some(run) => run.extended_by(survey),
            None => Self::beginning_at(survey.start).extended_by(survey),
        }
    }

    fn beginning_at(run_start: Lsn) -> Self {
        Self {
            run_start,
            run_high: None,
            run_last_time: None,
            run_commits: 0,
            run_steps: 0,
            run_points: 0,
            run_prepares: Some(0),
            run_parameter_changes: Some(0),
            last_start: None,
        }
    }

    fn extended_by(self, survey: &Survey) -> Self {
        let high = survey.times.map(|(_, high)| high);
        let step_between = is_step_back(self.run_last_time, survey.first_time);
        Self {
            run_start: self.run_start,
            run_high: self.run_high.max(high),
            run_last_time: survey.last_time.or(self.run_last_time),
            run_commits: self.run_commits.saturating_add(survey.commits),
            run_steps: self
                .run_steps
                .saturating_add(survey.steps_back)
                .saturating_add(u64::from(step_between)),
            run_points: self.run_points.saturating_add(survey.restore_points.len() as u64),
            run_prepares: more(self.run_prepares, survey.prepares),
            run_parameter_changes: more(self.run_parameter_changes, survey.parameter_changes),
            last_start: survey.last_start.or(self.last_start),
        }
    }
}

/// A number that is not known stays unknown to the run's end.
fn more(since: Option<u64>, here: u64) -> Option<u64> {
    since.map(|since| since.saturating_add(here))
}

/// The run of the segment before, when it goes on in this one without a doubt.
fn run_that_leads_to(previous: &WalFacts, survey: &Survey) -> Option<RunFacts> {
    let whole = matches!(previous.ending, WalEnding::Full | WalEnding::Switched { .. });
    let adjacent = previous.end == survey.start;
    // Its first record may have been a commit that nobody decoded.
    let edge_known = !matches!(survey.edge, Edge::Unchecked { .. });
    let run = previous.run?;
    let chained = match survey.first_record {
        // After a crash in mid-record the first record names the one it stands for instead.
        Some(_) => {
            run.last_start.is_some() && [survey.first_prev, survey.overwrites].contains(&run.last_start)
        }
        // No record starts here: the one that spans in was checked with its beginning.
        None => survey.edge == Edge::Checked,
    };
    (whole && adjacent && edge_known && chained).then_some(run)
}

fn is_step_back(before: Option<Timestamp>, after: Option<Timestamp>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => after.0.saturating_add(STEP_BACK_MICROS) < before.0,
        _ => false,
    }
}

#[cfg(test)]
#[path = "run_facts/tests.rs"]
pub(crate) mod tests;
