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

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use walpoint_archive::envelope::OpenError;
use walpoint_archive::fault_point::panic_for_a_test;
use walpoint_archive::pack::{PiecePlace, open_frame, open_pack};
use walpoint_archive::summary::{BackupSummary, StoredObject};
use walpoint_archive::{Archive, ArchiveError, KeyRing, ObjectKey, StoredHash};

use super::error::RestoreError;
use super::holes::is_hole;
use super::pack_table::PackTable;
use super::pieces::{Batch, Batches, PieceWork};
use super::stopped;
use super::to_disk::{self, ToDisk};
use super::to_fetch::{Made, ToFetch, unsorted};
use crate::progress::Progress;

mod ranges;

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
    let stored = match ranges::less_than_all(&pack)? {
        Some(ranges) => Stored::Ranges(fetch_ranges(archive, &pack.object, ranges).await?),
        None => Stored::Whole(fetch(archive, &pack.object).await?),
    };
    let (keys, work) = (Arc::clone(archive.keys()), work.clone());
    let write = move || {
        let _permit: OwnedSemaphorePermit = permit;
        panic_for_a_test("writing");
        work.write_pieces(&keys, &pack, stored)
    };
    tokio::task::spawn_blocking(write).await.map_err(|_| stopped())?
}

/// What was fetched of a pack.
#[derive(Debug)]
enum Stored {
    Whole(Vec<u8>),
    /// By where they begin.
    Ranges(BTreeMap<u64, Vec<u8>>),
}

impl Stored {
    fn bytes(&self) -> u64 {
        match self {
            Stored::Whole(stored) => stored.len() as u64,
            Stored::Ranges(ranges) => ranges.values().map(|range| range.len() as u64).sum(),
        }
    }
}

/// A pack's frames, or those that are wanted of it.
enum Frames {
    Whole(Vec<u8>),
    Ranges(BTreeMap<u64, Vec<u8>>),
}

impl Frames {
    /// The plain bytes of all of a piece's frame, verified.
    fn open(&self, place: &PiecePlace) -> Result<Vec<u8>, OpenError> {
        let ranges = match self {
            Frames::Whole(frames) => return open_frame(frames, place),
            Frames::Ranges(ranges) => ranges,
        };
        let outside = || OpenError::Damaged("a piece lies outside of what was fetched".to_owned());
        let (begin, bytes) = ranges.range(..=place.offset).next_back().ok_or_else(outside)?;
        open_frame(bytes, &PiecePlace { offset: place.offset - begin, ..*place })
    }
}

async fn fetch_ranges(
    archive: &Archive,
    object: &StoredObject,
    ranges: Vec<Range<u64>>,
) -> Result<BTreeMap<u64, Vec<u8>>, RestoreError> {
    let fetch = |range: Range<u64>| async move {
        let (begin, length) = (range.start, range.end - range.start);
        Ok::<_, RestoreError>((begin, fetch_bytes(archive, object, Some(range), length).await?))
    };
    futures::stream::iter(ranges.into_iter().map(fetch)).buffered(RANGES_AT_ONCE).try_collect().await
}

/// Ranges of one pack that are fetched at once.
const RANGES_AT_ONCE: usize = 4;

/// The stored bytes, no more than the summary says there are.
pub(super) async fn fetch(archive: &Archive, object: &StoredObject) -> Result<Vec<u8>, RestoreError> {
    fetch_bytes(archive, object, None, object.size).await
}

/// The frame of one piece, by range; what it must be the piece's own hash says.
pub(super) async fn fetch_frame(
    archive: &Archive,
    object: &StoredObject,
    place: &PiecePlace,
) -> Result<Vec<u8>, RestoreError> {
    let length = u64::from(place.stored_length);
    let end = place.offset.checked_add(length).filter(|end| *end <= object.size);
    let end = end.ok_or_else(|| ranges::outside(object))?;
    fetch_bytes(archive, object, Some(place.offset..end), length).await
}

/// At most `most` bytes of an object that has the size it should.
async fn fetch_bytes(
    archive: &Archive,
    object: &StoredObject,
    range: Option<Range<u64>>,
    most: u64,
) -> Result<Vec<u8>, RestoreError> {
    let damaged = |what: String| RestoreError::damaged(&object.key, what);
    let found = archive.store().get(&object.key, range).await.map_err(ArchiveError::from)?;
    if found.size != object.size {
        return Err(damaged(format!("it has {} bytes and should have {}", found.size, object.size)));
    }
    let mut body = found.body;
    let mut stored = Vec::with_capacity(usize::try_from(most).unwrap_or_default());
    while let Some(bytes) = body.next().await {
        stored.extend_from_slice(&bytes.map_err(ArchiveError::from)?);
        if stored.len() as u64 > most {
            return Err(damaged(format!("it has more than the {most} bytes that were asked for")));
        }
    }
    Ok(stored)
}

impl Work {
    fn write_pieces(&self, keys: &KeyRing, pack: &PackWork, stored: Stored) -> Result<Written, RestoreError> {
        let stored_bytes = stored.bytes();
        let frames = match stored {
            Stored::Whole(stored) => Frames::Whole(open(keys, pack, stored)?),
            Stored::Ranges(ranges) => Frames::Ranges(ranges),
        };
        let mut written = Written { stored: stored_bytes, ..Written::default() };
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

/// The pack's frames, when its bytes are those that were stored.
pub(super) fn open(keys: &KeyRing, pack: &PackWork, stored: Vec<u8>) -> Result<Vec<u8>, RestoreError> {
    let key = &pack.object.key;
    if StoredHash::of(&stored) != pack.object.sha256 {
        return Err(RestoreError::damaged(key, "its bytes are not those that were stored"));
    }
    open_pack(keys, stored, pack.encrypted).map_err(|error| unopened(key, error))
}

pub(super) fn unopened(key: &ObjectKey, error: OpenError) -> RestoreError {
    let key = key.to_string();
    match error {
        OpenError::NoKey => ArchiveError::NoKey { key }.into(),
        OpenError::WrongKey => ArchiveError::WrongKey { key }.into(),
        other => RestoreError::damaged(key, other.to_string()),
    }
}
