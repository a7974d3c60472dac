//! Timelines: which there are, where each comes from, and which one is meant.

use std::collections::BTreeSet;

use walpoint_archive::{BackupHead, BackupSummary, Catalog, SegmentState};
use walpoint_wal::{Lsn, PathStep, TimelineHistory, TimelineId};

use crate::target::TargetTimeline;

/// A timeline with the way that leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath {
    /// The timeline.
    pub timeline: TimelineId,
    /// Oldest step first, the timeline itself last.
    pub steps: Vec<PathStep>,
}

/// Why there is no way to a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoPath {
    /// Nothing in the archive names it.
    Unknown(TimelineId),
    /// Its history file is not in the archive.
    NoHistory(TimelineId),
    /// The archive holds two histories of it.
    HistoryConflict(TimelineId),
    /// There is no base backup that it descends from.
    NoBackup(Option<TimelineId>),
}

/// The timeline that a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// It and its way.
    pub path: TimelinePath,
    /// Newer timelines that were passed over because their history is missing.
    pub without_history: Vec<TimelineId>,
}

impl TimelinePath {
    /// The way to `timeline` by the archive's histories.
    pub fn to(catalog: &Catalog, timeline: TimelineId) -> Result<TimelinePath, NoPath> {
        if catalog.history_conflicts.contains(&timeline) {
            return Err(NoPath::HistoryConflict(timeline));
        }
        let history = match catalog.histories.get(&timeline) {
            Some(history) => history.clone(),
            None if timeline == TimelineId::FIRST => TimelineHistory::first(),
            None if known(catalog).contains(&timeline) => return Err(NoPath::NoHistory(timeline)),
            None => return Err(NoPath::Unknown(timeline)),
        };
        Ok(TimelinePath { timeline, steps: history.path() })
    }

    /// The step that the byte at `lsn` is taken from.
    pub fn step_at(&self, lsn: Lsn) -> Option<&PathStep> {
        self.steps.iter().rev().find(|step| step.begin <= lsn && step.end.is_none_or(|end| lsn < end))
    }

    /// The step that is this timeline's.
    pub fn step_of(&self, timeline: TimelineId) -> Option<&PathStep> {
        self.steps.iter().find(|step| step.timeline == timeline)
    }

    /// Whether a recovery along this path can begin with the backup: all that it must
    /// replay to be consistent comes before its timeline is left.
    pub fn holds<P>(&self, backup: &BackupSummary<P>) -> bool {
        let step = self.step_of(backup.timeline);
        step.is_some_and(|step| step.end.is_none_or(|end| backup.stop.lsn <= end))
    }
}

/// A parent that goes on beside the timeline that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rival {
    /// The parent.
    pub timeline: TimelineId,
    /// Where the chosen timeline's way leaves it.
    pub fork: Lsn,
}

/// The parent of the path's timeline when its server went on archiving behind the fork:
/// it has WAL there that is newer than the child's beginning. After a deliberate step
/// back in time the parent's WAL is the older one, and no rival.
pub fn rival_parent<'c>(catalog: &'c Catalog, path: &TimelinePath) -> Option<Rival> {
    let size = catalog.cluster.segment_size;
    let parent = path.steps.iter().rev().find(|step| step.end.is_some())?;
    let fork = parent.end?;
    // The segment that the fork lies in holds WAL of both.
    let first = fork.segment_number(size);
    let stored = |timeline: TimelineId| {
        let segments = catalog.wal.get(&timeline).into_iter().flat_map(move |it| it.range(first..));
        let stored = |state: &'c SegmentState| state.standing().into_iter().chain(state.tail.as_deref());
        segments.flat_map(move |(_, state)| stored(state)).map(|variant| variant.stored_at)
    };
    let newest_of_parent = stored(parent.timeline).max()?;
    let oldest_of_child = stored(path.timeline).min();
    let went_on = oldest_of_child.is_none_or(|child| newest_of_parent >= child);
    went_on.then_some(Rival { timeline: parent.timeline, fork })
}

/// Every timeline that anything in the archive names.
pub fn known(catalog: &Catalog) -> BTreeSet<TimelineId> {
    let ancestors = catalog.histories.values().flat_map(|history| &history.ancestors);
    let mut known: BTreeSet<TimelineId> = ancestors.map(|ancestor| ancestor.timeline).collect();
    known.extend(catalog.histories.keys());
    known.extend(&catalog.history_conflicts);
    known.extend(
        catalog.wal.iter().filter(|(_, segments)| !segments.is_empty()).map(|(timeline, _)| timeline),
    );
    known.extend(catalog.partials.keys().map(|name| name.timeline));
    known.extend(catalog.backups.iter().map(|backup| backup.timeline));
    known
}

/// Finds the timeline that is meant, given the backups that may be used.
pub fn choose(catalog: &Catalog, wanted: TargetTimeline, backups: &[&BackupHead]) -> Result<Chosen, NoPath> {
    let newest = backups.iter().max_by_key(|backup| (backup.stop.lsn, &backup.id));
    let newest = newest.ok_or(NoPath::NoBackup(None))?;
    let timeline = match wanted {
        TargetTimeline::Latest => return newest_descendant(catalog, backups),
        TargetTimeline::Current => newest.timeline,
        TargetTimeline::Number(timeline) => timeline,
    };
    let path = TimelinePath::to(catalog, timeline)?;
    if !backups.iter().any(|backup| path.holds(backup)) {
        return Err(NoPath::NoBackup(Some(timeline)));
    }
    Ok(Chosen { path, without_history: Vec::new() })
}

fn newest_descendant(catalog: &Catalog, backups: &[&BackupHead]) -> Result<Chosen, NoPath> {
    let mut without_history = Vec::new();
    for timeline in known(catalog).into_iter().rev() {
        match TimelinePath::to(catalog, timeline) {
            Ok(path) if backups.iter().any(|backup| path.holds(backup)) => {
                return Ok(Chosen { path, without_history });
            }
            Ok(_) => {}
            Err(NoPath::NoHistory(timeline)) => without_history.push(timeline),
            // Which of two histories is true decides what the newest timeline holds:
            // an older one must not be taken for it in silence.
            Err(conflict) => return Err(conflict),
        }
    }
    Err(NoPath::NoBackup(None))
}
