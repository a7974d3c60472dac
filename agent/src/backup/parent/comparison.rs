//! How it is told what has changed since the parent: by page LSNs, or by comparing content. Pure.
//!
//! A page's LSN tells the truth when no change of the page leaves it alone. Hint bits do, and among them the page's
//! word that all its rows are visible, which index-only scans and later changes rely on, unless the server logs
//! them: with data checksums or `wal_log_hints`. It must have done so without a break since before the parent began,
//! in every server that wrote to these very files. What proves that:
//!
//! - The files are those of the parent: the data directory's writer id is the same. Every copy gets its own.
//! - They were written by one run of one primary, which can change neither setting: it says the same start time,
//!   to the microsecond, as at the parent. This needs no look at what lay in between.
//! - Or by one run of a server that was in recovery for all of it or a part. What `pg_control` says of hints there is
//!   its primary's setting, and one run sees many; whether replay raises the LSN of a page whose rows all become
//!   visible goes by the standby's own. So both must be on, and nothing of the primary's settings may have changed in
//!   between, by its WAL.
//! - Or: `wal_log_hints` was on at the parent and is now, and the WAL in between has no `XLOG_PARAMETER_CHANGE`. A
//!   server that starts with another value than `pg_control` has, writes one, before it lets anybody write. Not so a
//!   standby, nor a server in recovery: they replay with a setting of their own. So the timeline must be the same,
//!   and both backups a primary's.
//! - Of data checksums there is no such record up to 18: `pg_checksums` turns them off and on again in a cluster that
//!   is down, and leaves no trace. After a restart they alone prove nothing.
//!
//! In every case the version must raise the LSN in replay, at the parent and now: a primary replays, too, after a crash,
//! which need not end its run. See [`replay_raises_lsns`].
//!
//! Where it is not proven, content decides, which is right whatever happened: a piece of at most 1 MiB is the parent's
//! when its BLAKE3 is.

use walpoint_archive::{BackupSummary, WriterId};
use walpoint_pitr::unbroken::Told;
use walpoint_wal::{Lsn, TimelineId, Timestamp};

/// How a relation's main fork is compared. Everything else is compared by content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// A page is the parent's when its LSN lies before this one.
    Lsn {
        /// Where the parent began.
        since: Lsn,
    },
    /// LSNs are not to be believed, and why.
    Content(&'static str),
}

/// What counts of the backup that is being taken.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub writer: WriterId,
    /// When the server started, by its own word.
    pub server_started: Timestamp,
    pub timeline: TimelineId,
    pub from_standby: bool,
    pub data_checksums: bool,
    /// By `pg_control`, which has the primary's on a standby, and by the server's own setting.
    pub wal_log_hints: bool,
    /// `server_version_num`.
    pub version_num: i32,
}

/// Whether `heap_xlog_visible` raises the page's LSN where hints are logged. Older minor versions leave it alone.
fn replay_raises_lsns(version_num: i64) -> bool {
    let since = match version_num / 10_000 {
        ..13 => return false,
        13 => 130_010,
        14 => 140_007,
        15 => 150_002,
        _ => return true,
    };
    version_num >= since
}

/// How it is told what has changed, given what the WAL in between tells.
pub fn comparison(parent: &BackupSummary, now: &Now, told: Told) -> Comparison {
    match doubt(parent, now, told) {
        None => Comparison::Lsn { since: parent.start.lsn },
        Some(why) => Comparison::Content(why),
    }
}

fn doubt(parent: &BackupSummary, now: &Now, told: Told) -> Option<&'static str> {
    let hints = parent.wal_log_hints && now.wal_log_hints;
    let checksums = parent.data_checksums && now.data_checksums;
    if !(hints || checksums) {
        return Some(
            "neither data checksums nor wal_log_hints were on at both backups; set wal_log_hints = on and restart",
        );
    }
    if parent.writer != now.writer {
        return Some("the parent was taken of another copy of the cluster");
    }
    // Pages that somebody mended in place have their old LSN.
    if parent.damaged_pages > 0 {
        return Some("the parent holds pages that were damaged");
    }
    if told.file_copy {
        return Some(match told.parameter_changes {
            Some(_) => "a database or tablespace was made by file copy since, with pages older than it",
            None => {
                "a record of the WAL since then could not be read; it may have made a database by file copy"
            }
        });
    }
    let versions = [i64::from(parent.server.version_num), i64::from(now.version_num)];
    if !versions.into_iter().all(replay_raises_lsns) {
        return Some(
            "this minor version does not raise a page's LSN when its replay learns that all is visible; update PostgreSQL",
        );
    }
    let recovered = parent.from_standby || now.from_standby;
    let is_one_run = parent.server_started == Some(now.server_started);
    if is_one_run && !recovered {
        return None;
    }
    if is_one_run {
        return settings_changed(told);
    }
    if !hints {
        return Some(
            "the server was restarted since, and that leaves open whether checksums were on all the time",
        );
    }
    if parent.timeline != now.timeline || recovered {
        return Some("a standby's recovery was part of what happened since");
    }
    settings_changed(told)
}

fn settings_changed(told: Told) -> Option<&'static str> {
    match told.parameter_changes {
        Some(0) => None,
        Some(_) => Some("the server's settings were changed since"),
        None => Some("whether the server's settings were changed since is not known"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::choice::tests::backup;
    use super::*;

    const STARTED: Timestamp = Timestamp(1_000_000);
    const RESTARTED: Timestamp = Timestamp(2_000_000);

    fn case(checksums: bool, hints: bool) -> (BackupSummary, Now) {
        let parent = BackupSummary {
            data_checksums: checksums,
            wal_log_hints: hints,
            server_started: Some(STARTED),
            ..backup(1, 1, 100, 200)
        };
        let now = Now {
            writer: parent.writer,
            server_started: STARTED,
            timeline: parent.timeline,
            from_standby: false,
            data_checksums: checksums,
            wal_log_hints: hints,
            version_num: 150_020,
        };
        (parent, now)
    }

    fn by_lsn(parent: &BackupSummary, now: &Now, told: Told) -> bool {
        match comparison(parent, now, told) {
            Comparison::Lsn { since } => {
                assert_eq!(since, parent.start.lsn);
                true
            }
            Comparison::Content(_) => false,
        }
    }

    #[test]
    fn lsns_are_believed_in_one_run_of_a_server_that_logs_hints() {
        for (checksums, hints, expected) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, true)]
        {
            let (parent, now) = case(checksums, hints);
            assert_eq!(by_lsn(&parent, &now, Told::NOTHING), expected, "{checksums} {hints}");
            // Only one of the two backups had it.
            let before = BackupSummary { data_checksums: false, wal_log_hints: false, ..parent };
            assert!(!by_lsn(&before, &now, Told::NOTHING));
        }
    }

    /// One run of a standby sees its primary's settings come and go.
    #[test]
    fn in_one_run_of_a_standby_lsns_are_believed_only_when_no_setting_changed() {
        let told = |parameter_changes| Told { parameter_changes, ..Told::NOTHING };
        for (checksums, hints) in [(true, false), (false, true), (true, true)] {
            let (parent, now) = case(checksums, hints);
            for (then_standby, is_standby) in [(true, true), (true, false), (false, true)] {
                let parent = BackupSummary { from_standby: then_standby, ..parent.clone() };
                let now = Now { from_standby: is_standby, ..now };
                for (changes, expected) in [(Some(0), true), (Some(2), false), (None, false)] {
                    assert_eq!(
                        by_lsn(&parent, &now, told(changes)),
                        expected,
                        "{checksums} {hints} {changes:?}"
                    );
                }
            }
            // A primary cannot change its own.
            assert!(by_lsn(&parent, &now, told(Some(2))) && by_lsn(&parent, &now, told(None)));
        }
        // The primary's setting is on, the standby's own is not.
        let (parent, now) = case(false, true);
        assert!(!by_lsn(&parent, &Now { wal_log_hints: false, from_standby: true, ..now }, Told::NOTHING));
    }

    /// A primary replays after a crash.
    #[test]
    fn lsns_of_a_version_whose_replay_leaves_them_alone_are_not_believed() {
        for (old, new) in [(130_009, 130_010), (140_006, 140_007), (150_001, 150_002), (159_999, 160_000)] {
            for (started, is_standby) in [(STARTED, false), (STARTED, true), (RESTARTED, false)] {
                let (mut parent, now) = case(true, true);
                let now = Now { server_started: started, from_standby: is_standby, ..now };
                let mut pair = |then: u32, version_num: i32| {
                    parent.server.version_num = then;
                    by_lsn(&parent, &Now { version_num, ..now }, Told::NOTHING)
                };
                let is_old_release = old != 159_999;
                let (then, since) = (u32::try_from(old).unwrap(), u32::try_from(new).unwrap());
                assert!(pair(since, new), "{new}");
                assert_eq!(pair(since, old), !is_old_release, "{old}");
                // Updated in between, it was the old one that crashed.
                assert_eq!(pair(then, new), !is_old_release, "{old} to {new}");
            }
        }
    }

    #[test]
    fn after_a_restart_only_wal_log_hints_prove_that_there_was_no_break() {
        let told = |parameter_changes| Told { parameter_changes, ..Told::NOTHING };
        for (checksums, hints, changes, expected) in [
            (true, false, Some(0), false),
            (false, true, Some(0), true),
            (true, true, Some(0), true),
            (true, true, Some(1), false),
            (true, true, None, false),
        ] {
            let (parent, now) = case(checksums, hints);
            let now = Now { server_started: RESTARTED, ..now };
            assert_eq!(by_lsn(&parent, &now, told(changes)), expected, "{checksums} {hints} {changes:?}");
            // A backup of an older version does not say.
            let parent = BackupSummary { server_started: None, ..parent };
            assert_eq!(by_lsn(&parent, &now, told(changes)), expected);
            for now in
                [Now { timeline: TimelineId::new(2).unwrap(), ..now }, Now { from_standby: true, ..now }]
            {
                assert!(!by_lsn(&parent, &now, told(changes)));
            }
            assert!(!by_lsn(&BackupSummary { from_standby: true, ..parent }, &now, told(changes)));
        }
    }

    #[test]
    fn other_files_damage_and_file_copies_are_compared_by_content() {
        let (parent, now) = case(true, true);
        assert!(!by_lsn(&parent, &Now { writer: WriterId::random(), ..now }, Told::NOTHING));
        assert!(!by_lsn(&parent, &now, Told { file_copy: true, ..Told::NOTHING }));
        assert!(!by_lsn(&BackupSummary { damaged_pages: 1, ..parent }, &now, Told::NOTHING));
    }
}
