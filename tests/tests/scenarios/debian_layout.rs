//! Debian keeps the configuration outside the data directory: it is backed up
//! all the same, and comes back beside the data without overwriting anything.

use std::path::Path;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{ClusterOptions, LayoutKind, Stop};
use walpoint_tests::process::run;
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::user::User;
use walpoint_tests::wait;

#[test]
fn configuration_outside_the_data_directory_is_kept_and_comes_back() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options = ClusterOptions { layout: LayoutKind::Debian, ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t as select g from generate_series(1, 100) g")?;
    scene.backup()?;
    scene.cluster.execute("insert into t select g from generate_series(101, 200) g")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let mut restored = scene.restore(&["--latest"])?;
    let original = &scene.cluster.layout.configuration;
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "conf.d/archiving.conf"] {
        // Below the directory that they have in common, so that what they
        // include of each other by relative paths is found.
        let kept = restored.data().join("walpoint-config").join(name);
        let kept_text = std::fs::read(&kept).with_context(|| format!("read {}", kept.display()))?;
        assert_eq!(kept_text, std::fs::read(original.join(name))?, "{}", kept.display());
    }
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, "200");
    restored.stop(Stop::Fast)
}

#[test]
fn the_printed_command_starts_the_restored_cluster_and_nothing_else_is_needed() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    for layout in [LayoutKind::Plain, LayoutKind::Debian] {
        start_as_printed(&postgres, layout).with_context(|| format!("{layout:?}"))?;
    }
    Ok(())
}

fn start_as_printed(postgres: &Postgres, layout: LayoutKind) -> Result<()> {
    let mut scene = Scene::on_directory(postgres, ClusterOptions { layout, ..ClusterOptions::default() })?;
    scene.cluster.execute("create table t as select g from generate_series(1, 100) g")?;
    scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let directory = scene.fresh_directory();
    let outcome = scene.restore_into(&directory, &["--latest"])?.success()?;
    let printed = outcome.stdout.split_once("start it with:\n").context("no command was printed")?.1;
    let command = printed.lines().next().context("no command was printed")?;
    assert!(command.ends_with(" start"), "{command}");

    let mut shell = User::current()?.command(Path::new("/bin/sh"));
    shell.args(["-c", command]).current_dir("/");
    run(shell, RECOVERY_LIMIT)?.success()?;
    // The original is stopped, so its socket is the restored cluster's now.
    wait::until_true("the restored cluster to open", RECOVERY_LIMIT, || Ok(scene.cluster.is_open()))?;
    let place = scene.cluster.value("show data_directory")?;
    let rows = scene.cluster.value("select count(*) from t")?;
    let mut stop = User::current()?.command(&postgres.tool("pg_ctl"));
    stop.arg("-D").arg(&directory).args(["-m", "fast", "-w", "stop"]).current_dir("/");
    run(stop, RECOVERY_LIMIT)?.success()?;
    assert_eq!((place, rows), (directory.display().to_string(), "100".to_owned()));
    Ok(())
}
