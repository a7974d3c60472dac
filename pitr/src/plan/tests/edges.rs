//! Records that span segments, and segments archived by someone who could not see what
//! was before them.

use super::*;

#[tokio::test]
async fn a_commit_that_spans_an_unchecked_edge_is_not_overlooked() {
    for knows in [Knows::All, Knows::Metadata, Knows::Nothing] {
        let (mut wal, backup) = with_backup(3);
        wal.commit(1500, at_second(100), &[]);
        wal.fill_until(4 * MIB);
        let subxids: Vec<u32> = (2001..4001).collect();
        let spanning = wal.commit(2000, at_second(200), &subxids);
        assert!(spanning.lsn.0 < 4 * MIB && spanning.end.0 > 4 * MIB);
        wal.commit(5000, at_second(300), &[]);
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |_| Some(knows)).await;
        test.backup(&backup).await;
        let plan = reach(&test, &request(time(150))).await;
        assert_eq!(plan.first_excluded.map(|it| it.lsn), Some(spanning.lsn), "{knows:?}");
        assert_eq!(plan.last_record_end, spanning.lsn);
        assert_eq!(plan.segments.count, 1);
        let plan = reach(&test, &request(time(250))).await;
        assert_eq!((plan.last_record, plan.segments.count), (spanning.lsn, 2));
        assert_eq!(reach(&test, &request(Target::Xid(3000))).await.last_record, spanning.lsn);
    }
}

#[tokio::test]
async fn a_record_over_whole_segments_is_walked_over() {
    for knows in [Knows::All, Knows::Metadata, Knows::Nothing] {
        let (mut wal, backup) = with_backup(3);
        wal.commit(1500, at_second(100), &[]);
        let long = wal.filler(5 * MIB as usize);
        let commit = wal.commit(1501, at_second(200), &[]);
        wal.commit(1502, at_second(300), &[]);
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |_| Some(knows)).await;
        test.backup(&backup).await;
        let plan = reach(&test, &request(time(150))).await;
        assert_eq!((plan.last_record, plan.last_record_end), (long.lsn, long.end), "{knows:?}");
        let plan = reach(&test, &request(time(250))).await;
        assert_eq!(plan.last_record, commit.lsn);
        assert_eq!(plan.last_included.map(|it| it.xid), Some(1501));
        // The WAL breaks off inside the long record: it is not there, what is before it is.
        let mut cut = TestArchive::new().await;
        cut.push_all(&wal, |number| (number < 6).then_some(knows)).await;
        cut.backup(&backup).await;
        let plan = reach(&cut, &request(Target::Latest)).await;
        assert_eq!(plan.last_record_end, long.lsn);
    }
}

#[tokio::test]
async fn a_record_that_a_crash_cut_off_does_not_break_the_chain() {
    for knows in [Knows::All, Knows::Metadata, Knows::Nothing] {
        let (mut wal, backup) = with_backup(3);
        wal.commit(1500, at_second(100), &[]);
        wal.fill_until(4 * MIB);
        let overwrite = wal.crash_in_record(at_second(150));
        assert_eq!(overwrite.lsn.0, 4 * MIB + 40);
        wal.commit(1501, at_second(200), &[]);
        wal.commit(1502, at_second(300), &[]);
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |_| Some(knows)).await;
        test.backup(&backup).await;
        let plan = reach(&test, &request(time(250))).await;
        assert_eq!(plan.last_included.map(|it| it.xid), Some(1501), "{knows:?}");
        let plan = reach(&test, &request(time(120))).await;
        assert_eq!(plan.first_excluded.map(|it| it.xid), Some(1501));
    }
}

#[tokio::test]
async fn a_switch_that_spans_an_unchecked_edge_ends_its_segment() {
    for knows in [Knows::All, Knows::Metadata, Knows::Nothing] {
        let (mut wal, backup) = with_backup(3);
        wal.fill_until(4 * MIB);
        while wal.end().0 + 64 < 4 * MIB {
            wal.filler(1);
        }
        wal.filler(usize::try_from(4 * MIB - 8 - 26 - wal.end().0).unwrap());
        let switch = wal.switch();
        assert_eq!((switch.lsn.0, switch.end.0), (4 * MIB - 8, 5 * MIB));
        wal.commit(1500, at_second(100), &[]);
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |_| Some(knows)).await;
        test.backup(&backup).await;
        let plan = reach(&test, &request(Target::Latest)).await;
        assert_eq!(plan.last_included.map(|it| it.xid), Some(1500), "{knows:?}");
        let plan = reach(&test, &request(time(50))).await;
        assert_eq!(
            (plan.last_record, plan.last_record_end, plan.segments.count),
            (switch.lsn, switch.end, 2)
        );
    }
}

#[tokio::test]
async fn wal_that_ends_with_a_record_that_spans_in_ends_there() {
    for knows in [Knows::All, Knows::Metadata, Knows::Nothing] {
        let (mut wal, backup) = with_backup(3);
        let last = wal.filler(MIB as usize);
        assert!(last.end.0 > 4 * MIB);
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |_| Some(knows)).await;
        test.backup(&backup).await;
        let plan = reach(&test, &request(Target::Latest)).await;
        assert_eq!((plan.last_record, plan.last_record_end), (last.lsn, last.end), "{knows:?}");
        // Inside the last record nothing starts: what is offered is what comes before it, and all.
        let why = refused(&test, &request(Target::Lsn(Lsn(last.lsn.0 + 8)))).await;
        assert_eq!(why.nearest.after.map(|it| it.lsn), Some(last.end));
        assert!(why.nearest.before.is_some_and(|it| it.lsn <= last.lsn));
    }
}
