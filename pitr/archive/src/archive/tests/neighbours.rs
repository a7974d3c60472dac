//! One listing for a segment and the one before it, and a put by one who has listed.

use walpoint_wal::SegmentName;

use super::*;
use crate::catalog::SegmentState;
use crate::store::faulty::{Faulty, Verb};

fn name(text: &str) -> WalFileName {
    text.parse().unwrap()
}

fn segment_of(text: &str) -> SegmentName {
    text.parse().unwrap()
}

/// Everything that can lie beside a segment, two segments and more to either side.
async fn filled(place: &Place, names: &[&str]) {
    let archive = place.archive();
    for text in names {
        for suffix in ["", ".partial", ".00000028.backup"] {
            let name = name(&format!("{text}{suffix}"));
            let _ = archive.put_wal(&file(name, name.to_string().as_bytes())).await.unwrap();
            // Of a partial segment every content stands, of all others the first.
            assert_eq!(archive.put_wal(&file(name, b"other")).await.is_ok(), suffix == ".partial");
        }
    }
}

#[tokio::test]
async fn one_listing_shows_what_two_would() {
    let place = Place::new().await;
    let all = [
        "00000001000000000000000E",
        "00000001000000000000000F",
        "000000010000000000000010",
        "000000010000000000000011",
        "0000000100000000000000FE",
        "0000000100000000000000FF",
        "000000010000000100000000",
        "000000020000000000000010",
        "000000020000000000000011",
    ];
    filled(&place, &all).await;
    for (before, segment, listings) in [
        ("00000001000000000000000E", "00000001000000000000000F", 1),
        ("00000001000000000000000F", "000000010000000000000010", 1),
        ("0000000100000000000000FE", "0000000100000000000000FF", 1),
        // Another folder, another timeline.
        ("0000000100000000000000FF", "000000010000000100000000", 2),
        ("00000001000000000000000F", "000000020000000000000010", 2),
        // Nothing there.
        ("00000001000000000000001F", "000000010000000000000020", 1),
    ] {
        for suffix in ["", ".partial"] {
            let faulty = Faulty::new(Arc::clone(&place.store));
            let archive = archive_on(Arc::new(faulty.clone()));
            let own = name(&format!("{segment}{suffix}"));
            let found = archive.wal_neighbours(segment_of(before), segment_of(segment), &own).await.unwrap();
            assert_eq!(faulty.calls(Verb::List), listings, "{before} {segment}");
            assert_eq!(found.own, archive.wal_variants(&own).await.unwrap(), "{own}");
            assert_eq!(found.before, archive.wal_variants(&name(before)).await.unwrap(), "{before}");
        }
    }
}

#[tokio::test]
async fn one_listing_onward_shows_what_one_for_each_would_or_nothing() {
    let place = Place::new().await;
    let all = ["00000001000000000000000E", "000000010000000000000010", "0000000100000000000000FF"];
    filled(&place, &[&all[..], &["000000010000000100000000", "000000020000000000000010"]].concat()).await;
    let asked = ["00000001000000000000000F", "000000010000000100000000", "000000020000000000000010"];
    let faulty = Faulty::new(Arc::clone(&place.store));
    let archive = archive_on(Arc::new(faulty.clone()));
    for limit in 1..30 {
        let listings = faulty.calls(Verb::List);
        let onward = archive.wal_onward(segment_of(all[0]), limit).await.unwrap();
        assert_eq!(faulty.calls(Verb::List), listings + 1);
        let mut told = Vec::new();
        for text in all.into_iter().chain(asked) {
            if let Some(state) = onward.of(&segment_of(text)) {
                assert_eq!(state, archive.wal_variants(&name(text)).await.unwrap(), "{text} {limit}");
                told.push(text);
            }
        }
        let of_folder = [all[0], all[1], all[2], asked[0]];
        assert!(told.iter().all(|text| of_folder.contains(text)), "{told:?}");
        assert_eq!(told.len() == of_folder.len(), limit > 3 * 6, "{limit}: {told:?}");
    }
    let later = archive.wal_onward(segment_of(all[1]), 100).await.unwrap();
    assert!(later.of(&segment_of(all[0])).is_none() && later.of(&segment_of(all[2])).is_some());
}

#[tokio::test]
async fn the_usual_push_takes_two_listings_one_head_and_one_put() {
    let place = Place::new().await;
    let before = segment_of("000000010000000000000002");
    let _ = place.archive().put_wal(&file(WalFileName::Segment(before), b"before")).await.unwrap();
    let faulty = Faulty::new(Arc::clone(&place.store));
    let archive = archive_on(Arc::new(faulty.clone()));
    let seen =
        archive.wal_neighbours(before, segment_of("000000010000000000000003"), &segment()).await.unwrap();
    let _ = archive.common(&seen.before.variants[0].key()).await.unwrap();
    assert_eq!(archive.put_wal_seen(&put("content"), &seen.own).await.unwrap(), PutWalOutcome::Stored);
    let calls = [Verb::List, Verb::Head, Verb::Put, Verb::Get].map(|verb| faulty.calls(verb));
    assert_eq!(calls, [2, 1, 1, 0]);
}

/// However old the listing is: what was acknowledged since stays the one that recovery uses.
#[tokio::test]
async fn an_old_listing_costs_a_refusal_and_never_what_was_acknowledged() {
    let place = Place::new().await;
    let archive = place.archive();
    let nothing = SegmentState::default();
    let _ = archive.put_wal(&put("acknowledged")).await.unwrap();
    let late = archive.put_wal_seen(&put("late"), &nothing).await;
    assert!(matches!(late, Err(ArchiveError::Conflict { .. })), "{late:?}");
    assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(&b"acknowledged"[..]));
    let same = archive.put_wal_seen(&put("acknowledged"), &nothing).await.unwrap();
    assert_eq!(same, PutWalOutcome::AlreadyThere);
}

#[tokio::test]
async fn the_size_of_segments_is_known_from_a_segment_where_nothing_else_says_it() {
    let place = Place::new().await;
    let archive = place.archive();
    assert_eq!(archive.segment_size().await.unwrap(), None);
    let history = name("000000010000000000000003.00000028.backup");
    let _ = archive.put_wal(&file(history, b"START")).await.unwrap();
    assert_eq!(archive.segment_size().await.unwrap(), None);
    let _ = archive.put_wal(&file(segment(), &vec![0; 1 << 20])).await.unwrap();
    assert_eq!(archive.segment_size().await.unwrap().unwrap().bytes(), 1 << 20);
    let cluster = crate::cluster::tests::cluster();
    archive.ensure_cluster(&cluster).await.unwrap();
    assert_eq!(archive.segment_size().await.unwrap(), Some(cluster.segment_size));
}
