//! Fetches a pack, or the parts of it that are wanted, and opens it.

use std::collections::BTreeMap;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt};
use walpoint_archive::envelope::OpenError;
use walpoint_archive::pack::{HEAD_BYTES, PiecePlace, SealedHead, open_frame, open_pack};
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{Archive, ArchiveError, KeyRing, StoredHash};

use super::{PackWork, ranges, unopened};
use crate::restore::error::RestoreError;

/// Ranges of one pack that are fetched at once.
const RANGES_AT_ONCE: usize = 4;

/// What was fetched of a pack.
#[derive(Debug)]
pub(in crate::restore) enum Stored {
    Whole(Vec<u8>),
    /// By where they begin.
    Ranges(BTreeMap<u64, Vec<u8>>),
    /// The chunks in which these ranges of the frames lie, by where they begin.
    Chunks {
        head: SealedHead,
        ranges: Vec<Range<u64>>,
        chunks: BTreeMap<u64, Vec<u8>>,
    },
}

impl Stored {
    /// Fetches what is wanted of a pack, or all of it when that is much.
    pub(in crate::restore) async fn fetch(
        archive: &Archive,
        pack: &PackWork,
    ) -> Result<Stored, RestoreError> {
        let object = &pack.object;
        match ranges::less_than_all(pack)? {
            None => Ok(Stored::Whole(fetch_bytes(archive, object, None).await?)),
            Some(ranges) if pack.encrypted => {
                let head = fetch_bytes(archive, object, Some(0..HEAD_BYTES)).await?;
                let head = SealedHead::new(head).map_err(|error| unopened(&object.key, error))?;
                let stored = ranges.iter().map(|range| head.stored(range, object.size)).collect();
                let chunks = fetch_ranges(archive, object, stored).await?;
                Ok(Stored::Chunks { head, ranges, chunks })
            }
            Some(ranges) => Ok(Stored::Ranges(fetch_ranges(archive, object, ranges).await?)),
        }
    }

    /// How many bytes came.
    pub(super) fn bytes(&self) -> u64 {
        let all = |ranges: &BTreeMap<u64, Vec<u8>>| ranges.values().map(|range| range.len() as u64).sum();
        match self {
            Stored::Whole(stored) => stored.len() as u64,
            Stored::Ranges(ranges) => all(ranges),
            Stored::Chunks { chunks, .. } => HEAD_BYTES.saturating_add(all(chunks)),
        }
    }

    /// The frames. Those of a whole pack are the ones that were stored; of others only what is in them says so.
    pub(in crate::restore) fn open(self, keys: &KeyRing, pack: &PackWork) -> Result<Frames, RestoreError> {
        let object = &pack.object;
        let opened = match self {
            Stored::Whole(stored) if StoredHash::of(&stored) != object.sha256 => {
                return Err(RestoreError::damaged(&object.key, "its bytes are not those that were stored"));
            }
            Stored::Whole(stored) => open_pack(keys, stored, pack.encrypted).map(Frames::Whole),
            Stored::Ranges(ranges) => Ok(Frames::Ranges(ranges)),
            Stored::Chunks { head, ranges, chunks } => {
                head.open(keys, object.size, chunks, &ranges).map(Frames::Ranges)
            }
        };
        opened.map_err(|error| unopened(&object.key, error))
    }
}

/// A pack's frames, or those that are wanted of it.
pub(in crate::restore) enum Frames {
    Whole(Vec<u8>),
    Ranges(BTreeMap<u64, Vec<u8>>),
}

impl Frames {
    /// The plain bytes of all of a piece's frame, verified.
    pub(in crate::restore) fn open(&self, place: &PiecePlace) -> Result<Vec<u8>, OpenError> {
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
        Ok::<_, RestoreError>((range.start, fetch_bytes(archive, object, Some(range)).await?))
    };
    futures::stream::iter(ranges.into_iter().map(fetch)).buffered(RANGES_AT_ONCE).try_collect().await
}

/// The stored bytes, or a range of them, of an object that has the size it should, and no more.
async fn fetch_bytes(
    archive: &Archive,
    object: &StoredObject,
    range: Option<Range<u64>>,
) -> Result<Vec<u8>, RestoreError> {
    let damaged = |what: String| RestoreError::damaged(&object.key, what);
    let most = range.as_ref().map_or(object.size, |range| range.end - range.start);
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
