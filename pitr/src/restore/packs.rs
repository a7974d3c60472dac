//! Fetches packs and writes their pieces, several packs at once.
//!
//! A worker holds one pack (16 MiB), its frames when it is encrypted, and one piece; besides, all
//! pieces that are to be fetched are known by their places, 80 bytes each. Every pack that is fetched whole is compared with the hash that
//! the backup's summary has of it, every piece with the one in the manifest.
//!
//! A restore wants nearly every piece of nearly every pack, so it fetches packs whole:
//! one request each, and the stored hash is checked along with the rest. Of a pack of which
//! less is wanted (an older backup's, or what differs from what is there), only the frames that are
//! wanted are fetched, neighbours together ([`ranges`]); a few small files alone piece by piece
//! ([`read_files`]).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use walpoint_archive::envelope::OpenError;
use walpoint_archive::fault_point::panic_for_a_test;
use walpoint_archive::pack::{PiecePlace, open_frame, open_pack, read_frame, read_piece};
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{Archive, ArchiveError, KeyRing, ObjectKey, StoredHash};

use super::error::RestoreError;
use super::site::{NewFile, Site};
use super::stopped;
use super::to_disk::{self, ToDisk};
use crate::progress::Progress;

mod ranges;

pub(super) use ranges::stored_bytes_of;

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

/// What one pack brought.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    bytes: u64,
    /// Files whose last missing piece this was.
    files: u64,
}

/// How many pieces each file still lacks; its pieces may lie in several packs.
#[derive(Debug)]
struct Remaining(Vec<AtomicU64>);

impl Remaining {
    fn of(packs: &[PackWork], files: usize) -> Remaining {
        let mut counts: Vec<AtomicU64> = std::iter::repeat_with(AtomicU64::default).take(files).collect();
        for piece in packs.iter().flat_map(|pack| &pack.pieces) {
            if let Some(count) = counts.get_mut(piece.file) {
                *count.get_mut() += 1;
            }
        }
        Remaining(counts)
    }

    fn empty_files(&self) -> u64 {
        self.0.iter().filter(|count| count.load(Ordering::Relaxed) == 0).count() as u64
    }

    /// Whether this was the last one.
    fn one_piece_less(&self, file: usize) -> bool {
        self.0.get(file).is_some_and(|count| count.fetch_sub(1, Ordering::Relaxed) == 1)
    }
}

/// Where pieces go.
#[derive(Debug, Clone)]
pub(super) struct Targets {
    /// All files, at their length.
    pub(super) files: Arc<Vec<NewFile>>,
    /// Those, by their index, that were there before and kept their content.
    pub(super) kept: Arc<BTreeSet<usize>>,
    /// Where they are.
    pub(super) site: Arc<Site>,
}

/// Fetches all packs and writes all their pieces. When it returns, with an error too,
/// no more bytes are written; the disk may still be busy with some.
pub(super) async fn write_all(
    archive: &Archive,
    packs: Vec<PackWork>,
    targets: Targets,
    workers: NonZeroUsize,
    progress: &Progress,
) -> Result<(), RestoreError> {
    let permits = Arc::new(Semaphore::new(workers.get()));
    let remaining = Arc::new(Remaining::of(&packs, targets.files.len()));
    progress.add_files(remaining.empty_files());
    let (to_disk, written) = to_disk::channel();
    let site = Arc::clone(&targets.site);
    let work = Work { targets, remaining, to_disk };
    let writing = async {
        // Nothing comes after it: then the sending ends, too.
        let work = work;
        let packs = futures::stream::iter(packs).map(|pack| restore_pack(archive, pack, &work, &permits));
        let mut written = packs.buffer_unordered(workers.get());
        while let Some(written) = written.try_next().await? {
            progress.add_bytes(written.bytes);
            progress.add_files(written.files);
        }
        Ok(())
    };
    let restored = futures::try_join!(writing, written.send(&site)).map(drop);
    // A write that has begun cannot be called off, and it holds its permit until it is done.
    let all = u32::try_from(workers.get()).unwrap_or(u32::MAX);
    drop(permits.acquire_many(all).await);
    restored
}

/// What all packs are written with.
#[derive(Debug, Clone)]
struct Work {
    targets: Targets,
    remaining: Arc<Remaining>,
    to_disk: ToDisk,
}

/// Most pieces of one pack that are fetched one by one: more would take longer than all of it.
const FEW_PIECES: usize = 4;

/// The content of a few small files, by their index. Of an encrypted pack the whole is
/// fetched: what a piece is in it shows only when it is decrypted from its beginning.
pub(super) async fn read_files(
    archive: &Archive,
    packs: &[PackWork],
    files: &[NewFile],
    wanted: &BTreeSet<usize>,
) -> Result<BTreeMap<usize, Vec<u8>>, RestoreError> {
    let size = |file: usize| files.get(file).and_then(|file| usize::try_from(file.size).ok());
    let mut contents: BTreeMap<usize, Vec<u8>> =
        wanted.iter().map(|&file| (file, vec![0; size(file).unwrap_or_default()])).collect();
    for pack in packs {
        let pieces: Vec<PieceWork> =
            pack.pieces.iter().copied().filter(|piece| wanted.contains(&piece.file)).collect();
        if pieces.is_empty() {
            continue;
        }
        let whole = match pack.encrypted || pieces.len() > FEW_PIECES {
            true => Some(open(archive.keys(), pack, fetch(archive, &pack.object).await?)?),
            false => None,
        };
        for piece in pieces {
            let read = match &whole {
                Some(frames) => read_piece(frames, &piece.place),
                None => read_frame(&fetch_frame(archive, &pack.object, &piece.place).await?, &piece.place),
            };
            let plain = read.map_err(|error| unopened(&pack.object.key, error))?;
            let from = usize::try_from(piece.offset).unwrap_or(usize::MAX);
            let place = contents
                .get_mut(&piece.file)
                .and_then(|content| content.get_mut(from..from.checked_add(plain.len())?));
            let outside = || RestoreError::damaged(&pack.object.key, "a piece lies outside of its file");
            place.ok_or_else(outside)?.copy_from_slice(&plain);
        }
    }
    Ok(contents)
}

async fn restore_pack(
    archive: &Archive,
    mut pack: PackWork,
    work: &Work,
    permits: &Arc<Semaphore>,
) -> Result<Written, RestoreError> {
    pack.pieces.sort_unstable_by_key(|piece| (piece.file, piece.place.offset, piece.offset));
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
async fn fetch(archive: &Archive, object: &StoredObject) -> Result<Vec<u8>, RestoreError> {
    fetch_bytes(archive, object, None, object.size).await
}

/// The frame of one piece, by range; what it must be the piece's own hash says.
async fn fetch_frame(
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
        let frames = match stored {
            Stored::Whole(stored) => Frames::Whole(open(keys, pack, stored)?),
            Stored::Ranges(ranges) => Frames::Ranges(ranges),
        };
        let mut written = Written::default();
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
        let Targets { files, kept, site } = &self.targets;
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

/// Whether a piece need not be written into a new file: it is large and all zero, as the file is that was made at its
/// full size. A file that was there before has content in its place.
fn is_hole(plain: &[u8]) -> bool {
    const LARGE: usize = 1 << 20;
    plain.len() >= LARGE && plain.iter().all(|byte| *byte == 0)
}

/// The pack's frames, when its bytes are those that were stored.
fn open(keys: &KeyRing, pack: &PackWork, stored: Vec<u8>) -> Result<Vec<u8>, RestoreError> {
    let key = &pack.object.key;
    if StoredHash::of(&stored) != pack.object.sha256 {
        return Err(RestoreError::damaged(key, "its bytes are not those that were stored"));
    }
    open_pack(keys, stored, pack.encrypted).map_err(|error| unopened(key, error))
}

fn unopened(key: &ObjectKey, error: OpenError) -> RestoreError {
    let key = key.to_string();
    match error {
        OpenError::NoKey => ArchiveError::NoKey { key }.into(),
        OpenError::WrongKey => ArchiveError::WrongKey { key }.into(),
        other => RestoreError::damaged(key, other.to_string()),
    }
}
