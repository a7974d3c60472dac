//! Reading objects for the one purpose of knowing whether they are what was stored.

use std::io::Write;

use futures::StreamExt;

use super::Archive;
use crate::catalog::Variant;
use crate::content::{StoredHash, StoredHasher};
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::object_key::ObjectKey;
use crate::store::Metadata;
use crate::summary::StoredObject;
use crate::wal_facts::WalFacts;

/// A segment that was read.
#[derive(Clone, PartialEq, Debug)]
pub struct SegmentRead {
    /// What its object's metadata say; `None` of a tail, where every piece says something else.
    pub facts: Option<WalFacts>,
}

/// What stored bytes were compared with that nobody here can look into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Compared {
    /// Their number alone.
    Length,
    /// The checksum that the store has kept since they came.
    Checksum,
}

impl Archive {
    /// The stored bytes of an object that a summary names, which must be those that it says.
    pub async fn fetch_stored(&self, object: &StoredObject) -> Result<Vec<u8>, ArchiveError> {
        let key = &object.key;
        let found = self.store.get(key, None).await?;
        if found.size != object.size {
            let what = format!("it has {} bytes and should have {}", found.size, object.size);
            return Err(ArchiveError::damaged(key, what));
        }
        let mut body = found.body;
        let mut stored = Vec::with_capacity(usize::try_from(object.size).unwrap_or_default());
        while let Some(bytes) = body.next().await {
            stored.extend_from_slice(&bytes?);
            if stored.len() as u64 > object.size {
                return Err(ArchiveError::damaged(key, "it has more bytes than it says"));
            }
        }
        Ok(stored)
    }

    /// Reads the stored bytes of an object to their end and hands none of them on: its metadata, the number of bytes
    /// and their SHA-256.
    pub async fn read_through(&self, key: &ObjectKey) -> Result<(Metadata, u64, StoredHash), ArchiveError> {
        let object = self.store.get(key, None).await?;
        let (metadata, mut body) = (object.metadata, object.body);
        let (mut hasher, mut size) = (StoredHasher::new(), 0);
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            size += bytes.len() as u64;
            hasher.update(&bytes);
        }
        if size != object.size {
            return Err(ArchiveError::damaged(key, format!("{size} of its {} bytes came", object.size)));
        }
        Ok((metadata, size, hasher.finish()))
    }

    /// As [`Archive::fetch_wal`], for a segment, with what its metadata say of the WAL in it.
    pub async fn fetch_segment(
        &self,
        variant: &Variant,
        out: &mut (impl Write + Send),
        segment_bytes: u64,
    ) -> Result<SegmentRead, ArchiveError> {
        if variant.tail.is_some() {
            self.fetch_wal(variant, out, segment_bytes).await?;
            return Ok(SegmentRead { facts: None });
        }
        let (_, metadata) = self.fetch_whole(variant, out, segment_bytes).await?;
        let facts = WalFacts::from_metadata(&metadata)
            .map_err(|error| ArchiveError::from_facts(variant.key(), error))?;
        Ok(SegmentRead { facts: Some(facts) })
    }

    /// Of a WAL file for which there is no key: that its metadata are those that were stored and speak of it, and that
    /// all of its stored bytes come. What is in them nobody sees. Returns what they were compared with.
    pub async fn read_sealed(&self, variant: &Variant) -> Result<Compared, ArchiveError> {
        let (metadata, _, hash) = self.read_through(&variant.key()).await?;
        let common = Common::from_metadata(&metadata)
            .map_err(|error| ArchiveError::from_facts(variant.key(), error))?;
        self.check_identity(variant, &common)?;
        self.compare(&variant.key(), hash).await
    }

    /// As [`Archive::read_through`], compared with the checksum that the store has kept since the bytes came.
    pub async fn read_compared(&self, key: &ObjectKey) -> Result<Compared, ArchiveError> {
        let (_, _, hash) = self.read_through(key).await?;
        self.compare(key, hash).await
    }

    async fn compare(&self, key: &ObjectKey, hash: StoredHash) -> Result<Compared, ArchiveError> {
        match self.store.kept_checksum(key).await? {
            None => Ok(Compared::Length),
            Some(kept) if kept == hash => Ok(Compared::Checksum),
            Some(kept) => {
                let what = format!(
                    "its bytes are not those that were stored: their SHA-256 is {hash}, and was {kept}"
                );
                Err(ArchiveError::damaged(key, what))
            }
        }
    }
}
