//! Runs that end before everything is read, and runs beside each other.

use super::*;

/// All object bytes that a whole run reads.
async fn everything(stage: &Stage) -> Read {
    stage.verify(Extent::EverythingAnew).await.read
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_with_a_budget_read_everything_the_oldest_first() {
    let stage = Stage::new().await;
    let all = everything(&Stage::new().await).await;
    let budget = all.bytes / 5;
    let (mut read, mut rounds) = (0, 0);
    loop {
        let verified = stage.verify(Extent::Oldest(budget)).await;
        assert_eq!(verified.findings, []);
        // One object may be larger than the budget, no more.
        read += verified.read.bytes;
        rounds += 1;
        if verified.left.never_bytes == 0 {
            break;
        }
        assert!(rounds < 50, "{:?}", verified.left);
    }
    // What is left of the last round's budget goes to what was read first.
    assert!((all.bytes..all.bytes + budget).contains(&read), "{read} of {}", all.bytes);
    assert!(rounds > 2, "{rounds}");
    let known = stage.archive().verification().await.unwrap();
    let first = known.of_backup(stage.archive().layout(), &stage.first).unwrap();
    // The next round begins with what was read first.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let next = stage.verify(Extent::Oldest(budget)).await;
    assert!(next.left.oldest.unwrap() > first.stored_at || next.backups.iter().all(|(_, it)| it.is_some()));
}

/// The store goes away at each request in turn: that is never taken for damage, and what was read by then is not
/// read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_is_no_damage_and_what_was_read_is_kept() {
    let all = everything(&Stage::new().await).await;
    for index in (0..60).step_by(3) {
        let stage = Stage::new().await;
        let faulty = Faulty::new(Arc::clone(stage.archive().store()));
        faulty.fail(Verb::Get, index, Fault::Before(StoreErrorKind::Transient));
        let away = Archive::new(Arc::new(faulty.clone()), SYSTEM, stage.archive().sealer().clone());
        let result = verify_with(&away, Extent::Everything).await;
        if faulty.calls(Verb::Get) <= index {
            assert_eq!(result.unwrap().findings, []);
            assert!(index > 20, "only {index} requests");
            return;
        }
        assert!(matches!(result, Err(ArchiveError::Store(_))), "{index}: {result:?}");
        let known = stage.archive().verification().await.unwrap();
        assert_eq!(known.found_damaged().count(), 0, "{index}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let rest = stage.verify(Extent::Everything).await;
        assert_eq!(rest.findings, [], "{index}");
        assert_eq!(rest.read.bytes + rest.left.bytes, all.bytes, "{index}");
        assert!(rest.backups.iter().all(|(_, proof)| proof.is_some()), "{index}");
        if index > 40 {
            assert!(rest.left.bytes > 0, "{index}: everything was read again");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_came_to_its_end_is_followed_by_another() {
    let stage = Stage::new().await;
    let all = stage.verify(Extent::Everything).await.read;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(stage.verify(Extent::Everything).await.read, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_spoil_nothing_for_each_other() {
    let stage = Stage::new().await;
    let (one, other) = tokio::join!(
        verify_with(stage.archive(), Extent::Everything),
        verify_with(stage.archive(), Extent::Everything)
    );
    for verified in [one.unwrap(), other.unwrap()] {
        assert_eq!(verified.findings, []);
        assert!(verified.backups.iter().all(|(_, proof)| proof.is_some()));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let again = stage.verify(Extent::Everything).await;
    assert!(again.backups.iter().all(|(_, proof)| proof.is_some()));
    assert_eq!(stage.archive().verification_records().await.unwrap().len(), 1, "they were put together");
}
