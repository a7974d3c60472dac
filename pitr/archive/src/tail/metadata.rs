//! What the metadata of a chunk say: those of its segment as if it ended here, with the
//! chunk's own content and size, and the hashes of its name in full.

use sha2::Digest;

use super::ChunkName;
use crate::content::ContentHash;
use crate::description::{Described, Description};
use crate::facts::FactsError;
use crate::hex;
use crate::store::{Metadata, MetadataError};
use crate::wal_facts::WalFacts;

const FROM: &str = "tail-from";
const BEFORE: &str = "tail-before";
const AFTER: &str = "tail-after";
const CHECK: &str = "tail-check";

/// Bytes that these have at most in metadata, names included.
const BYTES: usize = FROM.len() + 10 + BEFORE.len() + 64 + AFTER.len() + 64 + CHECK.len() + 16;

/// What a chunk says beyond the facts of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TailFacts {
    /// Offset in the segment of its first byte.
    pub from: u32,
    /// Of the segment's bytes up to there.
    pub before: ContentHash,
    /// Of the segment's bytes up to the chunk's end.
    pub after: ContentHash,
}

impl TailFacts {
    /// As object metadata, with the segment's facts as if it ended with this chunk.
    pub fn to_metadata(&self, facts: &WalFacts) -> Result<Metadata, MetadataError> {
        let mut description = facts.describe_within(BYTES)?;
        self.put(&mut description)?;
        description.finish()
    }

    fn put(&self, description: &mut Description) -> Result<(), MetadataError> {
        description.put(FROM, Some(self.from))?;
        description.put(BEFORE, Some(self.before))?;
        description.put(AFTER, Some(self.after))?;
        description.put(CHECK, Some(self.check()))
    }

    /// The names here are none of those that `check` covers, so they have a hash of their own.
    fn check(&self) -> String {
        let Self { from, before, after } = self;
        let text = format!("{AFTER}:{after}\n{BEFORE}:{before}\n{FROM}:{from}\n");
        hex::encode(sha2::Sha256::digest(text).get(..8).unwrap_or_default())
    }

    /// From object metadata.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, FactsError> {
        let described = Described::verified(metadata)?;
        let facts = Self {
            from: described.required(FROM)?,
            before: described.required(BEFORE)?,
            after: described.required(AFTER)?,
        };
        if described.get(CHECK) == Some(facts.check().as_str()) {
            Ok(facts)
        } else {
            Err(FactsError::Altered)
        }
    }

    /// The chunk's name, given its own content.
    pub fn name(&self, content: ContentHash, size: u64) -> Option<ChunkName> {
        let to = u64::from(self.from).checked_add(size).and_then(|to| u32::try_from(to).ok())?;
        let (before, after, content) = (self.before.id(), self.after.id(), content.id());
        Some(ChunkName { from: self.from, to, before, after, content }).filter(|name| name.from < name.to)
    }
}
