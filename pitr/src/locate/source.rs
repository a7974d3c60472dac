//! Reads what planning needs of stored WAL: an object's facts, and now and then a segment
//! itself. Everything read once is remembered for the rest of the planning.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, StreamExt, TryStreamExt};
use walpoint_archive::{
    Archive, ArchiveError, BackupHead, BackupSummary, Layout, ObjectKey, Variant, WalFacts,
};
use walpoint_wal::{SegmentSize, SystemIdentifier};

/// Requests for facts that are under way at a time.
const PARALLEL: usize = 16;
/// Plain bytes of segments that are kept; one segment is kept in any case, and of the
/// largest, 1 GiB, no more than that is ever in memory.
const KEPT_BYTES: u64 = 128 << 20;

/// The WAL of one archive, as planning reads it.
#[derive(Debug)]
pub(crate) struct WalSource<'a> {
    archive: &'a Archive,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Size of its segments.
    pub size: SegmentSize,
    facts: Mutex<HashMap<ObjectKey, Arc<WalFacts>>>,
    segments: Mutex<VecDeque<(ObjectKey, Arc<Vec<u8>>)>>,
}

impl<'a> WalSource<'a> {
    pub fn new(
        archive: &'a Archive,
        system_identifier: SystemIdentifier,
        size: SegmentSize,
    ) -> WalSource<'a> {
        let (facts, segments) = Default::default();
        WalSource { archive, system_identifier, size, facts, segments }
    }

    /// Where its objects lie.
    pub fn layout(&self) -> &Layout {
        self.archive.layout()
    }

    /// A backup's summary with all its packs.
    pub async fn whole(&self, backup: &BackupHead) -> Result<BackupSummary, ArchiveError> {
        self.archive.whole(backup).await
    }

    /// What the object's metadata says.
    pub async fn facts(&self, variant: &Variant) -> Result<Arc<WalFacts>, ArchiveError> {
        if let Some(facts) = lock(&self.facts).get(&variant.key()) {
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(self.archive.wal_facts(variant).await?);
        lock(&self.facts).insert(variant.key(), Arc::clone(&facts));
        Ok(facts)
    }

    /// The same of many, in their order.
    pub async fn facts_of(&self, variants: &[&Variant]) -> Result<Vec<Arc<WalFacts>>, ArchiveError> {
        stream::iter(variants.iter().map(|variant| self.facts(variant)))
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    /// The segment's content, verified.
    pub async fn segment(&self, variant: &Variant) -> Result<Arc<Vec<u8>>, ArchiveError> {
        let kept = lock(&self.segments)
            .iter()
            .find(|(key, _)| *key == variant.key())
            .map(|(_, bytes)| Arc::clone(bytes));
        if let Some(bytes) = kept {
            return Ok(bytes);
        }
        // Before the next one is fetched, so that there is room for it.
        self.make_room();
        let mut bytes = Vec::with_capacity(usize::try_from(self.size.bytes()).unwrap_or_default());
        self.archive.fetch_wal(variant, &mut bytes, self.size.bytes()).await?;
        let bytes = Arc::new(bytes);
        lock(&self.segments).push_back((variant.key(), Arc::clone(&bytes)));
        Ok(bytes)
    }

    /// Forgets the oldest segments until one more may be kept.
    fn make_room(&self) {
        let most = usize::try_from(KEPT_BYTES / self.size.bytes()).unwrap_or(1).max(1);
        let mut segments = lock(&self.segments);
        while segments.len() >= most {
            segments.pop_front();
        }
    }
}

/// Nothing is left half done under these locks, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
