//! Records that are longer than whole segments: nothing starts in the segments between, and still every
//! moment before, in and after such a record is found and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::{ARCHIVING_LIMIT, Scene};
use walpoint_tests::wait;
use walpoint_tests::wal_dump::{format_lsn, parse_lsn};

/// Five segments of 1 MiB: three of them hold nothing but the middle of the record.
const MESSAGE_BYTES: u64 = 5_000_000;

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t(n int)")?;
    Ok(Some(scene))
}

fn insert(scene: &Scene, n: u32) -> Result<()> {
    scene.cluster.execute(&format!("insert into t values ({n})"))
}

fn now(scene: &Scene) -> Result<String> {
    scene.cluster.value("select clock_timestamp()::text")
}

fn position(scene: &Scene) -> Result<u64> {
    let lsn = scene.cluster.value("select pg_current_wal_insert_lsn()::text")?;
    parse_lsn(&lsn).with_context(|| format!("not an LSN: {lsn}"))
}

/// A message outside of any transaction.
fn emit(scene: &Scene) -> Result<()> {
    let message = format!("select pg_logical_emit_message(false, 'big', repeat('x', {MESSAGE_BYTES}))");
    scene.cluster.execute(&message)
}

fn rows_after(scene: &mut Scene, target: &[&str]) -> Result<String> {
    let recovered = scene.recover(target).with_context(|| format!("restore {}", target.join(" ")));
    let mut restored = recovered?;
    let rows = restored.value("select coalesce(string_agg(n::text, ' ' order by n), 'none') from t")?;
    restored.stop(Stop::Immediate)?;
    std::fs::remove_dir_all(restored.data())?;
    Ok(rows)
}

/// Everything since the one backup can be recovered to, without a break, and `check` has no complaint.
pub fn assert_protected(scene: &Scene) -> Result<()> {
    let (status, window) = scene.walpoint.json(&["window"])?;
    let count = |what: &str| window[what].as_array().map(Vec::len);
    assert_eq!((status, count("ranges"), count("gaps")), (0, Some(1), Some(0)), "{window}");
    scene.walpoint.ok(&["check"]).map(drop)
}

/// The archive has every segment of timeline 1, sound and once.
pub fn assert_whole(scene: &Scene) -> Result<u64> {
    let (status, listing) = scene.walpoint.json(&["list", "--wal"])?;
    assert_eq!(status, 0, "{listing}");
    let timelines = listing["timelines"].as_array().context("no timelines")?;
    assert_eq!(timelines.len(), 1, "{listing}");
    for what in ["gaps", "conflicts", "damaged", "partials"] {
        assert_eq!(timelines[0][what].as_array().map(Vec::len), Some(0), "{what} in {listing}");
    }
    timelines[0]["count"].as_u64().context("no count")
}

#[test]
fn every_moment_around_a_record_over_whole_segments_comes_back() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    insert(&scene, 1)?;
    let (before_time, before) = (now(&scene)?, position(&scene)?);
    emit(&scene)?;
    let after_time = now(&scene)?;
    insert(&scene, 2)?;
    let between_time = now(&scene)?;
    // The commit that counts lies after a message of its own transaction.
    scene.cluster.execute(&format!(
        "begin; insert into t values (3); select pg_logical_emit_message(true, 'big', repeat('y', {MESSAGE_BYTES})); commit"
    ))?;
    let committed = position(&scene)?;
    let last_time = now(&scene)?;
    insert(&scene, 4)?;
    scene.archive_everything()?;
    assert!(assert_whole(&scene)? > 10);
    assert_protected(&scene)?;
    scene.cluster.stop(Stop::Fast)?;

    let middle = format_lsn(before + MESSAGE_BYTES / 2);
    let (before, committed) = (format_lsn(before), format_lsn(committed));
    for (target, rows) in [
        (vec!["--target-time", before_time.as_str()], "1"),
        (vec!["--target-time", &after_time], "1"),
        (vec!["--target-time", &between_time], "1 2"),
        (vec!["--target-time", &last_time], "1 2 3"),
        // The message itself; the first record after its middle, which is the insert without its commit; the
        // first record after the second transaction.
        (vec!["--target-lsn", &before], "1"),
        (vec!["--target-lsn", &middle], "1"),
        (vec!["--target-lsn", &committed], "1 2 3"),
        (vec!["--latest"], "1 2 3 4"),
    ] {
        assert_eq!(rows_after(&mut scene, &target)?, rows, "{}", target.join(" "));
    }
    Ok(())
}

#[test]
fn such_a_record_may_be_the_last_thing_in_the_archive_or_lack_its_end() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    insert(&scene, 1)?;
    let time = now(&scene)?;
    insert(&scene, 2)?;
    scene.archive_everything()?;
    let begin = position(&scene)?;
    emit(&scene)?;
    // The segments that are full are archived; the one with the record's end is not.
    let sql = scene.cluster.sql()?;
    let goal = format_lsn(begin + 3 * 1024 * 1024);
    let flushed = format!("select (pg_current_wal_flush_lsn() > '{goal}')::text");
    wait::until_true("most of the record to be on disk", ARCHIVING_LIMIT, || {
        Ok(sql.value(&flushed)? == "true")
    })?;
    let full = sql.value("select pg_walfile_name(pg_current_wal_flush_lsn() - 1024 * 1024)")?;
    wait::until_true("the full segments to be archived", ARCHIVING_LIMIT, || {
        Ok(sql.value("select coalesce(last_archived_wal, '') from pg_stat_archiver")? >= full)
    })?;
    // Nothing may push the rest while the server stops.
    scene.cluster.kill()?;
    assert_whole(&scene)?;
    assert_eq!(rows_after(&mut scene, &["--target-time", &time])?, "1");
    assert_eq!(rows_after(&mut scene, &["--latest"])?, "1 2");

    scene.cluster.start()?;
    scene.archive_everything()?;
    assert_whole(&scene)?;
    assert_eq!(rows_after(&mut scene, &["--latest"])?, "1 2");
    Ok(())
}

#[test]
fn a_backup_begins_and_ends_between_such_records() -> Result<()> {
    for major in programs::MAJORS {
        let Some(postgres) = programs::postgres(major)? else { continue };
        back_up_between_messages(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn back_up_between_messages(postgres: &Postgres) -> Result<()> {
    let mut scene = Scene::on_directory(postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t(n int)")?;
    let is_done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (sql, is_done) = (scene.cluster.sql()?, Arc::clone(&is_done));
        std::thread::spawn(move || -> Result<u32> {
            for n in 1.. {
                if is_done.load(Ordering::Relaxed) {
                    return Ok(n - 1);
                }
                let message = format!("pg_logical_emit_message(false, 'big', repeat('z', {MESSAGE_BYTES}))");
                sql.execute(&format!("select {message}; insert into t values ({n})"))?;
            }
            Ok(0)
        })
    };
    let backup = scene.backup();
    is_done.store(true, Ordering::Relaxed);
    let count = writer.join().expect("the writer panicked")?;
    backup?;
    scene.archive_everything()?;
    assert_whole(&scene)?;
    scene.cluster.stop(Stop::Fast)?;
    let expected: Vec<String> = (1..=count).map(|n| n.to_string()).collect();
    assert_eq!(rows_after(&mut scene, &["--latest"])?, expected.join(" "));
    // The end of the backup itself.
    let mut restored = scene.recover(&["--target-immediate"])?;
    restored.execute("vacuum t")?;
    restored.stop(Stop::Fast)
}
