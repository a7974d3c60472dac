//! Segments that were fetched ahead.

use std::io::Write;

use super::*;
use crate::spool::Tended;

/// A stage whose spool somebody tends.
async fn tended(mut stage: Stage) -> (Stage, Tended) {
    let spool = Spool::at(stage.scratch.path(), "7");
    let tended = Tended::take_over(spool.clone()).unwrap().unwrap();
    stage.spool = Some(spool);
    (stage, tended)
}

fn put(tended: &Tended, name: &[u8], content: &[u8]) {
    let incoming = tended.begin(ContentHash::of(name).id()).unwrap();
    incoming.file().write_all(content).unwrap();
    incoming.finish(ContentHash::of(name)).unwrap();
}

fn expect(stage: &Stage, expected: &[u8]) {
    assert!(std::fs::read(stage.destination()).unwrap() == expected);
    stage.assert_clean();
    std::fs::remove_file(stage.destination()).unwrap();
}

#[tokio::test]
async fn a_segment_that_was_fetched_ahead_is_handed_over_without_its_object() {
    let (stage, tended) = tended(Stage::new().await).await;
    stage.put_segments(1, [5]).await;
    let gets = stage.faulty.calls(Verb::Get);
    let whole = content(CLUSTER, 1, 5);
    put(&tended, &whole, &whole);
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
    assert_eq!(stage.faulty.calls(Verb::Get), gets);
    assert!(!tended.has(ContentHash::of(&whole)), "PostgreSQL would write to it");
    assert_eq!(stage.spool.as_ref().unwrap().asked().unwrap().segment, segment(1, 5));
    // And again, from the archive.
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
}

#[tokio::test]
async fn what_is_not_what_the_archive_has_is_removed_and_fetched() {
    let (stage, tended) = tended(Stage::new().await).await;
    stage.put_segments(1, [5]).await;
    let whole = content(CLUSTER, 1, 5);
    let other = content(SystemIdentifier(8), 1, 5);
    for wrong in [&other[..], &whole[1..], b""] {
        put(&tended, &whole, wrong);
        assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
        expect(&stage, &whole);
        assert!(!tended.has(ContentHash::of(&whole)));
    }
    // Under its own name it is nobody's answer.
    put(&tended, &other, &other);
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
}

#[tokio::test]
async fn whatever_is_spooled_absence_and_gaps_are_the_archives_word() {
    for contract in [None, Some(contract())] {
        let (mut stage, tended) = tended(Stage::new().await).await;
        stage.contract = contract;
        let whole = content(CLUSTER, 2, 9);
        put(&tended, &whole, &whole);
        let answer = stage.get_segment(2, 9).await;
        assert!(if stage.contract.is_some() { is_gap(&answer) } else { is_end(&answer) }, "{answer:?}");
        assert!(!stage.destination().exists() && tended.has(ContentHash::of(&whole)));
    }
}

#[tokio::test]
async fn a_tail_is_the_archives_whatever_is_spooled() {
    let (stage, tended) = tended(Stage::new().await.with(contract())).await;
    stage.ship(1, 6, MIB as usize).await;
    let gets = stage.faulty.calls(Verb::Get);
    let whole = content(CLUSTER, 1, 6);
    put(&tended, &whole, &whole);
    assert_eq!(stage.get_segment(1, 6).await.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
    assert!(stage.faulty.calls(Verb::Get) > gets && tended.has(ContentHash::of(&whole)));
}

#[tokio::test]
async fn what_lies_past_the_fork_is_cut_off_as_ever() {
    let (stage, tended) = tended(Stage::new().await.with(contract())).await;
    stage.put_segments(1, [8]).await;
    let gets = stage.faulty.calls(Verb::Get);
    let whole = content(CLUSTER, 1, 8);
    put(&tended, &whole, &whole);
    assert_eq!(stage.get_segment(1, 8).await.unwrap(), GetOutcome::Delivered);
    let mut cut = whole;
    cut[0x98..].fill(0);
    expect(&stage, &cut);
    assert_eq!(stage.faulty.calls(Verb::Get), gets);
}

#[tokio::test]
async fn a_segment_on_its_way_is_waited_for_while_it_comes() {
    let (stage, tended) = tended(Stage::new().await).await;
    stage.put_segments(1, [5]).await;
    let gets = stage.faulty.calls(Verb::Get);
    let whole = content(CLUSTER, 1, 5);
    let incoming = tended.begin(ContentHash::of(&whole).id()).unwrap();
    let arriving = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        incoming.file().write_all(&whole).unwrap();
        incoming.finish(ContentHash::of(&whole)).unwrap();
    };
    let (answer, ()) = tokio::join!(stage.get_segment(1, 5), arriving);
    assert_eq!(answer.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
    assert_eq!(stage.faulty.calls(Verb::Get), gets, "it was fetched once more");
    // One that does not come, and one that nobody brings any more.
    let stalled = tended.begin(ContentHash::of(&whole).id()).unwrap();
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    drop(tended);
    let begun = std::time::Instant::now();
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    assert!(begun.elapsed() < Duration::from_millis(900), "a dead one was waited for");
    expect(&stage, &whole);
    drop(stalled);
}
