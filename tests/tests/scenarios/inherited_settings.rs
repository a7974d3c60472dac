//! What a restored cluster inherits must not interfere with its recovery, nor
//! destroy the archive it recovers from.

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::write_private;
use walpoint_tests::{programs, wait};

/// Everything that says where a recovery is to stop and where it finds WAL, that destroys, or that waits.
fn leftovers(archive: &str) -> String {
    format!(
        "recovery_target = 'immediate'\n\
         recovery_target_time = '2001-01-01 00:00:00+00'\n\
         recovery_target_xid = '3'\n\
         recovery_target_name = 'nowhere'\n\
         recovery_target_lsn = '0/1'\n\
         recovery_target_inclusive = off\n\
         recovery_target_action = 'shutdown'\n\
         recovery_target_timeline = '7'\n\
         restore_command = 'false'\n\
         archive_mode = always\n\
         archive_cleanup_command = 'rm -rf {archive}/*'\n\
         recovery_end_command = 'rm -rf {archive}/*'\n\
         recovery_min_apply_delay = '1h'\n\
         primary_conninfo = 'host=/nowhere'\n\
         primary_slot_name = 'nobody'\n\
         synchronous_standby_names = 'nobody'"
    )
}

/// What is named as not taken over. The others are what every restore writes anew.
const NAMED: [&str; 14] = [
    "standby.signal",
    "recovery.signal",
    "recovery_target in",
    "recovery_target_time in",
    "recovery_target_xid in",
    "recovery_target_name in",
    "recovery_target_lsn in",
    "archive_mode in",
    "archive_cleanup_command in",
    "recovery_end_command in",
    "recovery_min_apply_delay in",
    "primary_conninfo in",
    "primary_slot_name in",
    "synchronous_standby_names in",
];

#[test]
fn leftover_recovery_and_replication_settings_are_neutralised() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 as n")?;
    let archive = scene.archive_directory()?.display().to_string();
    // Written to the files, not loaded: the primary itself would wait for ever.
    scene.cluster.configure(&leftovers(&archive))?;
    scene.cluster.override_settings(&leftovers(&archive))?;
    for signal in ["standby.signal", "recovery.signal"] {
        write_private(&scene.cluster.data().join(signal), "")?;
    }
    scene.backup()?;
    scene.cluster.execute("insert into t values (2)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    // Whoever plans sees it, before a place is named.
    let (_, plan) = scene.walpoint.json(&["plan", "--latest"])?;
    let neutralised = plan["neutralised"].as_array().context("neutralised")?;
    for setting in ["recovery_target_time", "archive_cleanup_command", "primary_conninfo"] {
        let named = |it: &serde_json::Value| it == format!("{setting} in postgresql.auto.conf").as_str();
        assert!(neutralised.iter().any(named), "{setting}: {plan:#}");
    }
    assert!(plan["command"].as_str().is_some_and(|it| it.contains(" restore --latest ")), "{plan:#}");

    let directory = scene.fresh_directory();
    let path = directory.display().to_string();
    let (status, said) = scene.walpoint.json(&["restore", "--latest", "--data-directory", &path])?;
    assert_eq!(status, 0, "{said}");
    let neutralised = said["neutralised"].to_string();
    for name in NAMED {
        assert!(neutralised.contains(name), "{name} is not named: {said}");
    }
    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    // With a synchronous standby that does not exist this would never end.
    restored.execute("insert into t values (3)")?;
    assert_eq!(restored.value("select count(*) from t")?, "3");
    assert_eq!(restored.value("show archive_mode")?, "off");
    for setting in
        ["archive_cleanup_command", "recovery_end_command", "primary_conninfo", "synchronous_standby_names"]
    {
        assert_eq!(restored.value(&format!("show {setting}"))?, "", "{setting}");
    }
    restored.stop(Stop::Fast)?;

    let mut taking_over = scene.recover(&["--latest", "--take-over"])?;
    taking_over.execute("insert into t values (4)")?;
    assert_eq!(taking_over.value("show archive_mode")?, "on");
    taking_over.switch_and_wait_archived(RECOVERY_LIMIT)?;
    taking_over.stop(Stop::Fast)?;
    assert!(std::fs::read_dir(&archive)?.next().is_some(), "the archive was emptied");
    Ok(())
}

#[test]
fn a_trigger_file_that_is_there_already_does_not_promote_a_standby() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    let sql = scene.cluster.sql()?;
    if sql.value("select current_setting('server_version_num')::int >= 160000")? == "t" {
        println!("skipped: this server has no promote_trigger_file");
        return Ok(());
    }
    let trigger = scene.cluster.scratch().path().join("promote");
    std::fs::write(&trigger, "")?;
    sql.execute(&format!("alter system set promote_trigger_file = '{}'", trigger.display()))?;
    scene.backup()?;
    scene.archive_everything()?;

    let mut standby = scene.restore(&["--standby"])?;
    standby.launch()?;
    standby.wait_log("consistent recovery state reached", RECOVERY_LIMIT)?;
    // It asks for more and finds nothing: then the server looks whether it is promoted.
    sql.execute("create table t as select 1 as n")?;
    scene.archive_everything()?;
    wait::until_true("the standby to follow", RECOVERY_LIMIT, || {
        Ok(standby.value("select count(*) from pg_class where relname = 't'").is_ok_and(|count| count == "1"))
    })?;
    assert_eq!(standby.value("select pg_is_in_recovery()::text")?, "true");
    standby.stop(Stop::Fast)
}
