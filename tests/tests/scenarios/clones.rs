//! A copy of the cluster wakes up with the same timeline: nothing that was
//! acknowledged becomes doubtful, and the operator has a way out.

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

/// A cluster and its file-level copy, both stopped at the same point.
fn twins() -> Result<Option<(Scene, Cluster)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options =
        ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t(who text)")?;
    scene.backup()?;
    scene.cluster.stop(Stop::Fast)?;
    let directory = scene.fresh_directory();
    let status =
        std::process::Command::new("cp").arg("-a").arg(scene.cluster.data()).arg(&directory).status()?;
    assert!(status.success());
    let clone = Cluster::restored(&directory, &scene.cluster)?;
    Ok(Some((scene, clone)))
}

/// Writes a row and switches, without waiting for the archive; the segment.
fn write(cluster: &Cluster, who: &str) -> Result<String> {
    cluster.execute(&format!("insert into t values ('{who}')"))?;
    cluster.value("select pg_walfile_name(pg_switch_wal())")
}

#[test]
fn a_clone_that_wakes_up_second_is_refused_and_harms_nothing() -> Result<()> {
    let Some((mut scene, mut clone)) = twins()? else { return Ok(()) };
    scene.cluster.start()?;
    scene.cluster.execute("insert into t values ('primary')")?;
    let segment = scene.archive_everything()?;
    clone.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    let theirs = write(&clone, "clone")?;
    assert_eq!(segment, theirs, "the twins diverged elsewhere");
    clone.wait_log("walpoint resolve", walpoint_tests::scene::ARCHIVING_LIMIT)?;
    clone.stop(Stop::Immediate)?;

    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(who, ',') from t")?, "primary");
    restored.stop(Stop::Immediate)
}

#[test]
fn check_warns_of_a_refused_content_until_somebody_has_decided() -> Result<()> {
    let Some((mut scene, mut clone)) = twins()? else { return Ok(()) };
    scene.cluster.start()?;
    scene.cluster.execute("insert into t values ('primary')")?;
    let segment = scene.archive_everything()?;
    clone.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    assert_eq!(segment, write(&clone, "clone")?, "the twins diverged elsewhere");
    clone.wait_log("walpoint resolve", walpoint_tests::scene::ARCHIVING_LIMIT)?;
    clone.stop(Stop::Immediate)?;

    let warning = format!("another content of {segment} was refused");
    let checked = scene.walpoint.run(&["check"])?.expect(1)?;
    assert!(checked.stdout.contains(&warning), "{checked}");
    let (_, listing) = scene.walpoint.json(&["list", "--wal", &segment])?;
    let contents = listing["contents"].as_array().context("no contents")?;
    let used = contents.iter().find(|content| content["state"] == "used");
    let keep =
        used.and_then(|used| used["content"].as_str()).with_context(|| format!("none is used: {listing}"))?;
    scene.walpoint.ok(&["resolve", &segment, "--keep", keep])?;
    let checked = scene.walpoint.run(&["check"])?.expect(0)?;
    assert!(!checked.stdout.contains(&warning), "{checked}");
    Ok(())
}

#[test]
fn when_the_clone_was_first_the_operator_decides_for_the_primary() -> Result<()> {
    let Some((mut scene, mut clone)) = twins()? else { return Ok(()) };
    clone.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    clone.execute("insert into t values ('clone')")?;
    let segment = clone.switch_and_wait_archived(walpoint_tests::scene::ARCHIVING_LIMIT)?;
    clone.stop(Stop::Immediate)?;

    scene.cluster.start()?;
    assert_eq!(write(&scene.cluster, "primary")?, segment, "the twins diverged elsewhere");
    scene.cluster.wait_log("walpoint resolve", walpoint_tests::scene::ARCHIVING_LIMIT)?;
    // The refusal says what to do: look at both, then decide. Until then only
    // the clone's is in use.
    let (_, listing) = scene.walpoint.json(&["list", "--wal", &segment])?;
    let contents = listing["contents"].as_array().context("no contents")?;
    assert_eq!(contents.len(), 2, "{listing}");
    let ours = contents.iter().find(|content| content["state"] == "refused");
    let keep = ours.and_then(|ours| ours["content"].as_str()).context("ours is not listed as refused")?;
    scene.walpoint.ok(&["resolve", &segment, "--keep", keep])?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(who, ',') from t")?, "primary");
    restored.stop(Stop::Immediate)
}
