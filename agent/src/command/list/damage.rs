//! Where the archived WAL is damaged, without asking for every segment.
//!
//! A segment's facts say where its unbroken run of sound WAL began: everything from there to it is sound.
//! So the walk goes backwards from the newest segment and asks once for each run, not once for each file.

use crate::exit::Failure;
use serde::Serialize;
use std::collections::BTreeMap;
use walpoint_archive::catalog::{SegmentState, Usable};
use walpoint_archive::{Archive, DamagedObject, WalFacts};
use walpoint_wal::{Lsn, SegmentName, SegmentSize, TimelineId};

/// A segment whose WAL is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedSegment {
    /// The segment.
    pub segment: SegmentName,
    /// Where the damage begins.
    pub lsn: Lsn,
}

/// Damaged segments of one timeline, oldest first.
pub async fn of_timeline(
    archive: &Archive,
    timeline: TimelineId,
    segments: &BTreeMap<u64, SegmentState>,
    size: SegmentSize,
) -> Result<Vec<DamagedSegment>, Failure> {
    let mut damaged = Vec::new();
    let mut below = u64::MAX;
    while let Some((number, state)) = segments.range(..below).next_back() {
        below = *number;
        let Usable::One(variant) = state.usable() else { continue };
        let (damaged_at, begin) = match archive.wal_facts(variant).await {
            Ok(facts) => (facts.damaged_at(), run_begin(&facts, *number, size)),
            Err(error) => {
                let object = DamagedObject::by(variant.key(), error)?;
                tracing::warn!("\"{}\" cannot be read: {}", object.key, object.reason);
                // Nothing of it can be used, and nothing is known of those before it.
                (number.checked_mul(size.bytes()).map(Lsn), *number)
            }
        };
        if let (Some(lsn), Some(segment)) = (damaged_at, SegmentName::from_number(timeline, *number, size)) {
            damaged.push(DamagedSegment { segment, lsn });
        }
        // One that had a rival is looked at by itself: the run behind it may be of the rival.
        let contested = segments.range(begin..*number).rev().find(|(_, state)| state.is_contested());
        below = contested.map_or(begin, |(contested, _)| contested.saturating_add(1));
    }
    damaged.reverse();
    Ok(damaged)
}

/// The number of the first segment of the run that this one belongs to.
fn run_begin(facts: &WalFacts, number: u64, size: SegmentSize) -> u64 {
    let begin = facts.run.map_or(number, |run| run.run_start.segment_number(size));
    begin.min(number)
}
