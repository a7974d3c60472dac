//! Fetches packs and writes their pieces, several packs at once.
//!
//! Memory is bounded: a worker holds one pack (16 MiB), its frames when it is
//! encrypted, and one piece. Every pack is compared with the hash that the backup's
//! summary has of it, every piece with the one in the manifest.
//!
//! A restore wants nearly every piece of nearly every pack, so it fetches packs whole:
//! one request each, and the stored hash is checked along with the rest. Of a pack of which
//! less is wanted, what is wanted is fetched by range, neighbours together ([`ranges`]); a few
//! small files alone piece by piece ([`read_files`]).

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use walpoint_archive::envelope::OpenError;
use walpoint_archive::fault_point::panic_for_a_test;
use walpoint_archive::pack::{PiecePlace, open_pack, read_frame, read_piece};
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
    pack: PackWork,
    work: &Work,
    permits: &Arc<Semaphore>,
) -> Result<Written, RestoreError> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(|_| stopped())?;
    let stored = match ranges(&pack) {
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
    /// The plain bytes of a piece, verified.
    fn piece(&self, place: &PiecePlace) -> Result<Vec<u8>, OpenError> {
        let ranges = match self {
            Frames::Whole(frames) => return read_piece(frames, place),
            Frames::Ranges(ranges) => ranges,
        };
        let outside = || OpenError::Damaged("a piece lies outside of what was fetched".to_owned());
        let (begin, bytes) = ranges.range(..=place.offset).next_back().ok_or_else(outside)?;
        let from = usize::try_from(place.offset - begin).map_err(|_| outside())?;
        let frame = from.checked_add(place.stored_length as usize).and_then(|end| bytes.get(from..end));
        read_frame(frame.ok_or_else(outside)?, place)
    }
}

/// Bytes that are fetched along rather than with a request of their own.
const FETCHED_ALONG: u64 = 256 * 1024;

/// Stored bytes that are fetched for these pieces.
pub(super) fn stored_bytes_of(packs: &[PackWork]) -> u64 {
    let of_pack = |pack: &PackWork| match ranges(pack) {
        Some(ranges) => ranges.iter().map(|range| range.end - range.start).sum(),
        None => pack.object.size,
    };
    packs.iter().map(of_pack).fold(0, u64::saturating_add)
}

/// What of a pack to fetch, when that is less than half of it. An encrypted pack is opened as a whole.
fn ranges(pack: &PackWork) -> Option<Vec<Range<u64>>> {
    if pack.encrypted {
        return None;
    }
    let mut places: Vec<Range<u64>> = pack
        .pieces
        .iter()
        .map(|piece| piece.place.offset..piece.place.offset.saturating_add(piece.place.stored_length.into()))
        .collect();
    places.sort_unstable_by_key(|place| (place.start, place.end));
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for place in places {
        match ranges.last_mut() {
            Some(last) if place.start <= last.end.saturating_add(FETCHED_ALONG) => {
                last.end = last.end.max(place.end)
            }
            _ => ranges.push(place),
        }
    }
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    (wanted < pack.object.size / 2).then_some(ranges)
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
    let outside = || RestoreError::damaged(&object.key, "a piece lies outside of its pack");
    fetch_bytes(archive, object, Some(place.offset..end.ok_or_else(outside)?), length).await
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
        // Pieces of a file mostly follow each other.
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
        let file = self.files.get(index);
        let place = &file.ok_or_else(|| RestoreError::damaged(key, "a piece belongs to no file"))?.place;
        let open = self.site.open(place)?;
        let mut unsent = 0;
        for piece in pieces {
            let plain = frames.piece(&piece.place).map_err(|error| unopened(key, error))?;
            self.site.write(place, &open, piece.offset, &plain)?;
            written.bytes += plain.len() as u64;
            written.files += u64::from(self.remaining.one_piece_less(index));
            self.to_disk.wrote(place, &open, plain.len(), &mut unsent);
        }
        self.to_disk.end_of_pack(place, &open, unsent);
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use walpoint_archive::ContentHash;

    fn pack(size: u64, places: &[(u64, u32)], encrypted: bool) -> PackWork {
        let piece = |(offset, stored_length): &(u64, u32)| PieceWork {
            file: 0,
            offset: 0,
            place: PiecePlace {
                offset: *offset,
                stored_length: *stored_length,
                length: 1,
                hash: ContentHash::of(b""),
                part: None,
            },
        };
        let object = StoredObject { key: "7/x".parse().unwrap(), size, sha256: StoredHash::of(b"") };
        PackWork { object, encrypted, pieces: places.iter().map(piece).collect() }
    }

    #[test]
    fn much_of_a_pack_and_what_is_encrypted_is_fetched_whole() {
        assert_eq!(ranges(&pack(100, &[(0, 50)], false)), None);
        assert_eq!(ranges(&pack(1000, &[(0, 50)], true)), None);
        assert_eq!(stored_bytes_of(&[pack(1000, &[(0, 50)], true), pack(1000, &[(0, 50)], false)]), 1050);
        let near = ranges(&pack(1000, &[(20, 50), (70, 30)], false)).unwrap();
        assert_eq!(near.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>(), [(20, 100)]);
        let far = 2 * FETCHED_ALONG;
        assert_eq!(ranges(&pack(8 * far, &[(far, 50), (0, 30)], false)), Some(vec![0..30, far..far + 50]));
    }

    proptest! {
        #[test]
        fn ranges_hold_every_piece_and_do_not_overlap(
            places in prop::collection::vec((0..16_000_000u64, 1..1_000_000u32), 1..20),
        ) {
            let Some(ranges) = ranges(&pack(16 << 20, &places, false)) else { return Ok(()) };
            for (offset, length) in places {
                let end = offset + u64::from(length);
                prop_assert!(ranges.iter().any(|range| range.start <= offset && end <= range.end));
            }
            prop_assert!(ranges.is_sorted_by(|one, next| one.end < next.start));
        }
    }
}
