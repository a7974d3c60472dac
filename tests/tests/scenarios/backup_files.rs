//! A backup holds the files that PostgreSQL's own `pg_basebackup` takes of the
//! same cluster, no more and no fewer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::{make_private_dir, write_private};
use walpoint_tests::user::User;

/// What either of the two adds for its own purposes, or the server writes
/// anew at any time.
const DIFFERENT: [&str; 10] = [
    "backup_manifest",
    "recovery.signal",
    "walpoint.recovery.json",
    "walpoint.writer",
    // pg_basebackup makes the links itself, and leaves out what is included
    // from outside the data directory.
    "tablespace_map",
    "walpoint-config",
    // Both write a line or more of their own.
    "postgresql.auto.conf",
    "backup_label",
    // Rewritten from memory now and then.
    "pg_stat/pgstat.stat",
    "pg_logical/replorigin_checkpoint",
];

#[test]
fn the_files_are_those_of_pg_basebackup() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    if !postgres.has_tool("pg_basebackup") {
        println!("skipped: no pg_basebackup beside the server");
        return Ok(());
    }
    // Nothing may change between the two.
    let options = ClusterOptions { configuration: "autovacuum = off".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    let space = scene.cluster.scratch().make_dir("space")?;
    let sql = scene.cluster.sql()?;
    sql.execute(&format!("create tablespace space location '{}'", space.display()))?;
    sql.execute("create table plain as select n from generate_series(1, 9000) n")?;
    sql.execute("create table moved tablespace space as select n from generate_series(1, 9000) n")?;
    sql.execute("create unlogged table passing (n int primary key)")?;
    sql.execute("create unlogged table passing_moved (n int primary key) tablespace space")?;
    // Belongs to this session, which stays open.
    sql.execute("create temporary table mine as select n from generate_series(1, 9000) n")?;
    sql.execute("create database another")?;
    sql.execute("vacuum")?;
    sql.execute("checkpoint")?;
    let data = scene.cluster.data();
    make_private_dir(&data.join("pg_snapshots/old"))?;
    make_private_dir(&data.join("pgsql_tmp_of_old"))?;
    write_private(&data.join("pg_stat_tmp/some.stat"), "x")?;
    write_private(&data.join("notes.txt"), "of the operator's own")?;
    // Whoever opens it to read waits for ever.
    let pipe = User::current()?.command(Path::new("/usr/bin/mkfifo")).arg(data.join("pipe")).status()?;
    assert!(pipe.success());

    let (theirs, their_space) = (scene.fresh_directory(), scene.cluster.scratch().path().join("their-space"));
    let target = theirs.display().to_string();
    let mapping = format!("{}={}", space.display(), their_space.display());
    let args = ["-D", &target, "-X", "none", "-c", "fast", "-T", &mapping];
    scene.cluster.client_tool("pg_basebackup", &args, Duration::from_secs(120))?;

    scene.backup()?;
    drop(sql);
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let our_space = scene.cluster.scratch().path().join("our-space");
    let mapping = format!("{}={}", space.display(), our_space.display());
    let restored = scene.restore(&["--target-immediate", "--tablespace", &mapping])?;

    assert_eq!(files(restored.data())?, files(&theirs)?);
    assert_eq!(files(&our_space)?, files(&their_space)?);
    Ok(())
}

/// Path, and for files the size; directories have none.
fn files(directory: &Path) -> Result<BTreeMap<String, Option<u64>>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            let name = path.strip_prefix(directory)?.display().to_string();
            let metadata = path.symlink_metadata()?;
            if DIFFERENT.contains(&name.as_str()) {
                continue;
            }
            if metadata.is_dir() {
                pending.push(path);
            }
            found.insert(name, metadata.is_file().then_some(metadata.len()));
        }
    }
    Ok(found)
}
