//! The server is killed between parent and child, in the midst of writing pages whose hints were set since.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;

use super::soundness::{counts_agree, must_be_sound};
use super::{incremental_by, recover_backup};

const PAGE: usize = 8192;
const HALF: usize = PAGE / 2;

#[test]
fn pages_torn_while_hints_were_written_are_whole_or_compared_by_content() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    for (checksums, hints, how) in [
        (true, "off", "restarted since"),
        (false, "on", "by LSN"),
        (true, "on", "by LSN"),
        (false, "off", "neither"),
    ] {
        tear(&postgres, checksums, hints, how)
            .with_context(|| format!("checksums {checksums}, wal_log_hints {hints}"))?;
    }
    Ok(())
}

fn tear(postgres: &Postgres, checksums: bool, hints: &str, how: &str) -> Result<()> {
    // Nobody writes pages but checkpoints.
    let configuration = format!(
        "wal_log_hints = {hints}\nautovacuum = off\nbgwriter_lru_maxpages = 0\ncheckpoint_timeout = 1h\n\
         max_wal_size = 1GB\n"
    );
    let options = ClusterOptions { checksums, configuration, ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(postgres, options)?;
    scene.cluster.execute(
        "create extension pageinspect;
         create table read (n int primary key, filler text); create table vacuumed (n int primary key, filler text);
         insert into read select n, repeat('x', 100) from generate_series(1, 2000) n;
         insert into vacuumed select n, repeat('y', 100) from generate_series(1, 2000) n",
    )?;
    let parent = scene.backup()?;

    scene.cluster.execute("select count(*) from read")?;
    scene.cluster.execute("vacuum vacuumed")?;
    let written = [written(&scene.cluster, "read")?, written(&scene.cluster, "vacuumed")?];
    scene.archive_everything()?;
    scene.cluster.kill()?;
    for (file, pages) in written {
        write_half(&file, &pages)?;
    }
    scene.cluster.start()?;
    scene.cluster.execute("delete from vacuumed where n % 40 = 7")?;
    let child = incremental_by(&scene.walpoint, &parent, how)?;

    let mut restored = recover_backup(&mut scene, &child)?;
    let sql = restored.sql()?;
    must_be_sound(&restored)?;
    ensure!(counts_agree(&sql, "vacuumed")? == "1950", "rows are back");
    ensure!(sql.value("select count(*) from read")? == "2000");
    // What comes later relies on the pages' words.
    sql.execute("delete from read where n % 20 = 3")?;
    sql.execute("vacuum read")?;
    ensure!(counts_agree(&sql, "read")? == "1900");
    must_be_sound(&restored)?;
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

/// A table's file, and its first two pages as they would be written.
fn written(cluster: &Cluster, table: &str) -> Result<(PathBuf, [Vec<u8>; 2])> {
    let path = cluster.value(&format!("select pg_relation_filepath('{table}')"))?;
    let page = |number: u32| {
        let hex = cluster.value(&format!("select encode(get_raw_page('{table}', {number}), 'hex')"))?;
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16);
        (0..hex.len()).step_by(2).map(|at| Ok(byte(at)?)).collect::<Result<Vec<u8>>>()
    };
    Ok((cluster.data().join(path), [page(0)?, page(1)?]))
}

/// Of the first page only the first half reaches the disk, of the second one only the second.
fn write_half(file: &Path, pages: &[Vec<u8>; 2]) -> Result<()> {
    let disk = File::options().read(true).write(true).open(file)?;
    for (number, written) in [(0, 0), (1, HALF)] {
        let page = &pages[number];
        let mut before = vec![0; PAGE];
        disk.read_exact_at(&mut before, (number * PAGE) as u64)?;
        let differs = |half: usize| page[half..half + HALF] != before[half..half + HALF];
        ensure!(differs(0) && differs(HALF), "no tear: half a page of {} is as before", file.display());
        disk.write_all_at(&page[written..written + HALF], (number * PAGE + written) as u64)?;
    }
    Ok(())
}
