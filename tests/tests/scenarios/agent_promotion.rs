//! After a promotion the new primary has segments that the old one never archived and that it marks as archived
//! itself: nobody but the agent will ship them.

use anyhow::{Context, Result};
use walpoint_tests::agent::Agent;
use walpoint_tests::cluster::{ClusterOptions, SUPERUSER, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;

#[test]
fn what_the_old_primary_did_not_archive_is_shipped_by_the_new_ones_agent() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options =
        ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    Agent::configure(&scene.walpoint, scene.cluster.scratch().path())?;
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    let primary = format!("host={} port=5432 user={SUPERUSER}", scene.cluster.socket_directory().display());
    let mut standby = scene.restore(&["--standby", "--primary-conninfo", &primary])?;
    standby.override_settings(&format!(
        "archive_mode = on\narchive_command = '{} archive-push %p'",
        scene.walpoint.hook_prefix()
    ))?;
    standby.launch()?;
    let streams = "select count(*)::text from pg_stat_wal_receiver where status = 'streaming'";
    wait::until_true("the standby to stream", RECOVERY_LIMIT, || {
        Ok(standby.value(streams).is_ok_and(|receivers| receivers == "1"))
    })
    .with_context(|| standby.log())?;
    let walpoint = scene.walpoint_for(&standby)?;
    let agent = Agent::start(&walpoint, &standby)?;

    // The old primary's archiving fails from here on, and nobody sees it in time.
    scene.cluster.configure("archive_command = 'false'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    for number in 1..=5 {
        scene.cluster.execute(&format!("insert into t values ({number})"))?;
        scene.cluster.execute("select pg_switch_wal()")?;
    }
    let flushed = scene.cluster.value("select pg_current_wal_flush_lsn()::text")?;
    wait::until_true("the standby to catch up", RECOVERY_LIMIT, || {
        let query = format!("select (coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{flushed}')::text");
        Ok(standby.value(&query).is_ok_and(|caught_up| caught_up == "true"))
    })
    .with_context(|| standby.log())?;
    scene.cluster.kill()?;
    standby.execute("select pg_promote()")?;
    standby.wait_open(RECOVERY_LIMIT)?;
    standby.execute("insert into t values (6)")?;
    standby.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    wait::until_true("the agent to ship what was left behind", ARCHIVING_LIMIT, || {
        Ok(walpoint.json(&["plan", "--latest"])?.0 == 0)
    })
    .with_context(|| agent.log())?;
    assert!(agent.log().contains("archiving them from pg_wal"), "{}", agent.log());
    agent.kill()?;
    standby.stop(Stop::Immediate)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(n::text, ',' order by n) from t")?, "1,2,3,4,5,6");
    restored.stop(Stop::Immediate)
}
