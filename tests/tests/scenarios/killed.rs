//! `kill -9` at any moment costs the try and nothing else: what was acknowledged is
//! there, what is half done does not count, and the next try succeeds.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;

const ROWS: &str = "select count(*) || ' ' || sum(n) from t";

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene
        .cluster
        .execute("create table t as select n, repeat(md5(n::text), 5) from generate_series(1, 20000) n")?;
    Ok(Some(scene))
}

/// Kills at moments spread over the time that the work takes when nobody interferes.
struct Killer {
    random: StdRng,
    takes: Duration,
}

impl Killer {
    fn new(takes: Duration) -> Killer {
        let seed: u64 = rand::random_range(0..1_000_000);
        println!("seed {seed}, the work takes {takes:?}");
        Killer { random: StdRng::seed_from_u64(seed), takes }
    }

    /// Runs walpoint until it is killed. True when it was faster and ended with 0; any
    /// other end of its own is an error.
    fn kills(&mut self, scene: &Scene, directory: &Path, args: &[&str]) -> Result<bool> {
        let output = scene.cluster.scratch().path().join("killed.log");
        let moment = self.takes.mul_f64(self.random.random_range(0.02..1.0));
        let mut child = scene.walpoint.spawn(directory, args, &File::create(&output)?)?;
        // This sleep is the experiment, and nothing depends on what it hits.
        std::thread::sleep(moment);
        child.kill()?;
        let status = child.wait()?;
        println!("{} killed after {moment:?}: {status}", args[0]);
        match status.code() {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(code) => anyhow::bail!("status {code}: {}", std::fs::read_to_string(&output)?),
        }
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

#[test]
fn a_killed_restore_never_starts_and_the_next_one_says_what_is_in_the_way() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    let rows = scene.cluster.value(ROWS)?;
    let directory = scene.fresh_directory();
    let takes = timed(|| scene.restore_into(&directory, &["--latest"])?.success().map(drop))?;
    let mut killer = Killer::new(takes);
    let mut unfinished = None;
    for _ in 0..8 {
        let directory = scene.fresh_directory();
        let data = directory.to_str().context("a path")?;
        killer.kills(&scene, Path::new("/"), &["restore", "--latest", "--data-directory", data])?;
        if directory.join("global/pg_control").exists() {
            // The last step of all: what is there is whole.
            let mut restored = Cluster::restored(&directory, &scene.cluster)?;
            restored.start_expect_ready(RECOVERY_LIMIT)?;
            assert_eq!(restored.value(ROWS)?, rows);
            restored.stop(Stop::Fast)?;
        } else if directory.exists() && std::fs::read_dir(&directory)?.next().is_some() {
            let again = scene.restore_into(&directory, &["--latest"])?.expect(7)?;
            assert!(again.stderr.contains("did not end") && again.stderr.contains("hint: "), "{again}");
            unfinished = Some(directory);
        }
    }
    if let Some(directory) = unfinished {
        Cluster::restored(&directory, &scene.cluster)?.start_expect_fatal(RECOVERY_LIMIT)?;
        std::fs::remove_dir_all(&directory)?;
        scene.restore_into(&directory, &["--latest"])?.success()?;
        let mut restored = Cluster::restored(&directory, &scene.cluster)?;
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        assert_eq!(restored.value(ROWS)?, rows);
        restored.stop(Stop::Fast)?;
    }
    scene.cluster.stop(Stop::Fast)
}

#[test]
fn what_a_killed_push_acknowledged_is_there_and_the_next_try_succeeds() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    // From here on only this test pushes.
    let sql = scene.cluster.sql()?;
    sql.execute("alter system set archive_command = 'exit 1'")?;
    sql.execute("select pg_reload_conf()")?;
    wait::until_true("the settings to be read", Duration::from_secs(10), || {
        Ok(scene.cluster.value("show archive_command")? == "exit 1")
    })?;
    let mut segments = Vec::new();
    for _ in 0..13 {
        sql.execute("insert into t select 1, repeat(md5(random()::text), 5) from generate_series(1, 1000)")?;
        segments.push(sql.value("select pg_walfile_name(pg_switch_wal())")?);
    }
    let data = scene.cluster.data().to_owned();
    let path = |segment: &str| format!("pg_wal/{segment}");
    let first = path(&segments.remove(0));
    let takes = timed(|| scene.walpoint.run_in(&data, &["archive-push", &first])?.success().map(drop))?;
    let mut killer = Killer::new(takes);
    let fetched = scene.cluster.scratch().path().join("fetched");
    let fetched_name = fetched.to_str().context("a path")?;
    for segment in &segments {
        let source = path(segment);
        let acknowledged = killer.kills(&scene, &data, &["archive-push", &source])?;
        let get = ["archive-get", segment, fetched_name];
        if acknowledged {
            scene.walpoint.run_in(&data, &get)?.success()?;
        }
        scene.walpoint.run_in(&data, &["archive-push", &source])?.success()?;
        scene.walpoint.run_in(&data, &get)?.success()?;
        assert!(std::fs::read(&fetched)? == std::fs::read(data.join(&source))?, "{segment}");
    }
    sql.execute("alter system reset archive_command")?;
    sql.execute("select pg_reload_conf()")?;
    drop(sql);
    scene.cluster.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    let rows = scene.cluster.value(ROWS)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value(ROWS)?, rows);
    restored.stop(Stop::Fast)?;
    scene.cluster.stop(Stop::Fast)
}

#[test]
fn a_killed_backup_is_none_and_the_next_one_is_whole() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let takes = timed(|| scene.backup().map(drop))?;
    let mut killer = Killer::new(takes);
    let mut taken = 1;
    for _ in 0..6 {
        taken += usize::from(killer.kills(&scene, Path::new("/"), &["backup"])?);
        let listed = backups(&scene)?;
        // Killed after the summary was stored and before anybody was told: it is whole.
        assert!(listed == taken || listed == taken + 1, "{listed} listed, {taken} acknowledged");
        taken = listed;
    }
    let id = scene.backup()?;
    assert_eq!(backups(&scene)?, taken + 1);
    let rows = scene.cluster.value(ROWS)?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--target-immediate", "--backup", &id])?;
    assert_eq!(restored.value(ROWS)?, rows);
    restored.execute("vacuum (freeze)")?;
    restored.stop(Stop::Fast)
}

fn backups(scene: &Scene) -> Result<usize> {
    let (_, list) = scene.walpoint.json(&["list"])?;
    list["backups"].as_array().map(Vec::len).with_context(|| format!("no backups in {list}"))
}
