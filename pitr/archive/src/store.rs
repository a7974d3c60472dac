//! The seam between an archive and the place where its objects lie.
//!
//! A store keeps whole objects under keys, with a little metadata. It knows
//! nothing of WAL, backups, compression or encryption. What it promises, on
//! every implementation, is what [`contract`] checks:
//!
//! - `put` and `finish` return success only when the object is durable.
//! - "Not found" is said only when the store itself answered that the object
//!   does not exist. An outage, a refusal, or an answer that does not come from
//!   the store is another kind of error.
//! - A listing is complete, or an error.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use walpoint_wal::Timestamp;

use crate::content::StoredHash;
use crate::object_key::{ObjectKey, Prefix};

pub mod contract;
pub mod dir;
mod error;
#[cfg(feature = "fault-points")]
pub mod fault_points;
pub mod faulty;
pub mod retry;
pub mod s3;

pub use error::{StoreError, StoreErrorKind};
pub use retry::RetryPolicy;

/// Size of every part of an upload but the last, in bytes; also the largest
/// body that a single put is meant for.
pub const PART_BYTES: usize = 16 * 1024 * 1024;

/// A place that keeps objects.
#[async_trait]
pub trait ObjectStore: Send + Sync + fmt::Debug {
    /// The place as a person would name it (`s3://bucket/prefix`), without secrets.
    fn describe(&self) -> String;

    /// Stores one object. Durable when it returns.
    ///
    /// With [`PutMode::CreateOnly`] an object that is there already stays as it
    /// is and the answer is [`PutOutcome::Exists`]; the caller compares the
    /// content where that matters.
    async fn put(
        &self,
        key: &ObjectKey,
        body: Bytes,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<PutOutcome, StoreError>;

    /// Begins an object that comes in parts. It exists when [`Upload::finish`]
    /// has returned, and not before.
    async fn begin_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        mode: PutMode,
    ) -> Result<Box<dyn Upload>, StoreError>;

    /// Reads an object, or the bytes of `range` (from start to before end). A
    /// range that ends past the object's end is cut there; one that starts
    /// there or later gives an empty body.
    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Object, StoreError>;

    /// Metadata and size of an object.
    async fn head(&self, key: &ObjectKey) -> Result<Head, StoreError>;

    /// The objects whose keys begin with `prefix`, in bytewise order of their
    /// keys, those after `start_after` only, at most `limit`. Names that are
    /// not keys of ours are left out.
    async fn list(
        &self,
        prefix: &Prefix,
        start_after: Option<&ObjectKey>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError>;

    /// The folders whose path begins with `prefix` and whose name has no
    /// further `/`: their last component, in bytewise order of the path (`/`
    /// at the end counted). A folder is there when an object is below it.
    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<String>, StoreError>;

    /// Makes sure that an object which a listing showed is durable. Whoever put it may have been killed
    /// after the object appeared and before that was settled; acknowledging it on sight would be too soon.
    async fn settle(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// How long ago an object was stored, by the store's clock alone. None where it does not tell, or says
    /// that it was stored later than now.
    async fn age(&self, key: &ObjectKey) -> Result<Option<Duration>, StoreError>;

    /// Finds out what the store makes of the checksum that every body is sent with: sends one, under
    /// this key, with a checksum that is not its own. The object may exist afterwards, or be replaced.
    async fn try_checksum(&self, key: &ObjectKey) -> Result<ChecksumCheck, StoreError>;

    /// The SHA-256 that the store has kept of an object's bytes since they came; none where it keeps none.
    async fn kept_checksum(&self, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError>;

    /// Removes an object. One that is absent is no error.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;
}

/// An object on its way, part by part. Dropped without [`Upload::finish`] it
/// leaves no object; [`Upload::abort`] also takes away what was sent.
#[async_trait]
pub trait Upload: Send + fmt::Debug {
    /// Sends the next part: [`PART_BYTES`] bytes, the last one at most that.
    /// After an error the same part may be sent again.
    async fn part(&mut self, body: Bytes) -> Result<(), StoreError>;

    /// Makes the object appear, durable. It may be called again: after an
    /// error to try again, after success for the same answer.
    async fn finish(&mut self) -> Result<PutOutcome, StoreError>;

    /// Gives up: what was sent is removed as far as the store allows.
    async fn abort(&mut self) -> Result<(), StoreError>;
}

/// What to do when the key is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutMode {
    /// Leave the object that is there. Certain on a directory. On S3 it holds
    /// where the server knows `If-None-Match: *`; some accept the header and
    /// overwrite all the same, so keys whose content must not change carry a
    /// hash of it.
    CreateOnly,
    /// Replace it.
    Overwrite,
}

/// What a store makes of the checksum that a body is sent with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChecksumCheck {
    /// It refuses a body that differs.
    Verified,
    /// It takes the body all the same.
    Ignored,
    /// None is sent: nothing lies between here and the disk.
    NotSent,
}

impl ChecksumCheck {
    /// One word for it, for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Ignored => "ignored",
            Self::NotSent => "not-sent",
        }
    }
}

/// What a put did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum PutOutcome {
    /// The object holds the bytes that were sent.
    Created,
    /// The key was taken and nothing was changed.
    Exists,
}

/// Bytes of an object, in order. The stream ends with an error when it cannot
/// deliver every byte that was promised.
pub type ByteStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// An object being read.
pub struct Object {
    /// Its metadata.
    pub metadata: Metadata,
    /// Size of the whole object in bytes, whatever range was asked for.
    pub size: u64,
    /// The bytes asked for.
    pub body: ByteStream,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object")
            .field("metadata", &self.metadata)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// What is known of an object without reading it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its metadata.
    pub metadata: Metadata,
    /// Its size in bytes.
    pub size: u64,
}

/// One line of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
    /// When it was stored, by the store's clock.
    pub modified: Option<Timestamp>,
}

/// An object's metadata: a few named values that can be had without its body.
///
/// Names are `[a-z0-9-]`, values printable ASCII without space at either end.
/// In all at most [`Metadata::MAX_BYTES`]: S3 allows 2 KB of user metadata
/// ("Working with object metadata"), counted as here.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Metadata(BTreeMap<String, String>);

/// A name or value that cannot be kept as metadata.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("could not keep {name:?} as object metadata: {reason}")]
pub struct MetadataError {
    /// The name of the value refused.
    pub name: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Metadata {
    /// Most bytes that names and values may have together.
    pub const MAX_BYTES: usize = 1536;

    /// No metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces one value.
    pub fn insert(&mut self, name: &str, value: &str) -> Result<(), MetadataError> {
        let before = self.0.get(name).map_or(0, |old| name.len() + old.len());
        if self.size() - before + name.len() + value.len() > Self::MAX_BYTES {
            return Err(refused(name, "all metadata together would pass 1536 bytes"));
        }
        self.insert_found(name, value)
    }

    fn insert_found(&mut self, name: &str, value: &str) -> Result<(), MetadataError> {
        check_name(name).and_then(|()| check_value(value)).map_err(|reason| refused(name, reason))?;
        self.0.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Bytes of all names and values together.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a store says an object's metadata is. Values that could not have
    /// been ours (a foreign object's) are left out. Their size is the store's
    /// concern: what a tool added to a copy must not push out what is ours.
    pub(crate) fn from_store<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut metadata = Self::new();
        for (name, value) in values {
            if let Err(error) = metadata.insert_found(name, value) {
                tracing::debug!(%error, "foreign object metadata left out");
            }
        }
        metadata
    }
}

fn refused(name: &str, reason: &'static str) -> MetadataError {
    MetadataError { name: name.chars().take(64).collect(), reason }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let safe = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(safe) {
        return Err("a name is made of a-z, 0-9 and -");
    }
    Ok(())
}

fn check_value(value: &str) -> Result<(), &'static str> {
    if value.is_empty() || !value.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) {
        return Err("a value is printable ASCII and not empty");
    }
    if value.starts_with(' ') || value.ends_with(' ') {
        return Err("a value neither begins nor ends with a space");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn metadata_that_a_header_would_not_carry_unchanged_is_refused() {
        let mut metadata = Metadata::new();
        for (name, value) in [
            ("", "x"),
            ("A", "x"),
            ("a_b", "x"),
            ("a", ""),
            ("a", " x"),
            ("a", "x "),
            ("a", "ä"),
            ("a", "x\ny"),
            ("a", "x\r"),
            ("a", "\u{7f}"),
        ] {
            assert!(metadata.insert(name, value).is_err(), "{name:?}={value:?} was accepted");
        }
        assert!(metadata.is_empty());
    }

    #[test]
    fn metadata_is_full_at_1536_bytes_and_a_value_can_be_replaced() {
        let mut metadata = Metadata::new();
        metadata.insert("a", &"x".repeat(Metadata::MAX_BYTES - 1)).unwrap();
        assert_eq!(metadata.size(), Metadata::MAX_BYTES);
        assert!(metadata.insert("b", "x").is_err());
        metadata.insert("a", &"y".repeat(Metadata::MAX_BYTES - 1)).unwrap();
        metadata.insert("a", "short").unwrap();
        metadata.insert("b", "x").unwrap();
        assert_eq!(metadata.get("a"), Some("short"));
        assert_eq!(metadata.size(), 8);
    }
}
