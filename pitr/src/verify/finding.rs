//! What is wrong, and what it costs.

use serde::Serialize;
use walpoint_archive::verification::Depth;
use walpoint_archive::{BackupId, ObjectKey};
use walpoint_wal::{Lsn, SegmentName, TimelineId};

use crate::plan::Moment;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The object, by its key; of what is missing the name it would have.
    pub object: String,
    /// What kind of trouble it is.
    pub trouble: Trouble,
    /// What is wrong, in words.
    pub what: String,
    /// The backups that cannot be restored.
    pub backups: Vec<BackupId>,
    /// The moments that cannot be reached any more, by timeline.
    pub costs: Vec<Cost>,
}

/// What kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// It is there and is not what was stored.
    Damaged,
    /// It is not there.
    Missing,
    /// It is there in several contents, and nobody has decided.
    Undecided,
    /// It is what was stored, and does not continue what comes before it.
    Discontinuous,
    /// It is what was stored, and what was stored was damaged already.
    Invalid,
    /// No identity at hand opens it.
    Sealed,
}

/// Moments of one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// The timeline.
    pub timeline: TimelineId,
    /// The last moment that is left before them, or the first of all.
    pub from: Option<Moment>,
    /// The last of them, or the first that is left behind them.
    pub to: Option<Moment>,
}

/// A finding of which is not known yet what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub object: String,
    pub trouble: Trouble,
    pub what: String,
    pub touches: Touches,
    /// The object, when it is one that was read, and how deep.
    pub read: Option<(ObjectKey, Depth)>,
}

/// What a fault is in the way of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Touches {
    /// Nothing that a recovery needs.
    Nothing,
    /// Recoveries with these backups.
    Backups(Vec<BackupId>),
    /// Recoveries that read past this position in this segment.
    Segment { name: SegmentName, stop: Lsn, beyond: Lsn },
    /// All of a timeline.
    Timeline(TimelineId),
}

impl Fault {
    pub fn new(object: impl ToString, trouble: Trouble, what: impl Into<String>, touches: Touches) -> Fault {
        Fault { object: object.to_string(), trouble, what: what.into(), touches, read: None }
    }

    /// An object that was read and found so.
    pub fn of(
        key: &ObjectKey,
        depth: Depth,
        trouble: Trouble,
        what: impl Into<String>,
        touches: Touches,
    ) -> Fault {
        Fault { read: Some((key.clone(), depth)), ..Fault::new(key, trouble, what, touches) }
    }
}
