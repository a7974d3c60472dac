//! The tail of a segment that is still being written: chunks, each an object of its own.
//!
//! A chunk's name says which bytes of the segment it holds, and the hash of all bytes from the
//! segment's beginning to its own beginning and to its end. So the names alone show which
//! chunks continue which, and from the beginning on they can be followed without a request.

use std::fmt;
use std::str::FromStr;

use walpoint_wal::{SegmentName, Timestamp};

use crate::content::{ContentHash, ContentId};
use crate::object_key::ObjectKey;
use crate::store::Listed;

mod chain;
mod metadata;

pub use metadata::TailFacts;

/// Which bytes of a segment a chunk holds, and what comes before them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkName {
    /// Offset in the segment of the first byte.
    pub from: u32,
    /// Offset behind the last byte.
    pub to: u32,
    /// Of the segment's bytes up to `from`.
    pub before: ContentId,
    /// Of the segment's bytes up to `to`.
    pub after: ContentId,
    /// Of the chunk's own bytes.
    pub content: ContentId,
}

/// A chunk that is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The segment.
    pub segment: SegmentName,
    /// What it holds.
    pub name: ChunkName,
    /// Where it lies.
    pub key: ObjectKey,
    /// Number of stored bytes.
    pub stored_size: u64,
    /// When it was stored, by the store's clock.
    pub stored_at: Option<Timestamp>,
    /// Whether it is encrypted.
    pub encrypted: bool,
}

/// What a chunk's name says of a segment: that its bytes up to here have this hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// Offset in the segment.
    pub at: u32,
    /// Of the bytes up to there.
    pub hash: ContentId,
}

/// The longest unbroken beginning of a segment that its chunks give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// One continuing the other, from the segment's first byte on. Never empty.
    pub chunks: Vec<Chunk>,
    /// What other chunks say of the same bytes: it must be true, or nobody knows which is right.
    pub others: Vec<Mark>,
    /// Other chunks reach to here, and what lies between is not there.
    pub lost_to: Option<u32>,
}

impl Tail {
    /// How many bytes of the segment it gives.
    pub fn end(&self) -> u32 {
        self.chunks.last().map_or(0, |chunk| chunk.name.to)
    }

    /// What must be true of its bytes, in the order of the offsets.
    pub fn marks(&self) -> Vec<Mark> {
        let own = self.chunks.iter().map(|chunk| chunk.name.end());
        let mut marks: Vec<Mark> = own.chain(self.others.iter().copied()).collect();
        marks.sort_unstable();
        marks.dedup();
        marks
    }
}

impl Chunk {
    pub(crate) fn listed(segment: SegmentName, name: ChunkName, encrypted: bool, object: &Listed) -> Self {
        let key = object.key.clone();
        Self { segment, name, key, stored_size: object.size, stored_at: object.modified, encrypted }
    }
}

impl ChunkName {
    /// Where it begins.
    pub fn begin(&self) -> Mark {
        Mark { at: self.from, hash: self.before }
    }

    /// Where it ends.
    pub fn end(&self) -> Mark {
        Mark { at: self.to, hash: self.after }
    }

    /// Number of bytes in it.
    pub fn length(&self) -> u32 {
        self.to.saturating_sub(self.from)
    }
}

impl Mark {
    /// A segment's beginning: no bytes.
    pub fn beginning() -> Self {
        Self { at: 0, hash: ContentHash::of(&[]).id() }
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, before, after, content } = self;
        write!(f, "{from:08x}-{to:08x}-{before}-{after}-{content}")
    }
}

/// The text is not a chunk's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is not the name of a piece of a segment")]
pub struct ChunkNameError;

impl FromStr for ChunkName {
    type Err = ChunkNameError;

    fn from_str(text: &str) -> Result<Self, ChunkNameError> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(ChunkNameError);
        let (from, to) = (offset(next()?)?, offset(next()?)?);
        let mut id = || next()?.parse::<ContentId>().map_err(|_| ChunkNameError);
        let name = Self { from, to, before: id()?, after: id()?, content: id()? };
        // A chunk without bytes would continue itself for ever.
        if parts.next().is_some() || name.from >= name.to { Err(ChunkNameError) } else { Ok(name) }
    }
}

fn offset(text: &str) -> Result<u32, ChunkNameError> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 8 || !text.bytes().all(digit) {
        return Err(ChunkNameError);
    }
    u32::from_str_radix(text, 16).map_err(|_| ChunkNameError)
}

#[cfg(test)]
mod tests;
