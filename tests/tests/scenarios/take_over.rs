//! A restored cluster does not archive until its operator says so, and says so
//! itself; taking over later leaves nothing behind that cannot be restored.

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::walpoint::Walpoint;

/// A stopped original with rows 1 and 2, and its copy, promoted, that wrote 3
/// without archiving it.
fn scene() -> Result<Option<(Scene, Cluster, Walpoint)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 as n")?;
    scene.backup()?;
    scene.cluster.execute("insert into t values (2)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let restored = scene.recover(&["--latest"])?;
    restored.execute("insert into t values (3)")?;
    for _ in 0..3 {
        restored.execute("select pg_create_restore_point('x'); select pg_switch_wal(); checkpoint")?;
    }
    let walpoint = scene.walpoint_for(&restored)?;
    Ok(Some((scene, restored, walpoint)))
}

#[test]
fn a_restored_cluster_is_not_protected_and_check_says_so() -> Result<()> {
    let Some((_scene, restored, walpoint)) = scene()? else { return Ok(()) };
    assert_eq!(restored.value("show archive_mode")?, "off");
    let outcome = walpoint.run(&["check"])?.expect(2)?;
    assert!(outcome.stdout.contains("CRITICAL") && outcome.stdout.contains("not protected"), "{outcome}");
    Ok(())
}

#[test]
fn a_cluster_that_took_over_late_can_be_restored() -> Result<()> {
    let Some((mut scene, mut restored, walpoint)) = scene()? else { return Ok(()) };
    take_over(&mut restored, &walpoint)?;
    restored.execute("insert into t values (4)")?;
    restored.switch_and_wait_archived(walpoint_tests::scene::ARCHIVING_LIMIT)?;
    restored.stop(Stop::Fast)?;

    let mut again = scene.recover(&["--latest"])?;
    assert_eq!(again.value("select string_agg(n::text, ',' order by n) from t")?, "1,2,3,4");
    // A third life gets a timeline of its own, not the second one again.
    let writes = again.value("select pg_walfile_name(pg_current_wal_lsn())")?;
    assert!(writes.starts_with("00000003"), "{writes}");
    again.stop(Stop::Fast)
}

/// The connection leads to the server, the configuration to a copy of its directory: neither is changed.
#[test]
fn a_copy_of_the_directory_is_not_taken_for_the_servers() -> Result<()> {
    let Some((mut scene, restored, walpoint)) = scene()? else { return Ok(()) };
    let copy = scene.fresh_directory();
    let copied = std::process::Command::new("cp").arg("-a").arg(restored.data()).arg(&copy).status()?;
    assert!(copied.success());
    restored.execute("insert into t values (4); checkpoint")?;
    let crossed = walpoint.with_config(|text| {
        text.replace(&restored.data().display().to_string(), &copy.display().to_string())
    })?;
    let settings = |directory: &std::path::Path| std::fs::read(directory.join("postgresql.auto.conf"));
    let before = settings(&copy)?;
    let refused = crossed.run(&["take-over"])?.expect(4)?;
    assert!(refused.stderr.contains("a copy of this one"), "{refused}");
    assert_eq!(settings(&copy)?, before);
    assert_eq!(settings(restored.data())?, before);
    Ok(())
}

/// Turning archiving on needs a restart; the command says so and is called
/// again afterwards.
fn take_over(restored: &mut Cluster, walpoint: &Walpoint) -> Result<()> {
    if walpoint.run(&["take-over"])?.code() == 0 {
        return Ok(());
    }
    restored.stop(Stop::Fast)?;
    restored.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    walpoint.ok(&["take-over"]).map(drop)
}
