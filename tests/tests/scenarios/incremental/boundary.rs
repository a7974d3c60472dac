//! A relation that grows past the end of its first file of 1 GiB, is cut off there, and grows again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

use super::soundness::must_be_sound;
use super::{incremental_by, recover_backup};

const PAGE: u64 = 8192;
/// Pages of a relation in one file, as every distribution builds it.
const IN_FILE: u64 = 131_072;
/// Rows that have a page each; vacuum gives back no fewer than a thousand pages.
const ROWS: u32 = 1100;

const CONTENT: &str =
    "select md5(string_agg(n || ' ' || ctid || left(filler, 9), ',' order by n)) || count(*) from t";

#[test]
fn a_table_that_grows_past_its_first_file_is_cut_there_and_grows_again_comes_back() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options = ClusterOptions {
        wal_segsize_mb: 16,
        configuration: "autovacuum = off\nwal_log_hints = on\n".into(),
        ..ClusterOptions::default()
    };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute(
        "create table t (n int, filler text); alter table t alter filler set storage plain;
         insert into t values (0, 'the first')",
    )?;
    let file = scene.cluster.data().join(scene.cluster.value("select pg_relation_filepath('t')")?);
    // New pages, as a crash leaves them when a table is extended: up to two before the end, and no byte is written.
    without_server(&mut scene.cluster, || {
        Ok(File::options().write(true).open(&file)?.set_len((IN_FILE - 2) * PAGE)?)
    })?;
    let full = scene.backup()?;

    grow(&scene.cluster, "one")?;
    let second = file.with_extension("1");
    ensure!(fs::metadata(&second)?.len() >= 1000 * PAGE, "it did not grow past its first file");
    let first = incremental_by(&scene.walpoint, &full, "by LSN")?;
    let expected = scene.cluster.value(CONTENT)?;

    scene.cluster.execute(&format!("delete from t where ctid >= '({IN_FILE},0)'"))?;
    scene.cluster.execute("vacuum t")?;
    ensure!(fs::metadata(&second)?.len() == 0, "it was not cut off");
    // Without the free space map, or the new rows find room in the pages before.
    without_server(&mut scene.cluster, || Ok(fs::remove_file(with_suffix(&file, "_fsm"))?))?;
    grow(&scene.cluster, "two")?;
    ensure!(fs::metadata(&second)?.len() >= 1000 * PAGE, "it did not grow again");
    let again = incremental_by(&scene.walpoint, &first, "by LSN")?;
    let expected_again = scene.cluster.value(CONTENT)?;
    ensure!(expected != expected_again);

    for (id, expected) in [(first, expected), (again, expected_again)] {
        let mut restored = recover_backup(&mut scene, &id)?;
        let found = restored.value(CONTENT)?;
        ensure!(found == expected, "{id}: {found} instead of {expected}");
        must_be_sound(&restored)?;
        restored.stop(Stop::Immediate)?;
        fs::remove_dir_all(restored.data())?;
    }
    scene.cluster.stop(Stop::Fast)
}

/// Does it while the server is down, orderly.
fn without_server(cluster: &mut Cluster, change: impl FnOnce() -> Result<()>) -> Result<()> {
    cluster.stop(Stop::Fast)?;
    change()?;
    cluster.start()
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn grow(cluster: &Cluster, word: &str) -> Result<()> {
    cluster.execute(&format!(
        "insert into t select n, '{word} ' || repeat('x', 7000) from generate_series(1, {ROWS}) n; checkpoint"
    ))
}
