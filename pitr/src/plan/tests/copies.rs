//! A segment of a parent timeline and its copy on the child: the same up to the fork, unless
//! somebody else's WAL was archived under the parent's name.

use super::failover::{Forked, forked};
use super::*;

/// The archive after a failover, with a clone's segment 5 in the place of the old primary's,
/// which died before it had archived that one.
async fn archive_with_a_clones(forked: &Forked, clone: &WalWriter) -> TestArchive {
    let mut test = TestArchive::new().await;
    test.push_all(&forked.old, |number| (number < 5).then_some(Knows::All)).await;
    let clones = clone.segments().find(|(name, _)| *name == segment(1, 5));
    let (name, bytes) = clones.map(|(name, bytes)| (name, bytes.to_vec())).unwrap();
    test.push(name, bytes, Knows::All).await;
    test.history(2, &[(1, forked.fork.0)]).await;
    test.push_all(&forked.new, |_| Some(Knows::All)).await;
    test.backup(&forked.backup).await;
    test
}

/// The clone that parted from the cluster in segment 4, and one that did in segment 5.
fn clones() -> [WalWriter; 2] {
    let wal = || {
        let mut wal = with_backup(3).0;
        wal.switch();
        wal
    };
    let (mut earlier, mut later) = (wal(), wal());
    earlier.filler(3000);
    later.filler(100);
    for clone in [&mut earlier, &mut later] {
        clone.switch();
        clone.commit(7000, at_second(90), &[]);
        clone.filler(50_000);
        clone.switch();
    }
    [earlier, later]
}

#[tokio::test]
async fn anothers_wal_under_the_parents_name_is_not_handed_to_postgresql() {
    let forked = forked();
    for clone in clones() {
        let test = archive_with_a_clones(&forked, &clone).await;
        for target in [Target::Xid(1100), Target::Lsn(forked.last_shared.lsn)] {
            let plan = reach(&test, &request(target.clone())).await;
            assert_eq!((plan.timeline, plan.record_timeline), (tli(2), tli(1)), "{target}");
            assert_eq!(plan.segments.last, segment(2, 5), "{target}");
            assert!(plan.notes.iter().any(|note| note.contains("timeline 2 has a copy")), "{:?}", plan.notes);
        }
        assert_eq!(reach(&test, &request(Target::Latest)).await.last_record, forked.last_new.lsn);
    }
}

#[tokio::test]
async fn without_the_key_nobody_can_tell_whose_wal_the_parents_segment_holds() {
    let forked = forked();
    let [_, clone] = clones();
    let test = archive_with_a_clones(&forked, &clone).await;
    let catalog = test.catalog().await;
    let within = |lsn| request(Target::Lsn(lsn));
    let sealed = plan_to_segment(&test.archive, &catalog, &within(forked.last_shared.lsn)).await;
    assert!(matches!(sealed, Err(PlanError::NeedsKey { .. })), "{sealed:?}");
    let sealed = plan_to_segment(&test.archive, &catalog, &within(forked.last_new.lsn)).await;
    assert!(matches!(sealed, Ok(SegmentOutcome::Reachable(_))), "{sealed:?}");
}
