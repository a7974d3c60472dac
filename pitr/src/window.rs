//! All that can be reached: ranges of moments, and the gaps between them.

use serde::Serialize;
use walpoint_archive::BackupId;
use walpoint_wal::{SegmentName, TimelineId};

use crate::plan::Moment;

/// What can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// By timeline, then by address.
    pub ranges: Vec<Range>,
    /// Segments that are missing, undecided or damaged, by timeline.
    pub gaps: Vec<WindowGap>,
}

/// Every moment from one to another can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The timeline to recover to.
    pub timeline: TimelineId,
    /// The first moment: the end of a backup, or the fork where the timeline begins.
    pub from: Moment,
    /// The last moment.
    pub to: Moment,
    /// The backup that reaches furthest back in it.
    pub backup: BackupId,
}

/// Segments that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowGap {
    /// Their timeline.
    pub timeline: TimelineId,
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// Why, in words.
    pub reason: String,
}
