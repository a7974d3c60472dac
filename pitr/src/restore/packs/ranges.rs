//! What of a pack to fetch.

use std::ops::Range;

use walpoint_archive::pack::{HEAD_BYTES, PiecePlace};
use walpoint_archive::summary::StoredObject;

use super::{PackWork, PieceWork};
use crate::restore::error::RestoreError;

/// age's chunks have 64 KiB and 16 bytes.
const TWO_CHUNKS: u64 = 2 * (64 * 1024 + 16);

/// Bytes that are fetched along rather than with a request of their own.
const FETCHED_ALONG: u64 = 256 * 1024;

/// Where among the pack's frames the wanted ones lie, when less than half of it is to be fetched for them. Of an encrypted
/// pack that is its head and, around each range, what is left of the chunks at both ends.
pub(super) fn less_than_all(pack: &PackWork) -> Result<Option<Vec<Range<u64>>>, RestoreError> {
    let ranges = ranges(&pack.pieces);
    if !lie_within(&ranges, pack.object.size) {
        return Err(outside(&pack.object));
    }
    let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let along = match pack.encrypted {
        true => HEAD_BYTES + ranges.len() as u64 * TWO_CHUNKS,
        false => 0,
    };
    Ok((wanted.saturating_add(along) < pack.object.size / 2).then_some(ranges))
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
        match ranges.last_mut().filter(|last| frame.start <= last.end.saturating_add(FETCHED_ALONG)) {
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

pub(super) fn outside(object: &StoredObject) -> RestoreError {
    RestoreError::damaged(&object.key, "a piece lies outside of its pack")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use walpoint_archive::{ContentHash, StoredHash};

    fn piece((offset, stored_length): (u64, u32)) -> PieceWork {
        let place = PiecePlace { offset, stored_length, length: 1, hash: ContentHash::of(b""), part: None };
        PieceWork { file: 0, offset: 0, place }
    }

    fn pack(size: u64, places: &[(u64, u32)], encrypted: bool) -> PackWork {
        let object = StoredObject { key: "7/x".parse().unwrap(), size, sha256: StoredHash::of(b"") };
        PackWork { object, encrypted, pieces: places.iter().copied().map(piece).collect() }
    }

    fn of(places: &[(u64, u32)]) -> Vec<Range<u64>> {
        ranges(&pack(0, places, false).pieces)
    }

    #[test]
    fn frames_that_lie_near_each_other_are_fetched_in_one_request_and_no_frame_twice() {
        let far = 10 * FETCHED_ALONG;
        let pieces = [(far, 7), (0, 10), (20, 5), (20, 5), (far + 7, 3), (25 + FETCHED_ALONG, 1)];
        assert_eq!(of(&pieces), [0..26 + FETCHED_ALONG, far..far + 10]);
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[(0, 1), (FETCHED_ALONG + 2, 1)]).len(), 2);
    }

    #[test]
    fn a_frame_beyond_the_end_of_its_pack_is_not_asked_for() {
        let far = 10 * FETCHED_ALONG;
        let is_outside = |places: &[(u64, u32)], size| less_than_all(&pack(size, places, false)).is_err();
        assert!(!is_outside(&[(0, 10), (far, 7)], far + 7));
        assert!(is_outside(&[(0, 10), (far, 7)], far + 6));
        assert!(is_outside(&[(u64::MAX, 7)], 1 << 24));
        assert!(!is_outside(&[], 0));
    }

    #[test]
    fn a_pack_of_which_much_is_wanted_is_fetched_whole() {
        let wanted =
            |size, places: &[(u64, u32)], encrypted| less_than_all(&pack(size, places, encrypted)).unwrap();
        assert_eq!(wanted(100, &[(0, 50)], false), None);
        // Of an encrypted one the head and the chunks come along.
        let along = HEAD_BYTES + TWO_CHUNKS;
        assert_eq!(wanted(2 * along, &[(0, 50)], true), None);
        assert_eq!(wanted(2 * along + 102, &[(0, 50)], true).map(|ranges| ranges.len()), Some(1));
        let near = wanted(1000, &[(20, 50), (70, 30)], false).unwrap();
        assert_eq!(near.iter().map(|range| (range.start, range.end)).collect::<Vec<_>>(), [(20, 100)]);
        let far = 2 * FETCHED_ALONG;
        assert_eq!(wanted(8 * far, &[(far, 50), (0, 30)], false), Some(vec![0..30, far..far + 50]));
    }

    proptest! {
        #[test]
        fn ranges_hold_every_piece_and_do_not_overlap(
            places in prop::collection::vec((0..16_000_000u64, 1..1_000_000u32), 1..20),
        ) {
            let ranges = of(&places);
            for (offset, length) in places {
                let end = offset + u64::from(length);
                prop_assert!(ranges.iter().any(|range| range.start <= offset && end <= range.end));
            }
            prop_assert!(ranges.is_sorted_by(|one, next| one.end < next.start));
        }
    }
}
