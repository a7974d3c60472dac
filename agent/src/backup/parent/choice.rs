//! Which backup an incremental one builds on. Pure.

use std::time::Duration;

use walpoint_archive::{BackupHead, BackupKind, BackupSummary, Layout, Verification};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::{Lsn, Timestamp};

use super::NoParent;
use crate::backup::marked::Marked;

/// A nightly full backup must not become one every other night because it began a little earlier than the last.
const EARLY: Duration = Duration::from_secs(3600);

/// The cluster as it is now.
#[derive(Debug)]
pub struct Now<'a> {
    /// The way to its timeline.
    pub path: &'a TimelinePath,
    /// Bytes in a data page.
    pub block_size: u32,
    pub data_checksums: bool,
    /// What an expiry is about to take away.
    pub marked: &'a Marked,
    /// What `verify` found damaged.
    pub verification: &'a Verification,
    pub layout: &'a Layout,
}

/// The backups that may serve, the newest first, and why the newest of all does not.
pub fn fit(backups: Vec<BackupHead>, now: &Now<'_>) -> (Vec<BackupHead>, Option<NoParent>) {
    let mut newest_first = backups;
    newest_first.sort_by(|one, other| (other.stop.lsn, &other.id).cmp(&(one.stop.lsn, &one.id)));
    let newest = newest_first.first();
    let why = match newest {
        None => Some(NoParent::new("there is no complete backup in the archive")),
        Some(newest) => {
            let why = unfit(newest, now);
            why.map(|why| NoParent(format!("{} cannot be its parent: {why}", newest.id)))
        }
    };
    newest_first.retain(|backup| unfit(backup, now).is_none());
    (newest_first, why)
}

/// The newest backup of what led here, whether it serves or not: the server has been there.
pub fn newest_on_the_way<'b>(backups: &'b [BackupHead], path: &TimelinePath) -> Option<&'b BackupHead> {
    backups.iter().filter(|backup| path.holds(backup)).max_by_key(|backup| (backup.stop.lsn, &backup.id))
}

fn unfit(backup: &BackupHead, now: &Now<'_>) -> Option<String> {
    if let Some(why) = now.marked.why_not(&backup.id) {
        return Some(why);
    }
    let damaged = now.verification.damaged_of(now.layout, backup);
    if damaged > 0 {
        return Some(format!("verify found {damaged} of the objects that it needs damaged"));
    }
    if backup.block_size != now.block_size {
        return Some(format!(
            "it has pages of {} bytes, and the cluster of {}",
            backup.block_size, now.block_size
        ));
    }
    if backup.data_checksums != now.data_checksums {
        let word = if now.data_checksums { "on" } else { "off" };
        return Some(format!("data checksums were turned {word} since"));
    }
    // Behind the fork the parent has pages of a branch that this cluster never saw, with LSNs that look old.
    match now.path.step_of(backup.timeline) {
        None => Some(format!("timeline {} does not lead to timeline {}", backup.timeline, now.path.timeline)),
        Some(step) => step.end.filter(|fork| backup.stop.lsn > *fork).map(|fork| {
            format!(
                "it ends at {}, behind {fork}, where timeline {} was left",
                backup.stop.lsn, backup.timeline
            )
        }),
    }
}

/// That the server has not been set back to a place before the backup's end, without a new timeline. A standby
/// begins at its last restartpoint, which may be older than a backup that was taken a moment ago; then pages of that
/// one could lie in this one's future.
pub fn must_lie_before<P>(parent: &BackupSummary<P>, start: Lsn, is_standby: bool) -> Result<(), NoParent> {
    match parent.stop.lsn <= start {
        true => Ok(()),
        false if is_standby => Err(NoParent(format!(
            "the standby's last restartpoint, at {start}, lies before the end of {}, at {}",
            parent.id, parent.stop.lsn
        ))),
        false => Err(NoParent(format!(
            "the server's WAL is at {start}, and {} ended at {}: it was set back since",
            parent.id, parent.stop.lsn
        ))),
    }
}

/// Whether it is time for a full backup again.
pub fn full_is_due(backups: &[BackupHead], every: Duration, now: Timestamp) -> Result<(), NoParent> {
    let last =
        backups.iter().filter(|backup| backup.kind == BackupKind::Full).map(|backup| backup.start.time).max();
    let Some(last) = last else {
        return Err(NoParent::new("there is no full backup in the archive"));
    };
    let early = EARLY.min(every / 10);
    let due = i64::try_from((every - early).as_micros()).unwrap_or(i64::MAX);
    match now.0.saturating_sub(last.0) >= due {
        true => Err(NoParent(format!(
            "the last full backup began at {last}, and [backup] full_every has passed since"
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
pub(in crate::backup) mod tests {
    #![allow(clippy::unwrap_used)]

    use walpoint_archive::facts::FORMAT;
    use walpoint_archive::summary::{
        BackupBytes, ManifestObject, Position, ServerFacts, Settings, StoredObject,
    };
    use walpoint_archive::verification::Depth;
    use walpoint_archive::{ContentHash, Proof, StoredHash, WriterId};
    use walpoint_wal::segment::SegmentSize;
    use walpoint_wal::{SystemIdentifier, TimelineHistory, TimelineId};

    use super::*;

    /// The `number`th backup, on a timeline, from and to these LSNs.
    pub(in crate::backup) fn backup(number: u32, timeline: u32, start: u64, stop: u64) -> BackupSummary {
        let id: walpoint_archive::BackupId =
            format!("20260101T0000{number:02}Z-full-{number:06x}").parse().unwrap();
        let content = ContentHash::of(b"");
        let key = Layout::new(SystemIdentifier(7)).manifest(&id, content.id(), false);
        let position = |lsn| Position { lsn: Lsn(lsn), time: Timestamp(i64::from(number) * 1_000_000) };
        BackupSummary {
            format: FORMAT,
            tool: "test".to_owned(),
            kind: BackupKind::Full,
            id,
            parent: None,
            label: None,
            writer: WriterId::random(),
            system_identifier: SystemIdentifier(7),
            timeline: TimelineId::new(timeline).unwrap(),
            start: position(start),
            stop: position(stop),
            redo: Lsn(start),
            checkpoint: Lsn(start),
            next_xid: 1000,
            from_standby: false,
            server: ServerFacts {
                major: 15,
                version_num: 150_020,
                control_version: 1300,
                catalog_version: 202_209_061,
            },
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            block_size: 8192,
            wal_block_size: 8192,
            data_checksums: true,
            wal_log_hints: false,
            settings: Settings {
                max_connections: 100,
                max_worker_processes: 8,
                max_wal_senders: 10,
                max_prepared_xacts: 0,
                max_locks_per_xact: 64,
                wal_level: 1,
            },
            tablespaces: 0,
            files: 0,
            bytes: BackupBytes { data: 0, stored: 0 },
            damaged_pages: 0,
            subscriptions: None,
            archive_mode: None,
            server_started: None,
            manifest: ManifestObject { key, size: 1, sha256: StoredHash::of(b""), content, plain_size: 1 },
            packs: Vec::new(),
        }
    }

    fn path(timeline: u32, history: &str) -> TimelinePath {
        let timeline = TimelineId::new(timeline).unwrap();
        let history = match history {
            "" => TimelineHistory::first(),
            text => TimelineHistory::parse(timeline, text.as_bytes()).unwrap(),
        };
        TimelinePath { timeline, steps: history.path() }
    }

    fn chosen(backups: &[BackupSummary], path: &TimelinePath) -> Result<String, String> {
        chosen_of(backups, path, &Marked::default())
    }

    fn chosen_of(backups: &[BackupSummary], path: &TimelinePath, marked: &Marked) -> Result<String, String> {
        chosen_by(backups, path, marked, &Verification::new())
    }

    fn chosen_by(
        backups: &[BackupSummary],
        path: &TimelinePath,
        marked: &Marked,
        verification: &Verification,
    ) -> Result<String, String> {
        let layout = &Layout::new(SystemIdentifier(7));
        let now = Now { path, block_size: 8192, data_checksums: true, marked, verification, layout };
        let (fit, why) = fit(heads(backups), &now);
        match fit.first() {
            Some(newest) => Ok(newest.id.to_string()),
            None => Err(why.unwrap().0),
        }
    }

    fn heads(backups: &[BackupSummary]) -> Vec<BackupHead> {
        let layout = Layout::new(SystemIdentifier(7));
        backups.iter().map(|backup| backup.clone().into_head(&layout)).collect()
    }

    #[test]
    fn all_that_may_serve_are_there_the_newest_first_and_why_the_newest_of_all_does_not() {
        let backups =
            [backup(1, 1, 100, 200), backup(4, 1, 700, 800), backup(2, 1, 300, 400), backup(3, 1, 500, 600)];
        let (layout, path) = (Layout::new(SystemIdentifier(7)), path(1, ""));
        let fit = |marked: &Marked| {
            let verification = Verification::new();
            let now = Now {
                path: &path,
                block_size: 8192,
                data_checksums: true,
                marked,
                verification: &verification,
                layout: &layout,
            };
            let (fit, why) = fit(heads(&backups), &now);
            (fit.into_iter().map(|backup| backup.stop.lsn.0).collect::<Vec<_>>(), why)
        };
        assert_eq!(fit(&Marked::default()), (vec![800, 600, 400, 200], None));
        assert_eq!(fit(&Marked::of(&[&backups[3].id])), (vec![800, 400, 200], None));
        let (left, why) = fit(&Marked::of(&[&backups[1].id, &backups[2].id]));
        assert_eq!(left, [600, 200]);
        assert!(why.unwrap().0.contains(backups[1].id.as_str()));
    }

    #[test]
    fn the_newest_backup_is_the_parent() {
        let backups = [backup(1, 1, 100, 200), backup(3, 1, 500, 600), backup(2, 1, 300, 400)];
        assert_eq!(chosen(&backups, &path(1, "")), Ok(backups[1].id.to_string()));
        assert!(chosen(&[], &path(1, "")).is_err());
    }

    #[test]
    fn what_is_about_to_go_is_no_parent_and_one_that_stays_is() {
        let backups = [backup(1, 1, 100, 200), backup(2, 1, 300, 400)];
        let newest = Marked::of(&[&backups[1].id]);
        assert_eq!(chosen_of(&backups, &path(1, ""), &newest), Ok(backups[0].id.to_string()));
        let both = Marked::of(&[&backups[0].id, &backups[1].id]);
        let reason = chosen_of(&backups, &path(1, ""), &both).unwrap_err();
        assert!(reason.contains(backups[1].id.as_str()) && reason.contains("marked it to go"), "{reason}");
    }

    /// An incremental backup would name the same objects, and so lack what they lack.
    #[test]
    fn what_was_found_damaged_is_no_parent_until_it_is_found_sound() {
        let mut backups = [backup(1, 1, 100, 200), backup(2, 1, 300, 400)];
        let layout = Layout::new(SystemIdentifier(7));
        let key = layout.pack(&backups[0].id, 3, ContentHash::of(b"").id(), false);
        let pack = StoredObject { key: key.clone(), size: 1, sha256: StoredHash::of(b"") };
        backups[1].packs = vec![pack];
        let mut verification = Verification::new();
        let chosen =
            |verification: &Verification| chosen_by(&backups, &path(1, ""), &Marked::default(), verification);
        // The newest names a pack of the older one, which itself needs it no more.
        verification.add_damaged(key, Timestamp(10), Depth::Stored);
        assert_eq!(chosen(&verification), Ok(backups[0].id.to_string()));
        verification.add_damaged(backups[0].manifest.key.clone(), Timestamp(10), Depth::Stored);
        let reason = chosen(&verification).unwrap_err();
        assert!(reason.contains(backups[1].id.as_str()) && reason.contains("damaged"), "{reason}");
        verification.add_packs(&backups[0].id, 3, 3, Proof { stored_at: Timestamp(11), content_at: None });
        assert_eq!(chosen(&verification), Ok(backups[1].id.to_string()));
    }

    /// Start and fork alone would let an abandoned branch's pages in: the stop decides.
    #[test]
    fn a_fork_must_lie_at_or_behind_the_parents_stop() {
        let history = |fork: &str| path(2, &format!("1\t0/{fork}\tx\n"));
        let backups = [backup(1, 1, 0x10, 0x20), backup(2, 1, 0x100, 0x200)];
        for (fork, expected) in [("201", 1), ("200", 1), ("1FF", 0), ("150", 0), ("50", 0)] {
            assert_eq!(
                chosen(&backups, &history(fork)),
                Ok(backups[expected].id.to_string()),
                "fork at {fork}"
            );
        }
        let reason = chosen(&backups[1..], &history("150")).unwrap_err();
        assert!(reason.contains("behind 0/150"), "{reason}");
        // Of two forks on the way the lower one.
        let twice = path(3, "1\t0/150\tx\n2\t0/300\tx\n");
        assert_eq!(chosen(&backups, &twice), Ok(backups[0].id.to_string()));
        // A timeline that does not lead here.
        assert!(chosen(&[backup(1, 4, 0x10, 0x20)], &twice).is_err());
    }

    #[test]
    fn another_page_size_or_checksum_setting_is_no_parent() {
        let path = path(1, "");
        let pages = BackupSummary { block_size: 16384, ..backup(1, 1, 100, 200) };
        assert!(chosen(&[pages], &path).unwrap_err().contains("16384"));
        let off = BackupSummary { data_checksums: false, ..backup(1, 1, 100, 200) };
        assert!(chosen(&[off], &path).unwrap_err().contains("turned on"));
    }

    /// One that is marked or damaged tells as well how far the server was.
    #[test]
    fn how_far_the_server_was_is_told_by_the_newest_backup_of_what_led_here() {
        let backups = heads(&[backup(1, 1, 100, 200), backup(2, 1, 300, 400), backup(3, 3, 500, 600)]);
        let newest = |path: &TimelinePath| newest_on_the_way(&backups, path).map(|it| it.stop.lsn.0);
        assert_eq!(newest(&path(1, "")), Some(400));
        assert_eq!(newest(&path(2, "1\t0/C8\tx\n")), Some(200));
        assert_eq!(newest(&path(2, "1\t0/C7\tx\n")), None);
    }

    #[test]
    fn a_server_that_was_set_back_has_no_parent() {
        let parent = backup(1, 1, 100, 200);
        assert_eq!(must_lie_before(&parent, Lsn(200), false), Ok(()));
        assert!(must_lie_before(&parent, Lsn(199), false).unwrap_err().0.contains("set back"));
        assert!(must_lie_before(&parent, Lsn(199), true).unwrap_err().0.contains("restartpoint"));
    }

    #[test]
    fn a_full_backup_is_due_when_its_time_has_passed_with_a_little_to_spare() {
        let day = Duration::from_secs(86_400);
        let backups = [
            BackupSummary { kind: BackupKind::Incremental, ..backup(50, 1, 300, 400) },
            backup(1, 1, 100, 200),
        ];
        let after = |seconds: i64| {
            full_is_due(&heads(&backups), 7 * day, Timestamp((1 + seconds) * 1_000_000)).is_err()
        };
        assert!(!after(0) && !after(6 * 86_400));
        assert!(after(7 * 86_400) && after(7 * 86_400 - 60));
        assert!(full_is_due(&heads(&backups[..1]), 7 * day, Timestamp(0)).is_err());
    }
}
