//! What a restored cluster inherits must not interfere with its recovery, nor
//! destroy the archive it recovers from.

use anyhow::{Context, Result};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::{programs, wait};

#[test]
fn leftover_recovery_and_replication_settings_are_neutralised() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 as n")?;
    let archive = scene.archive_directory()?.display().to_string();
    // Written to the file, not loaded: the primary itself would wait for ever.
    scene.cluster.override_settings(&format!(
        "recovery_target_time = '2001-01-01 00:00:00+00'\n\
         archive_cleanup_command = 'rm -rf {archive}/*'\n\
         recovery_end_command = 'rm -rf {archive}/*'\n\
         recovery_min_apply_delay = '1h'\n\
         primary_conninfo = 'host=/nowhere'\n\
         primary_slot_name = 'nobody'\n\
         synchronous_standby_names = 'nobody'"
    ))?;
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

    let mut restored = scene.recover(&["--latest"])?;
    // With a synchronous standby that does not exist this would never end.
    restored.execute("insert into t values (3)")?;
    assert_eq!(restored.value("select count(*) from t")?, "3");
    for setting in
        ["archive_cleanup_command", "recovery_end_command", "primary_conninfo", "synchronous_standby_names"]
    {
        assert_eq!(restored.value(&format!("show {setting}"))?, "", "{setting}");
    }
    restored.stop(Stop::Fast)?;
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
