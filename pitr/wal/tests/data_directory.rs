//! The files of a real data directory: `pg_control`, `backup_label`, relations with
//! page checksums.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod postgres;

use std::collections::BTreeMap;
use std::path::Path;

use postgres::{Cluster, check};
use walpoint_wal::{
    BackupLabel, ControlFile, ControlFileError, DbState, Lsn, PageState, Timestamp, page_lsn, tablespace_map,
    verify_page,
};

#[test]
fn control_file_label_and_checksums_are_postgresqls_own() {
    let Some(bin) = postgres::programs() else { return };
    let settings = "wal_level = logical\nmax_connections = 33\nmax_worker_processes = 11\nmax_wal_senders = 7\n\
                    max_prepared_transactions = 5\nmax_locks_per_transaction = 77\nwal_log_hints = on\n\
                    track_commit_timestamp = on\nfull_page_writes = on\n";
    let cluster = Cluster::create(&bin, &["--wal-segsize=4", "-k"], settings);
    cluster.start();
    cluster.sql("CREATE TABLE t AS SELECT i, repeat('x', 500) x FROM generate_series(1, 3000) i; CREATE INDEX ON t (i);");
    the_label_of_a_backup_is_read(&cluster);
    cluster.stop("fast");
    the_control_file_says_what_pg_controldata_says(&cluster);
    every_page_has_the_checksum_that_postgresql_gave_it(&cluster);
}

fn the_control_file_says_what_pg_controldata_says(cluster: &Cluster) {
    let bytes = std::fs::read(cluster.data().join("global/pg_control")).unwrap();
    let ours = ControlFile::parse(&bytes).unwrap();
    let output = check(cluster.program("pg_controldata").arg(cluster.data()));
    let text = String::from_utf8(output.stdout).unwrap();
    let said: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let number = |name: &str| said[name].parse::<i64>().unwrap_or_else(|_| panic!("{name}: {}", said[name]));
    let lsn = |name: &str| said[name].parse::<Lsn>().unwrap();
    assert_eq!(ours.system_identifier.to_string(), said["Database system identifier"]);
    assert_eq!(i64::from(ours.control_version), number("pg_control version number"));
    assert_eq!(i64::from(ours.catalog_version), number("Catalog version number"));
    let version = cluster.program("postgres").arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let major = ours.major.expect("a known version").number();
    assert!(version.contains(&format!(" {major}")), "{version}");
    assert_eq!((ours.state, said["Database cluster state"]), (DbState::ShutDown, "shut down"));
    assert_eq!(ours.checkpoint, lsn("Latest checkpoint location"));
    assert_eq!(ours.redo, lsn("Latest checkpoint's REDO location"));
    assert_eq!(i64::from(ours.timeline.get()), number("Latest checkpoint's TimeLineID"));
    assert_eq!(i64::from(ours.previous_timeline.get()), number("Latest checkpoint's PrevTimeLineID"));
    let (epoch, xid) = said["Latest checkpoint's NextXID"].split_once(':').unwrap();
    assert_eq!(ours.next_xid, epoch.parse::<u64>().unwrap() << 32 | xid.parse::<u64>().unwrap());
    assert!(ours.full_page_writes);
    assert_eq!(ours.min_recovery_point, lsn("Minimum recovery ending location"));
    assert_eq!(ours.min_recovery_timeline, None);
    assert_eq!(ours.backup_start, lsn("Backup start location"));
    assert_eq!(ours.backup_end, lsn("Backup end location"));
    assert!(!ours.backup_end_required);
    the_settings_too(&ours, &said);
    let written = std::fs::metadata(cluster.data().join("global/pg_control")).unwrap().modified().unwrap();
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let written = Timestamp::from_unix_seconds(written).unwrap();
    for time in [ours.time, ours.checkpoint_time] {
        let before = written.0 - time.unwrap().0;
        assert!((-1_000_000..10_000_000).contains(&before), "{time:?}");
    }
    damage_is_noticed(&bytes);
}

fn the_settings_too(ours: &ControlFile, said: &BTreeMap<&str, &str>) {
    let number = |name: &str| said[name].parse::<i64>().unwrap_or_else(|_| panic!("{name}: {}", said[name]));
    assert_eq!((ours.wal_level, said["wal_level setting"]), (2, "logical"));
    assert_eq!((ours.wal_log_hints, said["wal_log_hints setting"]), (true, "on"));
    assert_eq!(i64::from(ours.max_connections), number("max_connections setting"));
    assert_eq!(i64::from(ours.max_worker_processes), number("max_worker_processes setting"));
    assert_eq!(i64::from(ours.max_wal_senders), number("max_wal_senders setting"));
    assert_eq!(i64::from(ours.max_prepared_xacts), number("max_prepared_xacts setting"));
    assert_eq!(i64::from(ours.max_locks_per_xact), number("max_locks_per_xact setting"));
    assert_eq!((ours.max_connections, ours.max_locks_per_xact), (33, 77));
    assert_eq!(i64::from(ours.block_size), number("Database block size"));
    assert_eq!(i64::from(ours.relation_segment_size), number("Blocks per segment of large relation"));
    assert_eq!(i64::from(ours.wal_block_size), number("WAL block size"));
    assert_eq!(ours.segment_size.bytes() as i64, number("Bytes per WAL segment"));
    assert_eq!(i64::from(ours.data_checksum_version), number("Data page checksum version"));
}

fn damage_is_noticed(bytes: &[u8]) {
    for at in [0, 17, 100, 180, 287, 290] {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        assert!(matches!(ControlFile::parse(&bytes), Err(ControlFileError::BadCrc { .. })), "{at}");
    }
    assert_eq!(ControlFile::parse(&bytes[..11]), Err(ControlFileError::TooShort { found: 11 }));
    assert_eq!(ControlFile::parse(&bytes[..200]), Err(ControlFileError::TooShort { found: 200 }));
    let mut other = bytes.to_vec();
    other[8] ^= 1;
    assert!(matches!(ControlFile::parse(&other), Err(ControlFileError::UnknownVersion(_))));
}

fn the_label_of_a_backup_is_read(cluster: &Cluster) {
    check(
        std::process::Command::new("install").args(owner()).args(["-d"]).arg(cluster.root.join("space one")),
    );
    let space = cluster.root.join("space one");
    cluster.sql(&format!("CREATE TABLESPACE one LOCATION '{}';", space.display()));
    let new = cluster.sql("SHOW server_version_num").trim().parse::<u32>().unwrap() >= 150_000;
    let (start, stop) = if new {
        ("pg_backup_start('a label', true)", "pg_backup_stop(false)")
    } else {
        ("pg_start_backup('a label', true, false)", "pg_stop_backup(false, false)")
    };
    let script = format!("SELECT {start};\nSELECT labelfile || '|' || spcmapfile FROM {stop};\n");
    let printed = cluster.sql(&script);
    let (start, rest) = printed.split_once('\n').unwrap();
    let (label, map) = rest.split_once('|').unwrap();
    let label = BackupLabel::parse(label).unwrap();
    assert_eq!(label.start, start.parse().unwrap());
    assert_eq!(
        (label.label.as_str(), label.method.as_str(), label.from_standby),
        ("a label", "streamed", false)
    );
    assert!(label.checkpoint > label.start);
    assert_eq!(label.start_timeline.unwrap(), label.start_segment.timeline);
    // psql ends the value with a newline of its own, after the file's.
    let map = tablespace_map::parse(map.as_bytes()).unwrap();
    assert_eq!(map.iter().map(|(_, path)| Path::new(path)).collect::<Vec<_>>(), [space.as_path()]);
}

fn owner() -> &'static [&'static str] {
    let root = std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0);
    if root { &["-o", "postgres", "-g", "postgres"] } else { &[] }
}

fn every_page_has_the_checksum_that_postgresql_gave_it(cluster: &Cluster) {
    let mut sound = 0;
    let mut newest = Lsn::ZERO;
    for directory in ["global", "base/1", "base/5", "base/13", "base/14"] {
        let Ok(files) = std::fs::read_dir(cluster.data().join(directory)) else { continue };
        for file in files.flatten() {
            // Forks of relations: `16384`, `16384_fsm`.
            if !file.file_name().to_str().is_some_and(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
                continue;
            }
            let bytes = std::fs::read(file.path()).unwrap();
            for (number, block) in bytes.chunks(8192).enumerate() {
                match verify_page(block, number as u32) {
                    PageState::Sound => sound += 1,
                    PageState::New => {}
                    PageState::Bad { expected, found } => {
                        panic!("{:?} {number}: {expected} {found}", file.path())
                    }
                }
                newest = newest.max(page_lsn(block));
            }
        }
    }
    assert!(sound > 1000, "{sound} pages");
    assert!(newest > Lsn(0x10_0000), "{newest}");
}
