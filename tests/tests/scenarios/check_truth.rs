//! What `check` says when nobody else would: PostgreSQL believes that all is
//! archived, or archives all and it is not what a restore takes.

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;
use walpoint_tests::walpoint::Walpoint;

/// A scene with a backup and a table, and a `check` that gives nothing time.
fn scene(configuration: &str) -> Result<Option<(Scene, Walpoint)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options = ClusterOptions { configuration: configuration.into(), ..ClusterOptions::default() };
    let scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    scene.archive_everything()?;
    let sharp = scene.walpoint.with_config(|text| format!("{text}\n[check]\nin_flight = \"0s\"\n"))?;
    sharp.run(&["check"])?.expect(0)?;
    Ok(Some((scene, sharp)))
}

/// Writes a row and ends its segment, whose name is returned once PostgreSQL
/// calls it archived.
fn write_and_switch(cluster: &Cluster) -> Result<String> {
    cluster.execute("insert into t values (1)")?;
    cluster.switch_and_wait_archived(RECOVERY_LIMIT)
}

/// By a restart: nobody can see when the archiver has taken up a reload. An immediate one, so that the old
/// command is given nothing more.
fn archive_with(cluster: &mut Cluster, statement: &str) -> Result<()> {
    cluster.execute(statement)?;
    cluster.stop(Stop::Immediate)?;
    cluster.start()
}

#[test]
fn an_archive_command_that_lies_is_found_out() -> Result<()> {
    let Some((mut scene, sharp)) = scene("wal_keep_size = '1GB'")? else { return Ok(()) };
    archive_with(&mut scene.cluster, "alter system set archive_command = '/bin/true'")?;
    let (first, second) = (write_and_switch(&scene.cluster)?, write_and_switch(&scene.cluster)?);

    let said = sharp.run(&["check"])?.expect(2)?;
    for text in [&first, &second, "reported success", "does not call walpoint archive-push"] {
        assert!(said.stdout.contains(text), "{text} is not said\n{said}");
    }
    assert!(!said.stdout.contains("wal_lag=0.000s"), "{said}");
    let (_, report) = sharp.json(&["check"])?;
    assert_eq!(report["missing"], serde_json::json!([first, second]), "{report}");

    // With ours back the hole stays a hole until it is filled from pg_wal.
    archive_with(&mut scene.cluster, "alter system reset archive_command")?;
    write_and_switch(&scene.cluster)?;
    let said = sharp.run(&["check"])?.expect(2)?;
    assert!(said.stdout.contains(&first) && !said.stdout.contains("does not call"), "{said}");
    for name in [&first, &second] {
        let path = format!("pg_wal/{name}");
        sharp.run_in(scene.cluster.data(), &["archive-push", &path])?.success()?;
    }
    sharp.run(&["check"])?.expect(0)?;
    Ok(())
}

#[test]
fn wal_that_is_nowhere_any_more_needs_a_backup() -> Result<()> {
    let Some((mut scene, sharp)) = scene("wal_keep_size = 0\nmin_wal_size = '2MB'\nmax_wal_size = '2MB'")?
    else {
        return Ok(());
    };
    archive_with(&mut scene.cluster, "alter system set archive_command = '/bin/true'")?;
    let lost = write_and_switch(&scene.cluster)?;
    wait::until_true("PostgreSQL to remove the segment", RECOVERY_LIMIT, || {
        write_and_switch(&scene.cluster)?;
        scene.cluster.execute("checkpoint")?;
        Ok(!scene.cluster.data().join("pg_wal").join(&lost).exists())
    })?;
    let said = scene.walpoint.run(&["check"])?.expect(2)?;
    assert!(said.stdout.contains(&lost) && said.stdout.contains("take a base backup"), "{said}");
    archive_with(&mut scene.cluster, "alter system reset archive_command")?;
    scene.backup()?;
    sharp.run(&["check"])?.expect(0)?;
    Ok(())
}

#[test]
fn a_primary_that_was_left_behind_is_critical_when_it_comes_back() -> Result<()> {
    let Some((mut scene, sharp)) = scene("")? else { return Ok(()) };
    scene.cluster.stop(Stop::Fast)?;
    let mut successor = scene.recover(&["--latest", "--take-over"])?;
    write_and_switch(&successor)?;
    let successors = scene.walpoint_for(&successor)?;
    successors.ok(&["take-over"])?;
    successors.run(&["check"])?.expect(0)?;
    successor.stop(Stop::Fast)?;

    scene.cluster.start()?;
    write_and_switch(&scene.cluster)?;
    let said = sharp.run(&["check"])?.expect(2)?;
    assert!(said.stdout.contains("follows timeline 2"), "{said}");
    let (_, plan) = scene.walpoint.json(&["plan", "--latest"])?;
    let warnings = plan["warnings"].as_array().expect("a plan has warnings");
    let is_named = |it: &serde_json::Value| it.as_str().is_some_and(|it| it.contains("--target-timeline 1"));
    assert!(warnings.iter().any(is_named), "{plan}");
    let said = scene.walpoint.ok(&["plan", "--latest"])?;
    assert!(said.stdout.contains("warning"), "{said}");
    Ok(())
}

#[test]
fn a_standby_is_no_alarm_until_it_is_promoted() -> Result<()> {
    let Some((mut scene, _)) = scene("")? else { return Ok(()) };
    let conninfo = scene.cluster.connection("postgres");
    let mut standby = scene.restore(&["--standby", "--primary-conninfo", &conninfo])?;
    standby.launch()?;
    wait::until_true("the standby to answer", RECOVERY_LIMIT, || Ok(standby.value("select 1").is_ok()))?;
    let walpoint = scene.walpoint_for(&standby)?;
    let said = walpoint.run(&["check"])?.expect(0)?;
    assert!(said.stdout.contains("a standby, its primary archives"), "{said}");
    standby.execute("select pg_promote()")?;
    let said = walpoint.run(&["check"])?.expect(2)?;
    assert!(said.stdout.contains("archive_mode is off"), "{said}");
    Ok(())
}
