#![allow(clippy::unwrap_used)]
//! The window on archives of real WAL.

use super::*;
use crate::testing::archive::{Knows, TestArchive};
use crate::testing::wal::WalWriter;
use crate::testing::{MIB, SYSTEM, at_second, backup, segment, size, tli};

async fn shown(test: &TestArchive) -> Window {
    window(&test.archive, &test.catalog().await).await.unwrap()
}

fn moment(lsn: Lsn, second: i64) -> Moment {
    Moment { lsn, time: Some(at_second(second)) }
}

#[tokio::test]
async fn a_hole_parts_the_window_until_the_next_backup() {
    let mut wal = WalWriter::new(size(), SYSTEM, 3);
    let start = wal.filler(100).lsn;
    let first = backup(1, 1, start, wal.backup_end(start).end, at_second(10));
    for second in 1..=6 {
        wal.commit(1000 + second, at_second(100 * i64::from(second)), &[]);
        wal.switch();
    }
    let start = Lsn(7 * MIB + 40);
    let second = backup(2, 1, start, Lsn(8 * MIB), at_second(550));
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |number| (number != 5).then_some(Knows::All)).await;
    test.backup(&first).await;
    test.backup(&second).await;
    let window = shown(&test).await;
    let range = |from, to, backup: &walpoint_archive::BackupSummary| Range {
        timeline: tli(1),
        from,
        to,
        backup: backup.id.clone(),
    };
    let expected = [
        range(moment(first.stop.lsn, 10), moment(Lsn(5 * MIB), 200), &first),
        range(moment(second.stop.lsn, 550), moment(Lsn(9 * MIB), 600), &second),
    ];
    assert_eq!(window.ranges, expected);
    let gaps: Vec<_> = window.gaps.iter().map(|gap| (gap.timeline, gap.first, gap.last)).collect();
    assert_eq!(gaps, [(tli(1), segment(1, 5), segment(1, 5))]);
}

#[tokio::test]
async fn each_timeline_has_its_own_part() {
    let mut old = WalWriter::new(size(), SYSTEM, 3);
    let start = old.filler(100).lsn;
    let first = backup(1, 1, start, old.backup_end(start).end, at_second(10));
    old.switch();
    old.commit(1000, at_second(100), &[]);
    let fork = old.end();
    let mut new = old.clone();
    new.promote(tli(2));
    new.end_of_recovery(tli(1), at_second(200));
    let newest = new.commit(2000, at_second(210), &[]);
    let oldest = old.commit(1001, at_second(220), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&old, |_| Some(Knows::All)).await;
    test.history(2, &[(1, fork.0)]).await;
    test.push_all(&new, |_| Some(Knows::All)).await;
    test.backup(&first).await;
    let ranges: Vec<_> =
        shown(&test).await.ranges.into_iter().map(|it| (it.timeline, it.from, it.to)).collect();
    let expected = [
        (tli(1), moment(first.stop.lsn, 10), moment(oldest.end, 220)),
        (tli(2), moment(fork, 200), moment(newest.end, 210)),
    ];
    assert_eq!(ranges, expected);
}

/// A primary that died before its last segments were archived, and its successor: 5 and 6
/// of timeline 1 are lost, timeline 2 begins in 7. Segments of timeline 1 from 8 on are
/// there where the old primary came back.
async fn lost_before_the_fork(old_goes_on: bool) -> TestArchive {
    let mut old = WalWriter::new(size(), SYSTEM, 3);
    let start = old.filler(100).lsn;
    let first = backup(1, 1, start, old.backup_end(start).end, at_second(10));
    for second in 1..=4 {
        old.switch();
        old.commit(1000 + second, at_second(100 * i64::from(second)), &[]);
    }
    let fork = old.end();
    let mut new = old.clone();
    new.promote(tli(2));
    new.end_of_recovery(tli(1), at_second(500));
    new.commit(2000, at_second(510), &[]);
    old.switch();
    old.commit(1005, at_second(600), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&old, |number| (number < 5 || (old_goes_on && number == 8)).then_some(Knows::All)).await;
    test.history(2, &[(1, fork.0)]).await;
    test.push_all(&new, |number| (number >= 7).then_some(Knows::All)).await;
    test.backup(&first).await;
    test
}

fn gaps(window: &Window) -> Vec<(TimelineId, SegmentName, SegmentName)> {
    window.gaps.iter().map(|gap| (gap.timeline, gap.first, gap.last)).collect()
}

#[tokio::test]
async fn a_hole_in_the_parent_before_the_fork_is_a_gap() {
    let window = shown(&lost_before_the_fork(false).await).await;
    assert_eq!(gaps(&window), [(tli(1), segment(1, 5), segment(1, 6))]);
    assert!(window.gaps[0].reason.contains("not in the archive"), "{:?}", window.gaps);
    assert_eq!(window.ranges.iter().map(|range| range.timeline).collect::<Vec<_>>(), [tli(1)]);
}

#[tokio::test]
async fn a_gap_that_two_timelines_run_into_is_shown_once() {
    let window = shown(&lost_before_the_fork(true).await).await;
    assert_eq!(gaps(&window), [(tli(1), segment(1, 5), segment(1, 7))]);
}

#[tokio::test]
async fn a_damaged_segment_is_a_gap_and_an_archive_without_backups_has_no_window() {
    let mut wal = WalWriter::new(size(), SYSTEM, 3);
    wal.filler(2000);
    wal.switch();
    wal.filler(100);
    let mut test = TestArchive::new().await;
    for (name, bytes) in wal.segments().map(|(name, bytes)| (name, bytes.to_vec())).collect::<Vec<_>>() {
        let mut bytes = bytes;
        bytes[1000] ^= u8::from(name == segment(1, 3));
        test.push(name, bytes, Knows::All).await;
    }
    let window = shown(&test).await;
    assert_eq!(window.ranges, []);
    assert_eq!(window.gaps.iter().map(|gap| gap.first).collect::<Vec<_>>(), [segment(1, 3)]);
    let empty = shown(&TestArchive::new().await).await;
    assert_eq!(empty, Window { ranges: Vec::new(), gaps: Vec::new(), exact: true });
}

#[tokio::test]
async fn the_names_of_the_fields_are_fixed() {
    let range = Range {
        timeline: tli(1),
        from: moment(Lsn(1), 0),
        to: Moment { lsn: Lsn(2), time: None },
        backup: "20261120T214500Z-full-3fa9c1".parse().unwrap(),
    };
    let gap =
        WindowGap { timeline: tli(1), first: segment(1, 5), last: segment(1, 6), reason: "why".to_owned() };
    let json = serde_json::to_value(Window { ranges: vec![range], gaps: vec![gap], exact: true }).unwrap();
    let expected = serde_json::json!({
        "ranges": [{
            "timeline": 1,
            "from": { "lsn": "0/1", "time": "2025-05-08T06:13:20.000000Z" },
            "to": { "lsn": "0/2", "time": null },
            "backup": "20261120T214500Z-full-3fa9c1",
        }],
        "gaps": [{
            "timeline": 1,
            "first": "000000010000000000000005",
            "last": "000000010000000000000006",
            "reason": "why",
        }],
        "exact": true,
    });
    assert_eq!(json, expected);
}
