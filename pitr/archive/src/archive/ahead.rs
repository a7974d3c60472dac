//! What follows a segment, for one who fetches ahead of recovery.

use std::collections::BTreeMap;
use std::io::Write;

use walpoint_wal::{SegmentName, WalFileName};

use super::Archive;
use crate::catalog::{SegmentState, Usable, Variant};
use crate::content::ContentHash;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::layout::Entry;
use crate::store::Listed;

impl Archive {
    /// The whole segments of the timeline behind this one that have one content to take, from one listing of
    /// at most `limit` objects. What is not among them may be there all the same.
    pub async fn segments_after(
        &self,
        segment: &SegmentName,
        limit: usize,
    ) -> Result<BTreeMap<SegmentName, Variant>, ArchiveError> {
        let prefix = self.layout.wal_timeline_prefix(segment.timeline);
        let after = self.layout.after_segment(segment);
        let listed = self.store.list(&prefix, Some(&after), Some(limit)).await?;
        let is_cut = listed.len() >= limit;
        let mut objects: BTreeMap<SegmentName, Vec<Listed>> = BTreeMap::new();
        for object in listed {
            if let Some(name) = self.segment_of(&object) {
                objects.entry(name).or_default().push(object);
            }
        }
        if is_cut {
            // Its rivals, or the word that it was refused, may have been next.
            objects.pop_last();
        }
        let chosen = objects.into_iter().filter_map(|(name, objects)| {
            match SegmentState::from_listing(&self.layout, &objects).usable() {
                Usable::One(variant) => Some((name, variant.clone())),
                Usable::Nothing | Usable::Ambiguous(_) => None,
            }
        });
        Ok(chosen.collect())
    }

    /// Fetches a whole segment and writes it to `out`. What was written is **not verified**: it may be used
    /// only when it has the hash that is returned, which is the metadata's.
    pub async fn fetch_segment_unproven(
        &self,
        variant: &Variant,
        out: impl Write + Send + 'static,
        limit: u64,
    ) -> Result<ContentHash, ArchiveError> {
        let key = &variant.key();
        let object = self.store.get(key, None).await?;
        let common =
            Common::from_metadata(&object.metadata).map_err(|error| ArchiveError::from_facts(key, error))?;
        self.check_identity(variant, &common)?;
        let size = self.open_body_unproven(key, object.body, variant.encrypted, limit, out).await?;
        if size != common.plain_size {
            let what = format!("it holds {size} bytes, its metadata says {}", common.plain_size);
            return Err(ArchiveError::damaged(key, what));
        }
        Ok(common.content)
    }

    fn segment_of(&self, object: &Listed) -> Option<SegmentName> {
        match self.layout.parse(&object.key)? {
            Entry::Wal { name: WalFileName::Segment(name), .. }
            | Entry::WalRefused { name: WalFileName::Segment(name), .. } => Some(name),
            _ => None,
        }
    }
}
