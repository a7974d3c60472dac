//! PostgreSQL can forget to offer a segment: a crash between the segment's last byte and its `.ready` file,
//! and `wal_keep_size` keeps it, so that nothing looks at it again. The archive has a gap, which `check`
//! says, and pushing the segment by hand closes it.

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

use super::spanning_records::{assert_protected, assert_whole};

#[test]
fn a_segment_that_was_never_offered_is_a_gap_until_it_is_pushed_by_hand() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options =
        ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    // Nothing is archived while the archiver's own command fails; then one segment's status is lost.
    scene.cluster.override_settings("archive_command = 'exit 1'")?;
    scene.cluster.stop(Stop::Fast)?;
    scene.cluster.start()?;
    let mut segments = Vec::new();
    for n in 1..=3 {
        scene.cluster.execute(&format!("insert into t values ({n})"))?;
        segments.push(scene.cluster.value("select pg_walfile_name(pg_switch_wal())")?);
    }
    scene.cluster.stop(Stop::Crash)?;
    let forgotten = &segments[1];
    std::fs::remove_file(scene.cluster.data().join(format!("pg_wal/archive_status/{forgotten}.ready")))?;
    let settings = std::fs::read_to_string(scene.cluster.data().join("postgresql.auto.conf"))?;
    let settings = settings.replace("archive_command = 'exit 1'", "");
    walpoint_tests::scratch::write_private(&scene.cluster.data().join("postgresql.auto.conf"), &settings)?;
    scene.cluster.start()?;
    scene.archive_everything()?;

    let sharp = scene.walpoint.with_config(|text| format!("{text}\n[check]\nin_flight = \"0s\"\n"))?;
    let said = sharp.run(&["check"])?.expect(2)?;
    assert!(said.stdout.contains(&format!("segment {forgotten} is missing")), "{said}");
    assert!(said.stdout.contains("archive-push"), "{said}");
    let path = format!("pg_wal/{forgotten}");
    scene.walpoint.run_in(scene.cluster.data(), &["archive-push", &path])?.success()?;
    assert_whole(&scene)?;
    assert_protected(&scene)?;
    scene.cluster.stop(Stop::Fast)?;
    let restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(n::text, ' ' order by n) from t")?, "1 2 3");
    Ok(())
}
