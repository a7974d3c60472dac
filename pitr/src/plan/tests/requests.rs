//! What planning costs the store, and what it does when the store is away.

use std::sync::Arc;

use walpoint_archive::Archive;
use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::store::faulty::{Fault, Faulty, Verb};

use super::*;

const SEGMENTS: u32 = 128;

/// Many segments with a commit each, at seconds 1, 2, …, and a backup near their end.
async fn many_segments() -> (TestArchive, Archive, Faulty) {
    let mut wal = WalWriter::new(size(), SYSTEM, 3);
    let mut stop = None;
    for second in 1..=SEGMENTS {
        if second == SEGMENTS - 8 {
            let start = wal.filler(10).lsn;
            let end = wal.backup_end(start).end;
            stop = Some(backup(1, 1, start, end, at_second(i64::from(second) - 1)));
        }
        wal.commit(1000 + second, at_second(i64::from(second)), &[]);
        if second % 50 == 0 {
            wal.restore_point(&format!("point {second}"), at_second(i64::from(second)));
        }
        wal.switch();
    }
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&stop.unwrap()).await;
    let faulty = Faulty::new(Arc::clone(test.archive.store()));
    let archive = Archive::new(Arc::new(faulty.clone()), SYSTEM, test.archive.sealer().clone());
    (test, archive, faulty)
}

#[tokio::test]
async fn a_time_is_found_with_a_few_requests_and_a_store_that_is_away_is_an_error() {
    let (test, archive, faulty) = many_segments().await;
    let catalog = test.catalog().await;
    let target = request(time(i64::from(SEGMENTS) - 3));
    let outcome = plan(&archive, &catalog, &target).await.unwrap();
    let PlanOutcome::Reachable(found) = outcome else { panic!("{outcome:?}") };
    assert_eq!(found.last_included.map(|it| it.xid), Some(1000 + SEGMENTS - 3));
    let (heads, gets) = (faulty.calls(Verb::Head), faulty.calls(Verb::Get));
    // A binary search over 128 segments, and those around what it finds.
    assert!(heads <= 7 + 16, "{heads} heads");
    // The six segments that are replayed, and the one behind.
    assert!(gets <= 8, "{gets} gets");
    assert_eq!(faulty.calls(Verb::List), 0);
    for verb in [Verb::Head, Verb::Get] {
        faulty.fail_every(verb, Some(Fault::Before(StoreErrorKind::Transient)));
        let error = plan(&archive, &catalog, &target).await.unwrap_err();
        assert!(matches!(&error, PlanError::Archive(error) if error.is_transient()), "{error}");
        faulty.fail_every(verb, None);
    }
}

/// What its packs are is read for the one backup that is chosen. Whoever plans lists again then.
#[tokio::test]
async fn a_backup_that_goes_while_it_is_chosen_is_an_error_and_no_answer() {
    let (test, archive, _) = many_segments().await;
    let catalog = test.catalog().await;
    archive.store().delete(&archive.layout().summary(&catalog.backups[0].id)).await.unwrap();
    let error = plan(&archive, &catalog, &request(Target::Latest)).await.unwrap_err();
    assert!(matches!(&error, PlanError::Archive(error) if error.is_not_found()), "{error}");
}

#[tokio::test]
async fn restore_points_are_found_without_asking_for_every_segment() {
    let (test, archive, faulty) = many_segments().await;
    let catalog = test.catalog().await;
    let why = plan(&archive, &catalog, &request(Target::Name("no such point".to_owned()))).await.unwrap();
    assert!(
        matches!(&why, PlanOutcome::Unreachable(why) if why.reason.contains("no restore point")),
        "{why:?}"
    );
    assert!(faulty.calls(Verb::Head) <= 32, "{} heads", faulty.calls(Verb::Head));
    assert_eq!(faulty.calls(Verb::Get), 0);
}
