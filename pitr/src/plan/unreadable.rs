//! Histories and summaries of backups that are there and cannot be read. What they would
//! have said is unknown, so nothing is planned past them as if they did not exist. Pure.

use std::collections::BTreeMap;

use walpoint_archive::{ArchiveError, BackupId, Catalog, DamagedObject, Entry, Layout};
use walpoint_wal::TimelineId;

use super::{PlanOutcome, SegmentOutcome, Unreachable};
use crate::path::{Chosen, NoPath};
use crate::target::{TargetRequest, TargetTimeline};

/// The objects that planning would have gone by.
#[derive(Debug, Default)]
pub(super) struct Unreadable<'c> {
    histories: BTreeMap<TimelineId, &'c DamagedObject>,
    summaries: BTreeMap<BackupId, &'c DamagedObject>,
}

impl<'c> Unreadable<'c> {
    pub fn of(catalog: &'c Catalog, layout: &Layout) -> Unreadable<'c> {
        let mut found = Unreadable::default();
        for object in &catalog.damaged {
            match layout.parse(&object.key) {
                Some(Entry::History { timeline, .. }) => {
                    found.histories.insert(timeline, object);
                }
                Some(Entry::Summary { backup }) => {
                    found.summaries.insert(backup, object);
                }
                _ => {}
            }
        }
        found
    }

    /// The backup that is asked for, when it is there and cannot be read.
    pub fn check_backup(&self, request: &TargetRequest) -> Result<(), ArchiveError> {
        match request.backup.as_ref().and_then(|wanted| self.summaries.get(wanted)) {
            Some(object) => Err(damaged(object, "")),
            None => Ok(()),
        }
    }

    /// Whether another choice of timeline might have been made with what cannot be read.
    pub fn check_choice(
        &self,
        request: &TargetRequest,
        choice: &Result<Chosen, NoPath>,
    ) -> Result<(), ArchiveError> {
        let newest = self.histories.last_key_value();
        let history = match (request.timeline, choice) {
            (TargetTimeline::Number(timeline), _) => self.histories.get(&timeline),
            (TargetTimeline::Latest, Ok(chosen)) => {
                newest.filter(|(timeline, _)| **timeline > chosen.path.timeline).map(|(_, object)| object)
            }
            (TargetTimeline::Latest, Err(NoPath::NoBackup(_))) => newest.map(|(_, object)| object),
            (TargetTimeline::Current, Err(NoPath::NoHistory(timeline))) => self.histories.get(timeline),
            _ => None,
        };
        if let Some(object) = history {
            return Err(damaged(object, "; an older timeline is taken only when --target-timeline names it"));
        }
        match (choice, self.summaries.last_key_value()) {
            (Err(NoPath::NoBackup(_)), Some((_, object))) if request.backup.is_none() => {
                Err(damaged(object, ""))
            }
            _ => Ok(()),
        }
    }

    /// The outcome, with what was not considered.
    pub fn told_in(&self, request: &TargetRequest, mut outcome: PlanOutcome) -> PlanOutcome {
        match &mut outcome {
            PlanOutcome::Reachable(plan) => plan.warnings.extend(self.not_considered(request)),
            PlanOutcome::Unreachable(why) => self.told_in_reason(request, why),
        }
        outcome
    }

    /// The same of a plan by metadata.
    pub fn told_in_segments(&self, request: &TargetRequest, mut outcome: SegmentOutcome) -> SegmentOutcome {
        match &mut outcome {
            SegmentOutcome::Reachable(plan) => plan.0.warnings.extend(self.not_considered(request)),
            SegmentOutcome::Unreachable(why) => self.told_in_reason(request, why),
        }
        outcome
    }

    fn told_in_reason(&self, request: &TargetRequest, why: &mut Unreachable) {
        for words in self.not_considered(request) {
            why.reason = format!("{}; {words}", why.reason);
        }
    }

    fn not_considered(&self, request: &TargetRequest) -> Vec<String> {
        let left_out = self.summaries.iter().filter(|_| request.backup.is_none());
        let words = |(id, object): (&BackupId, &&DamagedObject)| {
            format!("backup {id} was not considered: \"{}\" cannot be read ({})", object.key, object.reason)
        };
        left_out.map(words).collect()
    }
}

fn damaged(object: &DamagedObject, consequence: &str) -> ArchiveError {
    ArchiveError::Damaged { key: object.key.to_string(), what: format!("{}{consequence}", object.reason) }
}
