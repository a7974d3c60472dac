//! Segments that were fetched ahead.

use std::io::Write;
use std::time::SystemTime;

use super::*;
use crate::spool::{KNOWN_FOR, Tended};

/// A stage whose spool somebody tends.
async fn tended(mut stage: Stage) -> (Stage, Tended) {
    let spool = Spool::at(stage.scratch.path(), "7");
    let tended = Tended::take_over(spool.clone()).unwrap().unwrap();
    stage.spool = Some(spool);
    (stage, tended)
}

/// A file of this segment by the name of one content, with another.
fn put(tended: &Tended, of: SegmentName, name: &[u8], content: &[u8]) {
    put_as_listed(tended, of, name, content, SystemTime::UNIX_EPOCH);
}

fn put_as_listed(tended: &Tended, of: SegmentName, name: &[u8], content: &[u8], listed_at: SystemTime) {
    let incoming = tended.begin(of, ContentHash::of(name).id()).unwrap();
    incoming.file().write_all(content).unwrap();
    incoming.finish(ContentHash::of(name), listed_at).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "as another process notes it")]
fn clock() -> SystemTime {
    SystemTime::now()
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
    put(&tended, segment(1, 5), &whole, &whole);
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
    assert_eq!(stage.faulty.calls(Verb::Get), gets);
    assert!(!tended.has(segment(1, 5), ContentHash::of(&whole)), "PostgreSQL would write to it");
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
        put(&tended, segment(1, 5), &whole, wrong);
        assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
        expect(&stage, &whole);
        assert!(!tended.has(segment(1, 5), ContentHash::of(&whole)));
    }
    // Under its own name it is nobody's answer.
    put(&tended, segment(1, 5), &other, &other);
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
}

#[tokio::test]
async fn whatever_is_spooled_absence_and_gaps_are_the_archives_word() {
    for contract in [None, Some(contract())] {
        let (mut stage, tended) = tended(Stage::new().await).await;
        stage.contract = contract;
        let whole = content(CLUSTER, 2, 9);
        put(&tended, segment(2, 9), &whole, &whole);
        let answer = stage.get_segment(2, 9).await;
        assert!(if stage.contract.is_some() { is_gap(&answer) } else { is_end(&answer) }, "{answer:?}");
        assert!(!stage.destination().exists() && tended.has(segment(2, 9), ContentHash::of(&whole)));
    }
}

#[tokio::test]
async fn a_tail_is_the_archives_whatever_is_spooled() {
    let (stage, tended) = tended(Stage::new().await.with(contract())).await;
    stage.ship(1, 6, MIB as usize).await;
    let gets = stage.faulty.calls(Verb::Get);
    let whole = content(CLUSTER, 1, 6);
    put(&tended, segment(1, 6), &whole, &whole);
    assert_eq!(stage.get_segment(1, 6).await.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
    assert!(stage.faulty.calls(Verb::Get) > gets && tended.has(segment(1, 6), ContentHash::of(&whole)));
}

#[tokio::test]
async fn what_lies_past_the_fork_is_cut_off_as_ever() {
    let (stage, tended) = tended(Stage::new().await.with(contract())).await;
    stage.put_segments(1, [8]).await;
    let gets = stage.faulty.calls(Verb::Get);
    let whole = content(CLUSTER, 1, 8);
    put(&tended, segment(1, 8), &whole, &whole);
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
    let incoming = tended.begin(segment(1, 5), ContentHash::of(&whole).id()).unwrap();
    let arriving = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        incoming.file().write_all(&whole).unwrap();
        incoming.finish(ContentHash::of(&whole), SystemTime::UNIX_EPOCH).unwrap();
    };
    let (answer, ()) = tokio::join!(stage.get_segment(1, 5), arriving);
    assert_eq!(answer.unwrap(), GetOutcome::Delivered);
    expect(&stage, &whole);
    assert_eq!(stage.faulty.calls(Verb::Get), gets, "it was fetched once more");
    // One that does not come, and one that nobody brings any more.
    let stalled = tended.begin(segment(1, 5), ContentHash::of(&whole).id()).unwrap();
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    drop(tended);
    let begun = std::time::Instant::now();
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    assert!(begun.elapsed() < Duration::from_millis(900), "a dead one was waited for");
    expect(&stage, &whole);
    drop(stalled);
}

/// Whether the file was handed over without a question to the archive.
async fn is_known(stage: &Stage, timeline: u32, number: u64) -> bool {
    let calls = [Verb::List, Verb::Get, Verb::Head].map(|verb| stage.faulty.calls(verb));
    let is_delivered = deliver_known(&stage.request(&segment(timeline, number).to_string())).await;
    assert_eq!([Verb::List, Verb::Get, Verb::Head].map(|verb| stage.faulty.calls(verb)), calls);
    assert_eq!(is_delivered, stage.destination().exists());
    stage.assert_clean();
    is_delivered
}

#[tokio::test]
async fn what_the_archive_was_seen_to_have_a_moment_ago_is_handed_over_without_asking_it() {
    let (stage, tended) = tended(Stage::new().await.with(contract())).await;
    let whole = content(CLUSTER, 1, 8);
    put_as_listed(&tended, segment(1, 8), &whole, &whole, clock());
    assert!(is_known(&stage, 1, 8).await);
    let mut cut = whole;
    cut[0x98..].fill(0);
    expect(&stage, &cut);
    assert_eq!(stage.spool.as_ref().unwrap().asked().unwrap().segment, segment(1, 8));
    assert!(!is_known(&stage, 1, 8).await, "it was taken");
}

/// Whoever fetches ahead takes a question for the word that the archive has the file.
#[tokio::test]
async fn nobody_is_told_of_a_question_before_the_file_is_known_to_be_there() {
    let (stage, _tended) = tended(Stage::new().await).await;
    assert!(!is_known(&stage, 1, 5).await);
    assert_eq!(stage.spool.as_ref().unwrap().asked(), None);
}

#[tokio::test]
async fn what_was_seen_long_ago_or_by_a_clock_that_was_set_back_is_the_archives_to_tell() {
    let (stage, tended) = tended(Stage::new().await).await;
    let whole = content(CLUSTER, 1, 5);
    let second = Duration::from_secs(1);
    for (listed_at, known) in [
        (clock() - KNOWN_FOR - second, false),
        (clock() + 60 * second, false),
        (clock() - KNOWN_FOR + 5 * second, true),
    ] {
        put_as_listed(&tended, segment(1, 5), &whole, &whole, listed_at);
        assert_eq!(is_known(&stage, 1, 5).await, known);
    }
}

#[tokio::test]
async fn what_nobody_tends_is_the_archives_to_tell() {
    let (stage, tended) = tended(Stage::new().await).await;
    let whole = content(CLUSTER, 1, 5);
    put_as_listed(&tended, segment(1, 5), &whole, &whole, clock());
    drop(tended);
    assert!(!is_known(&stage, 1, 5).await);
}

#[tokio::test]
async fn what_is_not_its_own_name_or_not_its_segment_is_never_handed_over() {
    let (stage, tended) = tended(Stage::new().await).await;
    let whole = content(CLUSTER, 1, 5);
    let [foreign, other] = [content(SystemIdentifier(8), 1, 5), content(CLUSTER, 1, 6)];
    for (name, bytes) in
        [(&whole, &foreign), (&foreign, &foreign), (&other, &other), (&whole, &whole[1..].to_vec())]
    {
        put_as_listed(&tended, segment(1, 5), name, bytes, clock());
        assert!(!is_known(&stage, 1, 5).await);
    }
}

#[tokio::test]
async fn what_recovery_does_not_need_is_no_business_of_the_spool() {
    let (stage, tended) = tended(Stage::new().await.with(contract())).await;
    for (timeline, number) in [(1, 9), (2, 12)] {
        let whole = content(CLUSTER, timeline, number);
        put_as_listed(&tended, segment(timeline, number), &whole, &whole, clock());
        assert!(!is_known(&stage, timeline, number).await, "{timeline} {number}");
    }
}
