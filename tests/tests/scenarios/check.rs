//! `check` as a monitoring system sees it, on both sides of its thresholds.

use std::time::Duration;

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::process::Outcome;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::wait;
use walpoint_tests::walpoint::Walpoint;

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    Scene::on_directory(&postgres, ClusterOptions::default()).map(Some)
}

fn with_thresholds(scene: &Scene, lines: &str) -> Result<Walpoint> {
    scene.walpoint.with_config(|text| format!("{text}\n[check]\n{lines}\n"))
}

#[test]
fn a_healthy_cluster_is_ok_and_one_without_a_backup_is_not() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    scene.archive_everything()?;
    scene.walpoint.run(&["check"])?.expect(2)?;
    scene.backup()?;
    let outcome = scene.walpoint.run(&["check"])?.expect(0)?;
    let line = outcome.stdout.trim_end();
    assert!(!line.contains('\n') && line.contains("OK") && line.contains('|'), "{outcome}");
    scene.walpoint.run(&["check", "--probe"])?.expect(0)?;
    scene.cluster.execute("alter system set fsync = off")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    let warned = |outcome: &Outcome| outcome.code() == 1 && outcome.stdout.contains("fsync is off");
    wait::until_true("check to warn of fsync", Duration::from_secs(30), || {
        Ok(warned(&scene.walpoint.run(&["check"])?))
    })?;
    Ok(())
}

#[test]
fn a_stopped_archiver_is_a_warning_and_then_critical() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    scene.archive_everything()?;
    scene.backup()?;
    scene.cluster.execute("alter system set archive_command = 'false'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    scene.cluster.execute("create table t as select g from generate_series(1, 1000) g")?;
    scene.cluster.execute("select pg_switch_wal()")?;

    let patient = with_thresholds(&scene, "wal_lag_warning = \"1h\"\nwal_lag_critical = \"2h\"")?;
    let warned = with_thresholds(&scene, "wal_lag_warning = \"1s\"\nwal_lag_critical = \"2h\"")?;
    let alarmed = with_thresholds(&scene, "wal_lag_warning = \"1s\"\nwal_lag_critical = \"2s\"")?;
    for (walpoint, status) in [(&warned, 1), (&alarmed, 2)] {
        wait::until_true(&format!("check to say {status}"), Duration::from_secs(30), || {
            Ok(walpoint.run(&["check"])?.code() == status)
        })?;
    }
    let outcome = patient.run(&["check"])?;
    assert!(outcome.code() < 2, "a lag of seconds is not critical when hours are allowed\n{outcome}");
    Ok(())
}

#[test]
fn the_age_of_the_last_backup_counts() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    let warned = with_thresholds(&scene, "backup_age_warning = \"1s\"\nbackup_age_critical = \"2h\"")?;
    let alarmed = with_thresholds(&scene, "backup_age_warning = \"1s\"\nbackup_age_critical = \"2s\"")?;
    for (walpoint, status) in [(&warned, 1), (&alarmed, 2)] {
        wait::until_true(&format!("check to say {status}"), Duration::from_secs(30), || {
            Ok(walpoint.run(&["check"])?.code() == status)
        })?;
    }
    scene.walpoint.run(&["check"])?.expect(0)?;
    Ok(())
}

#[test]
fn a_database_or_a_store_that_does_not_answer_is_critical_and_a_bad_configuration_unknown() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    let lost = scene.walpoint.with_config(|text| text.replace("/archive\"", "/gone\""))?;
    lost.run(&["check"])?.expect(2)?;
    let broken = scene.walpoint.with_config(|text| format!("{text}\n[chek]\nx = 1\n"))?;
    broken.run(&["check"])?.expect(3)?;
    scene.walpoint.run(&["check", "--bogus"])?.expect(3)?;
    scene.cluster.stop(Stop::Fast)?;
    scene.walpoint.run(&["check"])?.expect(2)?;
    Ok(())
}
