//! A backup is a guest: it reads no faster than it may, ends when it is told to, and leaves the server's page cache as
//! it was.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions};
use walpoint_tests::scene::Scene;
use walpoint_tests::{programs, wait};

const MIB: u64 = 1 << 20;

fn scene(configuration: &str) -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options = ClusterOptions { configuration: configuration.to_owned(), ..ClusterOptions::default() };
    let scene = Scene::on_directory(&postgres, options)?;
    for table in ["warm", "cold", "mixed"] {
        scene.cluster.execute(&format!(
            "create table {table} as select n, repeat(md5(n::text), 30) as filler from generate_series(1, 16000) n"
        ))?;
    }
    scene.cluster.execute("checkpoint")?;
    Ok(Some(scene))
}

fn file_of(cluster: &Cluster, table: &str) -> Result<std::path::PathBuf> {
    Ok(cluster.data().join(cluster.value(&format!("select pg_relation_filepath('{table}')"))?))
}

/// Bytes of a file in the page cache.
fn cached(path: &Path) -> Result<u64> {
    let output =
        Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output()?;
    String::from_utf8(output.stdout)?.trim().parse().context("what fincore says")
}

/// Drops a file from the page cache, or from this offset on.
fn drop_cache(path: &Path, from: u64) -> Result<()> {
    File::open(path)?.sync_all()?;
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", path.display())).args(["iflag=nocache", "count=0", "bs=1M"]);
    dd.arg(format!("skip={}", from / MIB)).stderr(std::process::Stdio::null());
    ensure!(dd.status()?.success());
    Ok(())
}

#[test]
fn a_backup_leaves_the_page_cache_as_it_was() -> Result<()> {
    let Some(scene) = scene("autovacuum = off\n")? else { return Ok(()) };
    if Command::new("fincore").arg("--version").output().is_err() {
        return programs::missing::<()>("no fincore").map(drop);
    }
    let cluster = &scene.cluster;
    let [warm, cold, mixed] = ["warm", "cold", "mixed"].map(|table| file_of(cluster, table));
    let (warm, cold, mixed) = (warm?, cold?, mixed?);
    for path in [&warm, &cold, &mixed] {
        ensure!(std::fs::read(path)?.len() as u64 > 8 * MIB, "the table is too small to tell");
    }
    drop_cache(&cold, 0)?;
    drop_cache(&mixed, 4 * MIB)?;
    let before = [cached(&warm)?, cached(&cold)?, cached(&mixed)?];
    println!("before: {before:?}");
    ensure!(before[0] > 8 * MIB && before[1] == 0 && before[2] >= 4 * MIB, "the cache could not be staged");
    scene.backup()?;
    let after = [cached(&warm)?, cached(&cold)?, cached(&mixed)?];
    println!("after: {after:?}");
    ensure!(after[0] == before[0], "the server's pages were dropped");
    ensure!(after[1] <= MIB / 2, "{} bytes came into the cache", after[1]);
    ensure!(
        after[2].abs_diff(before[2]) <= MIB,
        "a file that is partly cached changed: {before:?} {after:?}"
    );
    Ok(())
}

#[test]
fn a_backup_reads_no_faster_than_it_may() -> Result<()> {
    let Some(scene) = scene("")? else { return Ok(()) };
    let size: u64 =
        scene.cluster.value("select sum(pg_database_size(oid))::bigint from pg_database")?.parse()?;
    let rate = size / 4 / MIB;
    let begun = Instant::now();
    scene.walpoint.ok(&["backup", "--max-rate", &format!("{rate}MiB")])?;
    let took = begun.elapsed();
    println!("{} MiB at {rate} MiB/s: {took:?}", size / MIB);
    ensure!(took >= Duration::from_millis(3500), "{took:?}");
    scene.walpoint.run(&["backup", "--max-rate", "30"])?.expect(2)?;
    scene.walpoint.run(&["backup", "--workers", "0"])?.expect(2)?;
    Ok(())
}

#[test]
fn a_backup_that_is_told_to_stop_leaves_the_server_alone() -> Result<()> {
    let Some(scene) = scene("")? else { return Ok(()) };
    let log = scene.cluster.scratch().path().join("stopped.log");
    let mut child =
        scene.walpoint.spawn(Path::new("/"), &["backup", "--max-rate", "1MiB"], &File::create(&log)?)?;
    let sessions = "select count(*) from pg_stat_activity where usename = 'walpoint'";
    wait::until_true("the backup to read", Duration::from_secs(60), || {
        Ok(std::fs::read_to_string(&log)?.contains("starts with a checkpoint")
            && scene.cluster.value(sessions)? == "1")
    })?;
    std::thread::sleep(Duration::from_millis(500));
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id())?).context("no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let begun = Instant::now();
    let status = child.wait()?;
    ensure!(status.code() == Some(1), "{status}: {}", std::fs::read_to_string(&log)?);
    ensure!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    ensure!(std::fs::read_to_string(&log)?.contains("interrupted by SIGTERM"));
    wait::until_true("the session to end", Duration::from_secs(10), || {
        Ok(scene.cluster.value(sessions)? == "0")
    })?;
    let (_, listing) = scene.walpoint.json(&["list"])?;
    ensure!(listing["backups"].as_array().is_some_and(Vec::is_empty), "{listing}");
    Ok(())
}
