//! Fetches packs and writes their pieces, several packs at once.
//!
//! Memory is bounded: a worker holds one pack (16 MiB), its frames when it is
//! encrypted, and one piece. Every pack is compared with the hash that the backup's
//! summary has of it, every piece with the one in the manifest.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use walpoint_archive::pack::{PiecePlace, open_pack, read_piece};
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{Archive, ArchiveError, KeyRing, StoredHash};

use super::error::RestoreError;
use super::site::{NewFile, Site};
use super::stopped;
use crate::progress::Progress;

/// A pack and what of it goes where.
#[derive(Debug, Clone)]
pub(super) struct PackWork {
    pub(super) object: StoredObject,
    pub(super) encrypted: bool,
    pub(super) pieces: Vec<PieceWork>,
}

/// A piece and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PieceWork {
    /// Index of the file.
    pub(super) file: usize,
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// Where in the pack it lies.
    pub(super) place: PiecePlace,
}

/// Fetches all packs and writes all their pieces. When it returns, with an error too,
/// nothing is being written any more.
pub(super) async fn write_all(
    archive: &Archive,
    packs: Vec<PackWork>,
    files: Arc<Vec<NewFile>>,
    site: Arc<Site>,
    workers: NonZeroUsize,
    progress: &Progress,
) -> Result<(), RestoreError> {
    let permits = Arc::new(Semaphore::new(workers.get()));
    let restored = futures::stream::iter(packs)
        .map(|pack| restore_pack(archive, pack, &files, &site, &permits))
        .buffer_unordered(workers.get())
        .try_for_each(|written| async move {
            progress.add_bytes(written);
            Ok(())
        })
        .await;
    // A write that has begun cannot be called off, and it holds its permit until it is done.
    let all = u32::try_from(workers.get()).unwrap_or(u32::MAX);
    drop(permits.acquire_many(all).await);
    restored
}

async fn restore_pack(
    archive: &Archive,
    pack: PackWork,
    files: &Arc<Vec<NewFile>>,
    site: &Arc<Site>,
    permits: &Arc<Semaphore>,
) -> Result<u64, RestoreError> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| stopped())?;
    let stored = fetch(archive, &pack.object).await?;
    let (keys, files, site) = (Arc::clone(archive.keys()), Arc::clone(files), Arc::clone(site));
    let write = move || {
        let _permit: OwnedSemaphorePermit = permit;
        write_pieces(&keys, &pack, stored, &files, &site)
    };
    tokio::task::spawn_blocking(write).await.map_err(|_| stopped())?
}

/// The stored bytes, no more than the summary says there are.
async fn fetch(archive: &Archive, object: &StoredObject) -> Result<Vec<u8>, RestoreError> {
    let damaged = |what: String| RestoreError::damaged(&object.key, what);
    let found = archive.store().get(&object.key, None).await.map_err(ArchiveError::from)?;
    if found.size != object.size {
        return Err(damaged(format!("it has {} bytes and should have {}", found.size, object.size)));
    }
    let mut body = found.body;
    let mut stored = Vec::with_capacity(usize::try_from(object.size).unwrap_or_default());
    while let Some(bytes) = body.next().await {
        stored.extend_from_slice(&bytes.map_err(ArchiveError::from)?);
        if stored.len() as u64 > object.size {
            return Err(damaged(format!("it has more than {} bytes", object.size)));
        }
    }
    Ok(stored)
}

fn write_pieces(
    keys: &KeyRing,
    pack: &PackWork,
    stored: Vec<u8>,
    files: &[NewFile],
    site: &Site,
) -> Result<u64, RestoreError> {
    let key = &pack.object.key;
    if StoredHash::of(&stored) != pack.object.sha256 {
        return Err(RestoreError::damaged(key, "its bytes are not those that were stored"));
    }
    let frames = open_pack(keys, stored, pack.encrypted).map_err(|error| unopened(key, error))?;
    let mut written = 0;
    let mut open: Option<(usize, std::fs::File)> = None;
    for piece in &pack.pieces {
        let Some(file) = files.get(piece.file) else {
            return Err(RestoreError::damaged(key, "a piece belongs to no file"));
        };
        let plain = read_piece(&frames, &piece.place).map_err(|error| unopened(key, error))?;
        // Pieces of a file mostly follow each other.
        let held = match open.take() {
            Some((index, held)) if index == piece.file => held,
            _ => site.open(&file.place)?,
        };
        site.write(&file.place, &held, piece.offset, &plain)?;
        written += plain.len() as u64;
        open = Some((piece.file, held));
    }
    Ok(written)
}

fn unopened(key: &walpoint_archive::ObjectKey, error: walpoint_archive::envelope::OpenError) -> RestoreError {
    use walpoint_archive::envelope::OpenError;
    let key = key.to_string();
    match error {
        OpenError::NoKey => ArchiveError::NoKey { key }.into(),
        OpenError::WrongKey => ArchiveError::WrongKey { key }.into(),
        other => RestoreError::damaged(key, other.to_string()),
    }
}
