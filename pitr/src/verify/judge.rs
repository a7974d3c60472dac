//! From what is wrong with objects to what that costs, and to what is left.

use std::collections::BTreeSet;

use serde::Serialize;
use walpoint_archive::{BackupHead, BackupId, Catalog};
use walpoint_wal::{Lsn, SegmentName, TimelineId, WalFileName};

use super::costs::{Lost, Obstacle, Way, WayBackup};
use super::finding::{Cost, Fault, Finding, Touches, Trouble};
use crate::coverage::{Coverage, Gap, WhyGap};
use crate::path::{NoPath, TimelinePath, known};
use crate::plan::{Moment, on_path, words};

/// Moments that can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SoundRange {
    /// The timeline to recover to.
    pub timeline: TimelineId,
    /// The first.
    pub from: Moment,
    /// The last.
    pub to: Moment,
    /// The backup that reaches furthest back.
    pub backup: BackupId,
}

/// What all of it comes to.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub findings: Vec<Finding>,
    pub ranges: Vec<SoundRange>,
    /// Backups that no way holds.
    pub without_way: BTreeSet<BackupId>,
}

/// A way that a recovery can take, and what lies on it.
struct Judging<'a> {
    coverage: Coverage<'a>,
    way: Way,
    /// What backups need of the WAL before the first segment that is there: only they show that there was any.
    before_all: Option<Gap>,
}

/// Judges.
pub(super) fn judge(catalog: &Catalog, faults: &[Fault]) -> Judged {
    let ways: Vec<Judging<'_>> =
        known(catalog).into_iter().filter_map(|timeline| Judging::of(catalog, timeline)).collect();
    let without_way = without_way(catalog, &ways);
    let lost = lost_histories(catalog, faults);
    let all = faults.iter().chain(&lost);
    let mut findings: Vec<Finding> = all.map(|fault| finding(catalog, &ways, &without_way, fault)).collect();
    for judging in &ways {
        for hole in judging.holes(catalog) {
            take_in(&mut findings, hole);
        }
    }
    findings.sort_by(|one, other| (one.trouble, &one.object).cmp(&(other.trouble, &other.object)));
    let gone = lost_backups(faults);
    let ranges = ways.iter().flat_map(|judging| judging.left(catalog, faults, &gone)).collect();
    Judged { findings, ranges, without_way }
}

/// Timelines that are more than a name in the archive, and whose history is not there: nobody knows where they branch
/// off, and nothing on them can be reached.
fn lost_histories(catalog: &Catalog, faults: &[Fault]) -> Vec<Fault> {
    let is_lost = |timeline: &TimelineId| {
        let is_known = faults.iter().any(|fault| fault.touches == Touches::Timeline(*timeline));
        let has_backup = catalog.backups.iter().any(|backup| backup.timeline == *timeline);
        let has_wal = catalog.wal.get(timeline).is_some_and(|segments| !segments.is_empty());
        let no_history = || matches!(TimelinePath::to(catalog, *timeline), Err(NoPath::NoHistory(_)));
        !is_known && (has_backup || has_wal) && no_history()
    };
    let fault = |timeline: TimelineId| {
        let name = WalFileName::History(timeline);
        let what = format!(
            "the timeline's history file is not there; push it again: walpoint archive-push pg_wal/{name}"
        );
        Fault::new(name, Trouble::Missing, what, Touches::Timeline(timeline))
    };
    known(catalog).into_iter().filter(is_lost).map(fault).collect()
}

fn without_way(catalog: &Catalog, ways: &[Judging<'_>]) -> BTreeSet<BackupId> {
    let held: BTreeSet<&BackupId> = ways.iter().flat_map(|it| &it.way.backups).map(|it| &it.id).collect();
    let ids = catalog.backups.iter().map(|backup| &backup.id);
    ids.filter(|id| !held.contains(id)).cloned().collect()
}

/// What there is of a timeline to which no way leads: from where it branches off, as far as a descendant's history
/// says so, to the end of its WAL.
fn extent(catalog: &Catalog, ways: &[Judging<'_>], timeline: TimelineId) -> Option<Lost> {
    let size = catalog.cluster.segment_size;
    let segments = catalog.wal.get(&timeline).into_iter().flat_map(|segments| segments.keys());
    let starts = segments.map(|number| Lsn(number.saturating_mul(size.bytes())));
    let (first, last) = (starts.clone().min(), starts.max());
    let backups = || catalog.backups.iter().filter(|backup| backup.timeline == timeline);
    let fork = ways.iter().find_map(|it| it.coverage.path.step_of(timeline)).map(|step| step.begin);
    let from = fork.or_else(|| first.into_iter().chain(backups().map(|backup| backup.redo)).min())?;
    let ends = last.map(|start| Lsn(start.0.saturating_add(size.bytes()))).into_iter();
    let to = ends.chain(backups().map(|backup| backup.stop.lsn)).max()?;
    Some((from, to))
}

/// A hole in a parent is one on the way to its children, too: one finding, with all that it costs.
fn take_in(findings: &mut Vec<Finding>, hole: Finding) {
    match findings.iter_mut().find(|known| (known.trouble, &known.object) == (hole.trouble, &hole.object)) {
        Some(known) => {
            known.costs.extend(
                hole.costs.into_iter().filter(|cost| !known.costs.contains(cost)).collect::<Vec<_>>(),
            );
            known.backups.extend(hole.backups);
            known.backups.sort();
            known.backups.dedup();
        }
        None => findings.push(hole),
    }
}

fn lost_backups(faults: &[Fault]) -> BTreeSet<BackupId> {
    let lost = faults.iter().filter_map(|fault| match &fault.touches {
        Touches::Backups(ids) => Some(ids),
        _ => None,
    });
    lost.flatten().cloned().collect()
}

fn finding(
    catalog: &Catalog,
    ways: &[Judging<'_>],
    without_way: &BTreeSet<BackupId>,
    fault: &Fault,
) -> Finding {
    let (mut backups, mut costs) = (Vec::new(), Vec::new());
    match &fault.touches {
        Touches::Nothing => {}
        Touches::Timeline(timeline) => {
            let of_it = catalog.backups.iter().filter(|backup| backup.timeline == *timeline);
            let lost = of_it.filter(|backup| without_way.contains(&backup.id));
            backups.extend(lost.map(|backup| backup.id.clone()));
            let extent = extent(catalog, ways, *timeline);
            let (from, to) = (extent.map(|(from, _)| from), extent.map(|(_, to)| to));
            let moment = |lsn: Option<Lsn>| lsn.map(|lsn| moment(catalog, lsn));
            costs.push(Cost { timeline: *timeline, from: moment(from), to: moment(to) });
        }
        Touches::Backups(ids) => {
            backups.clone_from(ids);
            let gone: BTreeSet<BackupId> = ids.iter().cloned().collect();
            costs.extend(ways.iter().filter_map(|it| it.cost(catalog, it.way.lost_without(&gone))));
        }
        Touches::Segment { name, stop, beyond } => {
            let obstacle = Obstacle { stop: *stop, beyond: *beyond };
            for judging in ways.iter().filter(|judging| judging.passes(*name)) {
                costs.extend(judging.cost(catalog, judging.way.lost_by(obstacle)));
                backups.extend(judging.backups_lost_by(obstacle));
            }
            backups.sort();
            backups.dedup();
        }
    }
    let (object, what) = (fault.object.clone(), fault.what.clone());
    Finding { object, trouble: fault.trouble, what, backups, costs }
}

impl<'a> Judging<'a> {
    fn of(catalog: &'a Catalog, timeline: TimelineId) -> Option<Judging<'a>> {
        let path = TimelinePath::to(catalog, timeline).ok()?;
        let coverage = Coverage::of(catalog, path);
        let all: Vec<&BackupHead> = catalog.backups.iter().collect();
        let backups = on_path(&all, &coverage.path).into_iter().map(|backup| WayBackup {
            id: backup.id.clone(),
            redo: backup.redo,
            stop: backup.stop.lsn,
        });
        let begin = coverage.path.steps.last().map_or(Lsn::ZERO, |step| step.begin);
        let last = coverage.stretches.last().and_then(|stretch| coverage.link(stretch.last()));
        let backups: Vec<WayBackup> = backups.collect();
        // A backup's own WAL may be what is missing.
        let stops = backups.iter().map(|backup| backup.stop).max();
        let end = last.map_or(Lsn::ZERO, |link| link.end(coverage.size)).max(stops.unwrap_or(Lsn::ZERO));
        let before_all = before_all(&coverage, &backups);
        Some(Judging { way: Way { begin, end, backups }, coverage, before_all })
    }

    /// Whether a recovery along it reads this segment.
    fn passes(&self, name: SegmentName) -> bool {
        let Ok(number) = name.number(self.coverage.size) else { return false };
        self.coverage.link(number).is_some_and(|link| link.name == name)
    }

    /// Backups that cannot reach their own end.
    fn backups_lost_by(&self, obstacle: Obstacle) -> Vec<BackupId> {
        let lost = |it: &&WayBackup| it.redo < obstacle.beyond && it.stop > obstacle.stop;
        self.way.backups.iter().filter(lost).map(|backup| backup.id.clone()).collect()
    }

    fn cost(&self, catalog: &Catalog, lost: Option<Lost>) -> Option<Cost> {
        let (from, to) = lost?;
        let (from, to) = (Some(moment(catalog, from)), Some(moment(catalog, to)));
        Some(Cost { timeline: self.coverage.path.timeline, from, to })
    }

    /// Segments that are not there, or undecided, and that cost something.
    fn holes(&self, catalog: &Catalog) -> Vec<Finding> {
        let gaps = self.coverage.gaps.iter().chain(&self.before_all);
        let mut findings = Vec::new();
        for gap in gaps {
            let obstacle = self.obstacle_of(gap);
            let cost = self.cost(catalog, self.way.lost_by(obstacle));
            let backups = self.backups_lost_by(obstacle);
            if cost.is_none() && backups.is_empty() {
                continue;
            }
            let object = match gap.first == gap.last {
                true => gap.first.to_string(),
                false => format!("{} to {}", gap.first, gap.last),
            };
            let trouble = match gap.why {
                WhyGap::Ambiguous(_) => Trouble::Undecided,
                WhyGap::Missing | WhyGap::OnlyPartial | WhyGap::OnlyBeginning(_) => Trouble::Missing,
                WhyGap::Illegible(_) => Trouble::Damaged,
            };
            let (what, hint) = words::gap(gap);
            let what = hint.map_or(what.clone(), |hint| format!("{what}; {hint}"));
            findings.push(Finding { object, trouble, what, backups, costs: cost.into_iter().collect() });
        }
        findings
    }

    fn obstacle_of(&self, gap: &Gap) -> Obstacle {
        let size = self.coverage.size;
        let start = |name: SegmentName| name.start(size).unwrap_or(Lsn::ZERO);
        let mut stop = start(gap.first);
        if let WhyGap::OnlyBeginning(end) = gap.why {
            stop = end;
        }
        // A parent's file that is cut at a fork serves up to there.
        if let Some(begin) = self.coverage.path.step_of(gap.timeline).map(|step| step.begin) {
            stop = stop.max(begin.min(Lsn(stop.0.saturating_add(size.bytes()))));
        }
        Obstacle { stop, beyond: Lsn(start(gap.last).0.saturating_add(size.bytes())) }
    }

    fn left(&self, catalog: &Catalog, faults: &[Fault], gone: &BTreeSet<BackupId>) -> Vec<SoundRange> {
        let mut obstacles: Vec<Obstacle> =
            self.coverage.gaps.iter().chain(&self.before_all).map(|gap| self.obstacle_of(gap)).collect();
        obstacles.extend(faults.iter().filter_map(|fault| match &fault.touches {
            Touches::Segment { name, stop, beyond } if self.passes(*name) => {
                Some(Obstacle { stop: *stop, beyond: *beyond })
            }
            _ => None,
        }));
        let ranges = self.way.left(&obstacles, gone).into_iter();
        ranges
            .map(|((from, to), backup)| SoundRange {
                timeline: self.coverage.path.timeline,
                from: moment(catalog, from),
                to: moment(catalog, to),
                backup,
            })
            .collect()
    }
}

/// From the first segment that a backup needs to the one before the first that is there, or to the last that it needs.
fn before_all(coverage: &Coverage<'_>, backups: &[WayBackup]) -> Option<Gap> {
    let size = coverage.size;
    let first_there = coverage.stretches.first().map_or(u64::MAX, |stretch| stretch.first());
    let early = || backups.iter().filter(|backup| backup.redo.segment_number(size) < first_there);
    let first = early().map(|backup| backup.redo).min()?;
    let needed = early().map(|backup| Lsn(backup.stop.0.saturating_sub(1)).segment_number(size)).max()?;
    let last = needed.max(first.segment_number(size)).min(first_there.saturating_sub(1));
    let timeline = coverage.path.step_at(first)?.timeline;
    let named = |number| SegmentName::from_number(timeline, number, size);
    let (first, last) = (named(first.segment_number(size))?, named(last)?);
    Some(Gap { timeline, first, last, why: WhyGap::Missing })
}

/// The time of a moment is known where a backup ends.
fn moment(catalog: &Catalog, lsn: Lsn) -> Moment {
    let at = catalog.backups.iter().find(|backup| backup.stop.lsn == lsn);
    Moment { lsn, time: at.map(|backup| backup.stop.time) }
}
