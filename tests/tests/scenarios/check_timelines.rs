//! `check` on a server whose archive also holds backups that its timeline cannot use: however new they are, they
//! protect nothing that it writes.

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options =
        ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() };
    let scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t(n int)")?;
    Ok(Some(scene))
}

/// Writes a row and ends its segment, whose name is returned once PostgreSQL calls it archived.
fn write_and_switch(cluster: &Cluster) -> Result<String> {
    cluster.execute("insert into t values (1)")?;
    cluster.switch_and_wait_archived(RECOVERY_LIMIT)
}

fn take_away(scene: &Scene, backup: &str) -> Result<()> {
    let (_, listing) = scene.walpoint.json(&["list"])?;
    let cluster = listing["cluster"].as_str().context("list names no cluster")?;
    let folder = scene.archive_directory()?.join(cluster).join("backup").join(backup);
    std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))
}

/// The old primary is cut off from its successor and not from the archive, and cron takes its backup.
#[test]
fn a_backup_of_the_old_primary_does_not_protect_its_successor() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let common = scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let successor = scene.recover(&["--latest", "--take-over"])?;
    let successors = scene.walpoint_for(&successor)?;
    write_and_switch(&successor)?;
    scene.cluster.start()?;
    // Far behind the fork, and ahead of all that the successor writes.
    for _ in 0..4 {
        write_and_switch(&scene.cluster)?;
    }
    let beside = scene.backup()?;

    successors.run(&["check"])?.expect(0)?;
    let (_, report) = successors.json(&["check"])?;
    assert_eq!(report["last_good_backup"]["id"], common, "not {beside}, which is newer: {report}");

    take_away(&scene, &common)?;
    let said = successors.run(&["check"])?.expect(2)?;
    assert!(said.stdout.contains("no base backup lies on the way to timeline 2"), "{said}");
    successors.run(&["plan", "--latest", "--target-timeline", "2"])?.expect(6)?;
    successors.ok(&["backup"])?;
    successors.run(&["check"])?.expect(0)?;
    Ok(())
}

/// Restored to a moment before the newest backups: those lie ahead of where the server is.
#[test]
fn after_a_step_back_in_time_wal_is_looked_at_from_the_fork_on() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let before = scene.backup()?;
    write_and_switch(&scene.cluster)?;
    let target = scene.cluster.value("select pg_current_wal_insert_lsn()::text")?;
    for _ in 0..8 {
        write_and_switch(&scene.cluster)?;
    }
    let after = scene.backup()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut successor = scene.recover(&["--target-lsn", &target, "--take-over"])?;
    let successors = scene.walpoint_for(&successor)?;
    write_and_switch(&successor)?;
    let (status, report) = successors.json(&["check"])?;
    assert_eq!(
        (status, &report["last_good_backup"]["id"]),
        (0, &before.as_str().into()),
        "not {after}: {report}"
    );

    let sharp = successors.with_config(|text| format!("{text}\n[check]\nin_flight = \"0s\"\n"))?;
    successor.execute("alter system set archive_command = '/bin/true'")?;
    successor.stop(Stop::Immediate)?;
    successor.start_expect_ready(RECOVERY_LIMIT)?;
    let lost = [write_and_switch(&successor)?, write_and_switch(&successor)?];
    let said = sharp.run(&["check"])?.expect(2)?;
    for text in [lost[0].as_str(), &lost[1], "reported success"] {
        assert!(said.stdout.contains(text), "{text} is not said\n{said}");
    }
    Ok(())
}
