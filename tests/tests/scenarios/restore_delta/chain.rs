//! Over a chain of incrementals, where hardly a window of a table is in one piece any more.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;
use crate::incremental::incremental_by;

const MIB: u64 = 1 << 20;
const ALL: &str = "select md5(string_agg(n || words, '' order by n)) from t";

/// A table, a full backup, and three incrementals with one page in a hundred changed in each, here and there.
fn chain() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let configuration = "autovacuum = off\n".into();
    let scene =
        Scene::on_directory(&postgres, ClusterOptions { configuration, ..ClusterOptions::default() })?;
    scene.cluster.execute(
        "create table t (n int, words text) with (fillfactor = 80);
         alter table t alter words set storage plain;
         insert into t select n, repeat(md5(n::text), 30) from generate_series(1, 50000) n",
    )?;
    scene.cluster.execute("vacuum freeze t")?;
    scene.cluster.execute("checkpoint")?;
    let mut last = scene.backup()?;
    for round in 1..4 {
        scene.cluster.execute(&format!(
            "update t set words = reverse(words) where ctid in (select ('(' || page || ',1)')::tid
             from generate_series({round}, pg_relation_size('t') / 8192 - 1, 97) page)"
        ))?;
        // Whoever reads first leaves hints.
        scene.cluster.value(ALL)?;
        scene.cluster.execute("checkpoint")?;
        last = incremental_by(&scene.walpoint, &last, "by LSN")?;
    }
    Ok(Some(scene))
}

/// The files of databases.
fn databases(directory: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for database in std::fs::read_dir(directory.join("base"))?.flatten() {
        for file in std::fs::read_dir(database.path())?.flatten() {
            let path = file.path();
            found.insert(path.strip_prefix(directory)?.to_owned(), std::fs::read(&path)?);
        }
    }
    Ok(found)
}

#[test]
fn over_a_chain_of_incrementals_only_windows_that_differ_are_fetched() -> Result<()> {
    let Some(mut scene) = chain()? else { return Ok(()) };
    let rows = scene.cluster.value(ALL)?;
    let table = scene.cluster.value("select pg_relation_filepath('t')")?;
    let size: u64 = scene.cluster.value("select pg_relation_size('t')")?.parse()?;
    scene.cluster.execute("select pg_create_restore_point('here')")?;
    scene.archive_everything()?;
    let count = |told: &serde_json::Value, field: &str| told[field].as_u64().context("bytes");

    // A copy in which a few pages are other than they were.
    let copy = scene.fresh_directory();
    scene.restore_into(&copy, HERE)?.success()?;
    let whole = databases(&copy)?;
    let again = |changed: u64| -> Result<()> {
        let (status, told) = scene.walpoint.json(&args(&copy, HERE)?)?;
        assert_eq!(status, 0, "{told:#}");
        let (fetched, transferred) = (count(&told, "fetched_bytes")?, count(&told, "transferred_bytes")?);
        println!(
            "{changed} windows changed of {size} bytes: {fetched} bytes fetched, {transferred} transferred"
        );
        assert!(fetched >= changed * MIB / 2 && fetched < (changed + 1) * MIB, "{told:#}");
        assert!(databases(&copy)? == whole, "it is not as it was restored first");
        Ok(())
    };
    again(0)?;
    let file = File::options().write(true).open(copy.join(&table))?;
    for window in [0, 17, 33] {
        file.write_all_at(&[7; 8192], window * MIB + 5 * 8192)?;
    }
    again(3)?;
    let mut restored = Cluster::restored(&copy, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value(ALL)?, rows);
    restored.stop(Stop::Fast)?;

    // The cluster itself, which went on for a while.
    scene.cluster.execute("update t set words = 'x' where n in (7, 8, 30000)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let data = scene.cluster.data().to_owned();
    let (status, told) = scene.walpoint.json(&args(&data, HERE)?)?;
    assert_eq!(status, 0, "{told:#}");
    println!("of the cluster itself: {} of {} bytes fetched", told["fetched_bytes"], told["bytes"]);
    assert!(count(&told, "fetched_bytes")? < size / 4, "{told:#}");
    let mut cluster = Cluster::restored(&data, &scene.cluster)?;
    cluster.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(cluster.value(ALL)?, rows);
    cluster.stop(Stop::Fast)
}
