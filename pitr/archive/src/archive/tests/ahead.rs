//! What follows a segment.

use walpoint_wal::SegmentName;

use super::*;
use crate::store::faulty::{Faulty, Verb};
use crate::store::{Metadata, PutMode};

fn segment_of(text: &str) -> SegmentName {
    text.parse().unwrap()
}

async fn store(archive: &Archive, names: &[&str]) {
    for name in names {
        let _ = archive.put_wal(&file(name.parse().unwrap(), name.as_bytes())).await.unwrap();
    }
}

async fn after(archive: &Archive, segment: &str, limit: usize) -> Vec<String> {
    let found = archive.segments_after(&segment_of(segment), limit).await.unwrap();
    for (name, variant) in &found {
        assert_eq!((variant.name, &variant.tail), (WalFileName::Segment(*name), &None));
    }
    found.into_keys().map(|name| name.to_string()).collect()
}

#[tokio::test]
async fn one_listing_shows_what_follows_a_segment_on_its_timeline() {
    let place = Place::new().await;
    let faulty = Faulty::new(Arc::clone(&place.store));
    let archive = archive_on(Arc::new(faulty.clone()));
    let all = [
        "0000000100000000000000FE",
        "0000000100000000000000FE.partial",
        "0000000100000000000000FF",
        "0000000100000000000000FF.00000028.backup",
        "000000010000000100000000",
        "000000010000000100000002.partial",
        "000000010000000100000003",
        "000000020000000000000001",
    ];
    store(&archive, &all).await;
    let before = faulty.calls(Verb::List);
    let found = after(&archive, "0000000100000000000000FE", 100).await;
    assert_eq!(found, [all[2], all[4], all[6]], "into the next folder, and no further than the timeline");
    assert_eq!(faulty.calls(Verb::List), before + 1);
    assert!(after(&archive, "000000010000000100000003", 100).await.is_empty());
}

#[tokio::test]
async fn a_name_that_is_not_clear_or_may_be_cut_off_is_left_out() {
    let place = Place::new().await;
    let archive = place.archive();
    let names = ["000000010000000000000002", "000000010000000000000003", "000000010000000000000004"];
    store(&archive, &names).await;
    let first = "000000010000000000000001";
    assert_eq!(after(&archive, first, 100).await, names);
    assert_eq!(after(&archive, first, 2).await, names[..1], "a rival of the last may come next");
    // A refused rival does not count, an undecided one does.
    let refused = archive.put_wal(&file(names[1].parse().unwrap(), b"refused")).await;
    assert!(refused.is_err());
    assert_eq!(after(&archive, first, 100).await, names);
    let rival = archive.layout().wal(&names[1].parse().unwrap(), id("rival"), false);
    let put = archive.store().put(&rival, Bytes::new(), &Metadata::new(), PutMode::CreateOnly).await;
    let _ = put.unwrap();
    assert_eq!(after(&archive, first, 100).await, [names[0], names[2]]);
}
