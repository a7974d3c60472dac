//! Restore points: more of them in one segment than its metadata can list.

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

const POINTS: u32 = 2000;

#[test]
fn one_of_two_thousand_restore_points_in_a_segment_is_found() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    scene.archive_everything()?;
    let segment = "select pg_walfile_name(pg_current_wal_insert_lsn())";
    let first = scene.cluster.value(segment)?;
    let sql = scene.cluster.sql()?;
    for n in 1..=POINTS {
        sql.execute(&format!("select pg_create_restore_point('point-{n}')"))?;
        if n % 100 == 0 {
            sql.execute(&format!("insert into t values ({n})"))?;
        }
    }
    assert_eq!(scene.cluster.value(segment)?, first, "they are not in one segment");
    sql.execute("select pg_create_restore_point('point-7')")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let mut restored = scene.recover(&["--target-name", "point-1234"])?;
    assert_eq!(restored.value("select max(n)::text from t")?, "1200");
    restored.stop(Stop::Immediate)?;
    let (status, plan) = scene.walpoint.json(&["plan", "--target-name", "point-7"])?;
    assert_eq!(status, 6, "a name that came twice is not chosen: {plan}");
    let (status, plan) = scene.walpoint.json(&["plan", "--target-name", "point-2001"])?;
    assert_eq!(status, 6, "{plan}");
    Ok(())
}
