#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use crate::run_facts::tests::{common, survey};
use crate::wal_facts::tests::worst_case;
use crate::{Layout, RunFacts, WalFacts};
use proptest::prelude::*;
use walpoint_wal::SystemIdentifier;

/// A chunk of `bytes`.
fn chunk(bytes: &[u8], from: usize, to: usize) -> Chunk {
    let id = |bytes: &[u8]| ContentHash::of(bytes).id();
    let name = ChunkName {
        from: from as u32,
        to: to as u32,
        before: id(&bytes[..from]),
        after: id(&bytes[..to]),
        content: id(&bytes[from..to]),
    };
    let segment = "000000010000000000000003".parse().unwrap();
    let key = Layout::new(SystemIdentifier(7)).chunk(&segment, name, false);
    Chunk { segment, name, key, stored_size: 9, stored_at: None, encrypted: false }
}

fn spans(tail: &Tail) -> Vec<(u32, u32)> {
    tail.chunks.iter().map(|chunk| (chunk.name.from, chunk.name.to)).collect()
}

#[test]
fn the_chain_goes_as_far_as_one_chunk_continues_the_other() {
    let bytes: Vec<u8> = (0..100).collect();
    let of = |spans: &[(usize, usize)]| {
        Tail::of(&spans.iter().map(|(from, to)| chunk(&bytes, *from, *to)).collect::<Vec<_>>())
    };
    assert_eq!(of(&[]), None);
    assert_eq!(of(&[(1, 5)]), None, "nothing begins with the first byte");
    let tail = of(&[(20, 30), (0, 10), (10, 20)]).unwrap();
    assert_eq!((spans(&tail), tail.lost_to), (vec![(0, 10), (10, 20), (20, 30)], None));
    // A hole: what lies behind it shows that there was more.
    let tail = of(&[(0, 10), (20, 30)]).unwrap();
    assert_eq!((spans(&tail), tail.lost_to), (vec![(0, 10)], Some(30)));
    // Overlaps are not stitched.
    let tail = of(&[(0, 10), (5, 30)]).unwrap();
    assert_eq!((spans(&tail), tail.lost_to), (vec![(0, 10)], Some(30)));
    // Chunks put together stand for their parts.
    let tail = of(&[(0, 10), (10, 20), (20, 30), (0, 20)]).unwrap();
    assert_eq!((spans(&tail), tail.others.len()), (vec![(0, 20), (20, 30)], 1));
}

#[test]
fn a_chain_of_other_bytes_stands_beside_it_as_a_mark() {
    let (one, mut other) = ((0..100).collect::<Vec<u8>>(), (0..100).collect::<Vec<u8>>());
    other[25] = 200;
    let tail = Tail::of(&[chunk(&one, 0, 20), chunk(&one, 20, 40), chunk(&other, 20, 30)]).unwrap();
    assert_eq!(spans(&tail), [(0, 20), (20, 40)]);
    assert_eq!(tail.others, [Mark { at: 30, hash: ContentHash::of(&other[..30]).id() }]);
    assert_eq!(tail.marks().iter().map(|mark| mark.at).collect::<Vec<_>>(), [20, 30, 40]);
}

#[test]
fn the_worst_case_of_facts_has_room_for_a_chunks() {
    let facts = TailFacts { from: u32::MAX, before: ContentHash::of(b"a"), after: ContentHash::of(b"b") };
    let metadata = facts.to_metadata(&worst_case()).unwrap();
    assert_eq!(TailFacts::from_metadata(&metadata).unwrap(), facts);
    assert!(WalFacts::from_metadata(&metadata).is_ok());
}

#[test]
fn a_digit_that_changed_in_a_chunks_metadata_is_seen() {
    let survey = survey(6);
    let wal = WalFacts::of_survey(common(), &survey, RunFacts::continue_from(None, &survey));
    let facts = TailFacts { from: 8192, before: ContentHash::of(b"a"), after: ContentHash::of(b"b") };
    let metadata = facts.to_metadata(&wal).unwrap();
    assert_eq!(WalFacts::from_metadata(&metadata).unwrap(), wal);
    for (name, value) in [("tail-from", "8193"), ("tail-check", "0123456789abcdef"), ("end", "0/1")] {
        let mut changed = metadata.clone();
        changed.insert(name, value).unwrap();
        assert_eq!(TailFacts::from_metadata(&changed), Err(crate::facts::FactsError::Altered), "{name}");
    }
    let mut swapped = metadata.clone();
    swapped.insert("tail-before", &facts.after.to_string()).unwrap();
    assert!(TailFacts::from_metadata(&swapped).is_err());
}

/// Every chain from the beginning, by trying all of them.
fn all_chains(chunks: &[Chunk], from: Mark, so_far: &[usize], found: &mut Vec<Vec<usize>>) {
    for (at, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| chunk.name.begin() == from) {
        let chain = [so_far, &[at]].concat();
        found.push(chain.clone());
        all_chains(chunks, chunk.name.end(), &chain, found);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_chain_is_the_one_that_trying_all_finds(
        spans in prop::collection::vec((0usize..9, 1usize..9, 0usize..3), 0..9),
    ) {
        // Three histories that part at 4 and at 6.
        let mut histories = vec![(0u8..20).collect::<Vec<u8>>(); 3];
        histories[1][4] = 100;
        histories[2][6] = 100;
        let chunks: Vec<Chunk> =
            spans.iter().map(|(from, length, of)| chunk(&histories[*of], *from, from + length)).collect();
        let mut found = Vec::new();
        all_chains(&chunks, Mark::beginning(), &[], &mut found);
        let tail = Tail::of(&chunks);
        let longest = found.iter().filter_map(|chain| Some(chunks[*chain.last()?].name.to)).max();
        prop_assert_eq!(tail.as_ref().map(Tail::end), longest);
        let Some(tail) = tail else { return Ok(()) };
        // It is one of them, none to the same end is shorter, and it is bytes of one history.
        let names: Vec<ChunkName> = tail.chunks.iter().map(|chunk| chunk.name).collect();
        prop_assert_eq!(names[0].begin(), Mark::beginning());
        prop_assert!(names.windows(2).all(|pair| pair[0].end() == pair[1].begin()));
        let to_the_same_end = found.iter().filter(|chain| {
            Some(chunks[*chain.last().unwrap()].name.end()) == names.last().map(ChunkName::end)
        });
        prop_assert_eq!(to_the_same_end.map(Vec::len).min(), Some(names.len()));
        let end = tail.end() as usize;
        let is_its = |bytes: &&Vec<u8>| ContentHash::of(&bytes[..end]).id() == names.last().unwrap().after;
        let bytes = histories.iter().find(is_its).unwrap();
        // What others say is checked: all of it is told, and what lies behind is lost.
        for chunk in &chunks {
            let mark = chunk.name.end();
            prop_assert!(mark.at as usize > end || tail.marks().contains(&mark));
        }
        let beyond = chunks.iter().map(|chunk| chunk.name.to).max().filter(|to| *to as usize > end);
        prop_assert_eq!(tail.lost_to, beyond);
        for name in names {
            prop_assert_eq!(name.after, ContentHash::of(&bytes[..name.to as usize]).id());
        }
    }

    #[test]
    fn a_name_prints_and_parses_to_itself(from in any::<u32>(), to in any::<u32>(), bytes in any::<[u8; 32]>()) {
        let id = ContentHash::from_bytes(bytes).id();
        let name = ChunkName { from, to, before: id, after: id, content: id };
        let parsed = name.to_string().parse::<ChunkName>();
        prop_assert_eq!(parsed, if from < to { Ok(name) } else { Err(ChunkNameError) });
    }

    #[test]
    fn any_text_is_a_name_that_prints_as_it_or_none(text in "[0-9a-fA-F]{7,9}(-[0-9a-f]{8,16}){3,5}") {
        if let Ok(name) = text.parse::<ChunkName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}
