#![allow(clippy::unwrap_used)]

use super::*;
use crate::cluster::tests::cluster;
use crate::content::ContentHash;

fn layout() -> Layout {
    Layout::new(cluster().system_identifier)
}

fn id(content: &str) -> ContentId {
    ContentHash::of(content.as_bytes()).id()
}

fn listed(keys: &[ObjectKey]) -> Vec<Listed> {
    let mut keys = keys.to_vec();
    keys.sort();
    keys.into_iter().map(|key| Listed { key, size: 5, modified: None }).collect()
}

fn segment() -> WalFileName {
    "000000010000000000000003".parse().unwrap()
}

fn usable_of(keys: &[ObjectKey]) -> (SegmentState, usize) {
    let state = SegmentState::from_listing(&layout(), &listed(keys));
    let count = match state.usable() {
        Usable::Nothing => 0,
        Usable::One(_) => 1,
        Usable::Ambiguous(variants) => variants.len(),
    };
    (state, count)
}

#[test]
fn recovery_takes_the_one_content_that_is_not_refused() {
    let layout = layout();
    let plain = |content| layout.wal(&segment(), id(content), false);
    let sealed = |content| layout.wal(&segment(), id(content), true);
    let mark = |content| layout.refused(&segment(), id(content));
    assert_eq!(usable_of(&[]).1, 0);
    assert_eq!(usable_of(&[plain("a")]).1, 1);
    assert_eq!(usable_of(&[plain("a"), plain("b")]).1, 2);
    assert_eq!(usable_of(&[plain("a"), plain("b"), mark("b")]).1, 1);
    assert_eq!(usable_of(&[plain("a"), mark("a"), plain("b"), mark("b")]).1, 0);
    assert_eq!(usable_of(&[mark("a")]).1, 0);
    assert_eq!(usable_of(&[plain("a"), mark("c")]).1, 1);
    assert_eq!(usable_of(&[sealed("a"), sealed("b"), mark("a"), plain("b")]).1, 1);

    // One content, with and without encryption, is one variant: that which needs no key.
    let (state, count) = usable_of(&[plain("a"), sealed("a")]);
    assert_eq!(count, 1);
    let Usable::One(variant) = state.usable() else { panic!("{state:?}") };
    assert!(!variant.encrypted);
    assert_eq!(state.variants.len(), 2);
}

#[test]
fn histories_have_variants_too() {
    let layout = layout();
    let two = TimelineId::new(2).unwrap();
    let name = WalFileName::History(two);
    let (state, count) = usable_of(&[
        layout.history(two, id("a")),
        layout.history(two, id("b")),
        layout.refused(&name, id("a")),
    ]);
    assert_eq!(count, 1);
    assert_eq!(state.standing()[0].content, id("b"));
}

#[test]
fn a_listing_becomes_segments_partials_conflicts_and_unknown_keys() {
    let layout = layout();
    let partial: WalFileName = "000000010000000000000004.partial".parse().unwrap();
    let backup: WalFileName = "000000010000000000000003.00000028.backup".parse().unwrap();
    // With 1 MiB segments the last 8 digits go up to FFF.
    let impossible: WalFileName = "000000010000000000001000".parse().unwrap();
    let foreign = ObjectKey::new("7/wal/0000000100000000/notes.txt").unwrap();
    let mut catalog = Catalog::new(cluster());
    catalog.add_wal(
        &layout,
        &listed(&[
            layout.wal(&segment(), id("a"), false),
            layout.wal(&segment(), id("b"), false),
            layout.refused(&segment(), id("b")),
            layout.wal(&partial, id("p"), true),
            layout.wal(&backup, id("h"), false),
            layout.wal(&impossible, id("x"), false),
            layout.conflict(&segment(), id("c"), false),
            foreign.clone(),
        ]),
    );
    let state = &catalog.wal[&TimelineId::FIRST][&3];
    assert!(matches!(state.usable(), Usable::One(variant) if variant.content == id("a")));
    assert_eq!(state.variants.len(), 2);
    assert_eq!(catalog.partials.len(), 1);
    assert_eq!(catalog.conflicts.iter().map(|variant| variant.content).collect::<Vec<_>>(), [id("c")]);
    let mut unknown = catalog.unknown.clone();
    unknown.sort();
    assert_eq!(unknown, [layout.wal(&impossible, id("x"), false).to_string(), foreign.to_string()]);
    assert_eq!(catalog.wal[&TimelineId::FIRST].len(), 1);
}
