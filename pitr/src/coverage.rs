//! Which stored segment serves which stretch of WAL on the way to a timeline, and what is
//! missing. Pure: it sees names, not content.
//!
//! PostgreSQL looks for a segment on the newest timeline of the path that had begun by
//! then and goes on to older ones (`XLogFileReadAnyTLI`, access/transam/xlogrecovery.c).
//! It never looks where a timeline ends, so an older one's WAL from beyond the fork would
//! be replayed if it were handed out. Here it is cut off at the fork: the first segment of
//! a timeline begins with a copy of its parent's WAL, and where that file is missing the
//! parent's own serves up to the fork and no further.
//!
//! A segment of which only the tail was shipped serves as far as the tail goes. WAL behind
//! that, when there is some, does not continue it.

use std::collections::{BTreeMap, BTreeSet};

use walpoint_archive::{Catalog, ContentId, SegmentState, Usable, Variant};
use walpoint_wal::{Lsn, PathStep, SegmentName, SegmentSize, TimelineId};

use crate::path::TimelinePath;

mod files;
mod illegible;

use files::Files;
pub(crate) use illegible::Illegible;

/// The WAL that the archive has on the way to a timeline. It holds where that is unbroken, not
/// each segment: of a million there is one stretch.
#[derive(Debug)]
pub struct Coverage<'a> {
    /// The way.
    pub path: TimelinePath,
    /// Segment size of the cluster.
    pub size: SegmentSize,
    /// Unbroken by name, in order of address.
    pub stretches: Vec<Stretch>,
    /// What lies between them, and after the last one.
    pub gaps: Vec<Gap>,
    /// Segments in them that are contested.
    contested: BTreeSet<u64>,
    /// What the archive has of each.
    files: Files<'a>,
}

/// Segments without a hole between them, each one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    first: u64,
    last: u64,
}

/// One stored segment and what of it counts.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// Number of the segment, counted from the beginning of WAL.
    pub number: u64,
    /// Name it is stored under.
    pub name: SegmentName,
    /// The object.
    pub variant: &'a Variant,
    /// Where the timeline that it is named for is left, when that is inside it.
    pub cut: Option<Lsn>,
    /// Another content stands, stood or was refused under this name, or was shipped before it
    /// was complete: what the metadata of the segments behind it say of their run may go back
    /// to that one.
    pub is_contested: bool,
    /// It is a tail that reaches neither that place nor the segment's end.
    pub is_open: bool,
}

/// Segments that are needed on the way and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Timeline they should be on.
    pub timeline: TimelineId,
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// Why they cannot be used.
    pub why: WhyGap,
}

/// Why a segment cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhyGap {
    /// Not in the archive.
    Missing,
    /// Only as `.partial`, which PostgreSQL never asks for.
    OnlyPartial,
    /// The archive holds several, and nobody has decided.
    Ambiguous(Vec<ContentId>),
    /// Its metadata cannot be read: what is wrong with them.
    Illegible(String),
    /// It was shipped while it was being written, and what is known to have been behind this
    /// place is not there.
    OnlyBeginning(Lsn),
}

impl<'a> Coverage<'a> {
    /// What `catalog` has on this way, by its names.
    pub fn of(catalog: &'a Catalog, path: TimelinePath) -> Coverage<'a> {
        Coverage::without(catalog, path, &Illegible::default())
    }

    /// The same without segments that are known to be of no use.
    pub(crate) fn without(catalog: &'a Catalog, path: TimelinePath, illegible: &Illegible) -> Coverage<'a> {
        let size = catalog.cluster.segment_size;
        let files = Files::of(catalog, &path, illegible.clone());
        let mut sight = Sight::default();
        files.numbers().for_each(|number| sight.take(number, files.at(number)));
        let Sight { stretches, unusable, contested, .. } = sight;
        let holes = Holes { catalog, path: &path, size, files: &files, unusable: &unusable };
        let gaps = holes.between_and_after(&stretches);
        Coverage { path, size, stretches, gaps, contested, files }
    }

    /// The segment that serves this number.
    pub fn link(&self, number: u64) -> Option<Link<'a>> {
        let at = self.stretches.partition_point(|stretch| stretch.last < number);
        self.stretches.get(at).filter(|stretch| stretch.first <= number)?;
        self.files.at(number).link
    }

    /// Every segment that serves from this number on, in order of address.
    pub fn links_from(&self, number: u64) -> impl Iterator<Item = Link<'a>> {
        let at = self.stretches.partition_point(|stretch| stretch.last < number);
        let stretches = self.stretches.iter().skip(at);
        let numbers = stretches.flat_map(move |stretch| stretch.first.max(number)..=stretch.last);
        numbers.filter_map(|number| self.files.at(number).link)
    }

    /// The last segment from `first` to `last` that is contested.
    pub fn last_contested(&self, first: u64, last: u64) -> Option<u64> {
        if first > last {
            return None;
        }
        self.contested.range(first..=last).next_back().copied()
    }

    /// The timelines from `record_timeline` on that have this segment as a file of their
    /// own, oldest first: those that can be handed to PostgreSQL, which never looks for a
    /// timeline's WAL in a child's file.
    pub fn holders(
        &self,
        catalog: &'a Catalog,
        record_timeline: TimelineId,
        number: u64,
    ) -> Vec<(TimelineId, &'a Variant)> {
        let steps = self.path.steps.iter().filter(|step| step.timeline >= record_timeline);
        let begun = steps.filter(|step| step.begin.segment_number(self.size) <= number);
        let holder = |step: &PathStep| {
            let state = catalog.wal.get(&step.timeline)?.get(&number)?;
            match state.available() {
                Usable::One(variant) if self.files.illegible.why(variant).is_none() => {
                    Some((step.timeline, variant))
                }
                _ => None,
            }
        };
        begun.filter_map(holder).collect()
    }

    /// The gap that begins after this segment, or in it behind a fork.
    pub fn gap_after(&self, number: u64) -> Option<&Gap> {
        let first = |gap: &Gap| gap.first.number(self.size).ok();
        self.gaps.iter().find(|gap| first(gap).is_some_and(|first| first == number || first == number + 1))
    }
}

impl<'a> Link<'a> {
    fn new(
        number: u64,
        name: SegmentName,
        variant: &'a Variant,
        cut: Option<Lsn>,
        size: SegmentSize,
    ) -> Link<'a> {
        let end = cut.unwrap_or(Lsn(number.saturating_add(1).saturating_mul(size.bytes())));
        let is_open = end_of(variant, number, size) < end;
        Link { number, name, variant, cut, is_contested: false, is_open }
    }

    /// How far it serves.
    pub fn end(&self, size: SegmentSize) -> Lsn {
        let end = end_of(self.variant, self.number, size);
        self.cut.map_or(end, |cut| cut.min(end))
    }
}

impl Stretch {
    /// Number of its first segment.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of its last segment.
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// What is at one number.
#[derive(Debug, Clone, Default)]
struct Found<'a> {
    link: Option<Link<'a>>,
    /// There, and of no use.
    unusable: Option<(SegmentName, WhyGap)>,
}

impl<'a> Found<'a> {
    /// Takes what a step has of its own; it goes before what older steps have.
    fn take_step(
        &mut self,
        number: u64,
        state: &'a SegmentState,
        step: &PathStep,
        size: SegmentSize,
        illegible: &Illegible,
    ) {
        let Some(name) = SegmentName::from_number(step.timeline, number, size) else { return };
        let cut = step.end.filter(|end| end.segment_number(size) == number);
        match state.available() {
            // All that it has is the copy of its parent's WAL, and not all of that.
            Usable::One(variant) if is_tail_to(variant, number, step.begin, size) => {}
            Usable::One(variant) if illegible.why(variant).is_some() => {
                let why = illegible.why(variant).unwrap_or_default().to_owned();
                self.unusable = Some((name, WhyGap::Illegible(why)));
            }
            Usable::One(variant) => {
                self.unusable = None;
                let is_contested = is_contested(state, variant, size);
                let link = Link { is_contested, ..Link::new(number, name, variant, cut, size) };
                let end = link.end(size);
                // A fork at a segment's border cuts no segment, and tells all the same how far this one went.
                let went_on = step.end.is_some_and(|fork| end < fork);
                if link.is_open && (went_on || has_lost_pieces(variant)) {
                    self.unusable = Some((name, WhyGap::OnlyBeginning(end)));
                }
                self.link = Some(link);
            }
            // Pieces without the first one show that it existed.
            Usable::Nothing if !state.chunks.is_empty() => {
                self.unusable = Some((name, WhyGap::Missing));
            }
            Usable::Nothing => {}
            Usable::Ambiguous(variants) => {
                let contents = variants.iter().map(|variant| variant.content).collect();
                self.unusable = Some((name, WhyGap::Ambiguous(contents)));
            }
        }
    }
}

/// What is seen along the way, in order of address.
#[derive(Default)]
struct Sight {
    stretches: Vec<Stretch>,
    /// Nothing can continue the last one, though the next segment is there.
    is_ended: bool,
    unusable: BTreeMap<u64, (SegmentName, WhyGap)>,
    contested: BTreeSet<u64>,
}

impl Sight {
    fn take(&mut self, number: u64, found: Found<'_>) {
        self.unusable.extend(found.unusable.map(|unusable| (number, unusable)));
        let Some(link) = found.link else { return };
        match self.stretches.last_mut() {
            Some(open) if !self.is_ended && open.last + 1 == number => open.last = number,
            _ => self.stretches.push(Stretch { first: number, last: number }),
        }
        self.is_ended = link.cut.is_some() || link.is_open;
        self.contested.extend(link.is_contested.then_some(number));
    }
}

/// Whether its neighbours' metadata may speak of another content than `standing`: one that somebody archived,
/// or a tail with the whole of it.
fn is_contested(state: &SegmentState, standing: &Variant, size: SegmentSize) -> bool {
    let whole = state.tail.as_ref().filter(|tail| tail.reaches(size.bytes()));
    let is_other = whole.is_some_and(|tail| tail.content != standing.content);
    // Two servers shipped it, or one whose disk took WAL back.
    let has_rivals = standing.tail.as_ref().is_some_and(|tail| !tail.others.is_empty());
    state.is_contested() || is_other || has_rivals
}

/// Whether it is a tail that goes no further than `lsn`, where a timeline begins.
fn is_tail_to(variant: &Variant, number: u64, lsn: Lsn, size: SegmentSize) -> bool {
    variant.tail.is_some() && end_of(variant, number, size) <= lsn
}

fn has_lost_pieces(variant: &Variant) -> bool {
    variant.tail.as_ref().is_some_and(|tail| tail.lost_to.is_some())
}

/// Where the bytes of a stored segment end: its own end, or that of its tail.
fn end_of(variant: &Variant, number: u64, size: SegmentSize) -> Lsn {
    let bytes = variant.tail.as_ref().map_or(size.bytes(), |tail| u64::from(tail.end()).min(size.bytes()));
    Lsn(number.saturating_mul(size.bytes()).saturating_add(bytes))
}

/// Number of the segment that holds the last byte before `end`.
pub(crate) fn last_segment_before(end: Lsn, size: SegmentSize) -> u64 {
    Lsn(end.0.saturating_sub(1)).segment_number(size)
}

struct Holes<'c> {
    catalog: &'c Catalog,
    path: &'c TimelinePath,
    size: SegmentSize,
    files: &'c Files<'c>,
    unusable: &'c BTreeMap<u64, (SegmentName, WhyGap)>,
}

impl Holes<'_> {
    fn between_and_after(&self, stretches: &[Stretch]) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for pair in stretches.windows(2) {
            if let [before, after] = pair {
                let last = after.first().saturating_sub(1);
                self.split(self.first_unserved(before), last.max(before.last()), &mut gaps);
            }
        }
        if let (Some(last), Some(to)) = (stretches.last(), self.known_end()) {
            let from = self.first_unserved(last);
            // Nothing of the newest timeline is there, and all that leads to it is.
            let ends_at_fork = self.reaches_newest(last) && self.unusable.range(from..).next().is_none();
            if !ends_at_fork {
                self.split(from, to, &mut gaps);
            }
        }
        gaps
    }

    /// The first segment after a stretch of which something is not served by it.
    fn first_unserved(&self, stretch: &Stretch) -> u64 {
        let last = stretch.last();
        let is_cut = self.files.at(last).link.is_some_and(|link| link.cut.is_some());
        if is_cut || self.unusable.contains_key(&last) { last } else { last.saturating_add(1) }
    }

    fn reaches_newest(&self, last: &Stretch) -> bool {
        let begin = self.path.steps.last().map_or(Lsn::ZERO, |step| step.begin);
        let cut = self.files.at(last.last()).link.filter(|link| !link.is_open).and_then(|link| link.cut);
        cut.is_some_and(|cut| cut >= begin)
    }

    /// The last segment that is known to have existed on this way although it may serve
    /// nothing: one that is of no use, or the one where the newest timeline begins.
    fn known_end(&self) -> Option<u64> {
        let fork = self.path.steps.last().filter(|step| step.begin > Lsn::ZERO);
        let fork = fork.map(|step| last_segment_before(step.begin, self.size));
        fork.max(self.unusable.keys().next_back().copied())
    }

    /// Cuts a range of numbers where the timeline or the reason changes, without looking
    /// at every number: names in the archive may be far apart.
    fn split(&self, from: u64, to: u64, gaps: &mut Vec<Gap>) {
        if from > to {
            return;
        }
        let mut bounds: BTreeSet<u64> = BTreeSet::from([from]);
        let begins = self.path.steps.iter().map(|step| step.begin.segment_number(self.size));
        bounds.extend(begins.filter(|begin| (from..=to).contains(begin)));
        let unusable = self.unusable.range(from..=to).map(|(number, _)| *number);
        let partial = self.catalog.partials.keys().filter_map(|name| name.number(self.size).ok());
        for special in unusable.chain(partial.filter(|number| (from..=to).contains(number))) {
            bounds.insert(special);
            bounds.extend(special.checked_add(1).filter(|next| *next <= to));
        }
        let ends = bounds.iter().skip(1).map(|next| next - 1).chain([to]);
        gaps.extend(bounds.iter().zip(ends).filter_map(|(first, last)| self.gap(*first, last)));
    }

    fn gap(&self, first: u64, last: u64) -> Option<Gap> {
        let begun = |step: &&PathStep| step.begin.segment_number(self.size) <= first;
        let timeline = self.path.steps.iter().rev().find(begun)?.timeline;
        let named = |number| SegmentName::from_number(timeline, number, self.size);
        let (first_name, last_name) = (named(first)?, named(last)?);
        if let Some((name, why)) = self.unusable.get(&first) {
            return Some(Gap { timeline: name.timeline, first: *name, last: *name, why: why.clone() });
        }
        let on_path = |step: &PathStep| {
            let name = SegmentName::from_number(step.timeline, first, self.size);
            name.is_some_and(|name| self.catalog.partials.contains_key(&name))
        };
        let why = if self.path.steps.iter().any(on_path) { WhyGap::OnlyPartial } else { WhyGap::Missing };
        Some(Gap { timeline, first: first_name, last: last_name, why })
    }
}

#[cfg(test)]
mod tests;
