//! A cluster with next to nothing to do: short segments by `archive_timeout`, switches that switch nothing.

use std::time::Duration;

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::scene::Scene;
use walpoint_tests::{programs, wait};

use super::spanning_records::{assert_protected, assert_whole};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn segments_by_timeout_and_switches_of_an_idle_cluster_are_nothing_odd() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options =
        ClusterOptions { configuration: "archive_timeout = '1s'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    let sql = scene.cluster.sql()?;
    // archiving.conf has a timeout of its own.
    sql.execute("alter system set archive_timeout = '1s'")?;
    sql.execute("select pg_reload_conf()")?;
    sql.execute("create table t(n int)")?;
    scene.backup()?;
    for n in 1..=3 {
        sql.execute(&format!("insert into t values ({n})"))?;
        let segment = sql.value("select pg_walfile_name(pg_current_wal_insert_lsn())")?;
        // No one switches: the timeout does.
        wait::until_true(&format!("{segment} to be archived by timeout"), LIMIT, || {
            Ok(sql.value("select coalesce(last_archived_wal, '') from pg_stat_archiver")? >= segment)
        })?;
    }
    // At a segment's beginning there is nothing to switch: the same answer every time.
    let switched = sql.value("select pg_switch_wal()::text")?;
    for _ in 0..3 {
        sql.execute("select pg_switch_wal()")?;
    }
    let archived = assert_whole(&scene)?;
    assert!(archived >= 4, "{archived} segments, switched at {switched}");
    assert_protected(&scene)?;
    // A backup of a cluster that does nothing meanwhile.
    scene.backup()?;
    assert_whole(&scene)?;
    scene.cluster.stop(Stop::Fast)?;
    assert_whole(&scene)?;
    let restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(n::text, ' ' order by n) from t")?, "1 2 3");
    Ok(())
}
