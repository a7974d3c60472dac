//! What was shipped of a segment before it was complete.

use super::*;

impl Stage {
    /// Ships the beginning of a segment, as far as `end`, in two pieces.
    pub(super) async fn ship(&self, timeline: u32, number: u64, end: usize) {
        let bytes = content(CLUSTER, timeline, number);
        for (from, to) in [(0, end / 2), (end / 2, end)] {
            let own = &bytes[from..to];
            let common = Common::new(ContentHash::of(own), own.len() as u64, WriterId::random(), CLUSTER);
            let start = Lsn(number * MIB);
            let facts = WalFacts::unvalidated(common, TimelineId::new(timeline).unwrap(), start, 0xD110);
            let (before, after) = (ContentHash::of(&bytes[..from]), ContentHash::of(&bytes[..to]));
            let tail = TailFacts { from: from as u32, before, after };
            let bytes = Bytes::copy_from_slice(own);
            let put = PutChunk { segment: segment(timeline, number), tail, facts, bytes };
            self.archive.put_chunk(&put).await.unwrap();
        }
    }

    fn delivered(&self) -> Vec<u8> {
        std::fs::read(self.destination()).unwrap()
    }
}

/// The segment up to `end`, then zeros.
fn beginning(timeline: u32, number: u64, end: usize) -> Vec<u8> {
    let mut bytes = content(CLUSTER, timeline, number);
    bytes[end..].fill(0);
    bytes
}

#[tokio::test]
async fn a_tail_that_reaches_the_end_is_the_segment() {
    let stage = Stage::new().await.with(contract());
    stage.ship(1, 6, MIB as usize).await;
    assert_eq!(stage.get_segment(1, 6).await.unwrap(), GetOutcome::Delivered);
    assert_eq!(stage.delivered(), content(CLUSTER, 1, 6));
    stage.ship(1, 7, MIB as usize - 8).await;
    assert!(is_gap(&stage.get_segment(1, 7).await), "it is not the last one that is needed");
    stage.assert_clean();
}

#[tokio::test]
async fn the_last_segment_may_be_a_tail_when_the_last_record_begins_in_it() {
    for (end, enough) in [(0x800, false), (0x1000, false), (0x1008, true), (0x9000, true)] {
        let stage = Stage::new().await.with(contract());
        stage.ship(2, 10, end).await;
        let outcome = stage.get_segment(2, 10).await;
        assert_eq!((is_gap(&outcome), outcome.is_ok()), (!enough, enough), "{end}: {outcome:?}");
        if enough {
            assert_eq!(stage.delivered(), beginning(2, 10, end));
        }
    }
}

#[tokio::test]
async fn a_standby_and_who_has_no_contract_get_no_tail() {
    let mut stage = Stage::new().await.with(contract());
    stage.ship(2, 10, MIB as usize).await;
    for asker in [Asker::Standby, Asker::Other] {
        stage.asker = asker;
        assert!(is_gap(&stage.get_segment(2, 10).await), "{asker:?}: its contract needs it");
    }
    let mut stage = Stage::new().await;
    stage.ship(2, 10, MIB as usize).await;
    for (asker, is_told_to_stop) in [(Asker::Recovery, true), (Asker::Other, true), (Asker::Standby, false)] {
        stage.asker = asker;
        let outcome = stage.get_segment(2, 10).await;
        assert_eq!((is_gap(&outcome), is_end(&outcome)), (is_told_to_stop, !is_told_to_stop), "{asker:?}");
    }
    // What comes behind it shows that it is missing.
    stage.put_segments(2, [12]).await;
    assert!(is_gap(&stage.get_segment(2, 10).await));
    assert!(!stage.destination().exists());
}

#[tokio::test]
async fn past_the_target_no_tail_is_handed_over() {
    let stage = Stage::new().await.with(contract());
    stage.ship(2, 11, MIB as usize).await;
    assert!(is_end(&stage.get_segment(2, 11).await));
}

#[tokio::test]
async fn a_parents_tail_is_cut_at_the_fork() {
    let (last_segment, last_record) = (segment(1, 8), Lsn(8 * MIB + 0x40));
    let stage = Stage::new().await.with(Contract { last_segment, last_record, ..contract() });
    stage.ship(1, 8, 0x2000).await;
    assert_eq!(stage.get_segment(1, 8).await.unwrap(), GetOutcome::Delivered);
    assert_eq!(stage.delivered(), beginning(1, 8, 0x98));
}

#[tokio::test]
async fn a_whole_segment_goes_before_its_tail_and_a_damaged_tail_is_an_error() {
    let stage = Stage::new().await.with(contract());
    stage.ship(2, 10, 0x2000).await;
    let state = stage.archive.segment_state(&segment(2, 10)).await.unwrap();
    std::fs::write(stage.path(&state.chunks[0].key), b"rubbish").unwrap();
    let outcome = stage.get_segment(2, 10).await;
    let is_damage = |error: &ArchiveError| match error {
        ArchiveError::Store(error) => error.kind == StoreErrorKind::Damaged,
        error => matches!(error, ArchiveError::Damaged { .. }),
    };
    assert!(matches!(&outcome, Err(GetError::Archive(error)) if is_damage(error)), "{outcome:?}");
    stage.put_segments(2, [10]).await;
    assert_eq!(stage.get_segment(2, 10).await.unwrap(), GetOutcome::Delivered);
    assert_eq!(stage.delivered(), content(CLUSTER, 2, 10));
}

/// The whole segment comes and its pieces go between the listing and the reading.
#[tokio::test]
async fn a_piece_that_goes_while_it_is_read_has_the_segment_looked_for_again() {
    let stage = Stage::new().await.with(contract());
    stage.ship(2, 10, 0x2000).await;
    let next = stage.faulty.calls(Verb::Get);
    stage.faulty.fail(Verb::Get, next, Fault::Before(StoreErrorKind::NotFound));
    assert_eq!(stage.get_segment(2, 10).await.unwrap(), GetOutcome::Delivered);
    stage.faulty.fail_every(Verb::Get, Some(Fault::Before(StoreErrorKind::NotFound)));
    let outcome = stage.get_segment(2, 10).await;
    assert!(matches!(outcome, Err(GetError::Archive(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_gap_says_when_what_follows_it_was_stored() {
    let stage = Stage::new().await.with(contract());
    let since = |outcome| match outcome {
        Err(GetError::Gap { followed_since, .. }) => followed_since,
        other => panic!("{other:?}"),
    };
    assert_eq!(since(stage.get_segment(2, 9).await), None);
    stage.put_segments(2, [10]).await;
    assert!(since(stage.get_segment(2, 9).await).is_some());
}
