//! A setting that the primary raised after the backup: said beforehand, and the
//! restored server does not open without it.

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};

#[test]
fn a_setting_that_was_raised_after_the_backup_is_said_and_waited_for() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 as n")?;
    scene.backup()?;
    scene.cluster.configure("max_connections = 60")?;
    scene.cluster.stop(Stop::Fast)?;
    scene.cluster.start()?;
    scene.cluster.execute("insert into t values (2)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let warning = "max_connections was raised from 30 to 60";
    let (status, plan) = scene.walpoint.json(&["plan", "--latest"])?;
    assert!(status == 0 && plan["warnings"].to_string().contains(warning), "{plan}");
    let mut restored = scene.restore(&["--latest"])?;
    restored.launch()?;
    // A FATAL, or from 14 on a pause.
    restored.wait_log("insufficient parameter settings", RECOVERY_LIMIT)?;
    assert!(!restored.is_open(), "{}", restored.log());
    restored.stop(Stop::Immediate)?;
    restored.override_settings("max_connections = 60")?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, "2");
    restored.stop(Stop::Immediate)
}
