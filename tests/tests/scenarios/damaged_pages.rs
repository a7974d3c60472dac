//! A page that is damaged on disk is found by a backup, named by file and
//! block, and the backup is kept all the same: it may be the last good copy of
//! everything else.

use std::os::unix::fs::FileExt;

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

const PAGE: u64 = 8192;

#[test]
fn a_damaged_page_is_named_and_the_backup_is_kept() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select g, repeat('x', 100) from generate_series(1, 1000) g")?;
    let file = scene.cluster.value("select pg_relation_filepath('t')")?;
    scene.cluster.execute("checkpoint")?;
    scene.cluster.stop(Stop::Fast)?;
    let table = std::fs::File::options().write(true).open(scene.cluster.data().join(&file))?;
    table.write_all_at(b"damage", 2 * PAGE + 4000)?;
    drop(table);

    scene.cluster.start()?;
    let outcome = scene.walpoint.run(&["backup"])?.expect(5)?;
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains(&file) && said.contains("block 2"), "{outcome}");
    let (_, listing) = scene.walpoint.json(&["list"])?;
    assert_eq!(listing["backups"][0]["damaged_pages"], 1, "{listing}");
    Ok(())
}
