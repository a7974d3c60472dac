//! What an ordinary failover leaves behind. Recovery shows the right rows or
//! refuses; it never opens short, and never on the wrong branch.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{Cluster, ClusterOptions, SUPERUSER, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;
use walpoint_tests::wal_dump::{dump, format_lsn, parse_lsn};

const REFUSAL_LIMIT: Duration = Duration::from_secs(90);

/// A scene whose table has three segments of common rows behind a backup.
fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    common_rows(Scene::on_directory(&postgres, keeping_wal())?).map(Some)
}

fn keeping_wal() -> ClusterOptions {
    ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() }
}

fn common_rows(scene: Scene) -> Result<Scene> {
    scene.cluster.execute("create table t(branch text, n int)")?;
    scene.backup()?;
    for number in 1..=3 {
        scene.cluster.execute(&format!("insert into t values ('common', {number})"))?;
        scene.archive_everything()?;
    }
    Ok(scene)
}

fn rows(cluster: &Cluster) -> Result<String> {
    cluster.value("select string_agg(branch || n, ',' order by branch, n) from t")
}

/// The original is stopped; its successor took over on timeline 2, wrote two
/// rows and has archived them.
fn fail_over(scene: &mut Scene) -> Result<Cluster> {
    scene.cluster.stop(Stop::Fast)?;
    let mut successor = scene.recover(&["--latest", "--take-over"])?;
    assert_eq!(rows(&successor)?, "common1,common2,common3");
    for number in 1..=2 {
        successor.execute(&format!("insert into t values ('new', {number})"))?;
        successor.switch_and_wait_archived(RECOVERY_LIMIT)?;
    }
    successor.stop(Stop::Fast)?;
    Ok(successor)
}

/// Names of the whole segments of a timeline in the archive, ascending.
fn segments(scene: &Scene, timeline: u32) -> Result<Vec<String>> {
    let prefix = format!("{timeline:08X}");
    let files = archive_files::named(scene.archive_directory()?, &prefix);
    let names = files.iter().filter_map(|path| path.file_name()?.to_str()?.split_once('-'));
    let mut names: Vec<String> = names
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.len() == 24 && name.starts_with(&prefix))
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

#[test]
fn both_branches_come_back_each_with_its_own_rows() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    fail_over(&mut scene)?;
    let mut newest = scene.recover(&["--latest"])?;
    assert_eq!(rows(&newest)?, "common1,common2,common3,new1,new2");
    newest.stop(Stop::Immediate)?;
    let mut oldest = scene.recover(&["--latest", "--target-timeline", "1"])?;
    assert_eq!(rows(&oldest)?, "common1,common2,common3");
    oldest.stop(Stop::Immediate)
}

#[test]
fn a_hole_in_the_parent_behind_the_fork_is_a_gap() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    fail_over(&mut scene)?;
    // Never archived: the last segments of timeline 1. No later segment of
    // that timeline exists, only the child's.
    let fork = segments(&scene, 2)?.first().context("no segment of timeline 2")?.clone();
    let parents = segments(&scene, 1)?;
    let lost: Vec<&String> = parents.iter().filter(|name| name[8..] < fork[8..]).rev().take(2).collect();
    for name in
        [&lost[..], &parents.iter().filter(|name| name[8..] >= fork[8..]).collect::<Vec<_>>()].concat()
    {
        archive_files::remove(scene.archive_directory()?, name)?;
    }

    let (status, plan) = scene.walpoint.json(&["plan", "--latest", "--target-timeline", "2"])?;
    assert_eq!(status, 6, "{plan}");
    // Whoever looks before anything is planned sees it, too.
    let hole = |gap: &serde_json::Value| gap["last"] == lost[0].as_str();
    let (_, window) = scene.walpoint.json(&["window"])?;
    let gap = window["gaps"].as_array().context("gaps")?.iter().find(|gap| hole(gap));
    let gap = gap.with_context(|| format!("no gap up to {}: {window:#}", lost[0]))?;
    assert_eq!((&gap["timeline"], &gap["first"]), (&1.into(), &lost[1].as_str().into()), "{window:#}");
    let (_, wal) = scene.walpoint.json(&["list", "--wal"])?;
    let gaps = wal["timelines"][0]["gaps"].as_array().context("gaps")?;
    assert!(gaps.iter().any(hole), "{wal:#}");

    let directory = scene.fresh_directory();
    scene.restore_into(&directory, &["--latest", "--target-timeline", "2"])?.expect(6)?;

    let mut by_hand = scene.restore_by_hand("2")?;
    let log = by_hand.start_expect_fatal(REFUSAL_LIMIT)?;
    assert!(log.contains(lost[1].as_str()), "{log}");
    Ok(())
}

#[test]
fn the_old_branch_is_never_replayed_for_the_new_one() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    fail_over(&mut scene)?;
    // The old primary comes back and goes on, on timeline 1.
    scene.cluster.start()?;
    for number in 1..=3 {
        scene.cluster.execute(&format!("insert into t values ('old', {number})"))?;
        scene.archive_everything()?;
    }
    scene.cluster.stop(Stop::Fast)?;
    // Of the new branch only the history was archived.
    for name in segments(&scene, 2)? {
        archive_files::remove(scene.archive_directory()?, &name)?;
    }
    let mut restored = scene.recover(&["--latest", "--target-timeline", "2"])?;
    assert_eq!(rows(&restored)?, "common1,common2,common3");
    restored.stop(Stop::Immediate)?;
    let mut old = scene.recover(&["--latest", "--target-timeline", "1"])?;
    assert_eq!(rows(&old)?, "common1,common2,common3,old1,old2,old3");
    old.stop(Stop::Immediate)
}

#[test]
fn a_target_in_a_segments_last_records_is_reached_without_the_next_segment() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let (next, targets) = last_records(&mut scene)?;
    archive_files::remove(scene.archive_directory()?, &next)?;
    for target in targets {
        let mut restored = scene.restore(&["--target-lsn", &format_lsn(target.lsn)])?;
        target.judge(&mut restored)?;
    }
    Ok(())
}

#[test]
fn a_target_in_a_segments_last_records_is_reached_while_the_next_segment_cannot_be_had() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let mut scene = common_rows(Scene::start(Cluster::init(&postgres, keeping_wal())?, place)?)?;
    let (next, targets) = last_records(&mut scene)?;
    for (number, target) in targets.into_iter().enumerate() {
        let mut restored = scene.restore(&["--target-lsn", &format_lsn(target.lsn)])?;
        // A store that is busy is waited for a while each time: once is enough.
        let fault =
            if number == 0 { Fault::status(503, "SlowDown") } else { Fault::status(403, "AccessDenied") };
        proxy.forget_requests();
        proxy.add(Rule::new(fault).target(&next));
        target.judge(&mut restored)?;
        // The very last record is where PostgreSQL is sure to have asked for what follows.
        let reads_ahead = scene.cluster.postgres.major >= 15;
        ensure!(number > 0 || !reads_ahead || proxy.count("GET", &next) > 0, "the fault befell nobody");
        proxy.clear();
    }
    Ok(())
}

/// A record among the last 40 of a segment.
struct LastRecord {
    lsn: u64,
    /// Whether it is the commit of the last rows, or comes after it.
    is_after_commit: bool,
}

impl LastRecord {
    /// Starts what was restored to it.
    fn judge(&self, restored: &mut Cluster) -> Result<()> {
        let about = || format!("the record at {}", format_lsn(self.lsn));
        restored.start_expect_ready(RECOVERY_LIMIT).with_context(about)?;
        ensure!(rows(restored)? == "common1,common2,common3,common4", "{}", about());
        let expected = if self.is_after_commit { "60" } else { "0" };
        ensure!(restored.value("select count(*) from last")? == expected, "{}", about());
        restored.stop(Stop::Immediate)?;
        Ok(std::fs::remove_dir_all(restored.data())?)
    }
}

/// Fills a segment whose last records are many small ones, and stops. The name of the segment after it, and
/// five of those records, the last one before the switch first.
fn last_records(scene: &mut Scene) -> Result<(String, Vec<LastRecord>)> {
    scene.cluster.execute("create table last(n int); insert into t values ('common', 4)")?;
    scene.cluster.execute("insert into last select generate_series(1, 60)")?;
    let segment = scene.archive_everything()?;
    let next = scene.archive_everything()?;
    scene.archive_everything()?;
    let (start, pg_wal) = (segment_start(&segment), scene.cluster.data().join("pg_wal"));
    let records = dump(&scene.cluster.postgres, &pg_wal, 1, start, Some(start + (1 << 20)))?;
    scene.cluster.stop(Stop::Fast)?;
    let commit = records.iter().rev().find(|record| record.description.starts_with("COMMIT"));
    let commit = commit.context("no commit in the segment")?.lsn;
    // Behind the last of these comes the switch.
    let last = records.len() - 2;
    ensure!(last > 40, "only {} records in {segment}", records.len());
    let record = |back: usize| {
        let lsn = records[last - back].lsn;
        LastRecord { lsn, is_after_commit: lsn >= commit }
    };
    Ok((next, [0, 1, 2, 12, 39].map(record).into()))
}

/// Where a segment of 1 MiB starts.
fn segment_start(name: &str) -> u64 {
    let (log, segment) = (&name[8..16], u64::from_str_radix(&name[16..], 16).unwrap());
    parse_lsn(&format!("{log}/{:X}", segment << 20)).unwrap()
}

#[test]
fn a_target_in_the_fork_segment_is_found_in_the_childs_copy() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let mut standby = scene.restore(&[
        "--standby",
        "--primary-conninfo",
        &format!("host={} port=5432 user={SUPERUSER}", scene.cluster.socket_directory().display()),
    ])?;
    // This standby's operator has it archive once it is promoted.
    standby.override_settings(&format!(
        "archive_mode = on\narchive_command = '{} archive-push %p'",
        scene.walpoint.hook_prefix()
    ))?;
    standby.launch()?;
    scene.cluster.execute("insert into t values ('common', 4)")?;
    let target = scene.cluster.value("select pg_current_wal_flush_lsn()::text")?;
    scene.cluster.execute("insert into t values ('common', 5)")?;
    let flushed = scene.cluster.value("select pg_current_wal_flush_lsn()::text")?;
    wait::until_true("the standby to catch up", RECOVERY_LIMIT, || {
        let query = format!("select (coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{flushed}')::text");
        Ok(standby.value(&query).is_ok_and(|caught_up| caught_up == "true"))
    })
    .with_context(|| standby.log())?;
    scene.cluster.kill()?;
    standby.execute("select pg_promote()")?;
    standby.wait_open(RECOVERY_LIMIT)?;
    standby.execute("insert into t values ('new', 1)")?;
    standby.switch_and_wait_archived(RECOVERY_LIMIT)?;
    standby.stop(Stop::Fast)?;
    assert!(
        !archive_files::named(scene.archive_directory()?, ".partial").is_empty(),
        "the shape was not staged: {}",
        standby.log()
    );

    let mut restored = scene.recover(&["--target-lsn", &target, "--exclusive"])?;
    assert_eq!(rows(&restored)?, "common1,common2,common3,common4");
    restored.stop(Stop::Immediate)?;
    let mut newest = scene.recover(&["--latest"])?;
    assert_eq!(rows(&newest)?, "common1,common2,common3,common4,common5,new1");
    newest.stop(Stop::Immediate)
}
