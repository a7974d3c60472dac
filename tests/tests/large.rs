//! A cluster as large as they get: a million files, and a relation of 100 GiB of which all but a few pages are a hole.
//! It is backed up, backed up again by its changes, and restored, each within 256 MiB. Run by scripts/scale, which
//! builds the program as it is shipped:
//!
//!     WALPOINT_TEST_BINARY=target/release/walpoint cargo test --test large -- --ignored --nocapture

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::process::{Outcome, run};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::user::User;

const MEMORY_LIMIT: u64 = 256 << 20;
/// What takes longer is stuck.
const CALL_LIMIT: Duration = Duration::from_secs(3600);
const PAGE: u64 = 8192;
/// PostgreSQL's `RELSEG_SIZE`, in bytes.
const RELATION_SEGMENT: u64 = 1 << 30;
/// Files of other relations have their numbers from here on.
const FIRST_NUMBER: u64 = 1_000_000;
/// One file in so many has a page.
const WITH_PAGE: u64 = 10;

#[test]
#[ignore = "makes a million files; scripts/scale runs it"]
fn a_million_files_and_a_relation_of_100_gib_are_backed_up_and_restored_in_256_mib() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let (files, segments) = (number("FILES", 1_000_000)?, number("RELATION_GIB", 100)?);
    let options = ClusterOptions {
        wal_segsize_mb: 16,
        configuration: "autovacuum = off\nfsync = off\nrecovery_init_sync_method = syncfs\n".into(),
        ..ClusterOptions::default()
    };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute(
        "create table large (n int) with (autovacuum_enabled = false); insert into large values (1)",
    )?;
    let relation = PathBuf::from(scene.cluster.value("select pg_relation_filepath('large')")?);
    scene.cluster.stop(Stop::Fast)?;
    make(scene.cluster.data(), &relation, files, segments)?;
    scene.cluster.start()?;
    insert_at_the_end(&scene.cluster, segments, 2)?;

    let full = measured(&scene, &["backup"])?;
    insert_at_the_end(&scene.cluster, segments, 3)?;
    let incremental = measured(&scene, &["backup", "--incremental"])?;
    ensure!(incremental.stderr.contains("pages are compared with"), "no incremental one: {incremental}");
    scene.cluster.stop(Stop::Immediate)?;

    let directory = scene.fresh_directory();
    let target = directory.to_str().context("not UTF-8")?;
    let restore = measured(&scene, &["restore", "--target-immediate", "--data-directory", target])?;
    for (what, outcome) in [("backup", &full), ("backup --incremental", &incremental), ("restore", &restore)]
    {
        println!("{what:<22} {:>7.1} s {:>5} MiB", outcome.elapsed.as_secs_f64(), outcome.peak_memory >> 20);
    }
    let (_, listing) = scene.walpoint.json(&["list"])?;
    for backup in listing["backups"].as_array().context("no backups")? {
        println!("{}: {} files, {}", backup["id"], backup["files"], backup["bytes"]);
    }

    let database = relation.parent().context("no directory")?;
    let count = |data: &Path| Ok::<_, anyhow::Error>(fs::read_dir(data.join(database))?.count() as u64);
    ensure!(count(&directory)? >= files, "{} files came back", count(&directory)?);
    for name in segment_names(&relation, segments) {
        let found = fs::metadata(directory.join(&name))?;
        ensure!(found.len() == RELATION_SEGMENT, "{} has {} bytes", name.display(), found.len());
        ensure!(found.blocks() * 512 < RELATION_SEGMENT / 8, "{} is no hole any more", name.display());
    }
    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(Duration::from_secs(1800))?;
    for row in 1..=3 {
        let place = if row == 1 { 0 } else { segments * RELATION_SEGMENT / PAGE - 1 };
        let found = restored.value(&format!(
            "select n from large where ctid = '({place},{})'",
            if row == 3 { 2 } else { 1 }
        ))?;
        ensure!(found == row.to_string(), "row {row} came back as \"{found}\"");
    }
    for (what, outcome) in [("backup", full), ("backup --incremental", incremental), ("restore", restore)] {
        ensure!(outcome.peak_memory <= MEMORY_LIMIT, "{what} took {} MiB", outcome.peak_memory >> 20);
    }
    restored.stop(Stop::Immediate)
}

fn number(name: &str, default: u64) -> Result<u64> {
    let name = format!("WALPOINT_TEST_LARGE_{name}");
    std::env::var(&name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

fn measured(scene: &Scene, arguments: &[&str]) -> Result<Outcome> {
    let prefix = scene.walpoint.hook_prefix();
    let mut words = prefix.split(' ');
    let mut command: Command = User::current()?.command(Path::new(words.next().context("no program")?));
    command.args(words).args(arguments).envs(scene.place.environment());
    run(command, CALL_LIMIT)?.success()
}

/// Files as relations have them, nearly all empty, and the segments of the large one.
fn make(data: &Path, relation: &Path, files: u64, segments: u64) -> Result<()> {
    let user = User::current()?;
    let database = data.join(relation.parent().context("no directory")?);
    for number in FIRST_NUMBER..FIRST_NUMBER + files {
        let path = database.join(number.to_string());
        let file = File::create(&path)?;
        if number % WITH_PAGE == 0 {
            // A page that is new is all zero.
            file.set_len(PAGE)?;
        }
        user.own(&path)?;
    }
    for name in segment_names(relation, segments) {
        let path = data.join(name);
        File::options().create(true).append(true).open(&path)?.set_len(RELATION_SEGMENT)?;
        user.own(&path)?;
    }
    Ok(())
}

/// Of a relation that fills so many files.
fn segment_names(relation: &Path, segments: u64) -> Vec<PathBuf> {
    let name = |number| match number {
        0 => relation.to_owned(),
        _ => PathBuf::from(format!("{}.{number}", relation.display())),
    };
    (0..segments).map(name).collect()
}

/// Where PostgreSQL puts a row: on the last page of the relation.
fn insert_at_the_end(cluster: &Cluster, segments: u64, row: u64) -> Result<()> {
    cluster.execute(&format!("insert into large values ({row}); checkpoint"))?;
    let page = cluster.value(&format!(
        "select (ctid::text::point)[0]::bigint from large where ctid > '({},0)' and n = {row}",
        segments * RELATION_SEGMENT / PAGE - 2
    ))?;
    ensure!(page == (segments * RELATION_SEGMENT / PAGE - 1).to_string(), "row {row} is on page {page}");
    Ok(())
}
