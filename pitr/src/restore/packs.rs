//! Fetches packs and writes their pieces, several packs at once.
//!
//! Memory is bounded: a worker holds one pack (16 MiB), its frames when it is
//! encrypted, one piece, and where the pieces of a batch go (5 MiB); the others wait
//! on the disk ([`super::pieces`]). Every pack that is fetched whole is compared with
//! the hash that the backup's summary has of it, every piece with the one in the
//! manifest.
//!
//! A restore wants nearly every piece of nearly every pack, so it fetches packs whole:
//! one request each, and the stored hash is checked along with the rest. Of a pack of which
//! less is wanted (an older backup's, or what differs from what is there), only the frames that are
//! wanted are fetched, neighbours together ([`ranges`]); a few small files alone piece by piece
//! ([`super::contents`]). One with more pieces than a batch has comes in several batches, each
//! with the frames that it needs.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use walpoint_archive::envelope::OpenError;
use walpoint_archive::fault_point::panic_for_a_test;
use walpoint_archive::summary::{BackupSummary, StoredObject};
use walpoint_archive::{Archive, ArchiveError, KeyRing, ObjectKey};

use super::error::RestoreError;
use super::holes::is_hole;
use super::pack_table::PackTable;
use super::pieces::{Batch, Batches, PieceWork};
use super::stopped;
use super::to_disk::{self, ToDisk};
use super::to_fetch::{Made, ToFetch, unsorted};
use crate::progress::Progress;

mod ranges;
mod stored;

pub(super) use stored::Stored;

use stored::Frames;

/// A pack and what of it goes where.
#[derive(Debug, Clone)]
pub(super) struct PackWork {
    pub(super) object: StoredObject,
    pub(super) encrypted: bool,
    pub(super) pieces: Vec<PieceWork>,
}

impl PackWork {
    /// The pack of a batch.
    pub(super) fn new(
        batch: Batch,
        table: &PackTable,
        summary: &BackupSummary,
    ) -> Result<PackWork, RestoreError> {
        let (object, encrypted) = table.object(summary, batch.pack).ok_or_else(stopped)?;
        Ok(PackWork { object: object.clone(), encrypted, pieces: batch.pieces })
    }
}

/// What one pack brought.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    bytes: u64,
    /// Stored bytes that came for these.
    stored: u64,
    /// Files whose last missing piece this was.
    files: u64,
}

/// How many pieces each file still lacks; its pieces may lie in several packs.
#[derive(Debug)]
struct Remaining(Vec<AtomicU64>);

impl Remaining {
    fn new(pieces: Vec<u64>) -> Remaining {
        Remaining(pieces.into_iter().map(AtomicU64::new).collect())
    }

    fn empty_files(&self) -> u64 {
        self.0.iter().filter(|count| count.load(Ordering::Relaxed) == 0).count() as u64
    }

    /// Whether no file lacks any.
    fn is_nothing(&self) -> bool {
        self.empty_files() == self.0.len() as u64
    }

    /// Whether this was the last one.
    fn one_piece_less(&self, file: usize) -> bool {
        self.0.get(file).is_some_and(|count| count.fetch_sub(1, Ordering::Relaxed) == 1)
    }
}

/// Fetches all packs and writes all their pieces; returns how many stored bytes came. When it returns, with an error
/// too, no more bytes are written; the disk may still be busy with some.
pub(super) async fn write_all(
    archive: &Archive,
    summary: &BackupSummary,
    to_fetch: ToFetch,
    made: &Made,
    workers: NonZeroUsize,
    progress: &Progress,
) -> Result<u64, RestoreError> {
    let permits = Arc::new(Semaphore::new(workers.get()));
    let remaining = Arc::new(Remaining::new(to_fetch.of_file));
    progress.add_files(remaining.empty_files());
    let (to_disk, written) = to_disk::channel();
    let (batches, mut reader) = hand_out(to_fetch.batches, made);
    let work = Work { made: made.clone(), remaining: Arc::clone(&remaining), to_disk };
    let writing = async {
        // Nothing comes after it: then the sending ends, too.
        let work = work;
        let packs = batches.map(|batch| {
            let pack = PackWork::new(batch, &work.made.table, summary);
            async { restore_pack(archive, pack?, &work, &permits).await }
        });
        let mut written = std::pin::pin!(packs.buffer_unordered(workers.get()));
        let mut stored = 0u64;
        while let Some(written) = written.try_next().await? {
            progress.add_bytes(written.bytes);
            progress.add_files(written.files);
            stored = stored.saturating_add(written.stored);
        }
        Ok(stored)
    };
    let sorted = async { (&mut reader).await.map_err(|_| stopped())? };
    let restored = futures::try_join!(writing, written.send(&made.site), sorted);
    // A write that has begun cannot be called off, and it holds its permit until it is done.
    let all = u32::try_from(workers.get()).unwrap_or(u32::MAX);
    drop(permits.acquire_many(all).await);
    if !reader.is_finished() {
        let _ = reader.await;
    }
    let (stored, (), ()) = restored?;
    match remaining.is_nothing() {
        true => Ok(stored),
        false => Err(RestoreError::Interrupted("not every piece came to be written".to_owned())),
    }
}

/// Reads batches where blocking holds up nothing else, one ahead. The task says whether all came; it ends when nobody
/// takes any more.
fn hand_out(
    batches: Batches,
    made: &Made,
) -> (impl Stream<Item = Batch>, JoinHandle<Result<(), RestoreError>>) {
    let (send, receive) = mpsc::channel(1);
    let made = made.clone();
    let reader = tokio::task::spawn_blocking(move || {
        for batch in batches {
            let batch = batch.map_err(|source| unsorted(&made, source))?;
            if send.blocking_send(batch).is_err() {
                break;
            }
        }
        Ok(())
    });
    let batches = futures::stream::unfold(receive, |mut receive| async {
        let batch = receive.recv().await?;
        Some((batch, receive))
    });
    (batches, reader)
}

/// What all packs are written with.
#[derive(Debug, Clone)]
struct Work {
    made: Made,
    remaining: Arc<Remaining>,
    to_disk: ToDisk,
}

async fn restore_pack(
    archive: &Archive,
    pack: PackWork,
    work: &Work,
    permits: &Arc<Semaphore>,
) -> Result<Written, RestoreError> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| stopped())?;
    let stored = Stored::fetch(archive, &pack).await?;
    let (keys, work) = (Arc::clone(archive.keys()), work.clone());
    let write = move || {
        let _permit: OwnedSemaphorePermit = permit;
        panic_for_a_test("writing");
        work.write_pieces(&keys, &pack, stored)
    };
    tokio::task::spawn_blocking(write).await.map_err(|_| stopped())?
}

impl Work {
    fn write_pieces(&self, keys: &KeyRing, pack: &PackWork, stored: Stored) -> Result<Written, RestoreError> {
        let mut written = Written { stored: stored.bytes(), ..Written::default() };
        let frames = stored.open(keys, pack)?;
        // Pieces of a file follow each other, and of these the parts of one frame.
        for pieces in pack.pieces.chunk_by(|one, next| one.file == next.file) {
            self.write_file(&pack.object.key, &frames, pieces, &mut written)?;
        }
        Ok(written)
    }

    /// Writes pieces of one file.
    fn write_file(
        &self,
        key: &ObjectKey,
        frames: &Frames,
        pieces: &[PieceWork],
        written: &mut Written,
    ) -> Result<(), RestoreError> {
        let index = pieces.first().map_or(usize::MAX, |piece| piece.file);
        let Made { files, kept, site, .. } = &self.made;
        let (file, is_new) = (files.get(index), !kept.contains(&index));
        let place = &file.ok_or_else(|| RestoreError::damaged(key, "a piece belongs to no file"))?.place;
        let open = site.open(place)?;
        let mut unsent = 0;
        for parts in pieces.chunk_by(|one, next| one.place.frame() == next.place.frame()) {
            let Some(first) = parts.first() else { continue };
            let frame = frames.open(&first.place).map_err(|error| unopened(key, error))?;
            for piece in parts {
                let plain = piece.place.cut(&frame).map_err(|error| unopened(key, error))?;
                written.bytes += plain.len() as u64;
                written.files += u64::from(self.remaining.one_piece_less(index));
                // A file that was there before has content in its place.
                if is_new && is_hole(plain) {
                    continue;
                }
                site.write(place, &open, piece.offset, plain)?;
                self.to_disk.wrote(place, &open, plain.len(), &mut unsent);
            }
        }
        self.to_disk.end_of_pack(place, &open, unsent);
        Ok(())
    }
}

pub(super) fn unopened(key: &ObjectKey, error: OpenError) -> RestoreError {
    let key = key.to_string();
    match error {
        OpenError::NoKey => ArchiveError::NoKey { key }.into(),
        OpenError::WrongKey => ArchiveError::WrongKey { key }.into(),
        other => RestoreError::damaged(key, other.to_string()),
    }
}
