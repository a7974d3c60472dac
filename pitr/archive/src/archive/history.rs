//! Timeline history files: stored as they are, under the same rule as WAL that
//! nothing is overwritten. They are never deleted: PostgreSQL takes the first
//! number for which it is told that there is no history.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use walpoint_wal::{SystemIdentifier, TimelineHistory, TimelineId, WalFileName};

use super::{Archive, FileFacts, PARALLEL, PutSource, PutWal, PutWalOutcome, SMALL};
use crate::catalog::{SegmentState, Usable, Variant};
use crate::content::ContentHash;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::layout::Entry;
use crate::object_key::ObjectKey;
use crate::store::{Listed, Metadata, PutMode, PutOutcome};
use crate::writer_id::WriterId;

/// What a listing of the histories shows.
#[derive(Debug, Default)]
pub(super) struct HistoryListing {
    pub states: BTreeMap<TimelineId, SegmentState>,
    pub unknown: Vec<String>,
}

impl Archive {
    /// Archives a history file.
    ///
    /// # Errors
    /// [`ArchiveError::Conflict`] as with [`Archive::put_wal`].
    pub async fn put_history(
        &self,
        timeline: TimelineId,
        bytes: Bytes,
        writer: WriterId,
    ) -> Result<PutWalOutcome, ArchiveError> {
        let system_identifier: SystemIdentifier = self.system_identifier();
        let common = Common::new(ContentHash::of(&bytes), bytes.len() as u64, writer, system_identifier);
        let put = PutWal {
            name: WalFileName::History(timeline),
            facts: FileFacts::Other(common),
            source: PutSource::Bytes(bytes),
        };
        self.put_wal(&put).await
    }

    /// Whether the archive has this history of a timeline and no other, durable. While others push another one it may
    /// still be refused: [`Archive::put_history`] waits until it cannot be.
    pub async fn has_history(&self, timeline: TimelineId, bytes: &[u8]) -> Result<bool, ArchiveError> {
        let state = self.wal_variants(&WalFileName::History(timeline)).await?;
        let ours = ContentHash::of(bytes).id();
        match state.usable() {
            Usable::One(variant) if variant.content == ours => {
                self.store.settle(&variant.key()).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// All history files that are not refused, by timeline. Where two stand
    /// undecided, both are here: each is evidence of what was.
    pub async fn histories(&self) -> Result<Vec<TimelineHistory>, ArchiveError> {
        let listing = self.list_histories().await?;
        let standing = listing.states.values().flat_map(SegmentState::standing);
        let standing: Vec<Variant> = standing.cloned().collect();
        stream::iter(standing)
            .map(|variant| async move { self.history(&variant).await })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    /// One history file, verified and parsed.
    pub(super) async fn history(&self, variant: &Variant) -> Result<TimelineHistory, ArchiveError> {
        let mut bytes = Vec::new();
        self.fetch_wal(variant, &mut bytes, SMALL).await?;
        TimelineHistory::parse(variant.name.timeline(), &bytes)
            .map_err(|error| ArchiveError::damaged(variant.key(), error))
    }

    pub(super) async fn list_histories(&self) -> Result<HistoryListing, ArchiveError> {
        let listed = self.store.list(&self.layout.timeline_prefix(), None, None).await?;
        let mut listing = HistoryListing::default();
        let mut by_timeline: BTreeMap<TimelineId, Vec<Listed>> = BTreeMap::new();
        for object in listed {
            match self.layout.parse(&object.key) {
                Some(Entry::History { timeline, .. } | Entry::HistoryRefused { timeline, .. }) => {
                    by_timeline.entry(timeline).or_default().push(object);
                }
                _ => listing.unknown.push(object.key.to_string()),
            }
        }
        for (timeline, objects) in by_timeline {
            listing.states.insert(timeline, SegmentState::from_listing(&self.layout, &objects));
        }
        Ok(listing)
    }

    /// Stores a history file as it is.
    pub(super) async fn store_history(
        &self,
        key: &ObjectKey,
        put: &PutWal,
        metadata: &Metadata,
    ) -> Result<PutOutcome, ArchiveError> {
        let common = put.facts.common();
        let what = || format!("\"{}\"", put.name);
        if common.plain_size > SMALL {
            let what = format!("a history file of {} bytes is none", common.plain_size);
            return Err(ArchiveError::Undescribable { key: key.to_string(), what });
        }
        let bytes = put.source.read(common.plain_size).map_err(|source| ArchiveError::Io {
            verb: "read",
            what: what(),
            source,
        })?;
        if ContentHash::of(&bytes) != common.content {
            return Err(ArchiveError::SourceChanged { name: put.name });
        }
        Ok(self.store.put(key, bytes, metadata, PutMode::CreateOnly).await?)
    }
}
