//! What the server does when it has reached the target.

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;

#[test]
fn a_server_shuts_down_or_pauses_at_the_target_as_it_was_told() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 n")?;
    scene.backup()?;
    scene.cluster.execute("insert into t values (2)")?;
    scene.cluster.execute("select pg_create_restore_point('here')")?;
    scene.cluster.execute("insert into t values (3)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let mut stopping = scene.restore(&["--target-name", "here", "--target-action", "shutdown"])?;
    stopping.launch()?;
    wait::until_true(
        "the server to shut down at the target",
        RECOVERY_LIMIT,
        || Ok(!stopping.is_running()?),
    )?;
    let log = stopping.log();
    assert!(log.contains("shutdown at recovery target"), "{log}");

    let mut pausing = scene.restore(&["--target-name", "here", "--target-action", "pause"])?;
    pausing.launch()?;
    pausing.wait_log("pausing at the end of recovery", RECOVERY_LIMIT)?;
    assert_eq!(pausing.value("select pg_is_in_recovery() || ' ' || count(*) from t")?, "true 2");
    // Whoever goes on with it as it is archives nothing.
    let outcome = scene.walpoint_for(&pausing)?.run(&["check"])?.expect(2)?;
    assert!(outcome.stdout.contains("not protected: a restored copy"), "{outcome}");
    pausing.stop(Stop::Fast)
}
