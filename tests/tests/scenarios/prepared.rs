//! What lies between the last commit and the target belongs to it too, as it
//! does with PostgreSQL's own time target.

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

/// The server's clock, as a target is written.
const NOW: &str = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 as n")?;
    scene.backup()?;
    Ok(Some(scene))
}

fn rows(cluster: &Cluster) -> Result<String> {
    cluster.value("select string_agg(n::text, ',' order by n) from t")
}

#[test]
fn a_transaction_prepared_after_the_last_commit_is_there_and_can_be_committed() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.cluster.execute("insert into t values (2)")?;
    scene.cluster.execute("begin; insert into t values (3); prepare transaction 'three'")?;
    let moment = scene.cluster.value(NOW)?;
    scene.cluster.execute("insert into t values (4)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let mut restored = scene.recover(&["--target-time", &moment])?;
    assert_eq!(rows(&restored)?, "1,2");
    assert_eq!(restored.value("select gid from pg_prepared_xacts")?, "three");
    restored.execute("commit prepared 'three'")?;
    assert_eq!(rows(&restored)?, "1,2,3");
    restored.stop(Stop::Fast)
}

#[test]
fn a_moment_right_after_the_backup_is_reached_without_a_commit_since() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let moment = scene.cluster.value(NOW)?;
    scene.cluster.execute("insert into t values (2)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--target-time", &moment])?;
    assert_eq!(rows(&restored)?, "1");
    restored.stop(Stop::Fast)
}

#[test]
fn a_moment_after_the_last_record_is_refused_because_nobody_can_know() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.cluster.execute("insert into t values (2)")?;
    scene.archive_everything()?;
    let (status, plan) = scene.walpoint.json(&["plan", "--target-time", "2099-01-01 00:00:00+00"])?;
    assert_eq!(status, 6, "{plan}");
    assert_eq!(plan["reachable"], false, "{plan}");
    assert!(plan["nearest"]["before"]["time"].is_string(), "{plan}");
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(rows(&restored)?, "1,2");
    restored.stop(Stop::Fast)
}
