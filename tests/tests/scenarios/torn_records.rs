//! A crash in the midst of a record that spans segments: the segments with its beginning are archived, its
//! end was never written, and the next record says that it overwrites it. Recovery goes across.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Sql, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;
use walpoint_tests::wal_dump::{self, DumpedRecord, parse_lsn};

use super::spanning_records::{assert_protected, assert_whole};

/// A record is torn by nearly every crash; so many that none is torn do not happen.
const MOST_CRASHES: usize = 10;
/// How many torn records the scenario wants to cross.
const ENOUGH: usize = 2;

/// What the primary itself showed, at a moment when nobody wrote.
struct Shown {
    time: String,
    rows: String,
}

fn shown(sql: &Sql) -> Result<Shown> {
    let rows = sql.value("select count(*) || ' ' || coalesce(sum(n), 0) from t")?;
    Ok(Shown { time: sql.value("select clock_timestamp()::text")?, rows })
}

/// Writes rows and messages of 5 MB on one connection until the server dies under it.
fn crash_while_writing(cluster: &mut Cluster, first: u32) -> Result<()> {
    let sql = cluster.sql()?;
    let writer = std::thread::spawn(move || {
        for n in first.. {
            let written = sql.execute(&format!(
                "insert into t values ({n}); select pg_logical_emit_message(false, 'big', repeat('x', 5000000))"
            ));
            if written.is_err() {
                return;
            }
        }
    });
    // Not a wait: any moment will do.
    std::thread::sleep(Duration::from_millis(rand::rng().random_range(100..500)));
    cluster.stop(Stop::Crash)?;
    writer.join().ok().context("the writer panicked")?;
    cluster.start()
}

fn overwrites(records: &[DumpedRecord]) -> usize {
    records.iter().filter(|record| record.description.starts_with("OVERWRITE_CONTRECORD")).count()
}

#[test]
fn recovery_crosses_records_that_a_crash_tore() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    // pg_waldump reads the primary's own WAL, so it has to stay.
    let options =
        ClusterOptions { configuration: "wal_keep_size = '4GB'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t(n bigint)")?;
    let start = scene.cluster.value("select pg_current_wal_insert_lsn()::text")?;
    let start = parse_lsn(&start).context("not an LSN")?;
    scene.backup()?;

    let mut moments = Vec::new();
    for crash in 1..=MOST_CRASHES {
        let records =
            wal_dump::dump(&scene.cluster.postgres, &scene.cluster.data().join("pg_wal"), 1, start, None)?;
        if overwrites(&records) >= ENOUGH {
            break;
        }
        crash_while_writing(&mut scene.cluster, 1_000_000 * u32::try_from(crash)?)?;
        let sql = scene.cluster.sql()?;
        moments.push(shown(&sql)?);
        sql.execute("insert into t values (0)")?;
    }
    let records =
        wal_dump::dump(&scene.cluster.postgres, &scene.cluster.data().join("pg_wal"), 1, start, None)?;
    let torn = overwrites(&records);
    let overwriting = records.iter().filter(|it| it.description.starts_with("OVERWRITE_CONTRECORD"));
    let places: Vec<String> = overwriting.map(|it| wal_dump::format_lsn(it.lsn)).collect();
    println!("{torn} records torn by {} crashes, overwritten at {places:?}", moments.len());
    offer_everything(&scene)?;
    scene.archive_everything()?;
    assert!(torn > 0, "no crash tore a record");
    let count = assert_whole(&scene)?;
    assert_protected(&scene)?;
    let last = shown(&scene.cluster.sql()?)?;
    scene.cluster.stop(Stop::Fast)?;
    println!("{count} segments");

    for moment in &moments {
        let restored = come_back(&mut scene, &["--target-time", &moment.time])?;
        assert_eq!(restored, moment.rows, "at {}", moment.time);
    }
    assert_eq!(come_back(&mut scene, &["--latest"])?, last.rows);
    // Right at the record that overwrites, and at the one that was torn.
    for record in records.iter().filter(|record| record.description.starts_with("OVERWRITE_CONTRECORD")) {
        let torn = record.description.split_whitespace().nth(2).map(|lsn| lsn.trim_end_matches(';'));
        let torn = torn.with_context(|| format!("no LSN in {record:?}"))?;
        let at_torn = come_back(&mut scene, &["--target-lsn", torn])?;
        let after = come_back(&mut scene, &["--target-lsn", &wal_dump::format_lsn(record.lsn)])?;
        assert_eq!(at_torn, after, "the torn record is not there: {record:?}");
    }
    Ok(())
}

/// A crash just after a segment was full can leave it without its `.ready` file. PostgreSQL makes up for that
/// when it would remove the segment, and as long as `wal_keep_size` keeps it, it does not.
fn offer_everything(scene: &Scene) -> Result<()> {
    let status = scene.cluster.data().join("pg_wal/archive_status");
    let sql = scene.cluster.sql()?;
    sql.execute("alter system set wal_keep_size = 0")?;
    sql.execute("select pg_reload_conf()")?;
    wait::until_true("the setting to be read", ARCHIVING_LIMIT, || {
        Ok(scene.cluster.value("show wal_keep_size")? == "0")
    })?;
    sql.execute("select pg_create_restore_point('offer'); select pg_switch_wal()")?;
    sql.execute("checkpoint")?;
    wait::until_true("every offered segment to be archived", ARCHIVING_LIMIT, || {
        Ok(walpoint_tests::archive_files::named(&status, ".ready").is_empty())
    })
}

#[test]
fn recovery_crosses_torn_records_of_every_major() -> Result<()> {
    for major in programs::MAJORS {
        let Some(postgres) = programs::postgres(major)? else { continue };
        cross(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

/// Without `pg_waldump`: the server that replays a record that overwrites another says so.
fn cross(postgres: &Postgres) -> Result<()> {
    // No commit follows the record, and the writer of WAL sleeps: the record's end is in memory only.
    let options =
        ClusterOptions { configuration: "wal_writer_delay = '10s'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(postgres, options)?;
    scene.cluster.execute("create table t(n bigint)")?;
    scene.backup()?;
    for n in 1..=2 {
        let emit = "select pg_logical_emit_message(false, 'big', repeat('x', 5000000))";
        scene.cluster.execute(&format!("insert into t values ({n})"))?;
        scene.cluster.execute(emit)?;
        scene.cluster.stop(Stop::Crash)?;
        scene.cluster.start()?;
    }
    let expected = shown(&scene.cluster.sql()?)?.rows;
    scene.archive_everything()?;
    assert_whole(&scene)?;
    assert_protected(&scene)?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(shown(&restored.sql()?)?.rows, expected);
    let crossed = restored.log().matches("successfully skipped missing contrecord").count();
    println!("PostgreSQL {}: crossed {crossed} torn records", postgres.major);
    assert!(crossed > 0, "no crash tore a record\n{}", restored.log());
    restored.stop(Stop::Immediate)
}

/// The fork of a new timeline is where a record began whose middle is in the archive and whose end is not.
#[test]
fn a_new_timeline_begins_where_a_torn_record_did() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t(n bigint)")?;
    scene.backup()?;
    crash_and_stay_down(&mut scene)?;
    let mut next = scene.restore(&["--latest", "--take-over"])?;
    next.start_expect_ready(RECOVERY_LIMIT)?;
    let at_fork = shown(&next.sql()?)?;
    next.execute("insert into t values (0)")?;
    let segment = next.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    assert!(segment.starts_with("00000002"), "{segment}");
    let last = shown(&next.sql()?)?;
    next.stop(Stop::Fast)?;
    let (_, listing) = scene.walpoint.json(&["list", "--wal"])?;
    for timeline in listing["timelines"].as_array().context("no timelines")? {
        assert_eq!(timeline["damaged"].as_array().map(Vec::len), Some(0), "{listing}");
    }
    assert_eq!(come_back(&mut scene, &["--target-time", &at_fork.time])?, at_fork.rows);
    assert_eq!(come_back(&mut scene, &["--latest"])?, last.rows);
    assert_eq!(come_back(&mut scene, &["--latest", "--target-timeline", "1"])?, at_fork.rows);
    Ok(())
}

/// Crashes when the archive has the beginning of a record of 5 MB and cannot have its end.
fn crash_and_stay_down(scene: &mut Scene) -> Result<()> {
    let sql = scene.cluster.sql()?;
    sql.execute("insert into t values (1)")?;
    let before = sql.value("select pg_walfile_name(pg_current_wal_insert_lsn())")?;
    let emit = "select pg_logical_emit_message(false, 'big', repeat('x', 5000000))";
    scene.cluster.execute(emit)?;
    let archived = "select coalesce(last_archived_wal, '') from pg_stat_archiver";
    wait::until_true("the beginning to be archived", ARCHIVING_LIMIT, || Ok(sql.value(archived)? > before))?;
    scene.cluster.stop(Stop::Crash)
}

fn come_back(scene: &mut Scene, target: &[&str]) -> Result<String> {
    let mut restored = scene.recover(target).with_context(|| format!("restore {}", target.join(" ")))?;
    let rows = shown(&restored.sql()?)?.rows;
    restored.stop(Stop::Immediate)?;
    std::fs::remove_dir_all(restored.data())?;
    Ok(rows)
}
