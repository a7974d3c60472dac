//! When something was found sound, and how deep the look went.

use serde::{Deserialize, Serialize};
use walpoint_wal::Timestamp;

/// How much of an object was looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Its stored bytes, which needs no key.
    Stored,
    /// What is in them, too.
    Content,
}

/// When an object, or several together, was last found sound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// Its stored bytes.
    pub stored_at: Timestamp,
    /// What is in them; `None` when nobody who has the key has looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_at: Option<Timestamp>,
}

impl Proof {
    /// Found sound at this time, by a look of this depth.
    pub fn at(time: Timestamp, depth: Depth) -> Self {
        Self { stored_at: time, content_at: (depth == Depth::Content).then_some(time) }
    }

    /// Of one object what two say of it.
    #[must_use]
    pub fn newest(self, other: Self) -> Self {
        Self {
            stored_at: self.stored_at.max(other.stored_at),
            content_at: self.content_at.max(other.content_at),
        }
    }

    /// Of two objects what holds of both.
    #[must_use]
    pub fn weakest(self, other: Self) -> Self {
        Self {
            stored_at: self.stored_at.min(other.stored_at),
            content_at: self.content_at.min(other.content_at),
        }
    }

    /// When somebody last looked at it.
    pub fn latest(self) -> Timestamp {
        self.content_at.map_or(self.stored_at, |at| at.max(self.stored_at))
    }

    /// When the object was last looked at as deep as this.
    pub fn of_depth(self, depth: Depth) -> Option<Timestamp> {
        match depth {
            Depth::Stored => Some(self.stored_at),
            Depth::Content => self.content_at,
        }
    }

    /// Whether this is a later word than that it was damaged. At one and the same time damage counts.
    pub fn clears(self, damaged_at: Timestamp, depth: Depth) -> bool {
        self.of_depth(depth).is_some_and(|sound_at| sound_at > damaged_at)
    }
}
