#![allow(clippy::unwrap_used)]

use walpoint_archive::{BackupId, BackupKind, BackupSummary, Cluster, Layout};
use walpoint_wal::segment::SegmentSize;
use walpoint_wal::timestamp::Timestamp;

use super::*;

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn history(timeline: u32, text: &str) -> TimelineHistory {
    TimelineHistory::parse(tli(timeline), text.as_bytes()).unwrap()
}

/// A backup on a timeline from `start` on, complete at this second.
fn backup(timeline: u32, start: u64, second: i64) -> BackupHead {
    let json = include_str!("../../../tests/fixtures/backup.json");
    let mut backup: BackupSummary = serde_json::from_str(json).unwrap();
    backup.timeline = tli(timeline);
    backup.start.lsn = Lsn(start);
    backup.stop.lsn = Lsn(start + 0x100);
    backup.stop.time = Timestamp(800_000_000_000_000 + second * 1_000_000);
    backup.id = BackupId::new(backup.stop.time, BackupKind::Full);
    let layout = Layout::new(backup.system_identifier);
    backup.into_head(&layout)
}

fn catalog(backups: &[BackupHead], histories: &[TimelineHistory]) -> Catalog {
    let cluster = Cluster {
        system_identifier: backups[0].system_identifier,
        segment_size: SegmentSize::new(1 << 20).unwrap(),
        block_size: 8192,
        wal_block_size: 8192,
        major: 15,
    };
    let mut catalog = Catalog::new(cluster);
    catalog.backups = backups.to_vec();
    catalog.histories = histories.iter().map(|it| (it.timeline, it.clone())).collect();
    catalog
}

fn starts(way: &Way<'_>) -> Vec<u64> {
    way.backups.iter().map(|backup| backup.start.lsn.0).collect()
}

/// A primary that was cut off goes on and takes the newest backup of all.
#[test]
fn a_backup_from_behind_the_fork_is_not_on_the_way() {
    let forked = [history(2, "1\t0/500\tno reason\n")];
    let catalog = catalog(&[backup(1, 0x100, 1), backup(1, 0x600, 2), backup(1, 0x480, 3)], &forked);
    let way = Way::to(&catalog, tli(2), None);
    assert_eq!((starts(&way), way.beginning(1)), (vec![0x100], Some(Lsn(0x100))));
    assert_eq!(starts(&Way::to(&catalog, tli(1), None)), [0x480, 0x600, 0x100]);
}

/// After a step back in time the newest backups lie ahead of the server.
#[test]
fn what_is_looked_at_begins_before_the_fork_that_went_back() {
    let forked = [history(2, "1\t0/300\tbefore a drop\n")];
    let backups = [backup(1, 0x100, 1), backup(1, 0x400, 2), backup(1, 0x800, 3), backup(2, 0x380, 4)];
    let catalog = catalog(&backups, &forked);
    let way = Way::to(&catalog, tli(2), None);
    assert_eq!(starts(&way), [0x380, 0x100]);
    let beginnings = [0, 1, 2, 9].map(|back| way.beginning(back).unwrap().0);
    assert_eq!(beginnings, [0x380, 0x380, 0x100, 0x100]);
}

#[test]
fn the_beginning_is_the_lowest_whatever_the_clock_said() {
    let catalog = catalog(&[backup(1, 0x900, 1), backup(1, 0x500, 2), backup(1, 0x700, 3)], &[]);
    assert_eq!(Way::to(&catalog, tli(1), None).beginning(2), Some(Lsn(0x500)));
}

#[test]
fn the_servers_own_history_tells_the_way_until_the_archive_has_it() {
    let backups = [backup(1, 0x100, 1), backup(1, 0x600, 2)];
    let own = history(2, "1\t0/500\tno reason\n");
    let without = catalog(&backups, &[]);
    let way = Way::to(&without, tli(2), Some(&own));
    assert_eq!((way.is_known, starts(&way)), (true, vec![0x100]));
    for of_another in [None, Some(&history(3, "1\t0/500\tno reason\n"))] {
        let way = Way::to(&without, tli(2), of_another);
        assert_eq!((way.is_known, starts(&way), way.beginning(1)), (false, vec![], None));
    }
    // What a restore goes by counts more.
    let with = catalog(&backups, &[history(2, "1\t0/700\tno reason\n")]);
    assert_eq!(starts(&Way::to(&with, tli(2), Some(&own))), [0x600, 0x100]);
}
