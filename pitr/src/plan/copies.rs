//! Whether an older timeline's file of the last segment holds the WAL that was planned with.
//!
//! A timeline's first segment begins with a copy of its parent's WAL, and the way to it is
//! planned with that copy. PostgreSQL is rather given the parent's own file, and by its name
//! alone that can be anybody's: a clone's that was faster than the server that died, say.

use walpoint_archive::{ArchiveError, ContentHash, DamagedObject, Variant, WalEnding};
use walpoint_wal::{Lsn, TimelineId};

use crate::coverage::Link;
use crate::locate::{Content, PathWal};

/// What was planned with, and how far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planned<'p> {
    pub wal: &'p PathWal<'p>,
    /// The segment.
    pub link: Link<'p>,
    /// End of the last record that is needed of it.
    pub until: Lsn,
}

impl Planned<'_> {
    /// Whether another timeline's file of the segment has the same WAL as far as it is needed.
    /// Without the content that can stay open: `None`.
    pub async fn is_in(
        &self,
        timeline: TimelineId,
        variant: &Variant,
        content: Content,
    ) -> Result<Option<bool>, ArchiveError> {
        match content {
            _ if self.link.name.timeline == timeline => Ok(Some(true)),
            Content::Read => self.is_same_content(variant).await.map(Some),
            Content::Sealed => self.is_same_by_metadata(variant).await,
        }
    }

    async fn is_same_content(&self, variant: &Variant) -> Result<bool, ArchiveError> {
        let planned = self.hash_of_needed(self.link.variant).await?;
        match self.hash_of_needed(variant).await {
            Ok(found) => Ok(found == planned),
            // That file is of no use, and there is another.
            Err(error) => DamagedObject::by(variant.key(), error).map(|_| false),
        }
    }

    /// Hash of a segment's bytes up to the end of the last record that is needed, so that two
    /// large ones need not be in memory.
    async fn hash_of_needed(&self, variant: &Variant) -> Result<ContentHash, ArchiveError> {
        let bytes = self.wal.source.segment(variant).await?;
        let start = self.wal.start_of(self.link.number);
        let needed = usize::try_from(self.until.0.saturating_sub(start.0)).unwrap_or(usize::MAX);
        Ok(ContentHash::of(bytes.get(..needed).unwrap_or(&bytes)))
    }

    /// Metadata show no more than that the file does not hold it.
    async fn is_same_by_metadata(&self, variant: &Variant) -> Result<Option<bool>, ArchiveError> {
        let facts = self.wal.source.facts(variant).await?;
        let reaches = match facts.ending {
            WalEnding::Damaged { at } | WalEnding::Open { at } => at >= self.until,
            WalEnding::Full | WalEnding::Switched { .. } => true,
            WalEnding::Unknown => false,
        };
        Ok(Some(false).filter(|_| !facts.validated || !reaches))
    }
}
