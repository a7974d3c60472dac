//! Debian keeps the configuration outside the data directory: it is backed up
//! all the same, and comes back beside the data without overwriting anything.

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, LayoutKind, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

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
        let kept = restored.data().join("walpoint-config").join(name);
        assert_eq!(std::fs::read(&kept)?, std::fs::read(original.join(name))?, "{}", kept.display());
    }
    restored.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, "200");
    Ok(())
}
