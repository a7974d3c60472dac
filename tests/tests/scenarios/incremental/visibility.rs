//! Visibility, the one thing that page LSNs do not always see: with checksums on and off, `wal_log_hints` on and off.

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

use super::soundness::{counts_agree, must_be_sound};
use super::{incremental_by, recover_backup};

#[test]
fn index_only_scans_count_as_sequential_ones_after_every_restore() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    for (checksums, hints) in [(true, false), (false, false), (false, true), (true, true)] {
        let configuration =
            format!("wal_log_hints = {}\nautovacuum = off\n", if hints { "on" } else { "off" });
        let options = ClusterOptions { checksums, configuration, ..ClusterOptions::default() };
        let mut scene = Scene::on_directory(&postgres, options)?;
        let how = if checksums || hints { "by LSN" } else { "by content" };
        rows_come_and_go(&mut scene, how)
            .with_context(|| format!("checksums {checksums}, wal_log_hints {hints}"))?;
    }
    Ok(())
}

/// Bits of the visibility map that are cleared and set between backups.
fn rows_come_and_go(scene: &mut Scene, how: &str) -> Result<()> {
    let cluster = &scene.cluster;
    cluster.execute(
        "create table seen (n int primary key, filler text); create table set_later (n int primary key, filler text);
         insert into seen select n, repeat('x', 100) from generate_series(1, 2000) n;
         insert into set_later select n, repeat('y', 100) from generate_series(1, 2000) n",
    )?;
    // Two statements: vacuum wants none beside it.
    cluster.execute("vacuum seen")?;
    let full = scene.backup()?;

    // Clears bits of a map whose page keeps its LSN.
    scene.cluster.execute("delete from seen where n % 40 = 7")?;
    // Sets bits, and the pages' own words, which keep their LSNs where hints are not logged.
    scene.cluster.execute("vacuum set_later")?;
    let first = incremental_by(&scene.walpoint, &full, how)?;
    check(scene, &first, "1950", "2000")?;

    scene.cluster.execute("vacuum seen")?;
    scene.cluster.execute("select count(*) from set_later")?;
    scene.cluster.execute("update set_later set filler = 'z' where n between 100 and 120")?;
    let second = incremental_by(&scene.walpoint, &first, how)?;
    scene.cluster.execute("delete from set_later where n > 1900")?;
    let third = incremental_by(&scene.walpoint, &second, how)?;
    check(scene, &second, "1950", "2000")?;
    check(scene, &third, "1950", "1900")?;
    scene.cluster.stop(Stop::Fast)
}

fn check(scene: &mut Scene, id: &str, seen: &str, set_later: &str) -> Result<()> {
    let mut restored = recover_backup(scene, id).with_context(|| format!("restore {id}"))?;
    let sql = restored.sql()?;
    must_be_sound(&restored).with_context(|| format!("restored from {id}"))?;
    let counts = (counts_agree(&sql, "seen")?, counts_agree(&sql, "set_later")?);
    ensure!(counts == (seen.to_owned(), set_later.to_owned()), "{counts:?} rows are back");
    // What comes later relies on the pages' words.
    sql.execute("delete from set_later where n % 20 = 3")?;
    counts_agree(&sql, "set_later")?;
    must_be_sound(&restored).with_context(|| format!("{id}, after rows were deleted"))?;
    restored.stop(Stop::Immediate)
}
