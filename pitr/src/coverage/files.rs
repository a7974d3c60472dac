//! What each step of a path has of each segment, looked up when it is asked for.

use std::collections::BTreeMap;

use walpoint_archive::{Catalog, SegmentState};
use walpoint_wal::{PathStep, SegmentSize};

use super::{Found, Illegible, last_segment_before};
use crate::path::TimelinePath;

/// The WAL on a path as the catalog has it.
#[derive(Debug)]
pub(super) struct Files<'a> {
    size: SegmentSize,
    /// In order of address. Neighbours share the segment that the fork between them is in.
    steps: Vec<Step<'a>>,
    /// What is left out.
    pub illegible: Illegible,
}

/// The files of one timeline, as far as they count.
#[derive(Debug)]
struct Step<'a> {
    step: PathStep,
    first: u64,
    last: u64,
    segments: &'a BTreeMap<u64, SegmentState>,
}

impl<'a> Files<'a> {
    pub fn of(catalog: &'a Catalog, path: &TimelinePath, illegible: Illegible) -> Files<'a> {
        let size = catalog.cluster.segment_size;
        let of_step = |step: &PathStep| {
            let first = step.begin.segment_number(size);
            let last = step.end.map_or(u64::MAX, |end| last_segment_before(end, size));
            let segments = catalog.wal.get(&step.timeline).filter(|_| first <= last)?;
            Some(Step { step: *step, first, last, segments })
        };
        Files { size, steps: path.steps.iter().filter_map(of_step).collect(), illegible }
    }

    /// The numbers at which there is something, in their order, each once.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        let mut seen: Option<u64> = None;
        let numbers = self.steps.iter().flat_map(|step| step.segments.range(step.first..=step.last));
        numbers.map(|(number, _)| *number).filter(move |number| {
            let is_new = seen.is_none_or(|seen| seen < *number);
            seen = seen.max(Some(*number));
            is_new
        })
    }

    /// What is at one of them.
    pub fn at(&self, number: u64) -> Found<'a> {
        let mut found = Found::default();
        let begin = self.steps.partition_point(|step| step.last < number);
        for step in self.steps.iter().skip(begin).take_while(|step| step.first <= number) {
            if let Some(state) = step.segments.get(&number) {
                found.take_step(number, state, &step.step, self.size, &self.illegible);
            }
        }
        found
    }
}
