#![allow(clippy::unwrap_used)]

use walpoint_archive::backup_id::BackupKind;

use super::*;

const NOW: Timestamp = Timestamp(800_000_000_000_000);
const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

fn ago(seconds: u64) -> Timestamp {
    Timestamp(NOW.0 - i64::try_from(seconds).unwrap() * 1_000_000)
}

fn thresholds() -> Thresholds {
    let limits = |warning, critical| Limits {
        warning: Duration::from_secs(warning),
        critical: Duration::from_secs(critical),
    };
    Thresholds {
        wal_lag: limits(10 * MINUTE, 30 * MINUTE),
        backup_age: limits(26 * HOUR, 50 * HOUR),
        in_flight: Duration::from_secs(60),
    }
}

fn backup(stopped: Timestamp, damaged_pages: u64) -> Option<KnownBackup> {
    Some(KnownBackup { id: BackupId::new(stopped, BackupKind::Full), stopped, damaged_pages })
}

fn segment(name: &str) -> SegmentName {
    name.parse().unwrap()
}

/// A cluster where all is well.
fn healthy() -> Snapshot {
    Snapshot {
        now: NOW,
        server: Ok(ServerState {
            is_in_recovery: false,
            is_restored_copy: false,
            archive_mode: "on".into(),
            has_archiver: true,
            archives_with_walpoint: true,
            has_fsync: true,
            timeline: TimelineId::FIRST,
            position: Some(Lsn(0x0300_1000)),
            waiting: Waiting::default(),
            segment_bytes: 16 << 20,
            free_bytes: Some(100 << 30),
            unarchived_since: None,
            unseen: None,
            archiver: ArchiverStatistics::default(),
        }),
        archive: Ok(ArchiveState {
            last_backup: backup(ago(HOUR), 0),
            last_good_backup: backup(ago(HOUR), 0),
            archived_to: Some(Lsn(0x0300_0000)),
            ..ArchiveState::default()
        }),
    }
}

fn server(change: impl Fn(&mut ServerState)) -> Snapshot {
    let mut snapshot = healthy();
    change(snapshot.server.as_mut().unwrap());
    snapshot
}

fn archive(change: impl Fn(&mut ArchiveState)) -> Snapshot {
    let mut snapshot = healthy();
    change(snapshot.archive.as_mut().unwrap());
    snapshot
}

fn judged(snapshot: &Snapshot) -> Level {
    level(&judge(snapshot, &thresholds()))
}

#[test]
fn a_healthy_cluster_is_ok_and_says_so_in_one_line() {
    let snapshot = healthy();
    let findings = judge(&snapshot, &thresholds());
    assert_eq!(findings, []);
    assert_eq!(
        text(&snapshot, &thresholds(), &findings),
        "OK: all WAL is in the archive, last backup 1 h 0 min ago | \
         wal_lag=0.000s;600;1800;0 unarchived=4096B;;;0 waiting_files=0;;;0 \
         backup_age=3600.000s;93600;180000;0 gaps=0;;;0 damaged_segments=0;;;0 conflicts=0;;;0"
    );
}

#[test]
fn lag_is_judged_on_both_sides_of_each_limit() {
    let table = [
        (0, Level::Ok),
        (10 * MINUTE - SECOND, Level::Ok),
        (10 * MINUTE, Level::Warning),
        (30 * MINUTE - SECOND, Level::Warning),
        (30 * MINUTE, Level::Critical),
        (90 * HOUR, Level::Critical),
    ];
    for (seconds, expected) in table {
        let waits = server(|it| {
            it.waiting = Waiting { count: 1, oldest: Some(("F".into(), ago(seconds))) };
        });
        assert_eq!(judged(&waits), expected, "a file that waits {seconds} s");
        let open = server(|it| it.unarchived_since = Some(ago(seconds)));
        assert_eq!(judged(&open), expected, "a commit in the open segment {seconds} s old");
    }
}

/// 60 segments came in five minutes: 192 MiB a minute.
#[test]
fn a_disk_that_will_be_full_is_told_of_in_time() {
    let free = |bytes: Option<u64>, count| {
        server(|it| {
            it.waiting = Waiting { count, oldest: Some(("F".into(), ago(5 * MINUTE))) };
            it.free_bytes = bytes;
        })
    };
    let minutes = |minutes: u64| Some(minutes * (192 << 20));
    for (left, expected) in [
        (13 * 60, Level::Ok),
        (12 * 60, Level::Warning),
        (2 * 60 + 1, Level::Warning),
        (2 * 60, Level::Critical),
        (0, Level::Critical),
    ] {
        let snapshot = free(minutes(left), 60);
        assert_eq!(snapshot.full_in(), Some(Duration::from_secs(left * MINUTE)));
        assert_eq!(judged(&snapshot), expected, "{left} minutes left");
    }
    assert_eq!(free(None, 60).full_in(), None, "nobody can see the disk");
    // A queue that is emptied as fast as it fills tells nothing, however fast that is.
    for seconds in [0, 1, 5 * MINUTE - SECOND] {
        let busy = server(|it| {
            it.waiting = Waiting { count: 60, oldest: Some(("F".into(), ago(seconds))) };
            it.free_bytes = minutes(1);
        });
        assert_eq!((busy.full_in(), judged(&busy)), (None, Level::Ok), "{seconds}");
    }
    let ahead =
        server(|it| it.waiting = Waiting { count: 60, oldest: Some(("F".into(), Timestamp(NOW.0 + 9))) });
    assert_eq!(ahead.full_in(), None, "a clock that differs");
}

#[test]
fn the_older_of_waiting_file_and_open_segment_is_the_lag() {
    let both = |waiting, open| {
        server(|it| {
            it.waiting = Waiting { count: 2, oldest: Some(("F".into(), ago(waiting))) };
            it.unarchived_since = Some(ago(open));
        })
    };
    assert_eq!(both(5, 9).lag(), Some(Duration::from_secs(9)));
    assert_eq!(both(9, 5).lag(), Some(Duration::from_secs(9)));
    assert_eq!(healthy().lag(), Some(Duration::ZERO));
}

#[test]
fn a_clock_that_runs_ahead_is_no_lag() {
    let snapshot = server(|it| it.unarchived_since = Some(Timestamp(NOW.0 + 5_000_000)));
    assert_eq!(snapshot.lag(), Some(Duration::ZERO));
}

#[test]
fn the_backups_age_is_judged_on_both_sides_of_each_limit() {
    let table = [
        (26 * HOUR - SECOND, Level::Ok),
        (26 * HOUR, Level::Warning),
        (50 * HOUR - SECOND, Level::Warning),
        (50 * HOUR, Level::Critical),
    ];
    for (seconds, expected) in table {
        let old = archive(|it| {
            it.last_backup = backup(ago(seconds), 0);
            it.last_good_backup = it.last_backup.clone();
        });
        assert_eq!(judged(&old), expected, "{seconds} s");
    }
}

#[test]
fn without_a_good_backup_it_is_critical_and_a_damaged_one_is_a_warning() {
    let none = archive(|it| (it.last_backup, it.last_good_backup) = (None, None));
    assert_eq!(judged(&none), Level::Critical);
    let only_damaged = archive(|it| (it.last_backup, it.last_good_backup) = (backup(ago(9), 1), None));
    assert_eq!(judged(&only_damaged), Level::Critical);
    let newest_damaged = archive(|it| it.last_backup = backup(ago(9), 1));
    assert_eq!(judged(&newest_damaged), Level::Warning);
}

#[test]
fn archiving_that_is_off_is_critical_however_fresh_all_else_is() {
    for snapshot in [server(|it| it.archive_mode = "off".into()), server(|it| it.has_archiver = false)] {
        let findings = judge(&snapshot, &thresholds());
        assert_eq!(level(&findings), Level::Critical);
        assert!(text(&snapshot, &thresholds(), &findings).starts_with("CRITICAL: not protected"));
    }
}

#[test]
fn an_archiver_whose_last_word_is_a_failure_is_a_warning() {
    let failing = |failed, archived| {
        server(move |it| {
            it.archiver.last_failed_time = Some(ago(failed));
            it.archiver.last_archived_time = Some(ago(archived));
        })
    };
    assert_eq!(judged(&failing(5, 9)), Level::Warning);
    assert_eq!(judged(&failing(9, 5)), Level::Ok);
}

#[test]
fn holes_damage_and_doubt_in_the_archive_are_critical() {
    let seg = segment("000000010000000000000003");
    let gap = |followed| Gap { first: seg, last: seg, followed_since: followed };
    let table = [
        (archive(|it| it.gaps.push(gap(None))), Level::Critical),
        (archive(|it| it.gaps.push(gap(Some(ago(60))))), Level::Critical),
        (archive(|it| it.gaps.push(gap(Some(ago(59))))), Level::Ok),
        (archive(|it| it.damaged.push(Damage { segment: seg, lsn: Lsn(9) })), Level::Critical),
        (archive(|it| it.ambiguous.push(seg.to_string())), Level::Critical),
        (archive(|it| it.refused.push(seg.to_string())), Level::Warning),
        (archive(|it| it.unreadable.push(("backup.json".into(), "torn".into()))), Level::Critical),
        (archive(|it| it.missing_histories.push(TimelineId::new(2).unwrap())), Level::Critical),
    ];
    for (snapshot, expected) in table {
        assert_eq!(judged(&snapshot), expected, "{:?}", snapshot.archive);
    }
}

#[test]
fn who_does_not_answer_is_critical_and_the_rest_is_still_judged() {
    let mut snapshot = archive(|it| it.last_good_backup = None);
    snapshot.server = Err("could not connect".into());
    let findings = judge(&snapshot, &thresholds());
    let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
    assert_eq!(texts, ["could not connect", "there is no good backup"]);
    let mut snapshot = healthy();
    snapshot.archive = Err("could not list".into());
    assert_eq!(judged(&snapshot), Level::Critical);
}

/// However fresh the ones beside its way are.
#[test]
fn a_server_on_whose_way_no_backup_lies_is_critical() {
    let mut snapshot = archive(|it| {
        (it.last_backup, it.last_good_backup) = (None, None);
        it.off_the_way = 1;
        it.followed = Some(TimelineId::FIRST);
    });
    snapshot.server.as_mut().unwrap().timeline = TimelineId::new(2).unwrap();
    let findings = judge(&snapshot, &thresholds());
    let line = text(&snapshot, &thresholds(), &findings);
    assert!(line.starts_with("CRITICAL: no base backup lies on the way to timeline 2"), "{line}");
    assert!(line.contains("restore --latest follows timeline 1"), "{line}");
    assert!(!line.contains("backup_age"), "{line}");
    assert_eq!(judged(&archive(|it| it.off_the_way = 5)), Level::Ok);
}

/// What cannot be looked into may hold anything: that is no lag of 0.
#[test]
fn wal_that_cannot_be_looked_into_is_a_warning_and_its_age_unknown() {
    let mut snapshot = server(|it| it.unseen = Some("the data directory is not here".into()));
    let findings = judge(&snapshot, &thresholds());
    let line = text(&snapshot, &thresholds(), &findings);
    assert!(line.starts_with("WARNING: could not tell") && line.contains("is not here"), "{line}");
    assert!(!line.contains("wal_lag") && !line.contains("all WAL is in the archive"), "{line}");
    let report = serde_json::to_value(Report::new(&snapshot, &findings)).unwrap();
    assert_eq!(report["lag_seconds"], serde_json::Value::Null);
    // A file that waits can be seen from afar.
    let waits = snapshot.server.as_mut().unwrap();
    waits.waiting = Waiting { count: 1, oldest: Some(("F".into(), ago(30 * MINUTE))) };
    assert_eq!((snapshot.lag(), judged(&snapshot)), (Some(Duration::from_secs(1800)), Level::Critical));
    let standby = server(|it| {
        it.is_in_recovery = true;
        it.unseen = Some("the data directory is not here".into());
    });
    assert_eq!(judged(&standby), Level::Ok);
}

#[test]
fn a_standby_has_no_lag_of_its_own() {
    let standby = server(|it| {
        it.is_in_recovery = true;
        it.unarchived_since = Some(ago(90 * HOUR));
    });
    assert_eq!(standby.lag(), None);
    assert_eq!(judged(&standby), Level::Ok);
}

/// Until its promotion; from then on its own WAL is at stake.
#[test]
fn archiving_that_is_off_is_a_standbys_way() {
    let with = |is_in_recovery| {
        server(|it| {
            it.is_in_recovery = is_in_recovery;
            it.archive_mode = "off".into();
        })
    };
    let standby = with(true);
    let line = text(&standby, &thresholds(), &judge(&standby, &thresholds()));
    assert!(line.starts_with("OK: a standby, its primary archives; its archive_mode is off"), "{line}");
    assert_eq!(judged(&with(false)), Level::Critical);
}

/// Nobody archives what it would be, and no primary does so in its place.
#[test]
fn a_restored_copy_that_stays_in_recovery_is_not_protected() {
    let paused = server(|it| {
        it.is_in_recovery = true;
        it.is_restored_copy = true;
        it.archive_mode = "off".into();
    });
    let line = text(&paused, &thresholds(), &judge(&paused, &thresholds()));
    assert!(line.starts_with("CRITICAL: not protected: a restored copy"), "{line}");
}

#[test]
fn an_archiver_that_is_not_ours_is_a_warning() {
    assert_eq!(judged(&server(|it| it.archives_with_walpoint = false)), Level::Warning);
}

#[test]
fn flushed_that_is_told_to_no_disk_is_a_warning() {
    let findings = judge(&server(|it| it.has_fsync = false), &thresholds());
    assert_eq!(level(&findings), Level::Warning);
    assert!(findings[0].text.starts_with("fsync is off"), "{findings:?}");
}

#[test]
fn a_server_that_the_archive_does_not_follow_is_critical() {
    let follows = |number| archive(|it| it.followed = TimelineId::new(number));
    assert_eq!(judged(&follows(1)), Level::Ok);
    let overtaken = follows(2);
    let findings = judge(&overtaken, &thresholds());
    assert_eq!(level(&findings), Level::Critical);
    assert!(
        findings[0].text.contains("follows timeline 2") && findings[0].text.contains("--target-timeline 1")
    );
    // Its history file is on its way, which is another finding.
    let mut ahead = follows(1);
    ahead.server.as_mut().unwrap().timeline = TimelineId::new(2).unwrap();
    assert_eq!(judged(&ahead), Level::Ok);
    let mut standby = follows(2);
    standby.server.as_mut().unwrap().is_in_recovery = true;
    assert_eq!(judged(&standby), Level::Ok);
}

#[test]
fn what_the_archive_lacks_is_critical_unless_it_is_on_its_way() {
    let written = ago(70);
    let table = [
        (Missing::Waits { written }, Level::Ok),
        (Missing::CalledArchived { written, since: ago(59) }, Level::Ok),
        (Missing::CalledArchived { written, since: ago(60) }, Level::Critical),
        (Missing::NotOffered { written: ago(59) }, Level::Ok),
        (Missing::NotOffered { written: ago(60) }, Level::Critical),
        (Missing::Gone, Level::Critical),
    ];
    for (missing, expected) in table {
        let name = segment("000000010000000000000003");
        let snapshot = archive(|it| it.missing.push(MissingSegment { name, missing }));
        let findings = judge(&snapshot, &thresholds());
        assert_eq!(level(&findings), expected, "{missing:?}");
        let is_named = |finding: &Finding| finding.text.contains("segment 000000010000000000000003");
        assert!(findings.iter().all(is_named), "{findings:?}");
    }
}

/// Whatever PostgreSQL says of it.
#[test]
fn a_missing_segment_is_late_from_when_it_was_written() {
    let name = segment("000000010000000000000003");
    let late = archive(|it| {
        it.missing.push(MissingSegment { name, missing: Missing::Gone });
        it.missing.push(MissingSegment { name, missing: Missing::Waits { written: ago(700) } });
    });
    assert_eq!(late.lag(), Some(Duration::from_secs(700)));
}

#[test]
fn without_performance_data_there_is_no_bar() {
    let mut snapshot = healthy();
    snapshot.server = Err("no server".into());
    snapshot.archive = Err("no archive".into());
    let findings = judge(&snapshot, &thresholds());
    assert_eq!(text(&snapshot, &thresholds(), &findings), "CRITICAL: no server; no archive");
}

#[test]
fn the_worst_is_said_first_and_nothing_ends_the_line_early() {
    let mut snapshot = archive(|it| it.refused.push("a|b\nc".into()));
    snapshot.server.as_mut().unwrap().archive_mode = "off".into();
    let findings = judge(&snapshot, &thresholds());
    let line = text(&snapshot, &thresholds(), &findings);
    assert!(line.starts_with("CRITICAL: not protected"), "{line}");
    assert_eq!(line.matches('|').count(), 1, "{line}");
    assert!(!line.contains('\n'));
}

#[test]
fn the_json_report_names_what_was_found() {
    let snapshot = server(|it| {
        it.waiting = Waiting { count: 2, oldest: Some(("F".into(), ago(700))) };
    });
    let findings = judge(&snapshot, &thresholds());
    let report = serde_json::to_value(Report::new(&snapshot, &findings)).unwrap();
    assert_eq!(report["status"], "WARNING");
    assert_eq!(report["lag_seconds"], 700.0);
    assert_eq!(report["waiting"]["count"], 2);
    assert_eq!(report["findings"][0]["level"], "WARNING");
    assert_eq!(report["gaps"], serde_json::json!([]));
}

/// Scripts read these: adding one is compatible, renaming one is not.
#[test]
fn the_json_report_keeps_its_names() {
    let report = serde_json::to_value(Report::new(&healthy(), &[])).unwrap();
    let names: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "archiver",
            "backup_age_seconds",
            "conflicts",
            "damaged",
            "findings",
            "gaps",
            "lag_seconds",
            "last_backup",
            "last_good_backup",
            "missing",
            "missing_histories",
            "pg_wal",
            "status",
            "unarchived_bytes",
            "unreadable",
            "waiting"
        ]
    );
    let disk: Vec<&str> = report["pg_wal"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(disk, ["free_bytes", "hours_left"]);
    let archiver: Vec<&str> = report["archiver"].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = ["failed_count", "last_archived", "last_archived_time", "last_failed", "last_failed_time"];
    assert_eq!(archiver, expected);
}

#[test]
fn durations_are_spoken_in_the_units_that_matter() {
    let table = [
        (5, "5 s"),
        (65, "1 min 5 s"),
        (3_725, "1 h 2 min"),
        (100_000, "27 h 46 min"),
        (300_000, "3 d 11 h"),
    ];
    for (seconds, expected) in table {
        assert_eq!(report::spoken(Duration::from_secs(seconds)), expected);
    }
}
