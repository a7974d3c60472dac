//! Reads packs back: their stored bytes, every frame in them, and every piece that a manifest says is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use walpoint_archive::envelope::OpenError;
use walpoint_archive::pack::{Frame, FrameWalk, open_pack};
use walpoint_archive::summary::StoredObject;
use walpoint_archive::verification::Depth;
use walpoint_archive::{Archive, ArchiveError, Entry, KeyRing, StoredHash};

use super::finding::Trouble;
use super::looked::{Looked, looked};
use super::manifests::Namers;

/// What reading one pack came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PackRead {
    /// It is what was stored, looked into as deep as this. With it the manifests that name a piece which
    /// it does not have, all that name one together, each time with the first such place.
    Sound(Depth, BTreeMap<Namers, u64>),
    /// It is not.
    Unsound(Depth, Trouble, String),
    /// The store answered that it is not there.
    Gone,
}

/// Fetches a pack and looks into it.
pub(super) async fn read(
    archive: &Archive,
    object: &StoredObject,
    wanted: BTreeMap<Frame, Namers>,
) -> Result<PackRead, ArchiveError> {
    let stored = match looked(&object.key, archive.fetch_stored(object).await)? {
        Looked::Sound(stored) => stored,
        Looked::Unsound(trouble, what) => return Ok(PackRead::Unsound(Depth::Stored, trouble, what)),
        Looked::Gone => return Ok(PackRead::Gone),
        Looked::NoKey => return Ok(PackRead::Sound(Depth::Stored, BTreeMap::new())),
    };
    let (keys, object, layout) = (Arc::clone(archive.keys()), object.clone(), *archive.layout());
    let entry = layout.parse(&object.key);
    let look = move || look_into(&keys, &object, entry.as_ref(), stored, &wanted);
    tokio::task::spawn_blocking(look).await.map_err(|_| ArchiveError::Io {
        verb: "read",
        what: "a pack".to_owned(),
        source: std::io::Error::other("the work ended by itself"),
    })
}

fn look_into(
    keys: &KeyRing,
    object: &StoredObject,
    entry: Option<&Entry>,
    stored: Vec<u8>,
    wanted: &BTreeMap<Frame, Namers>,
) -> PackRead {
    let unsound = |depth, what: String| PackRead::Unsound(depth, Trouble::Damaged, what);
    let found = StoredHash::of(&stored);
    if found != object.sha256 {
        let what = format!("its bytes are not those that were stored: their SHA-256 is {found}");
        return unsound(Depth::Stored, what);
    }
    let Some(Entry::Pack { content, encrypted, .. }) = entry else {
        return unsound(Depth::Stored, "it is not a pack".to_owned());
    };
    let frames = match open_pack(keys, stored, *encrypted) {
        Ok(frames) => frames,
        Err(OpenError::NoKey) => return PackRead::Sound(Depth::Stored, BTreeMap::new()),
        Err(error @ OpenError::WrongKey) => {
            return PackRead::Unsound(Depth::Content, Trouble::Sealed, error.to_string());
        }
        Err(error) => return unsound(Depth::Content, error.to_string()),
    };
    match walk(&frames, wanted) {
        Ok((found, _)) if found.id() != *content => {
            unsound(Depth::Content, format!("its content is {found}, other than its key says"))
        }
        Ok((_, missing)) => PackRead::Sound(Depth::Content, missing),
        Err(error) => unsound(Depth::Content, error.to_string()),
    }
}

/// The content of all frames, and what of `wanted` is not among them.
fn walk<N: Copy + Ord>(
    frames: &[u8],
    wanted: &BTreeMap<Frame, N>,
) -> Result<(walpoint_archive::ContentHash, BTreeMap<N, u64>), OpenError> {
    let mut walk = FrameWalk::new(frames).map_err(OpenError::Io)?;
    let (mut missing, mut wanted) = (BTreeMap::new(), wanted.iter().peekable());
    while let Some(frame) = walk.next_frame()? {
        while let Some((skipped, manifest)) = wanted.next_if(|(wanted, _)| **wanted < frame) {
            missing.entry(*manifest).or_insert(skipped.offset);
        }
        wanted.next_if(|(wanted, _)| **wanted == frame);
    }
    for (skipped, manifest) in wanted {
        missing.entry(*manifest).or_insert(skipped.offset);
    }
    Ok((walk.finish().content, missing))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::{PackWriter, Sealer};

    proptest! {
        #[test]
        fn a_piece_that_is_not_there_is_missed_and_no_other(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..8),
            shifts in prop::collection::vec((0..10usize, 0..4u8), 0..5),
        ) {
            let mut pack = PackWriter::new(CompressionLevel::default());
            let true_ones: Vec<Frame> = pieces.iter().map(|it| pack.append(it).unwrap().frame()).collect();
            let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
            let sealed = pack.finish(&sealer).unwrap();
            let mut wanted: BTreeMap<Frame, usize> = true_ones.iter().map(|frame| (*frame, 0)).collect();
            let mut lies = 0;
            for (manifest, (which, how)) in shifts.iter().enumerate() {
                let mut frame = true_ones[which % true_ones.len()];
                match how {
                    0 => frame.offset += 1,
                    1 => frame.length += 1,
                    2 => frame.stored_length = frame.stored_length.saturating_sub(1),
                    _ => frame.hash = walpoint_archive::ContentHash::of(b"another"),
                }
                if wanted.insert(frame, manifest + 1).is_none() {
                    lies += 1;
                }
            }
            let named: usize = wanted.values().filter(|manifest| **manifest > 0).collect::<std::collections::BTreeSet<_>>().len();
            let (content, missing) = walk(&sealed.bytes, &wanted).unwrap();
            prop_assert_eq!(content, sealed.content);
            prop_assert!(!missing.contains_key(&0));
            prop_assert!(missing.len() <= lies && missing.len() == named);
        }
    }
}
