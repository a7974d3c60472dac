//! The operator's way out of a conflict: one content is kept, all others are
//! refused.
//!
//! The order makes it safe to be killed anywhere and run again: first all
//! others are marked, then the kept one is brought back, last its own mark goes.
//! So two contents never stand at once because of us, and no bytes are deleted.
//!
//! Others push and decide at the same time. What was looked at must still be so when
//! the first mark is set, and at the end the kept content must stand alone; else it is
//! an error, and the person looks again. What comes in between is seen by the last
//! listing of whoever was later.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use walpoint_wal::WalFileName;

use super::Archive;
use crate::catalog::{SegmentState, Usable, Variant};
use crate::content::ContentId;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::object_key::ObjectKey;
use crate::store::{Object, PART_BYTES, PutMode, Upload};

impl Archive {
    /// Makes the content `keep` the one that recovery uses under this name.
    ///
    /// # Errors
    /// [`ArchiveError::NoSuchVariant`] when the archive does not have it,
    /// [`ArchiveError::Overtaken`] and [`ArchiveError::Ambiguous`] when somebody else changed
    /// what is there at the same time.
    pub async fn resolve(&self, name: &WalFileName, keep: ContentId) -> Result<(), ArchiveError> {
        let seen = self.wal_variants(name).await?;
        let in_place: Vec<_> = seen.variants.iter().filter(|variant| variant.content == keep).collect();
        let aside = self.wal_conflicts(name).await?;
        let kept_aside = aside.iter().find(|variant| variant.content == keep);
        let Some(kept) = in_place.first().copied().or(kept_aside) else {
            return Err(ArchiveError::NoSuchVariant { name: *name, keep });
        };
        // Before the others are refused: is it what it should be, and is the decision about what is there?
        self.check_kept(kept).await?;
        if self.wal_variants(name).await? != seen {
            return Err(overtaken(name, "it changed while it was looked at"));
        }
        for content in others(&seen, &aside, keep) {
            self.mark_resolved(name, content).await?;
        }
        if in_place.is_empty() {
            let to = self.layout.wal(name, keep, kept.encrypted);
            self.copy(&kept.key(), &to).await?;
        }
        self.store.delete(&self.layout.refused(name, keep)).await?;
        self.check_decided(name, keep).await
    }

    /// That recovery now uses what was to be kept.
    async fn check_decided(&self, name: &WalFileName, keep: ContentId) -> Result<(), ArchiveError> {
        match self.wal_variants(name).await?.usable() {
            Usable::One(variant) if variant.content == keep => Ok(()),
            Usable::One(variant) => {
                let what = format!("recovery uses content {} of it now", variant.content);
                Err(overtaken(name, &what))
            }
            Usable::Nothing => Err(overtaken(name, "the content to be kept was refused again")),
            Usable::Ambiguous(variants) => {
                let contents = variants.iter().map(|variant| variant.content).collect();
                Err(ArchiveError::Ambiguous { name: *name, contents })
            }
        }
    }

    async fn check_kept(&self, kept: &Variant) -> Result<(), ArchiveError> {
        let common = self.common(&kept.key()).await?;
        if common.content.id() == kept.content {
            return Ok(());
        }
        Err(ArchiveError::damaged(
            kept.key(),
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

/// Every content but the kept one: also what is refused already, as that is decided now.
fn others(seen: &SegmentState, aside: &[Variant], keep: ContentId) -> BTreeSet<ContentId> {
    let stored = seen.variants.iter().chain(aside).map(|variant| variant.content);
    stored.chain(seen.refused.iter().copied()).filter(|content| *content != keep).collect()
}

fn overtaken(name: &WalFileName, what: &str) -> ArchiveError {
    ArchiveError::Overtaken { name: *name, what: what.to_owned() }
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
