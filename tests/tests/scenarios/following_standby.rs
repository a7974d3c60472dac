//! A standby with `archive_mode = always` that follows a failover: PostgreSQL hands it the end of
//! the old timeline as if that were a whole segment, and its archiver must not stop there.

use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{Cluster, ClusterOptions, SUPERUSER, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;

/// A standby that streams from another server and archives by itself. From the archive it takes
/// nothing: there it would learn of the new timeline before the old one's end has come to it.
fn standby_of(scene: &mut Scene, upstream: &std::path::Path, archive_mode: &str) -> Result<Cluster> {
    let primary = format!("host={} port=5432 user={SUPERUSER}", upstream.display());
    let mut standby = scene.restore(&["--standby", "--primary-conninfo", &primary])?;
    standby.override_settings(&format!(
        "restore_command = ''\narchive_mode = {archive_mode}\narchive_command = '{} archive-push %p'",
        scene.walpoint.hook_prefix()
    ))?;
    standby.launch()?;
    Ok(standby)
}

fn wait_replayed(standby: &Cluster, lsn: &str) -> Result<()> {
    let query = format!("select (coalesce(pg_last_wal_replay_lsn(), '0/0') >= '{lsn}')::text");
    wait::until_true("the standby to catch up", RECOVERY_LIMIT, || {
        Ok(standby.value(&query).is_ok_and(|caught_up| caught_up == "true"))
    })
    .with_context(|| standby.log())
}

#[test]
fn a_standby_that_archives_always_goes_on_behind_a_failover() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options =
        ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t(branch text, n int)")?;
    scene.backup()?;
    let primary = scene.cluster.socket_directory().to_owned();
    let mut heir = standby_of(&mut scene, &primary, "on")?;
    let mut follower = standby_of(&mut scene, heir.socket_directory(), "always")?;
    scene.cluster.execute("insert into t values ('common', 1)")?;
    scene.archive_everything()?;
    scene.cluster.execute("insert into t values ('common', 2)")?;
    let flushed = scene.cluster.value("select pg_current_wal_flush_lsn()::text")?;
    let fork_segment = scene.cluster.value(&format!("select pg_walfile_name('{flushed}')"))?;
    wait_replayed(&heir, &flushed)?;
    wait_replayed(&follower, &flushed)?;

    scene.cluster.kill()?;
    heir.execute("select pg_promote()")?;
    heir.wait_open(RECOVERY_LIMIT)?;
    heir.execute("insert into t values ('new', 1)")?;
    let newest = heir.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    assert_eq!(&newest[..8], "00000002");
    wait_replayed(&follower, &heir.value("select pg_current_wal_flush_lsn()::text")?)?;

    // The shape is staged: the follower's archiver was given the old timeline's last segment.
    let status = follower.data().join("pg_wal/archive_status");
    let given = |name: &str, how: &str| status.join(format!("{name}.{how}")).exists();
    assert!(given(&fork_segment, "ready") || given(&fork_segment, "done"), "{}", follower.log());
    wait::until_true("the follower to archive the new timeline", Duration::from_secs(120), || {
        Ok(given(&fork_segment, "done") && given(&newest, "done"))
    })
    .with_context(|| follower.log())?;

    let archived = |part: &str| archive_files::named(scene.archive_directory().unwrap(), part);
    assert!(!archived(&format!("{fork_segment}.partial-")).is_empty());
    assert!(archived(&format!("{fork_segment}-")).is_empty(), "nobody takes it for a whole segment");
    heir.stop(Stop::Fast)?;
    follower.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(
        restored.value("select string_agg(branch || n, ',' order by branch, n) from t")?,
        "common1,common2,new1"
    );
    restored.stop(Stop::Immediate)
}
