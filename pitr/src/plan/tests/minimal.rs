//! `wal_level = minimal` for a while: no recovery gets across.

use super::*;
use crate::testing::archive::Knows::All;
use crate::window::window;

/// A commit before, one under `minimal`, one after it, and one after the backup that follows.
struct ForAWhile {
    test: TestArchive,
    commits: [Placed; 4],
    minimal: Placed,
    backups: [BackupSummary; 2],
}

async fn for_a_while() -> ForAWhile {
    let (mut wal, first) = with_backup(3);
    let before = wal.commit(1100, at_second(100), &[]);
    let minimal = wal.minimal();
    let under = wal.commit(1200, at_second(200), &[]);
    wal.parameter_change(100, 0);
    let after = wal.commit(1300, at_second(300), &[]);
    wal.switch();
    let start = wal.checkpoint(wal.end(), at_second(350), 1400).lsn;
    let stop = wal.backup_end(start).end;
    let second = backup(2, 1, start, stop, at_second(360));
    let last = wal.commit(1400, at_second(400), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(All)).await;
    test.backup(&first).await;
    test.backup(&second).await;
    ForAWhile { test, commits: [before, under, after, last], minimal, backups: [first, second] }
}

#[tokio::test]
async fn nothing_from_the_first_minimal_record_on_is_said_to_be_reachable() {
    let ForAWhile { test, commits: [before, under, after, _], minimal, backups: [_, second] } =
        for_a_while().await;
    let lsns = [minimal.lsn, under.lsn, Lsn(under.lsn.0 + 1), after.lsn, after.end].map(Target::Lsn);
    for target in lsns.into_iter().chain([Target::Xid(1200), Target::Xid(1300), time(250), time(150)]) {
        let why = refused(&test, &request(target.clone())).await;
        let wanted = format!("wal_level = minimal from {} on", minimal.lsn);
        assert!(why.reason.contains(&wanted), "{target}: {}", why.reason);
        let nearest = [why.nearest.before, why.nearest.after].map(|it| it.map(|it| it.lsn));
        assert_eq!(nearest, [Some(before.lsn), Some(second.stop.lsn)], "{target}");
        assert!(why.hint.unwrap().contains(&format!("--target-lsn {}", before.lsn)));
    }
}

#[tokio::test]
async fn what_lies_before_it_and_what_a_later_backup_holds_are_reachable() {
    let ForAWhile { test, commits: [before, _, _, last], backups: [first, second], .. } = for_a_while().await;
    for target in [Target::Lsn(before.lsn), Target::Xid(1100)] {
        let plan = reach(&test, &request(target)).await;
        assert_eq!((plan.last_record, &plan.backup.id), (before.lsn, &first.id));
    }
    for target in [Target::Latest, Target::Xid(1400), time(400), Target::Lsn(second.stop.lsn)] {
        let plan = reach(&test, &request(target)).await;
        assert_eq!((plan.last_record, &plan.backup.id), (last.lsn, &second.id));
        assert_eq!(plan.warnings, Vec::<String>::new());
    }
    let with_first = TargetRequest { backup: Some(first.id.clone()), ..request(Target::Latest) };
    let why = refused(&test, &with_first).await;
    assert_eq!(why.nearest.before.map(|it| it.lsn), Some(before.lsn));
}

#[tokio::test]
async fn the_window_ends_before_it_and_begins_again_with_the_next_backup() {
    let ForAWhile { test, commits: [before, _, _, last], backups: [first, second], .. } = for_a_while().await;
    let window = window(&test.archive, &test.catalog().await).await.unwrap();
    let at = |lsn, second| Moment { lsn, time: Some(at_second(second)) };
    let ranges: Vec<_> = window.ranges.into_iter().map(|it| (it.from, it.to, it.backup)).collect();
    let expected = [
        (at(first.stop.lsn, 10), at(before.lsn, 100), first.id),
        (at(second.stop.lsn, 360), at(last.end, 400), second.id),
    ];
    assert_eq!(ranges, expected);
}

/// Only the end of a long recovery is read for prepared transactions; this must not hide there.
#[tokio::test]
async fn one_far_before_what_is_read_is_found() {
    let (mut wal, mut backup) = with_backup(3);
    backup.settings.max_prepared_xacts = 5;
    wal.prepare(2000, "open", at_second(90));
    wal.switch();
    let before = wal.commit(2001, at_second(95), &[]);
    let minimal = wal.minimal();
    wal.parameter_change(100, 5);
    for _ in 0..300 {
        wal.switch();
        wal.filler(100);
    }
    wal.commit(2002, at_second(100), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(All)).await;
    test.backup(&backup).await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains(&minimal.lsn.to_string()), "{}", why.reason);
    assert_eq!(why.nearest.before.map(|it| it.lsn), Some(before.lsn));
}

#[tokio::test]
async fn without_the_key_changed_settings_are_warned_of() {
    let ForAWhile { test, commits: [before, _, after, _], backups: [first, _], .. } = for_a_while().await;
    let catalog = test.catalog().await;
    for (lsn, backup) in [(before.lsn, None), (after.lsn, Some(first.id.clone()))] {
        let request = TargetRequest { backup, ..request(Target::Lsn(lsn)) };
        match plan_to_segment(&test.archive, &catalog, &request).await.unwrap() {
            SegmentOutcome::Reachable(plan) => {
                assert!(plan.bounds().warnings.contains(&words::settings_unseen()));
            }
            SegmentOutcome::Unreachable(why) => panic!("{why:?}"),
        }
    }
    let latest = plan_to_segment(&test.archive, &catalog, &request(Target::Latest)).await.unwrap();
    let SegmentOutcome::Reachable(plan) = latest else { panic!("{latest:?}") };
    assert!(!plan.bounds().warnings.contains(&words::settings_unseen()));
}
