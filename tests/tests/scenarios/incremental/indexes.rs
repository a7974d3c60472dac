//! Indexes of every access method find in a restored cluster what a sequential scan does.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Sql, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;

use super::soundness::must_be_sound;
use super::{incremental_by, recover_backup};

const PAGE: usize = 8192;

/// Rows that an index finds and those that a sequential scan does.
fn finds_all(sql: &Sql, condition: &str) -> Result<String> {
    let query = format!("select count(*) from t where {condition}");
    let count = |by_index: bool| {
        let (index, table) = if by_index { ("on", "off") } else { ("off", "on") };
        sql.execute(&format!(
            "set enable_seqscan = {table}; set enable_indexscan = {index}; set enable_bitmapscan = {index}"
        ))?;
        sql.value(&query)
    };
    let (all, found) = (count(false)?, count(true)?);
    let plan = format!("{:?}", sql.rows(&format!("explain {query}"))?);
    ensure!(plan.contains("Index"), "no index is used: {plan}");
    ensure!(all == found, "{condition}: {found} of {all} rows are found");
    Ok(all)
}

#[test]
fn every_access_method_finds_its_rows_after_a_chain() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    let row =
        "select n, point(n % 100, n / 100), point(n / 100, n % 100), array[n % 50, n % 7], 'w' || n % 500";
    scene.cluster.execute(&format!(
        "create table t (n int, p point, q point, list int[], word text);
         insert into t {row} from generate_series(1, 9000) n;
         create index on t using gist (p); create index on t using spgist (q); create index on t using gin (list);
         create index on t using hash (word); create index on t using brin (n)"
    ))?;
    let mut last = scene.backup()?;
    for round in 1..=3 {
        scene.cluster.execute(&format!(
            "insert into t {row} from generate_series({round}0001, {round}0300) n;
             delete from t where n % 90 = {round}; update t set word = 'w1', p = q where n % 91 = {round}"
        ))?;
        scene.cluster.execute("vacuum t")?;
        last = incremental_by(&scene.walpoint, &last, "by LSN")?;
    }
    let mut restored = recover_backup(&mut scene, &last)?;
    let sql = restored.sql()?;
    for condition in [
        "p <@ box '((10,10),(60,60))'",
        "q <@ box '((10,10),(60,60))'",
        "list @> array[5]",
        "word = 'w1'",
        "n between 100 and 20100",
    ] {
        ensure!(finds_all(&sql, condition)? != "0", "{condition}: no rows");
    }
    must_be_sound(&restored)?;
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

/// Up to 16 the sorted build leaves the LSN 1 on every page. Here the parent finds the root still all zero.
#[test]
fn a_gist_index_that_was_being_built_while_the_parent_was_taken_is_whole() -> Result<()> {
    for major in programs::MAJORS {
        let Some(postgres) = programs::postgres(major)?.filter(|it| it.major >= 14) else { continue };
        build_during_the_parent(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn build_during_the_parent(postgres: &Postgres) -> Result<()> {
    let options = ClusterOptions {
        wal_segsize_mb: 16,
        configuration: "autovacuum = off\nmax_parallel_maintenance_workers = 0\n".into(),
        ..ClusterOptions::default()
    };
    let mut scene = Scene::on_directory(postgres, options)?;
    scene.cluster.execute(
        "create table t as select n, point(random() * 1000, random() * 1000) as p from generate_series(1, 400000) n",
    )?;
    scene.cluster.execute("vacuum t")?;
    scene.cluster.execute("checkpoint")?;
    let building = scene.cluster.sql()?;
    let builder = building.value("select pg_backend_pid()")?.parse().ok().and_then(Pid::from_raw);
    let builder = builder.context("no pid")?;
    let database = scene.cluster.value("select oid from pg_database where datname = current_database()")?;
    let folder = scene.cluster.data().join("base").join(database);
    let before = files(&folder)?;
    let parent = std::thread::scope(|scope| {
        let build = scope.spawn(|| building.execute("create index by_place on t using gist (p)"));
        let parent = hold(&scene.cluster, builder, &folder, &before).and_then(|()| scene.backup());
        kill_process(builder, Signal::CONT)?;
        build.join().map_err(|_| anyhow::anyhow!("the build panicked"))??;
        parent
    })?;
    scene.cluster.execute("checkpoint")?;
    let child = incremental_by(&scene.walpoint, &parent, "by LSN")?;
    let mut restored = recover_backup(&mut scene, &child)?;
    let sql = restored.sql()?;
    ensure!(finds_all(&sql, "p <@ box '((0,0),(500,500))'")? != "0");
    sql.execute("insert into t select n, point(n, n) from generate_series(1, 100) n")?;
    finds_all(&sql, "p <@ box '((0,0),(500,500))'")?;
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

fn files(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// Holds the builder when pages of the new index are on the disk, its root is not yet, and it has nothing that a
/// checkpoint waits for.
fn hold(cluster: &Cluster, builder: Pid, folder: &Path, before: &BTreeSet<PathBuf>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        let Some(index) = files(folder)?.difference(before).find(|path| is_begun(path)).cloned() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        kill_process(builder, Signal::STOP)?;
        if answers(cluster, builder)? {
            ensure!(has_no_root(&index)?, "the index was built too fast");
            return Ok(());
        }
    }
    bail!("the index is not being built")
}

fn is_begun(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.len() >= 20 * PAGE as u64) && has_no_root(path).unwrap_or(false)
}

fn has_no_root(path: &Path) -> Result<bool> {
    let mut root = [0; PAGE];
    File::open(path)?.read_exact(&mut root)?;
    Ok(root.iter().all(|byte| *byte == 0))
}

/// Whether a checkpoint ends while the builder is held; it goes on where not.
fn answers(cluster: &Cluster, builder: Pid) -> Result<bool> {
    let sql = cluster.sql()?;
    std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| sql.execute("checkpoint"));
        let begun = Instant::now();
        while !checkpoint.is_finished() && begun.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let is_free = checkpoint.is_finished();
        if !is_free {
            kill_process(builder, Signal::CONT)?;
        }
        checkpoint.join().map_err(|_| anyhow::anyhow!("the checkpoint panicked"))??;
        Ok(is_free)
    })
}
