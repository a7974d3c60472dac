//! `restore --delta` into the cluster that is there: what is the same is not fetched, what the backup does not have
//! goes, and a directory in which something is half done starts no server.

mod chain;

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};

const ROWS: &str = "select count(*) || ' ' || sum(n) || ' ' || sum(length(words)) from t";

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute(
        "create table t as select n, repeat(md5(n::text), 20) as words from generate_series(1, 60000) n",
    )?;
    Ok(Some(scene))
}

const LATEST: &[&str] = &["--latest"];
const HERE: &[&str] = &["--target-name", "here"];

fn args<'a>(directory: &'a Path, target: &[&'a str]) -> Result<Vec<&'a str>> {
    let directory = directory.to_str().context("a path")?;
    Ok([&["restore", "--delta", "--data-directory", directory], target].concat())
}

/// All that is in a tree.
fn names(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                pending.push(path.clone());
            }
            found.push(path.strip_prefix(directory)?.display().to_string());
        }
    }
    found.sort();
    Ok(found)
}

#[test]
fn only_what_differs_is_fetched_and_the_result_is_that_of_a_whole_restore() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let elsewhere = scene.cluster.scratch().make_dir("elsewhere")?;
    scene.cluster.execute(&format!("create tablespace apart location '{}'", elsewhere.display()))?;
    scene.cluster.execute("create table u tablespace apart as select n from generate_series(1, 20000) n")?;
    // So that reading it changes no page.
    scene.cluster.execute("vacuum freeze t")?;
    scene.cluster.execute("checkpoint")?;
    scene.backup()?;
    scene.cluster.execute("insert into t values (7, 'after the backup')")?;
    let rows = scene.cluster.value(ROWS)?;
    scene.cluster.execute("select pg_create_restore_point('here')")?;
    scene.archive_everything()?;
    // Another life: all of this has to go again.
    scene
        .cluster
        .execute("update t set n = n + 1 where n < 300; create table later as select 1; drop table u")?;
    scene.cluster.stop(Stop::Fast)?;
    let data = scene.cluster.data().to_owned();
    std::fs::write(data.join("notes"), "by hand")?;
    let hold = data.join("pg_wal/0000000100000000000000FF");
    std::fs::write(&hold, "stale")?;

    let target = scene.fresh_directory();
    let whole = target.to_str().context("a path")?;
    let mapped = scene.cluster.scratch().path().join("mapped");
    let mapping = format!("{}={}", elsewhere.display(), mapped.display());
    let (status, fresh) = scene.walpoint.json(&[
        "restore",
        "--target-name",
        "here",
        "--data-directory",
        whole,
        "--tablespace",
        &mapping,
    ])?;
    assert_eq!(status, 0, "{fresh:#}");
    assert_eq!(fresh["fetched_bytes"], fresh["bytes"]);

    let (status, delta) = scene.walpoint.json(&args(&data, HERE)?)?;
    assert_eq!(status, 0, "{delta:#}");
    let fetched = delta["fetched_bytes"].as_u64().context("bytes")?;
    let all = delta["bytes"].as_u64().context("bytes")?;
    assert!(fetched > 0 && fetched < all / 2, "{fetched} of {all}");
    assert!(!data.join("notes").exists() && !hold.exists());
    assert_eq!(names(&data)?, names(&target)?);
    let mut cluster = Cluster::restored(&data, &scene.cluster)?;
    cluster.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(cluster.value(ROWS)?, rows);
    assert_eq!(cluster.value("select count(*) from u")?, "20000".to_owned());
    cluster.stop(Stop::Fast)
}

/// Of an incremental backup pieces are parts of frames, which are told by the hash of their window.
#[test]
fn an_incremental_backup_is_restored_over_what_is_there() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.cluster.execute("vacuum freeze t")?;
    scene.cluster.execute("checkpoint")?;
    scene.backup()?;
    scene.cluster.execute("update t set words = 'changed ' || words where n % 10000 = 7")?;
    scene.cluster.execute("checkpoint")?;
    scene.walpoint.ok(&["backup", "--incremental"])?;
    let rows = scene.cluster.value(ROWS)?;
    scene.cluster.execute("select pg_create_restore_point('here')")?;
    scene.archive_everything()?;
    // Another life, in pages of both backups.
    scene.cluster.execute("update t set n = n + 1, words = 'x' where n < 300 or n % 10000 = 7")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let data = scene.cluster.data().to_owned();
    let (status, delta) = scene.walpoint.json(&args(&data, HERE)?)?;
    assert_eq!(status, 0, "{delta:#}");
    assert!(delta["backup"].as_str().is_none_or(|id| id.contains("-incr-")), "{delta:#}");
    let count = |field: &str| delta[field].as_u64().context("bytes");
    assert!(count("fetched_bytes")? < count("bytes")? / 2, "{delta:#}");
    let mut cluster = Cluster::restored(&data, &scene.cluster)?;
    cluster.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(cluster.value(ROWS)?, rows);
    cluster.stop(Stop::Fast)
}

#[test]
fn a_killed_delta_restore_starts_no_server_and_is_gone_on_with() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let scratch = scene.cluster.scratch();
    let (apart, mapped) = (scratch.make_dir("apart")?, scratch.path().join("mapped"));
    scene.cluster.execute(&format!("create tablespace apart location '{}'", apart.display()))?;
    scene.cluster.execute("create table u tablespace apart as select n from generate_series(1, 200000) n")?;
    scene.backup()?;
    scene.archive_everything()?;
    let rows = scene.cluster.value(ROWS)?;
    let directory = scene.fresh_directory();
    let mapping = format!("{}={}", apart.display(), mapped.display());
    let latest: &[&str] = &["--latest", "--tablespace", &mapping];
    let begun = Instant::now();
    scene.restore_into(&directory, latest)?.success()?;
    let takes = begun.elapsed();
    let mut broken_off = 0;
    for part in 0..7 {
        // Something to do: a table that is other than it was.
        for file in std::fs::read_dir(directory.join("base"))?.flatten() {
            for table in std::fs::read_dir(file.path())?.flatten() {
                if table.metadata()?.len() > 1 << 20 {
                    std::fs::write(table.path(), vec![7; 3 << 20])?;
                }
            }
        }
        let output = scene.cluster.scratch().path().join("killed.log");
        let mut child =
            scene.walpoint.spawn(Path::new("/"), &args(&directory, latest)?, &File::create(&output)?)?;
        let control_file = directory.join("global/pg_control");
        while control_file.exists() && child.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(takes.mul_f64(f64::from(part) / 8.0));
        child.kill()?;
        child.wait()?;
        if !control_file.exists() {
            broken_off += 1;
            Cluster::restored(&directory, &scene.cluster)?.start_expect_fatal(Duration::from_secs(60))?;
            // Without --delta it is not touched.
            scene.restore_into(&directory, latest)?.expect(7)?;
        }
    }
    assert!(broken_off > 0, "it was never killed in the middle");
    scene.walpoint.run(&args(&directory, latest)?)?.success()?;
    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value(ROWS)?, rows);
    assert_eq!(restored.value("select count(*) from u")?, "200000");
    restored.stop(Stop::Fast)?;
    scene.cluster.stop(Stop::Fast)
}

/// Nothing waits to be archived there, and the server was shut down.
#[test]
fn what_a_promoted_copy_wrote_is_given_up_only_when_that_is_said() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let here = "select count(*) from t where words = 'only here'";
    let mut copy = scene.recover(LATEST)?;
    copy.execute("insert into t values (7, 'only here')")?;
    copy.stop(Stop::Fast)?;
    let refused = scene.walpoint.run(&args(copy.data(), LATEST)?)?.expect(7)?;
    for words in ["on timeline 2", "does not have its WAL: 00000002", "--discard-wal"] {
        assert!(refused.stderr.contains(words), "{words}: {refused}");
    }
    // Another copy becomes the successor, and its timeline 2 is the archive's.
    let mut successor = scene.recover(&["--latest", "--take-over"])?;
    successor.execute("insert into t values (8, 'there')")?;
    successor.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    successor.stop(Stop::Fast)?;
    let refused = scene.walpoint.run(&args(copy.data(), LATEST)?)?.expect(7)?;
    assert!(refused.stderr.contains("WAL of timeline 2 up to there is not the same"), "{refused}");
    copy.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(copy.value(here)?, "1");
    copy.stop(Stop::Fast)?;
    scene.walpoint.run(&args(copy.data(), &["--latest", "--discard-wal"])?)?.success()?;
    copy.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(copy.value(here)?, "0");
    assert_eq!(copy.value("select count(*) from t where words = 'there'")?, "1");
    copy.stop(Stop::Fast)?;
    // What was shut down and has archived all it wrote has nothing to lose.
    scene.walpoint.run(&args(successor.data(), LATEST)?)?.success().map(drop)
}

#[test]
fn a_running_or_a_foreign_cluster_is_not_touched() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    let data = scene.cluster.data().to_owned();
    let running = scene.walpoint.run(&args(&data, LATEST)?)?.expect(7)?;
    assert!(running.stderr.contains("postmaster.pid"), "{running}");
    assert!(data.join("global/pg_control").exists());
    let postgres = programs::distribution_postgres()?.context("PostgreSQL")?;
    let other = Cluster::init(&postgres, ClusterOptions::default())?;
    let before = names(other.data())?;
    let foreign = scene.walpoint.run(&args(other.data(), LATEST)?)?.expect(7)?;
    assert!(foreign.stderr.contains("another cluster"), "{foreign}");
    assert_eq!(names(other.data())?, before);
    let stranger = scene.cluster.scratch().make_dir("stranger")?;
    std::fs::write(stranger.join("letter"), "mine")?;
    scene.walpoint.run(&args(&stranger, LATEST)?)?.expect(7)?;
    assert_eq!(std::fs::read_to_string(stranger.join("letter"))?, "mine");
    scene.cluster.stop(Stop::Fast)
}
