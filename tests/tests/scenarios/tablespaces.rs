//! A table in a tablespace comes back where the operator wants it, on every
//! major: 13 and 14 have other backup functions than 15 and later.

use anyhow::{Context, Result};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;

#[test]
fn a_tablespace_is_mapped_and_never_restored_over_data() -> Result<()> {
    for major in programs::MAJORS {
        let Some(postgres) = programs::postgres(major)? else { continue };
        map_a_tablespace(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn map_a_tablespace(postgres: &Postgres) -> Result<()> {
    let mut scene = Scene::on_directory(postgres, ClusterOptions::default())?;
    let old = scene.cluster.scratch().make_dir("space")?;
    scene.cluster.execute(&format!("create tablespace space location '{}'", old.display()))?;
    scene.cluster.execute("create table t tablespace space as select g from generate_series(1, 5000) g")?;
    scene.backup()?;
    scene.cluster.execute("insert into t select g from generate_series(5001, 6000) g")?;
    scene.archive_everything()?;

    // The primary goes on meanwhile: without a mapping its own place would be used, and that holds data.
    let directory = scene.fresh_directory();
    scene.restore_into(&directory, &["--latest"])?.expect(7)?;
    assert!(!directory.join("global/pg_control").exists());

    let new = scene.cluster.scratch().path().join("new-space");
    let mapping = format!("{}={}", old.display(), new.display());
    let mut restored = scene.recover(&["--latest", "--tablespace", &mapping])?;
    assert_eq!(restored.value("select count(*) || ' ' || sum(g) from t")?, "6000 18003000");
    let place =
        restored.value("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'space'")?;
    assert_eq!(place, new.display().to_string());

    // Two clusters, two places: neither sees what the other writes.
    scene.cluster.execute("insert into t values (0)")?;
    restored.execute("delete from t where g > 10; checkpoint")?;
    assert_eq!(scene.cluster.value("select count(*) from t")?, "6001");
    assert_eq!(restored.value("select count(*) from t")?, "10");
    restored.stop(Stop::Fast)?;
    scene.cluster.stop(Stop::Immediate)?;
    scene.cluster.start()?;
    assert_eq!(scene.cluster.value("select count(*) from t")?, "6001", "after a crash");
    scene.cluster.stop(Stop::Fast)
}
