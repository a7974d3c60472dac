//! What came with PostgreSQL 17 and 18: WAL summaries, and checksums that `initdb` switches on by itself.

use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;
use walpoint_tests::wait;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_cluster_that_summarizes_wal_goes_on_with_it_after_a_restore() -> Result<()> {
    for major in [17, 18] {
        let Some(postgres) = programs::postgres(major)? else { continue };
        summarize(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn summarize(postgres: &Postgres) -> Result<()> {
    let options = ClusterOptions { configuration: "summarize_wal = on".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(postgres, options)?;
    scene.cluster.execute("create table t as select g from generate_series(1, 1000) g; checkpoint")?;
    let summaries = "select count(*) from pg_available_wal_summaries()";
    wait::until_true("a summary", LIMIT, || Ok(scene.cluster.value(summaries)? != "0"))?;
    scene.backup()?;
    scene.cluster.execute("insert into t values (0)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let mut restored = scene.restore(&["--latest"])?;
    let directory = restored.data().join("pg_wal/summaries");
    let left = std::fs::read_dir(&directory).context("pg_wal/summaries")?.count();
    assert_eq!(left, 0, "summaries of the primary's WAL were restored");
    restored.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, "1001");
    restored.execute("insert into t values (-1); checkpoint")?;
    wait::until_true("a summary of the restored cluster's own", LIMIT, || {
        Ok(restored.value(summaries)? != "0")
    })
    .with_context(|| restored.log())?;
    restored.stop(Stop::Fast)
}

#[test]
fn checksums_that_are_on_stay_on_and_are_checked_by_the_backup() -> Result<()> {
    let Some(postgres) = programs::postgres(18)? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select g from generate_series(1, 1000) g")?;
    let id = scene.backup()?;
    let (_, listing) = scene.walpoint.json(&["list"])?;
    assert_eq!(listing["backups"][0]["damaged_pages"], 0, "{id}: {listing}");
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("show data_checksums")?, "on");
    assert_eq!(restored.value("select count(*) from t")?, "1000");
    restored.stop(Stop::Fast)
}
