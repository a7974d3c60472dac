#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::encrypt::KeyRing;
use walpoint_archive::envelope::Sealer;
use walpoint_archive::pack::{open_frame, open_pack, read_piece};

use super::*;
use walpoint_archive::manifest::{EntryKind, ManifestEntry, ManifestHeader, ManifestWriter};
use walpoint_archive::{BackupId, RelativePath};
use walpoint_wal::SystemIdentifier;

const PAGE: usize = 8192;
/// Pages of a window.
const WINDOW: usize = MAX_PIECE_BYTES / PAGE;

/// What packs hold, by backup and number.
type Packs = BTreeMap<(BackupId, u32), Vec<u8>>;

fn id(number: u32) -> BackupId {
    format!("20260101T0000{number:02}Z-incr-{number:06x}").parse().unwrap()
}

/// A page with this LSN; one that has none is all zero.
fn page(lsn: u64, seed: u32) -> Vec<u8> {
    if lsn == 0 {
        return vec![0; PAGE];
    }
    let mut page: Vec<u8> = (0..PAGE as u32).map(|i| (i.wrapping_mul(seed | 1) >> 7) as u8).collect();
    page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
    page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
    for (at, value) in [(12, 40), (14, 8000), (16, 8192), (18, 8192 + 4)] {
        page[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }
    page
}

/// Backs up a file that is there in memory: what it consists of, and how many plain bytes were stored.
fn back_up(number: u32, file: &[u8], known: Known, packs: &mut Packs) -> (Assembled, usize) {
    let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
    let (mut packer, mut receiver) = Packer::new(sealer, 0);
    let collect = std::thread::spawn(move || {
        let mut packs = Vec::new();
        while let Some(pack) = receiver.blocking_recv() {
            let frames = open_pack(&KeyRing::default(), pack.sealed.bytes.to_vec(), false).unwrap();
            packs.push((pack.number, frames, pack.sealed.plain_size as usize));
        }
        packs
    });
    let mut assembly = Assembly::new(&mut packer, known);
    for (window, offset) in file.chunks(MAX_PIECE_BYTES).zip((0..).step_by(MAX_PIECE_BYTES)) {
        assembly.take(window, offset, |_| false).unwrap();
    }
    let mut assembled = assembly.finish().unwrap();
    packer.finish().unwrap();
    drop(packer);
    let mut stored = 0;
    for (pack, frames, plain) in collect.join().unwrap() {
        packs.insert((id(number), pack), frames);
        stored += plain;
    }
    for piece in &mut assembled.pieces {
        piece.backup.get_or_insert_with(|| id(number));
    }
    (assembled, stored)
}

/// The file that its pieces give, which lie end to end.
fn restore(assembled: &Assembled, packs: &Packs) -> Vec<u8> {
    let mut file = Vec::new();
    for piece in &assembled.pieces {
        assert_eq!(piece.file_offset, file.len() as u64);
        assert!(piece.part.is_none_or(|part| piece.length < part.frame_length));
        let frames = &packs[&piece.pack_of(&id(0))];
        file.extend(read_piece(frames, &piece.place()).unwrap());
    }
    file
}

fn parent_file(assembled: Assembled) -> ParentFile {
    let Assembled { pieces, windows } = assembled;
    let size = pieces.iter().map(|piece| u64::from(piece.length)).sum();
    ParentFile { size, pieces, windows }
}

/// Of every window of which a piece is a part of a frame there is the hash, and each hash is that of the window.
fn check_windows(assembled: &Assembled, file: &[u8]) {
    let mut parts: Vec<usize> = Vec::new();
    for piece in assembled.pieces.iter().filter(|piece| piece.part.is_some()) {
        let last = piece.file_offset + u64::from(piece.length) - 1;
        parts.extend(Windows::number_at(piece.file_offset)..=Windows::number_at(last));
    }
    for (number, window) in file.chunks(MAX_PIECE_BYTES).enumerate() {
        let hash = assembled.windows.hash(number);
        assert!(hash.is_some() || !parts.contains(&number), "window {number} has no hash");
        assert!(hash.is_none_or(|hash| hash == ContentHash::of(window)), "window {number}");
    }
    assert!(assembled.windows.as_slice().len() <= file.len().div_ceil(MAX_PIECE_BYTES));
}

/// What happens to a file between two backups.
#[derive(Debug, Clone)]
enum Change {
    /// Pages from here on, so many, a step apart, are written.
    Write {
        first: usize,
        count: usize,
        step: usize,
    },
    Truncate(usize),
    /// Pages are added; new ones stay empty.
    Extend {
        count: usize,
        is_new: bool,
    },
    /// Bytes are added that are no page.
    Tear,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0usize..400, 1usize..60, 1usize..9)
            .prop_map(|(first, count, step)| Change::Write { first, count, step }),
        1 => (0usize..400).prop_map(Change::Truncate),
        2 => (1usize..150, any::<bool>()).prop_map(|(count, is_new)| Change::Extend { count, is_new }),
        1 => Just(Change::Tear),
    ]
}

fn apply(change: &Change, pages: &mut Vec<Vec<u8>>, lsn: &mut u64) {
    let mut written = || {
        *lsn += 1;
        page(*lsn, (*lsn as u32).wrapping_mul(2_654_435_761))
    };
    pages.retain(|page| page.len() == PAGE);
    match *change {
        Change::Write { first, count, step } => {
            (first..pages.len()).step_by(step).take(count).for_each(|at| pages[at] = written());
        }
        Change::Truncate(length) => pages.truncate(length),
        Change::Extend { count, is_new } => {
            pages.extend((0..count).map(|_| if is_new { vec![0; PAGE] } else { written() }));
        }
        Change::Tear => pages.push(vec![7; 100]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Against brute force: the file itself. By LSN and by content, along chains of both.
    #[test]
    fn a_chain_of_any_changes_gives_the_file_as_it_is(
        size in 0usize..400,
        generations in proptest::collection::vec((proptest::collection::vec(change(), 0..4), any::<bool>()), 1..6),
    ) {
        let mut lsn = 100;
        let mut pages: Vec<Vec<u8>> = Vec::new();
        apply(&Change::Extend { count: size, is_new: false }, &mut pages, &mut lsn);
        let mut packs = Packs::new();
        // Where the last backup began.
        let mut since = Lsn(lsn + 1);
        lsn += 1;
        let (mut backed_up, _) = back_up(0, &pages.concat(), Known::Nothing, &mut packs);
        prop_assert!(backed_up.windows.is_empty());
        for (number, (changes, by_lsn)) in (1..).zip(generations) {
            changes.iter().for_each(|change| apply(change, &mut pages, &mut lsn));
            let file = pages.concat();
            let known = match by_lsn {
                true => Known::Lsn { file: parent_file(backed_up), since, page_size: PAGE },
                false => Known::Content(parent_file(backed_up)),
            };
            since = Lsn(lsn + 1);
            lsn += 1;
            (backed_up, _) = back_up(number, &file, known, &mut packs);
            prop_assert!(restore(&backed_up, &packs) == file, "generation {}", number);
            check_windows(&backed_up, &file);
        }
    }
}

#[test]
fn of_one_page_in_a_hundred_no_more_than_these_pages_is_stored() {
    let (mut packs, count) = (Packs::new(), 3000);
    let mut pages: Vec<Vec<u8>> = (0..count).map(|at| page(50, at)).collect();
    let (file, _) = back_up(0, &pages.concat(), Known::Nothing, &mut packs);
    let changed: Vec<usize> = (0..30).map(|number| (number * 7919 + 13) % count as usize).collect();
    changed.iter().for_each(|&at| pages[at] = page(200, at as u32));
    let known = Known::Lsn { file: parent_file(file), since: Lsn(100), page_size: PAGE };
    let (file, stored) = back_up(1, &pages.concat(), known, &mut packs);
    assert_eq!(stored, changed.len() * PAGE);
    // All in one frame, which is opened once.
    let own: Vec<&Piece> = file.pieces.iter().filter(|piece| piece.backup == Some(id(1))).collect();
    assert_eq!(own.len(), changed.len());
    assert!(own.iter().all(|piece| piece.place().frame() == own[0].place().frame()));
    let frame = open_frame(&packs[&(id(1), 0)], &own[0].place()).unwrap();
    assert_eq!(own.iter().map(|piece| piece.place().cut(&frame).unwrap().len()).sum::<usize>(), frame.len());
}

/// Bytes of a manifest that has this one file, compressed.
fn manifest_of(number: u32, assembled: &Assembled) -> usize {
    let header = ManifestHeader { backup: id(number), system_identifier: SystemIdentifier(7) };
    let ParentFile { size, pieces, windows } = parent_file(assembled.clone());
    let path = RelativePath::new("f").unwrap();
    let entry = ManifestEntry { path, kind: EntryKind::File, mode: 0o600, size, pieces, windows };
    let mut writer = ManifestWriter::new(Vec::new(), &header).unwrap();
    writer.entry(&entry).unwrap();
    zstd::encode_all(writer.finish().unwrap().0.as_slice(), 3).unwrap().len()
}

#[test]
fn a_manifest_stays_below_a_thousandth_of_the_data_to_the_end_of_a_long_chain() {
    let (mut packs, count) = (Packs::new(), 8 * WINDOW);
    let mut pages: Vec<Vec<u8>> = (0..count as u32).map(|at| page(50, at)).collect();
    let (mut file, _) = back_up(0, &pages.concat(), Known::Nothing, &mut packs);
    let mut largest = 0;
    for number in 1..=30 {
        let lsn = 100 * u64::from(number);
        // One page in a hundred, at random.
        for step in 0..count / 100 {
            let at = (step + number as usize * 1000).wrapping_mul(2_654_435_761) / 7 % count;
            pages[at] = page(lsn + 50, number * 1000 + step as u32);
        }
        let known = Known::Lsn { file: parent_file(file), since: Lsn(lsn), page_size: PAGE };
        (file, _) = back_up(number, &pages.concat(), known, &mut packs);
        largest = largest.max(manifest_of(number, &file));
    }
    assert!(restore(&file, &packs) == pages.concat());
    println!("{largest} bytes at most for {} of data", count * PAGE);
    assert!(largest * 1000 <= count * PAGE, "{largest} bytes for {} of data", count * PAGE);
}

#[test]
fn a_window_that_fell_into_too_many_pieces_is_stored_again() {
    let mut packs = Packs::new();
    let mut pages: Vec<Vec<u8>> = (0..2 * WINDOW as u32).map(|at| page(50, at)).collect();
    let (file, _) = back_up(0, &pages.concat(), Known::Nothing, &mut packs);
    (0..WINDOW).step_by(4).for_each(|at| pages[at] = page(200, at as u32));
    pages[WINDOW + 1] = page(200, 1);
    let known = Known::Lsn { file: parent_file(file), since: Lsn(100), page_size: PAGE };
    let (file, stored) = back_up(1, &pages.concat(), known, &mut packs);
    assert_eq!(stored, MAX_PIECE_BYTES + PAGE);
    assert_eq!(file.pieces.len(), 4);
    assert!(restore(&file, &packs) == pages.concat());
}

#[test]
fn a_page_with_a_wrong_checksum_is_not_the_parents() {
    let mut packs = Packs::new();
    let bytes: Vec<u8> = (0..4).flat_map(|at| page(50, at)).collect();
    let (file, _) = back_up(0, &bytes, Known::Nothing, &mut packs);
    let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
    let (mut packer, _receiver) = Packer::new(sealer, 0);
    let known = Known::Lsn { file: parent_file(file), since: Lsn(100), page_size: PAGE };
    let mut assembly = Assembly::new(&mut packer, known);
    assembly.take(&bytes, 0, |at| at == 2 * PAGE as u64).unwrap();
    let assembled = assembly.finish().unwrap();
    let own = |piece: &Piece| piece.backup.is_none();
    assert_eq!(assembled.pieces.iter().map(own).collect::<Vec<_>>(), [false, true, false]);
    // As it was read: it is stored as it is, and a copy that has it so is the same.
    check_windows(&assembled, &bytes);
}

/// As the sorted build of a GiST index leaves its pages up to PostgreSQL 16: the LSN 1, whatever was there before.
#[test]
fn pages_whose_lsn_says_nothing_are_compared_by_content() {
    for before in [page(0, 0), page(1, 5)] {
        let mut packs = Packs::new();
        let mut pages: Vec<Vec<u8>> = (0..2 * WINDOW as u32).map(|at| page(1, at)).collect();
        let root = std::mem::replace(&mut pages[0], before);
        let (file, _) = back_up(0, &pages.concat(), Known::Nothing, &mut packs);
        pages[0] = root;
        let known = |file| Known::Lsn { file: parent_file(file), since: Lsn(100), page_size: PAGE };
        let (file, stored) = back_up(1, &pages.concat(), known(file), &mut packs);
        assert!(restore(&file, &packs) == pages.concat());
        assert_eq!(stored, MAX_PIECE_BYTES, "only the window that is another");
        // What stays as it is, is not stored again and again.
        let (file, stored) = back_up(2, &pages.concat(), known(file), &mut packs);
        assert_eq!(stored, 0);
        assert!(restore(&file, &packs) == pages.concat());
    }
}

#[test]
fn by_content_only_a_window_that_is_alike_is_the_parents() {
    let mut packs = Packs::new();
    let mut pages: Vec<Vec<u8>> = (0..3 * WINDOW as u32).map(|at| page(50, at)).collect();
    let (file, _) = back_up(0, &pages.concat(), Known::Nothing, &mut packs);
    // A hint: other bytes, the same LSN.
    pages[WINDOW][8000] ^= 1;
    let (file, stored) = back_up(1, &pages.concat(), Known::Content(parent_file(file)), &mut packs);
    assert_eq!(stored, MAX_PIECE_BYTES);
    assert!(restore(&file, &packs) == pages.concat());
}

/// What has no change of its own is not hashed; and a window that is longer or shorter than the parent's is another.
#[test]
fn a_window_of_the_parents_pages_has_the_parents_hash_when_it_is_as_long() {
    let (mut packs, count) = (Packs::new(), WINDOW as u32 + WINDOW as u32 / 2);
    let mut pages: Vec<Vec<u8>> = (0..count).map(|at| page(50, at)).collect();
    let (file, _) = back_up(0, &pages.concat(), Known::Nothing, &mut packs);
    (pages[3], pages[WINDOW + 3]) = (page(200, 3), page(200, 4));
    let by_lsn = |file, since| Known::Lsn { file: parent_file(file), since: Lsn(since), page_size: PAGE };
    let (file, _) = back_up(1, &pages.concat(), by_lsn(file, 100), &mut packs);
    check_windows(&file, &pages.concat());
    // A mark in the place of each hash shows where it goes.
    let marked = |file: &Assembled| {
        let marks = [b"first", b"other"].map(|mark| Some(ContentHash::of(mark)));
        Assembled { windows: Windows::new(marks.to_vec()), ..file.clone() }
    };
    let (same, _) = back_up(2, &pages.concat(), by_lsn(marked(&file), 300), &mut packs);
    assert_eq!(same.windows, marked(&file).windows);
    for size in [count - 1, count + 1] {
        let mut other = pages.clone();
        other.resize_with(size as usize, || page(400, 1));
        let (file, _) = back_up(3, &other.concat(), by_lsn(marked(&file), 300), &mut packs);
        assert_eq!(file.windows.hash(0), Some(ContentHash::of(b"first")));
        assert_eq!(file.windows.hash(1), Some(ContentHash::of(&other[WINDOW..].concat())));
    }
    // A manifest of before there were hashes has none to hand on.
    let without = Assembled { windows: Windows::default(), ..file };
    let (again, _) = back_up(4, &pages.concat(), by_lsn(without, 300), &mut packs);
    check_windows(&again, &pages.concat());
}
