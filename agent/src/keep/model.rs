//! An archive in a few numbers, and what a policy promises of it, found by looking at every backup, every segment and
//! every moment. It shares nothing with what it judges but the types.

mod promised;
mod world;

pub use promised::Promised;
pub use world::{Branch, Made, Segment, There, World};

use walpoint_wal::{SegmentSize, TimelineId};

/// Size of a segment.
pub const MIB: u64 = 1 << 20;
/// In microseconds.
pub const HOUR: i64 = 3600 * 1_000_000;
pub const DAY: i64 = 24 * HOUR;
/// 2026-11-20, a Friday, in microseconds since 2000.
pub const BEGIN: i64 = 848_448_000_000_000;

pub fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

pub fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}
