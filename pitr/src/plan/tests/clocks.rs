//! Clocks that were set back.

use super::*;

#[tokio::test]
async fn a_clock_that_was_set_back_gives_two_readings_and_no_guess() {
    let (mut wal, backup) = with_backup(3);
    wal.commit(1500, at_second(1000), &[]);
    let first = wal.commit(1501, at_second(1300), &[]);
    wal.switch();
    wal.filler(100);
    wal.switch();
    let step = wal.commit(1502, at_second(1010), &[]);
    let second = wal.commit(1503, at_second(1200), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    let why = refused(&test, &request(time(1100))).await;
    assert_eq!(why.candidates.iter().map(|it| it.lsn).collect::<Vec<_>>(), [first.lsn, second.lsn]);
    assert!(why.reason.contains(&step.lsn.to_string()), "{}", why.reason);
    assert!(why.hint.unwrap().contains(&format!("--target-lsn {} --exclusive", first.lsn)));
    // Both readings can be had by LSN, and times that came once are no trouble.
    for reading in [first, second] {
        let target = TargetRequest { exclusive: true, ..request(Target::Lsn(reading.lsn)) };
        assert_eq!(reach(&test, &target).await.first_excluded.map(|it| it.lsn), Some(reading.lsn));
    }
    assert_eq!(reach(&test, &request(time(1005))).await.first_excluded.map(|it| it.lsn), Some(first.lsn));
    assert_eq!(reach(&test, &request(time(500))).await.first_excluded.map(|it| it.xid), Some(1500));
    // After the highest time nothing is left out, whatever the clock did in between.
    assert_eq!(reach(&test, &request(time(1300))).await.last_record, second.lsn);
}

#[tokio::test]
async fn concurrent_commits_a_little_out_of_order_are_no_second_reading() {
    let (mut wal, backup) = with_backup(3);
    let time = |micros: i64| Timestamp(at_second(1000).0 + micros);
    let first = wal.commit(1500, time(500_000), &[]);
    wal.commit(1501, time(400_000), &[]);
    wal.commit(1502, time(600_000), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::All)).await;
    test.backup(&backup).await;
    let plan = reach(&test, &request(Target::Time(time(450_000)))).await;
    assert_eq!(plan.first_excluded.map(|it| it.lsn), Some(first.lsn));
}

#[tokio::test]
async fn a_step_between_two_runs_of_wal_is_seen_far_behind_where_they_meet() {
    let (mut wal, backup) = with_backup(3);
    let first = wal.commit(1500, at_second(1000), &[]);
    wal.switch();
    for _ in 0..5 {
        wal.filler(100);
        wal.switch();
    }
    let step = wal.commit(1501, at_second(900), &[]);
    let mut test = TestArchive::new().await;
    // Whoever archived segment 5 knew nothing of what was before it.
    test.push_all(&wal, |number| Some(if number == 5 { Knows::Nothing } else { Knows::All })).await;
    test.backup(&backup).await;
    let why = refused(&test, &request(time(950))).await;
    assert_eq!(why.candidates.iter().map(|it| it.lsn).collect::<Vec<_>>(), [first.lsn]);
    assert!(why.reason.contains(&step.lsn.to_string()), "{}", why.reason);
    assert_eq!(reach(&test, &request(time(850))).await.first_excluded.map(|it| it.lsn), Some(first.lsn));
}
