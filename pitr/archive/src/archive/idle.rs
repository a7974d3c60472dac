//! Proofs that nothing was written: one small object for each timeline, replaced by the next.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use walpoint_wal::{TimelineId, Timestamp};

use super::cluster::plain_metadata;
use super::{Archive, PARALLEL, SMALL};
use crate::error::ArchiveError;
use crate::idle::IdleProof;
use crate::layout::Entry;
use crate::store::PutMode;

impl Archive {
    /// Stores a proof in the place of the one before.
    pub async fn put_idle(&self, proof: &IdleProof) -> Result<(), ArchiveError> {
        let key = self.layout.idle(proof.timeline);
        let undescribable = |what: String| ArchiveError::Undescribable { key: key.to_string(), what };
        let json = proof.to_json().map_err(|error| undescribable(error.to_string()))?;
        let metadata = plain_metadata(&json).map_err(|error| undescribable(error.to_string()))?;
        let _ = self.store.put(&key, Bytes::from(json), &metadata, PutMode::Overwrite).await?;
        Ok(())
    }

    /// The newest proof of each timeline. One that cannot be read proves nothing, and is no
    /// reason not to plan: what it would add is left out.
    pub async fn idle_proofs(&self) -> Result<BTreeMap<TimelineId, IdleProof>, ArchiveError> {
        let listed = self.store.list(&self.layout.idle_prefix(), None, None).await?;
        let timelines = listed.iter().filter_map(|object| match self.layout.parse(&object.key) {
            Some(Entry::Idle(timeline)) => Some(timeline),
            _ => None,
        });
        let timelines: Vec<TimelineId> = timelines.collect();
        let read = timelines.into_iter().map(|timeline| self.idle_proof(timeline));
        let proofs: Vec<Option<IdleProof>> = stream::iter(read).buffered(PARALLEL).try_collect().await?;
        Ok(proofs.into_iter().flatten().map(|proof| (proof.timeline, proof)).collect())
    }

    /// When the proof of each timeline was last renewed, by the store's clock; the end of time where it does not tell.
    pub async fn idle_times(&self) -> Result<BTreeMap<TimelineId, Timestamp>, ArchiveError> {
        let listed = self.store.list(&self.layout.idle_prefix(), None, None).await?;
        let times = listed.iter().filter_map(|object| match self.layout.parse(&object.key) {
            Some(Entry::Idle(timeline)) => Some((timeline, object.modified.unwrap_or(Timestamp(i64::MAX)))),
            _ => None,
        });
        Ok(times.collect())
    }

    async fn idle_proof(&self, timeline: TimelineId) -> Result<Option<IdleProof>, ArchiveError> {
        let key = self.layout.idle(timeline);
        let read = match self.read_plain(&key, SMALL).await {
            Ok(json) => IdleProof::parse(key.as_str(), &json),
            Err(error) => Err(error),
        };
        match read {
            Ok(proof) => Ok(Some(proof).filter(|proof| proof.timeline == timeline)),
            Err(error @ (ArchiveError::Damaged { .. } | ArchiveError::UnknownFormat { .. })) => {
                tracing::warn!("\"{key}\" proves nothing: {error}");
                Ok(None)
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
