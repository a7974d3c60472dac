//! The operator's way out of a conflict: one content is kept, all others are
//! refused.
//!
//! The order makes it safe to be killed anywhere and run again: first all
//! others are marked, then the kept one is brought back, last its own mark goes.
//! So two contents never stand at once because of us, and no bytes are deleted.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use walpoint_wal::WalFileName;

use super::Archive;
use crate::catalog::{SegmentState, Variant};
use crate::content::ContentId;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::object_key::ObjectKey;
use crate::store::{Object, PART_BYTES, PutMode, Upload};

impl Archive {
    /// Makes the content `keep` the one that recovery uses under this name.
    ///
    /// # Errors
    /// [`ArchiveError::NoSuchVariant`] when the archive does not have it.
    pub async fn resolve(&self, name: &WalFileName, keep: ContentId) -> Result<(), ArchiveError> {
        let state = self.wal_variants(name).await?;
        let in_place: Vec<_> = state.variants.iter().filter(|variant| variant.content == keep).collect();
        let aside = self.wal_conflicts(name).await?;
        let aside = aside.iter().find(|variant| variant.content == keep);
        let kept = in_place.first().copied().or(aside);
        let Some(kept) = kept else {
            return Err(ArchiveError::NoSuchVariant { name: *name, keep });
        };
        // Before the others are refused: is it what it should be?
        self.check_kept(kept).await?;
        for content in others(&state, keep) {
            self.mark_refused(name, content).await?;
        }
        if in_place.is_empty() {
            let to = self.layout.wal(name, keep, kept.encrypted);
            self.copy(&kept.key, &to).await?;
        }
        self.store.delete(&self.layout.refused(name, keep)).await?;
        Ok(())
    }

    async fn check_kept(&self, kept: &Variant) -> Result<(), ArchiveError> {
        let common = self.common(&kept.key).await?;
        if common.content.id() == kept.content {
            return Ok(());
        }
        Err(ArchiveError::damaged(
            &kept.key,
            format!("its metadata speaks of the content {}", common.content),
        ))
    }

    /// Copies an object as it is, in bounded memory.
    async fn copy(&self, from: &ObjectKey, to: &ObjectKey) -> Result<(), ArchiveError> {
        let object = self.store.get(from, None).await?;
        Common::from_metadata(&object.metadata).map_err(|error| ArchiveError::from_facts(from, error))?;
        if object.size > PART_BYTES as u64 {
            return self.copy_in_parts(object, to).await;
        }
        let mut body = object.body;
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece?);
        }
        check_size(from, bytes.len() as u64, object.size)?;
        let _ = self.store.put(to, bytes.freeze(), &object.metadata, PutMode::CreateOnly).await?;
        Ok(())
    }

    async fn copy_in_parts(&self, object: Object, to: &ObjectKey) -> Result<(), ArchiveError> {
        let mut upload = self.store.begin_upload(to, &object.metadata, PutMode::CreateOnly).await?;
        match send_parts(object, upload.as_mut(), to).await {
            Ok(()) => {
                let _ = upload.finish().await?;
                Ok(())
            }
            Err(error) => {
                if let Err(error) = upload.abort().await {
                    tracing::warn!(%error, "parts of a copy that failed may remain in the store");
                }
                Err(error)
            }
        }
    }
}

/// Every content but the kept one that stands.
fn others(state: &SegmentState, keep: ContentId) -> Vec<ContentId> {
    state.standing().iter().map(|variant| variant.content).filter(|content| *content != keep).collect()
}

async fn send_parts(mut object: Object, upload: &mut dyn Upload, to: &ObjectKey) -> Result<(), ArchiveError> {
    let (mut part, mut size) = (BytesMut::new(), 0);
    while let Some(piece) = object.body.next().await {
        let mut piece: Bytes = piece?;
        size += piece.len() as u64;
        while !piece.is_empty() {
            let room = PART_BYTES - part.len();
            part.extend_from_slice(&piece.split_to(room.min(piece.len())));
            if part.len() == PART_BYTES {
                upload.part(part.split().freeze()).await?;
            }
        }
    }
    if !part.is_empty() {
        upload.part(part.freeze()).await?;
    }
    check_size(to, size, object.size)
}

fn check_size(key: &ObjectKey, came: u64, size: u64) -> Result<(), ArchiveError> {
    if came == size {
        Ok(())
    } else {
        Err(ArchiveError::damaged(key, format!("{came} of its {size} bytes came")))
    }
}
