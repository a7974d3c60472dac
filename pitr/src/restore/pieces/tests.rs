#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use walpoint_archive::ContentHash;
use walpoint_archive::pack::PartOfFrame;

use super::*;

/// Few packs and files, so that orders meet in every way.
fn piece() -> impl Strategy<Value = PackPiece> {
    let part = proptest::option::of((any::<u32>(), 1..=u32::MAX));
    let numbers = (0..4u32, 0..4usize, 0..4u64, 0..1u64 << 24, any::<u32>(), any::<u32>());
    (numbers, any::<[u8; 32]>(), part).prop_map(|(numbers, hash, part)| {
        let (pack, file, offset, pack_offset, stored_length, length) = numbers;
        let part = part.map(|(skip, frame_length)| PartOfFrame { skip, frame_length });
        let hash = ContentHash::from_bytes(hash);
        let place = PiecePlace { offset: pack_offset, stored_length, length, hash, part };
        PackPiece { pack, piece: PieceWork { file, offset, place } }
    })
}

fn all(pieces: &[PackPiece]) -> Vec<Batch> {
    let directory = tempfile::tempdir().unwrap();
    let mut sorter = Pieces::new(directory.path().to_owned());
    pieces.iter().for_each(|piece| sorter.add(*piece).unwrap());
    let batches = sorter.sorted().unwrap();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a file with a name");
    batches.map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_piece_comes_back_once_with_its_pack_whatever_the_order_they_came_in(
        // Up to three levels of runs.
        pieces in prop::collection::vec(piece(), 0..200),
    ) {
        let batches = all(&pieces);
        // Brute force: by pack, then sorted.
        let mut expected: BTreeMap<u32, Vec<PieceWork>> = BTreeMap::new();
        for piece in &pieces {
            expected.entry(piece.pack).or_default().push(piece.piece);
        }
        let key = |piece: &PieceWork| {
            let hash = *piece.place.hash.as_bytes();
            (piece.file, piece.place.offset, piece.offset, hash)
        };
        let mut found: BTreeMap<u32, Vec<PieceWork>> = BTreeMap::new();
        for batch in &batches {
            prop_assert!(!batch.pieces.is_empty() && batch.pieces.len() <= IN_BATCH);
            found.entry(batch.pack).or_default().extend(&batch.pieces);
        }
        prop_assert!(batches.is_sorted_by_key(|batch| batch.pack));
        for pieces in found.values_mut() {
            prop_assert!(pieces.is_sorted_by_key(|it| (it.file, it.place.offset, it.offset)));
            pieces.sort_by_key(key);
        }
        expected.values_mut().for_each(|pieces| pieces.sort_by_key(key));
        prop_assert_eq!(found, expected);
        // No more batches than there must be.
        let least = |count: usize| count.div_ceil(IN_BATCH);
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        pieces.iter().for_each(|piece| *counts.entry(piece.pack).or_default() += 1);
        prop_assert_eq!(batches.len(), counts.into_values().map(least).sum::<usize>());
    }
}

fn some(count: u64) -> Vec<PackPiece> {
    let piece = |number: u64| {
        let hash = ContentHash::of(&number.to_le_bytes());
        let place = PiecePlace { offset: number, stored_length: 1, length: 1, hash, part: None };
        PackPiece { pack: 0, piece: PieceWork { file: 0, offset: number, place } }
    };
    (0..count).map(piece).collect()
}

#[test]
fn what_the_disk_changed_meanwhile_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let run = || Run::write(directory.path(), some(10).into_iter().map(Ok)).unwrap();
    // What came before the first error, and whether there was one.
    let read = |run: Run| {
        let (mut sound, mut torn) = (Vec::new(), 0);
        for piece in run.read().unwrap() {
            piece.map_or_else(|_| torn += 1, |piece| sound.push(piece));
        }
        (sound, torn)
    };
    assert_eq!(read(run()), (some(10), 0));
    let size = run().file().metadata().unwrap().len();
    for at in 0..size {
        let run = run();
        let mut byte = [0];
        run.file().read_exact_at(&mut byte, at).unwrap();
        run.file().write_all_at(&[byte[0] ^ 1], at).unwrap();
        let (sound, torn) = read(run);
        assert!(torn == 1 && some(10).starts_with(&sound) && sound.len() < 10, "byte {at}: {sound:?}");
    }
    for length in 0..size {
        let run = run();
        run.file().set_len(length).unwrap();
        let (sound, torn) = read(run);
        assert!(torn == 1 && some(10).starts_with(&sound) && sound.len() < 10, "{length} bytes");
    }
}

#[test]
fn few_files_are_open_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut sorter = Pieces::new(directory.path().to_owned());
    for piece in some(5000) {
        sorter.add(piece).unwrap();
        let open: usize = sorter.levels.iter().map(Vec::len).sum();
        assert!(open < MOST_RUNS * 8, "{open}");
    }
}

#[test]
fn a_disk_that_takes_nothing_is_an_error() {
    let mut sorter = Pieces::new("/nowhere/at/all".into());
    let added = some(10).into_iter().try_for_each(|piece| sorter.add(piece));
    assert!(added.is_err());
}
