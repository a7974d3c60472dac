//! What the archive holds for this cluster from the last backup on: a listing
//! that does not grow with the archive's age, and one HEAD for each unbroken
//! run of WAL.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};

use walpoint_archive::{Archive, ArchiveError, BackupHead, Catalog, DamagedObject, Usable, Variant};
use walpoint_pitr::coverage::{self, Coverage, Link, Stretch, WhyGap};
use walpoint_pitr::path::{self, TimelinePath};
use walpoint_pitr::target::TargetTimeline;
use walpoint_wal::file_name::WalFileName;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::{SegmentName, SegmentSize};
use walpoint_wal::timeline::{TimelineHistory, TimelineId};

use super::health::{ArchiveState, Damage, Gap, KnownBackup};
use super::missing;
use super::way::Way;

/// Marks that are read at once.
const PARALLEL: usize = 16;

/// Whose WAL to look for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The timeline that the server writes; `None` when it does not answer or writes none, being in recovery.
    pub timeline: Option<TimelineId>,
    /// Where it writes.
    pub position: Option<Lsn>,
    /// Timelines that its history names, itself included, without the first.
    pub ancestry: Vec<TimelineId>,
    /// That history as `pg_wal` has it, for as long as the archive does not.
    pub history: Option<TimelineHistory>,
    /// From how many backups back the WAL is looked at.
    pub look_back: u32,
}

/// What the archive says.
#[derive(Debug, Clone, Default)]
pub struct View {
    pub state: ArchiveState,
    /// Segments that the server has completed behind the archive's end.
    pub unarchived: Vec<SegmentName>,
    /// Unbroken WAL of the server's way.
    pub covered: Vec<Covered>,
}

/// Segments without a hole between them, and how far the last one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    pub first: u64,
    pub last: u64,
    pub end: Lsn,
}

impl View {
    fn of(state: ArchiveState) -> View {
        View { state, ..View::default() }
    }

    /// How far the archive has the server's WAL from a segment on without a hole.
    pub fn covered_from(&self, segment: u64) -> Option<Lsn> {
        self.covered.iter().find(|it| (it.first..=it.last).contains(&segment)).map(|it| it.end)
    }
}

/// Looks into the archive. A cluster that it does not know yet is an empty
/// state, no error.
pub async fn look(archive: &Archive, wanted: &Wanted) -> Result<View, ArchiveError> {
    let mut catalog = match archive.catalog_of_newest(|catalog| are_enough(catalog, wanted)).await {
        Ok(catalog) => catalog,
        Err(ArchiveError::NoCluster(_)) => {
            let missing_histories = wanted.ancestry.clone();
            let state = ArchiveState { missing_histories, ..ArchiveState::default() };
            return Ok(View::of(state));
        }
        Err(error) => return Err(error),
    };
    let followed = followed(&catalog);
    let newest = || catalog.backups.last().map(|backup| backup.timeline);
    let timeline = wanted.timeline.or(followed).or_else(newest);
    let way = timeline.map(|timeline| Way::to(&catalog, timeline, wanted.history.as_ref()));
    let mut state = ArchiveState { followed, ..backups_and_histories(&catalog, way.as_ref(), wanted) };
    let Some(way) = way else { return Ok(View::of(state)) };
    let has_backup = !way.backups.is_empty();
    let beginning = way.beginning(wanted.look_back).or(wanted.position);
    let Some(from) = beginning else { return Ok(View::of(state)) };
    let (path, is_known) = (way.path, way.is_known);
    archive.look_for_wal(&mut catalog, from).await?;
    let look = Look { catalog: &catalog, size: catalog.cluster.segment_size, from, has_backup };
    let coverage = Coverage::of(&catalog, path);
    look.holes(&coverage, &mut state);
    state.archived_to = look.archived_to(coverage.path.timeline);
    state.refused = look.refused(archive).await?;
    look.damage(archive, &coverage, &mut state).await?;
    // Where nobody knows the way, nobody knows the names.
    if !is_known {
        return Ok(View::of(state));
    }
    let unarchived = look.unarchived(&coverage, wanted);
    Ok(View { state, unarchived, covered: covered_by(&coverage) })
}

fn covered_by(coverage: &Coverage<'_>) -> Vec<Covered> {
    let of = |stretch: &Stretch| {
        let end = coverage.link(stretch.last())?.end(coverage.size);
        Some(Covered { first: stretch.first(), last: stretch.last(), end })
    };
    coverage.stretches.iter().filter_map(of).collect()
}

fn backups_and_histories(catalog: &Catalog, way: Option<&Way<'_>>, wanted: &Wanted) -> ArchiveState {
    let known = |summary: &BackupHead| KnownBackup {
        id: summary.id.clone(),
        stopped: summary.stop.time,
        damaged_pages: summary.damaged_pages,
    };
    let usable = way.map(|way| way.backups.as_slice()).unwrap_or_default();
    let good = usable.iter().find(|backup| backup.damaged_pages == 0);
    let is_missing = |timeline: &TimelineId| !catalog.histories.contains_key(timeline);
    ArchiveState {
        last_backup: usable.first().copied().map(known),
        last_good_backup: good.copied().map(known),
        off_the_way: catalog.backups.len().saturating_sub(usable.len()),
        ambiguous: catalog
            .history_conflicts
            .iter()
            .map(|timeline| WalFileName::History(*timeline).to_string())
            .collect(),
        missing_histories: wanted
            .ancestry
            .iter()
            .filter(|timeline| is_missing(timeline) && !catalog.history_conflicts.contains(timeline))
            .copied()
            .collect(),
        unreadable: catalog
            .damaged
            .iter()
            .map(|object| (object.key.to_string(), object.reason.clone()))
            .collect(),
        ..ArchiveState::default()
    }
}

/// The timeline that a restore takes when none is named.
fn followed(catalog: &Catalog) -> Option<TimelineId> {
    let backups: Vec<&BackupHead> = catalog.backups.iter().collect();
    path::choose(catalog, TargetTimeline::Latest, &backups).ok().map(|chosen| chosen.path.timeline)
}

/// Whether older backups could change nothing that is looked for here.
fn are_enough(catalog: &Catalog, wanted: &Wanted) -> bool {
    let Some(followed) = followed(catalog) else { return false };
    // An older backup may be the only one that leads to a newer timeline.
    let has_way = |timeline: &TimelineId| TimelinePath::to(catalog, *timeline).is_ok();
    if path::known(catalog).into_iter().rev().find(has_way) != Some(followed) {
        return false;
    }
    let way = Way::to(catalog, wanted.timeline.unwrap_or(followed), wanted.history.as_ref());
    let back = usize::try_from(wanted.look_back.max(1)).unwrap_or(usize::MAX);
    way.backups.len() >= back && way.backups.iter().any(|backup| backup.damaged_pages == 0)
}

struct Look<'a> {
    catalog: &'a Catalog,
    size: SegmentSize,
    from: Lsn,
    /// Is that a backup's start, and not just where the server is?
    has_backup: bool,
}

impl Look<'_> {
    fn first_number(&self) -> u64 {
        self.from.segment_number(self.size)
    }

    /// Holes and undecided names at or after the beginning.
    fn holes(&self, coverage: &Coverage<'_>, state: &mut ArchiveState) {
        state.gaps.extend(self.hole_at_the_beginning(coverage));
        for gap in &coverage.gaps {
            let Ok(last) = gap.last.number(self.size) else { continue };
            if last < self.first_number() {
                continue;
            }
            match &gap.why {
                WhyGap::Ambiguous(_) => state.ambiguous.push(gap.first.to_string()),
                WhyGap::Illegible(why) => state.unreadable.push((gap.first.to_string(), why.clone())),
                WhyGap::Missing | WhyGap::OnlyPartial | WhyGap::OnlyBeginning(_) => {
                    state.gaps.push(self.hole(coverage, gap, last));
                }
            }
        }
    }

    fn hole(&self, coverage: &Coverage<'_>, gap: &coverage::Gap, last: u64) -> Gap {
        let followed_since = coverage.link(last + 1).and_then(|link| link.variant.stored_at);
        Gap { first: gap.first, last: gap.last, followed_since }
    }

    /// WAL of the backup itself that is gone is not between two segments.
    fn hole_at_the_beginning(&self, coverage: &Coverage<'_>) -> Option<Gap> {
        let link = coverage.links_from(self.first_number()).next()?;
        let is_backups = self.has_backup && link.number > self.first_number();
        let has_link_before = coverage.stretches.first().is_some_and(|it| it.first() < self.first_number());
        if !is_backups || has_link_before {
            return None;
        }
        let name = |number| SegmentName::from_number(link.name.timeline, number, self.size);
        Some(Gap {
            first: name(self.first_number())?,
            last: name(link.number - 1)?,
            followed_since: link.variant.stored_at,
        })
    }

    /// End of the newest segment that the archive has of the timeline.
    fn archived_to(&self, timeline: TimelineId) -> Option<Lsn> {
        let segments = self.catalog.wal.get(&timeline)?;
        let (newest, end) = segments.iter().rev().find_map(|(number, state)| match state.available() {
            Usable::Nothing => None,
            Usable::One(Variant { tail: Some(tail), .. }) => Some((*number, u64::from(tail.end()))),
            Usable::One(_) | Usable::Ambiguous(_) => Some((*number, self.size.bytes())),
        })?;
        newest.checked_mul(self.size.bytes())?.checked_add(end).map(Lsn)
    }

    /// What the server has completed behind the newest segment of its way. Holes
    /// before that are [`Look::holes`].
    fn unarchived(&self, coverage: &Coverage<'_>, wanted: &Wanted) -> Vec<SegmentName> {
        let Some(position) = wanted.position else { return Vec::new() };
        // Of one that is there in part the rest is as missing as those behind it.
        let newest = coverage.stretches.last().and_then(|stretch| coverage.link(stretch.last()));
        let newest = newest.map(|link| link.number + u64::from(!link.is_open));
        let from = newest.unwrap_or_default().max(self.first_number());
        missing::unarchived(self.catalog, &coverage.path, from, position)
    }

    /// Names at or after the beginning under which content was refused, and no person has decided so.
    async fn refused(&self, archive: &Archive) -> Result<Vec<String>, ArchiveError> {
        let refused_beside = self.catalog.wal.values().flatten().flat_map(|(_, state)| &state.variants);
        let refused_beside = refused_beside.filter(|variant| variant.refused);
        let refused: BTreeSet<_> = refused_beside
            .chain(&self.catalog.conflicts)
            .filter(|variant| self.is_recent(variant) && !self.stands(variant))
            .map(|variant| (variant.name, variant.content))
            .collect();
        let asked = refused.into_iter().map(async |(name, content)| {
            let is_resolved = archive.is_resolved(&name, content).await?;
            Ok::<_, ArchiveError>((!is_resolved).then(|| name.to_string()))
        });
        let open: Vec<Option<String>> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
        let names: BTreeSet<String> = open.into_iter().flatten().collect();
        Ok(names.into_iter().collect())
    }

    /// Kept aside once, and used since: somebody decided for it.
    fn stands(&self, variant: &Variant) -> bool {
        let WalFileName::Segment(name) = variant.name else { return false };
        let state = name.number(self.size).ok().and_then(|number| {
            self.catalog.wal.get(&name.timeline).and_then(|segments| segments.get(&number))
        });
        state.is_some_and(|state| state.standing().iter().any(|it| it.content == variant.content))
    }

    fn is_recent(&self, variant: &Variant) -> bool {
        match variant.name {
            WalFileName::Segment(name)
            | WalFileName::Partial(name)
            | WalFileName::BackupHistory { segment: name, .. } => {
                name.number(self.size).is_ok_and(|number| number >= self.first_number())
            }
            WalFileName::History(_) => true,
        }
    }

    /// A run of WAL ends where it is damaged, so the last segment of each run
    /// tells whether it is. One that cannot be read tells nothing of those before it.
    async fn damage(
        &self,
        archive: &Archive,
        coverage: &Coverage<'_>,
        state: &mut ArchiveState,
    ) -> Result<(), ArchiveError> {
        let links: Vec<Link<'_>> = coverage.links_from(self.first_number()).collect();
        let mut unseen = links.len();
        while let Some(link) = unseen.checked_sub(1).and_then(|last| links.get(last)) {
            let run_start = match archive.wal_facts(link.variant).await {
                Ok(facts) => {
                    let damage = facts.damaged_at().map(|lsn| Damage { segment: link.name, lsn });
                    state.damaged.extend(damage);
                    facts.run.map(|run| run.run_start.segment_number(self.size))
                }
                Err(error) => {
                    let object = DamagedObject::by(link.variant.key(), error)?;
                    state.unreadable.push((object.key.to_string(), object.reason));
                    None
                }
            };
            let before = run_start.unwrap_or(link.number).min(link.number);
            let begin = links.partition_point(|link| link.number < before);
            // One that had a rival is looked at by itself: the run behind it may be of the rival.
            let passed = links.get(begin..unseen - 1).unwrap_or_default();
            unseen = passed.iter().rposition(|link| link.is_contested).map_or(begin, |at| begin + at + 1);
        }
        state.damaged.reverse();
        Ok(())
    }
}

#[cfg(test)]
#[path = "archive_view/tests.rs"]
mod tests;
