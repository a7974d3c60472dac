//! What a long recovery's WAL does, found without reading all of it.

use super::*;

/// Segments of 1 MiB between the backup and the target: more than are read without counts.
const FAR: u64 = 300;

async fn long_story() -> (TestArchive, Placed) {
    let (mut wal, mut backup) = with_backup(3);
    backup.settings.max_prepared_xacts = 5;
    wal.parameter_change(500, 5);
    for _ in 0..FAR {
        wal.switch();
        wal.filler(100);
    }
    wal.prepare(2000, "ended", at_second(90));
    let stays = wal.prepare(2001, "stays", at_second(91));
    wal.switch();
    wal.commit_prepared(2000, at_second(95));
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    (test, stays)
}

#[tokio::test]
async fn a_setting_raised_and_a_transaction_prepared_far_apart_are_both_found() {
    let (test, stays) = long_story().await;
    let plan = reach(&test, &request(Target::Latest)).await;
    let open: Vec<_> = plan.prepared_open.iter().map(|it| (it.xid, it.lsn)).collect();
    assert_eq!(open, [(2001, stays.lsn)]);
    assert!(plan.segments.count > FAR);
    let warned = |what: &str| plan.warnings.iter().any(|it| it.contains(what));
    assert!(warned("max_connections was raised from 100 to 500"), "{:?}", plan.warnings);
    assert!(!plan.notes.iter().any(|it| it.contains("not in all of the WAL")), "{:?}", plan.notes);
}
