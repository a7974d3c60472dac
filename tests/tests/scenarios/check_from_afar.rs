//! `check` where the data directory cannot be seen, as on a monitoring host: it does not call protected what it
//! could not look at.

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::walpoint::Walpoint;

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options = ClusterOptions { configuration: "archive_timeout = 0".into(), ..ClusterOptions::default() };
    let scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    Ok(Some(scene))
}

/// Connects to the cluster's server, and knows its directory under a name that is another's here, or nobody's.
fn from_afar(walpoint: &Walpoint, cluster: &Cluster, seen_here: &str) -> Result<Walpoint> {
    let data = format!("data_directory = \"{}\"", cluster.data().display());
    walpoint.with_config(|text| text.replace(&data, &format!("data_directory = \"{seen_here}\"")))
}

#[test]
fn wal_that_cannot_be_looked_into_is_not_said_to_be_archived() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let copy = scene.fresh_directory();
    let copied = std::process::Command::new("cp").arg("-a").arg(scene.cluster.data()).arg(&copy).status()?;
    assert!(copied.success());
    scene.cluster.execute("checkpoint")?;
    scene.archive_everything()?;
    scene.cluster.execute("insert into t values (1)")?;
    for seen_here in ["/nowhere", &copy.display().to_string()] {
        let walpoint = from_afar(&scene.walpoint, &scene.cluster, seen_here)?;
        let said = walpoint.run(&["check"])?.expect(1)?;
        assert!(said.stdout.contains("could not tell how old the WAL outside the archive is"), "{said}");
        assert!(!said.stdout.contains("wal_lag"), "{said}");
        let (_, report) = walpoint.json(&["check"])?;
        assert_eq!(report["lag_seconds"], serde_json::Value::Null, "{report}");
    }
    let said = scene.walpoint.run(&["check"])?.expect(0)?;
    assert!(said.stdout.contains("wal_lag=") && !said.stdout.contains("wal_lag=0.000s"), "{said}");
    Ok(())
}

#[test]
fn a_restored_copy_that_stays_in_recovery_is_recognised() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.cluster.execute("select pg_create_restore_point('here')")?;
    scene.archive_everything()?;
    let conninfo = scene.cluster.connection("postgres");
    let mut standby = scene.restore(&["--standby", "--primary-conninfo", &conninfo])?;
    let mut pausing = scene.restore(&["--target-name", "here", "--target-action", "pause"])?;
    pausing.launch()?;
    pausing.wait_log("pausing at the end of recovery", RECOVERY_LIMIT)?;
    let walpoint = from_afar(&scene.walpoint_for(&pausing)?, &pausing, "/nowhere")?;
    let said = walpoint.run(&["check"])?.expect(2)?;
    assert!(said.stdout.contains("not protected: a restored copy"), "{said}");
    pausing.stop(Stop::Fast)?;

    standby.launch()?;
    walpoint_tests::wait::until_true("the standby to answer", RECOVERY_LIMIT, || {
        Ok(standby.value("select 1").is_ok())
    })?;
    let walpoint = from_afar(&scene.walpoint_for(&standby)?, &standby, "/nowhere")?;
    let said = walpoint.run(&["check"])?.expect(0)?;
    assert!(said.stdout.contains("a standby, its primary archives"), "{said}");
    Ok(())
}
