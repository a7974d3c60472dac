//! Fetches packs and writes their pieces, several packs at once.
//!
//! Memory is bounded: a worker holds one pack (16 MiB), its frames when it is
//! encrypted, and one piece. Every pack that is fetched whole is compared with the hash that
//! the backup's summary has of it, every piece with the one in the manifest.
//!
//! A restore wants nearly every piece of nearly every pack, so it fetches packs whole:
//! one request each, and the stored hash is checked along with the rest. Of an older backup's
//! pack, most of which has been stored anew since, only the frames that are wanted are fetched.
//! What wants a few small files alone fetches their pieces by range ([`read_files`]).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use walpoint_archive::fault_point::panic_for_a_test;
use walpoint_archive::pack::{PiecePlace, open_frame, open_pack, read_frame, read_piece};
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{Archive, ArchiveError, KeyRing, ObjectKey, StoredHash};

use super::error::RestoreError;
use super::site::{NewFile, Site};
use super::stopped;
use super::to_disk::{self, ToDisk};
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

/// Fetches all packs and writes all their pieces. When it returns, with an error too,
/// no more bytes are written; the disk may still be busy with some.
pub(super) async fn write_all(
    archive: &Archive,
    packs: Vec<PackWork>,
    files: Arc<Vec<NewFile>>,
    site: Arc<Site>,
    workers: NonZeroUsize,
    progress: &Progress,
) -> Result<(), RestoreError> {
    let permits = Arc::new(Semaphore::new(workers.get()));
    let remaining = Arc::new(Remaining::of(&packs, files.len()));
    progress.add_files(remaining.empty_files());
    let (to_disk, written) = to_disk::channel();
    let work = Work { files, remaining, site: Arc::clone(&site), to_disk };
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
    files: Arc<Vec<NewFile>>,
    remaining: Arc<Remaining>,
    site: Arc<Site>,
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
    let stored = fetch_wanted(archive, &pack).await?;
    let (keys, work) = (Arc::clone(archive.keys()), work.clone());
    let write = move || {
        let _permit: OwnedSemaphorePermit = permit;
        panic_for_a_test("writing");
        work.write_pieces(&keys, &pack, stored)
    };
    tokio::task::spawn_blocking(write).await.map_err(|_| stopped())?
}

/// A pack's bytes.
#[derive(Debug)]
enum Fetched {
    Whole(Vec<u8>),
    /// Only those of the frames that are wanted; zeros elsewhere.
    Frames(Vec<u8>),
}

/// Frames as near to each other as this are fetched in one request.
const NEAR: u64 = 256 << 10;

/// The pack, or what is wanted of it when that is less than half.
async fn fetch_wanted(archive: &Archive, pack: &PackWork) -> Result<Fetched, RestoreError> {
    let object = &pack.object;
    let ranges = ranges(&pack.pieces);
    if !lie_within(&ranges, object.size) {
        return Err(outside(object));
    }
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    if pack.encrypted || wanted >= object.size / 2 {
        return fetch(archive, object).await.map(Fetched::Whole);
    }
    let mut stored = vec![0; usize::try_from(object.size).unwrap_or_default()];
    for range in ranges {
        let bytes = fetch_bytes(archive, object, Some(range.clone()), range.end - range.start).await?;
        let from = usize::try_from(range.start).unwrap_or(usize::MAX);
        let place = from.checked_add(bytes.len()).and_then(|to| stored.get_mut(from..to));
        place.ok_or_else(|| outside(object))?.copy_from_slice(&bytes);
    }
    Ok(Fetched::Frames(stored))
}

/// Where the frames of these pieces lie in their pack, in order, those near each other as one.
fn ranges(pieces: &[PieceWork]) -> Vec<Range<u64>> {
    let range = |piece: &PieceWork| {
        let PiecePlace { offset, stored_length, .. } = piece.place;
        offset..offset.saturating_add(stored_length.into())
    };
    let mut frames: Vec<Range<u64>> = pieces.iter().map(range).collect();
    frames.sort_unstable_by_key(|frame| frame.start);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for frame in frames {
        match ranges.last_mut().filter(|last| frame.start <= last.end.saturating_add(NEAR)) {
            Some(last) => last.end = last.end.max(frame.end),
            None => ranges.push(frame),
        }
    }
    ranges
}

/// Whether ranges in order end where the object does, or before.
fn lie_within(ranges: &[Range<u64>], size: u64) -> bool {
    ranges.last().is_none_or(|last| last.end <= size)
}

fn outside(object: &StoredObject) -> RestoreError {
    RestoreError::damaged(&object.key, "a piece lies outside of its pack")
}

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
    let end = end.ok_or_else(|| outside(object))?;
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
    fn write_pieces(
        &self,
        keys: &KeyRing,
        pack: &PackWork,
        fetched: Fetched,
    ) -> Result<Written, RestoreError> {
        let frames = match fetched {
            Fetched::Whole(stored) => open(keys, pack, stored)?,
            Fetched::Frames(frames) => frames,
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
        frames: &[u8],
        pieces: &[PieceWork],
        written: &mut Written,
    ) -> Result<(), RestoreError> {
        let index = pieces.first().map_or(usize::MAX, |piece| piece.file);
        let file = self.files.get(index);
        let place = &file.ok_or_else(|| RestoreError::damaged(key, "a piece belongs to no file"))?.place;
        let open = self.site.open(place)?;
        let mut unsent = 0;
        for parts in pieces.chunk_by(|one, next| one.place.shares_frame_with(&next.place)) {
            let Some(first) = parts.first() else { continue };
            let frame = open_frame(frames, &first.place).map_err(|error| unopened(key, error))?;
            for piece in parts {
                let plain = piece.place.cut(&frame).map_err(|error| unopened(key, error))?;
                written.bytes += plain.len() as u64;
                written.files += u64::from(self.remaining.one_piece_less(index));
                if is_hole(plain) {
                    continue;
                }
                self.site.write(place, &open, piece.offset, plain)?;
                self.to_disk.wrote(place, &open, plain.len(), &mut unsent);
            }
        }
        self.to_disk.end_of_pack(place, &open, unsent);
        Ok(())
    }
}

/// Whether a piece need not be written: it is large and all zero, as the file is that was made at its full size. That
/// holds of a new file only, never of one that has content.
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

fn unopened(key: &ObjectKey, error: walpoint_archive::envelope::OpenError) -> RestoreError {
    use walpoint_archive::envelope::OpenError;
    let key = key.to_string();
    match error {
        OpenError::NoKey => ArchiveError::NoKey { key }.into(),
        OpenError::WrongKey => ArchiveError::WrongKey { key }.into(),
        other => RestoreError::damaged(key, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use walpoint_archive::ContentHash;

    use super::*;

    fn piece(offset: u64, stored_length: u32) -> PieceWork {
        let place = PiecePlace { offset, stored_length, length: 1, hash: ContentHash::of(b""), part: None };
        PieceWork { file: 0, offset: 0, place }
    }

    #[test]
    fn frames_that_lie_near_each_other_are_fetched_in_one_request_and_no_frame_twice() {
        let far = 10 * NEAR;
        let pieces =
            [piece(far, 7), piece(0, 10), piece(20, 5), piece(20, 5), piece(far + 7, 3), piece(25 + NEAR, 1)];
        assert_eq!(ranges(&pieces), [0..26 + NEAR, far..far + 10]);
        assert_eq!(ranges(&[]), []);
        assert_eq!(ranges(&[piece(0, 1), piece(NEAR + 2, 1)]).len(), 2);
    }

    #[test]
    fn a_frame_beyond_the_end_of_its_pack_is_not_asked_for() {
        let pieces = [piece(0, 10), piece(10 * NEAR, 7)];
        assert!(lie_within(&ranges(&pieces), 10 * NEAR + 7));
        assert!(!lie_within(&ranges(&pieces), 10 * NEAR + 6));
        assert!(!lie_within(&ranges(&[piece(u64::MAX, 7)]), 1 << 24));
        assert!(lie_within(&[], 0));
    }
}
