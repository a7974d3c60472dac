//! The environment alone is enough: no configuration file anywhere, from archiving to the restored rows.

use std::path::Path;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::process::{Outcome, run};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::user::User;
use walpoint_tests::walpoint::{ArchivePlace, CALL_LIMIT};

/// What the configuration file would say, as variables.
fn variables(scene: &Scene, place: &ArchivePlace) -> Result<Vec<(String, String)>> {
    let ArchivePlace::S3 { url, endpoint, environment } = place else {
        anyhow::bail!("the archive is a bucket here");
    };
    let data = scene.cluster.data().to_str().context("the data directory's name is not UTF-8")?;
    let connection = scene.cluster.connection("walpoint");
    let ours = [
        ("WALPOINT_ARCHIVE_URL", url.as_str()),
        ("WALPOINT_ARCHIVE_ENDPOINT", endpoint),
        ("WALPOINT_ARCHIVE_REGION", "garage"),
        ("WALPOINT_ARCHIVE_PATH_STYLE", "true"),
        ("WALPOINT_POSTGRES_DATA_DIRECTORY", data),
        ("WALPOINT_POSTGRES_CONNECTION", &connection),
    ];
    let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(environment.iter().cloned().chain(ours).collect())
}

fn walpoint(scene: &Scene, variables: &[(String, String)], args: &[&str]) -> Result<Outcome> {
    let mut command = User::current()?.command(scene.walpoint.binary());
    command.envs(variables.iter().map(|(name, value)| (name, value))).args(args).current_dir("/");
    run(command, CALL_LIMIT)
}

#[test]
fn the_environment_alone_is_enough_for_a_backup_and_a_restore() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let place = garage.archive()?;
    let cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let mut scene = Scene::start(cluster, place.clone())?;
    let variables = variables(&scene, &place)?;
    let command = format!("{} archive-push %p", scene.walpoint.binary().display());
    scene.cluster.execute(&format!("alter system set archive_command = '{command}'"))?;
    scene.cluster.stop(Stop::Immediate)?;
    std::fs::remove_file(&scene.walpoint.config)?;
    scene.cluster.set_environment(&variables);
    scene.cluster.start()?;

    scene.cluster.execute("create table t as select generate_series(1, 1000) n")?;
    walpoint(&scene, &variables, &["backup"])?.success()?;
    scene.cluster.execute("insert into t values (1001)")?;
    scene.cluster.switch_and_wait_archived(RECOVERY_LIMIT)?;
    let directory = scene.fresh_directory();
    let into = directory.to_str().context("the directory's name is not UTF-8")?;
    let said = walpoint(&scene, &variables, &["restore", "--latest", "--data-directory", into])?.success()?;
    assert!(
        format!("{said}").contains("WALPOINT_ARCHIVE_URL"),
        "the variables that the server needs are not named\n{said}"
    );
    let settings = std::fs::read_to_string(Path::new(into).join("postgresql.auto.conf"))?;
    assert!(settings.contains("archive-get") && !settings.contains("--config"), "{settings}");
    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) || ' ' || max(n) from t")?, "1001 1001");
    Ok(())
}
