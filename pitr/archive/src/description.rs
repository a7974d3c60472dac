//! Metadata as objects carry them: written and read here and nowhere else, and
//! sealed with a short hash, so that a digit that changed under way or on a disk
//! is seen before anything is decided by it.
//!
//! The hash covers the names of format 1 and no others: tools that copy objects
//! add names of their own.

use std::fmt::Display;
use std::str::FromStr;

use sha2::Digest;

use crate::content::ContentHash;
use crate::facts::{FORMAT, FactsError, unreadable};
use crate::hex;
use crate::store::{Metadata, MetadataError};

/// The name of the hash.
pub const CHECK: &str = "check";

/// Bytes of it: 16 hexadecimal digits.
const HASHED_BYTES: usize = 8;

/// What sealing adds to the size of metadata.
pub const CHECK_BYTES: usize = CHECK.len() + 2 * HASHED_BYTES;

/// The names that the hash covers: those of FORMAT.md, section 4. The list is part of
/// format 1 and never changes; names that are added later come with a hash of their own.
pub const COVERED: [&str; 38] = [
    "aborts",
    "commits",
    "content",
    "edge-checked",
    "end",
    "ending",
    "ending-at",
    "file-copy",
    "first-prev",
    "first-record",
    "format",
    "last-start",
    "magic",
    "next-xid",
    "point-count",
    "points",
    "run-commits",
    "run-high",
    "run-last-start",
    "run-last-time",
    "run-parameter-changes",
    "run-points",
    "run-prepares",
    "run-start",
    "run-steps",
    "size",
    "start",
    "steps-back",
    "system",
    "time-first",
    "time-high",
    "time-known",
    "time-last",
    "time-low",
    "timeline",
    "validated",
    "writer",
    "xids",
];

/// Metadata that are being put together.
#[derive(Debug)]
pub(crate) struct Description(Metadata);

impl Description {
    /// With what all objects have.
    pub fn of(content: ContentHash, plain_size: u64) -> Result<Self, MetadataError> {
        let mut description = Self(Metadata::new());
        description.put("format", Some(FORMAT))?;
        description.put("content", Some(content))?;
        description.put("size", Some(plain_size))?;
        Ok(description)
    }

    /// Adds a value, when there is one.
    pub fn put(&mut self, name: &'static str, value: Option<impl Display>) -> Result<(), MetadataError> {
        value.map_or(Ok(()), |value| self.0.insert(name, &value.to_string()))
    }

    /// Bytes that they will have.
    pub fn size(&self) -> usize {
        self.0.size() + CHECK_BYTES
    }

    /// The metadata, sealed.
    pub fn finish(self) -> Result<Metadata, MetadataError> {
        let Self(mut metadata) = self;
        let check = check_of(&metadata);
        metadata.insert(CHECK, &check)?;
        Ok(metadata)
    }
}

/// Metadata that are what was stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described<'a>(&'a Metadata);

impl<'a> Described<'a> {
    /// Takes what a store gave, once it is verified. A later format is told from damage
    /// first: what its hash covers is not known here.
    pub fn verified(metadata: &'a Metadata) -> Result<Self, FactsError> {
        let described = Self(metadata);
        let format = described.required("format")?;
        if format > FORMAT || format == 0 {
            return Err(FactsError::UnknownFormat(format));
        }
        if metadata.get(CHECK) != Some(check_of(metadata).as_str()) {
            return Err(FactsError::Altered);
        }
        Ok(described)
    }

    /// A value as it stands there.
    pub fn get(self, name: &'static str) -> Option<&'a str> {
        self.0.get(name)
    }

    /// A value that must be there.
    pub fn required<T: FromStr>(self, name: &'static str) -> Result<T, FactsError> {
        self.optional(name)?.ok_or(FactsError::Missing(name))
    }

    /// A value that may be absent, but not unreadable.
    pub fn optional<T: FromStr>(self, name: &'static str) -> Result<Option<T>, FactsError> {
        self.get(name).map(|value| value.parse().map_err(|_| unreadable(name, value))).transpose()
    }
}

/// The first 16 digits of the SHA-256 of `name:value\n` for each covered name there is,
/// in the order of the names.
fn check_of(metadata: &Metadata) -> String {
    let mut hasher = sha2::Sha256::new();
    for (name, value) in metadata.iter().filter(|(name, _)| COVERED.binary_search(name).is_ok()) {
        for part in [name, ":", value, "\n"] {
            hasher.update(part);
        }
    }
    hex::encode(hasher.finalize().get(..HASHED_BYTES).unwrap_or_default())
}

/// Metadata with other values under some names, sealed again: lies, not damage.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn resealed(metadata: &Metadata, values: &[(&str, &str)]) -> Metadata {
    let mut metadata = metadata.clone();
    for (name, value) in values {
        metadata.insert(name, value).unwrap_or_default();
    }
    let check = check_of(&metadata);
    metadata.insert(CHECK, &check).unwrap_or_default();
    metadata
}

#[cfg(test)]
#[path = "description/tests.rs"]
mod tests;
