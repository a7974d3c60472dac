//! WAL segments of every size that `initdb` makes: 16 and 64 MiB through a whole recovery, 1 GiB through
//! the hooks with memory that does not grow with the segment.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::process::Outcome;
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::write_private;
use walpoint_tests::wait;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

/// A fifth of the largest segment: a hook that holds one of those in memory is far above it.
const MOST_MEMORY: u64 = 200 << 20;

fn options(megabytes: u32) -> ClusterOptions {
    ClusterOptions { wal_segsize_mb: megabytes, ..ClusterOptions::default() }
}

#[test]
fn segments_of_16_mib_come_back() -> Result<()> {
    come_back(16)
}

#[test]
fn segments_of_64_mib_come_back() -> Result<()> {
    come_back(64)
}

#[test]
fn segments_of_1_gib_come_back() -> Result<()> {
    come_back(1024)
}

/// A backup and a recovery to a moment between two commits and to the end, over segments that are full and
/// ones that were switched.
fn come_back(megabytes: u32) -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, options(megabytes))?;
    let cluster = &scene.cluster;
    cluster.execute("create table t(n int)")?;
    scene.backup()?;
    cluster.execute("insert into t values (1)")?;
    let time = cluster.value("select clock_timestamp()::text")?;
    // In pieces, for a record of 600 MB is one that the server builds in memory.
    let message = megabytes * 60_000;
    for _ in 0..20 {
        cluster.execute(&format!("select pg_logical_emit_message(false, 'big', repeat('x', {message}))"))?;
    }
    cluster.execute("insert into t values (2)")?;
    scene.archive_everything()?;
    assert_eq!(cluster_says(&scene)?, u64::from(megabytes) << 20);
    super::spanning_records::assert_whole(&scene)?;
    scene.cluster.stop(Stop::Fast)?;
    for (target, rows) in [(vec!["--target-time", time.as_str()], "1"), (vec!["--latest"], "1 2")] {
        // Planning reads segments, one of the largest at a time.
        let most = MOST_MEMORY + (u64::from(megabytes) << 20);
        in_bounds(&scene.walpoint.ok(&[&["plan"], &target[..]].concat())?, most)?;
        let mut restored = scene.recover(&target)?;
        assert_eq!(restored.value("select string_agg(n::text, ' ' order by n) from t")?, rows);
        restored.stop(Stop::Immediate)?;
    }
    Ok(())
}

/// The segment size that the archive knows the cluster by.
fn cluster_says(scene: &Scene) -> Result<u64> {
    let file = walpoint_tests::archive_files::named(scene.archive_directory()?, "cluster.json");
    let file = file.iter().find(|path| path.ends_with("cluster.json")).context("no cluster.json")?;
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    json["segment_size"].as_u64().context("no segment size")
}

/// A cluster with two segments that are finished: one full of what cannot be compressed, one that is nearly
/// empty.
struct Giant {
    cluster: Cluster,
    megabytes: u32,
    full: String,
    switched: String,
}

fn giant(postgres: &Postgres, megabytes: u32) -> Result<Giant> {
    let cluster_options = ClusterOptions {
        configuration: "wal_keep_size = '4GB'\nmax_wal_size = '8GB'".into(),
        ..options(megabytes)
    };
    let mut cluster = Cluster::init(postgres, cluster_options)?;
    cluster.start()?;
    let noise = cluster.scratch().path().join("noise");
    write_private(&noise, "")?;
    let mut bytes = vec![0; megabytes as usize * (1 << 15)];
    rand::rng().fill(&mut bytes[..]);
    std::fs::write(&noise, bytes)?;
    let sql = cluster.sql()?;
    let full = sql.value("select pg_walfile_name(pg_current_wal_insert_lsn())")?;
    let emit =
        format!("select pg_logical_emit_message(false, 'noise', pg_read_binary_file('{}'))", noise.display());
    let name = "select pg_walfile_name(pg_current_wal_insert_lsn())";
    wait::until_true("a segment of noise to be written", Duration::from_secs(240), || {
        sql.execute(&emit)?;
        sql.execute("create table if not exists t(n int); insert into t values (1)")?;
        Ok(sql.value(name)? > full)
    })?;
    let switched = sql.value("select pg_walfile_name(pg_switch_wal())")?;
    sql.execute("insert into t values (2)")?;
    assert!(switched > full);
    cluster.stop(Stop::Fast)?;
    Ok(Giant { cluster, megabytes, full, switched })
}

#[test]
fn segments_of_64_mib_go_through_the_hooks_in_little_memory() -> Result<()> {
    through_the_hooks(64)
}

#[test]
fn segments_of_1_gib_go_through_the_hooks_in_little_memory() -> Result<()> {
    through_the_hooks(1024)
}

fn through_the_hooks(megabytes: u32) -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let giant = giant(&postgres, megabytes)?;
    let place = ArchivePlace::directory(giant.cluster.scratch())?;
    there_and_back(&giant, &place).context("a directory")?;
    if let ArchivePlace::Directory(directory) = &place {
        std::fs::remove_dir_all(directory)?;
    }
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    there_and_back(&giant, &garage.archive()?).context("S3")
}

/// Pushes both segments as PostgreSQL would, and gets them back.
fn there_and_back(giant: &Giant, place: &ArchivePlace) -> Result<()> {
    let walpoint = Walpoint::new(giant.cluster.scratch(), place, Some(&giant.cluster))?;
    // The deadline grows with the segment: this is what stays beside the time for its bytes.
    walpoint.configure("[archive_push]\ndeadline = \"1s\"\n")?;
    let data = giant.cluster.data();
    for name in [&giant.full, &giant.switched] {
        let path = format!("pg_wal/{name}");
        assert_eq!(std::fs::metadata(data.join(&path))?.len(), u64::from(giant.megabytes) << 20);
        let pushed = walpoint.run_in(data, &["archive-push", &path])?.success()?;
        in_bounds(&pushed, MOST_MEMORY)?;
        let got = walpoint.run_in(data, &["archive-get", name, "pg_wal/RECOVERYXLOG"])?.success()?;
        in_bounds(&got, MOST_MEMORY)?;
        let back = data.join("pg_wal/RECOVERYXLOG");
        assert!(same(&data.join(&path), &back)?, "{name} came back changed");
        std::fs::remove_file(&back)?;
    }
    Ok(())
}

fn in_bounds(outcome: &Outcome, most: u64) -> Result<()> {
    println!(
        "{}: {:.1} s, {} MiB at most",
        outcome.command,
        outcome.elapsed.as_secs_f64(),
        outcome.peak_memory >> 20
    );
    ensure!(outcome.peak_memory > 0, "the memory was not measured\n{outcome}");
    ensure!(outcome.peak_memory < most, "{} MiB of memory\n{outcome}", outcome.peak_memory >> 20);
    Ok(())
}

/// Both files have the same bytes.
fn same(one: &Path, other: &Path) -> Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut ours)?;
        if count == 0 {
            return Ok(other.read(&mut theirs)? == 0);
        }
        other.read_exact(&mut theirs[..count])?;
        if ours[..count] != theirs[..count] {
            return Ok(false);
        }
    }
}
