//! A base backup exists only when it is complete; what it holds is what the
//! running cluster held, and what is damaged is named.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, LayoutKind, Stop};
use walpoint_tests::programs;
use walpoint_tests::scratch::Scratch;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

const START: Duration = Duration::from_secs(60);

/// A running cluster of the distribution's PostgreSQL that archives to a
/// directory.
fn archiving(options: ClusterOptions) -> Result<Option<(Cluster, Walpoint, Scratch)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scratch = Scratch::new("ba")?;
    let mut cluster = Cluster::init(&postgres, options)?;
    let walpoint = cluster.archive_to(&ArchivePlace::directory(&scratch)?)?;
    cluster.start()?;
    Ok(Some((cluster, walpoint, scratch)))
}

fn backups(walpoint: &Walpoint) -> Result<Vec<serde_json::Value>> {
    let (_, list) = walpoint.json(&["list"])?;
    list["backups"].as_array().cloned().context("no backups in the list")
}

fn restored(cluster: &Cluster, walpoint: &Walpoint, scratch: &Scratch, more: &[&str]) -> Result<Cluster> {
    let directory = scratch.path().join("restored");
    let mut args = vec!["restore", "--latest", "--data-directory", directory.to_str().unwrap()];
    args.extend_from_slice(more);
    walpoint.ok(&args)?;
    let mut restored = Cluster::restored(&directory, cluster)?;
    restored.start_expect_ready(START)?;
    Ok(restored)
}

#[test]
fn a_backup_of_a_busy_cluster_comes_back_whole() -> Result<()> {
    let Some((cluster, walpoint, scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    cluster.execute("create table kept as select n, repeat('x', 500) as filler from generate_series(1, 20000) n")?;
    cluster.execute("create unlogged table passing as select n from generate_series(1, 1000) n")?;
    let is_done = Arc::new(AtomicBool::new(false));
    let churn = churn(&cluster, is_done.clone())?;
    let outcome = walpoint.ok(&["backup"])?;
    is_done.store(true, Ordering::Relaxed);
    churn.join().expect("the churn panicked")?;
    let id = outcome.last_line()?.to_owned();
    assert!(id.contains("-full-"), "{outcome}");
    cluster.switch_and_wait_archived(START)?;
    let rounds = cluster.value("select count(*) from rounds")?;

    assert_eq!(backups(&walpoint)?[0]["id"], id);
    let restored = restored(&cluster, &walpoint, &scratch, &[])?;
    assert_eq!(restored.value("select count(*) || '/' || sum(n) from kept")?, "20000/200010000");
    assert_eq!(restored.value("select count(*) from rounds")?, rounds);
    assert_eq!(restored.value("select count(*) from passing")?, "0", "unlogged tables are empty");
    restored.execute("select pg_advisory_lock(1)")?;
    Ok(())
}

/// Makes, cuts and drops tables until it is told to stop.
fn churn(cluster: &Cluster, is_done: Arc<AtomicBool>) -> Result<std::thread::JoinHandle<Result<()>>> {
    cluster.execute("create table rounds (n int); create table cut (filler text)")?;
    let sql = cluster.sql()?;
    Ok(std::thread::spawn(move || {
        let mut round = 0;
        while !is_done.load(Ordering::Relaxed) {
            round += 1;
            sql.execute(&format!(
                "create table made_{round} as select repeat('y', 900) as filler from generate_series(1, 300);
                 insert into cut select repeat('z', 900) from generate_series(1, 300);
                 insert into rounds values ({round})"
            ))?;
            sql.execute(&format!("truncate cut; drop table made_{round}"))?;
        }
        Ok(())
    }))
}

#[test]
fn a_damaged_page_is_named_and_the_backup_is_kept() -> Result<()> {
    let Some((mut cluster, walpoint, _scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    cluster.execute("create table t as select n, repeat('x', 500) as filler from generate_series(1, 1000) n")?;
    cluster.execute("checkpoint")?;
    let path = cluster.value("select pg_relation_filepath('t')")?;
    cluster.stop(Stop::Fast)?;
    flip_byte(&cluster.data().join(&path), 3 * 8192 + 4000)?;
    cluster.start()?;

    let outcome = walpoint.run(&["backup"])?.expect(5)?;
    assert!(outcome.stderr.contains(&path), "the file is not named\n{outcome}");
    assert!(outcome.stderr.contains("block 3"), "the block is not named\n{outcome}");
    assert!(!outcome.stderr.contains("block 2") && !outcome.stderr.contains("block 4"), "{outcome}");
    let id = outcome.last_line()?.to_owned();
    let kept = backups(&walpoint)?;
    assert_eq!((&kept[0]["id"], &kept[0]["damaged_pages"]), (&id.into(), &1.into()));
    let (status, json) = walpoint.json(&["backup"])?;
    assert_eq!((status, json["damaged_pages"].as_u64()), (5, Some(1)), "{json}");
    Ok(())
}

fn flip_byte(path: &Path, at: u64) -> Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 0x10])?;
    Ok(())
}

#[test]
fn wal_that_never_arrives_leaves_no_backup() -> Result<()> {
    let Some((cluster, walpoint, _scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    cluster.execute("alter system set archive_command = 'exit 1 # walpoint archive-push %p'")?;
    cluster.execute("select pg_reload_conf()")?;
    walpoint.configure("[backup]\nwal_timeout = \"3s\"")?;
    let outcome = walpoint.run(&["backup"])?.expect(1)?;
    assert!(outcome.stderr.contains("not complete"), "{outcome}");
    assert!(outcome.stderr.contains("00000001"), "the segment awaited is not named\n{outcome}");
    assert_eq!(backups(&walpoint)?.len(), 0);
    assert_eq!(outcome.stdout, "");
    Ok(())
}

#[test]
fn a_server_that_does_not_archive_is_refused_before_anything_is_read() -> Result<()> {
    let Some((cluster, walpoint, scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    cluster.execute("alter system set archive_command = ''")?;
    cluster.execute("select pg_reload_conf()")?;
    // The reload is a signal; the next session has seen it.
    std::thread::sleep(Duration::from_millis(300));
    let outcome = walpoint.run(&["backup"])?.expect(2)?;
    assert!(outcome.stderr.contains("archive_command is empty"), "{outcome}");

    let off = Cluster::init(&cluster.postgres, ClusterOptions::default())?;
    let mut off = off;
    off.start()?;
    let walpoint = Walpoint::new(&scratch, &ArchivePlace::directory(&scratch)?, Some(&off))?;
    let outcome = walpoint.run(&["backup"])?.expect(2)?;
    assert!(outcome.stderr.contains("archive_mode is off"), "{outcome}");
    assert_eq!(std::fs::read_dir(scratch.path().join("archive"))?.count(), 1, "only the first cluster's folder");
    Ok(())
}

#[test]
fn a_connection_to_another_cluster_is_status_4() -> Result<()> {
    let Some((cluster, walpoint, _scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    let mut other = Cluster::init(&cluster.postgres, ClusterOptions::default())?;
    other.start()?;
    let crossed = walpoint.with_config(|text| {
        text.replace(&cluster.connection("walpoint"), &other.connection("walpoint"))
    })?;
    let outcome = crossed.run(&["backup"])?.expect(4)?;
    assert!(outcome.stderr.contains("system identifier"), "{outcome}");
    Ok(())
}

#[test]
fn without_a_connection_the_data_directorys_own_server_is_found() -> Result<()> {
    let Some((cluster, walpoint, _scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    let line = format!("connection = \"{}\"\n", cluster.connection("walpoint"));
    let without = walpoint.with_config(|text| text.replace(&line, ""))?;
    without.ok(&["backup"])?;
    Ok(())
}

#[test]
fn two_backups_at_once_are_two_backups() -> Result<()> {
    let Some((_cluster, walpoint, _scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    let second = walpoint.clone();
    let other = std::thread::spawn(move || second.ok(&["backup"]));
    let one = walpoint.ok(&["backup"])?.last_line()?.to_owned();
    let two = other.join().expect("the second backup panicked")?.last_line()?.to_owned();
    assert_ne!(one, two);
    assert_eq!(backups(&walpoint)?.len(), 2);
    Ok(())
}

#[test]
fn a_backup_that_is_interrupted_is_no_backup_and_leaves_the_server_alone() -> Result<()> {
    let Some((cluster, walpoint, scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    // Nothing arrives, so the backup waits when the signal comes.
    cluster.execute("alter system set archive_command = 'exit 1 # walpoint archive-push %p'")?;
    cluster.execute("select pg_reload_conf()")?;
    let output = File::create(scratch.path().join("output"))?;
    let mut child = walpoint.spawn(Path::new("/"), &["backup"], &output)?;
    std::thread::sleep(Duration::from_secs(3));
    let pid = child.id().to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status()?;
    let status = child.wait()?;
    let said = std::fs::read_to_string(scratch.path().join("output"))?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(backups(&walpoint)?.len(), 0);
    let sessions = "select count(*) from pg_stat_activity where application_name = 'walpoint'";
    assert_eq!(cluster.value(sessions)?, "0");
    Ok(())
}

#[test]
fn a_tablespace_comes_back_elsewhere() -> Result<()> {
    let Some((cluster, walpoint, scratch)) = archiving(ClusterOptions::default())? else { return Ok(()) };
    let (old, new) = (scratch.make_dir("space")?, scratch.make_dir("elsewhere")?);
    cluster.execute(&format!("create tablespace space location '{}'", old.display()))?;
    cluster.execute("create table t tablespace space as select n from generate_series(1, 5000) n")?;
    walpoint.ok(&["backup"])?;
    cluster.switch_and_wait_archived(START)?;
    let mapping = format!("{}={}", old.display(), new.display());
    let restored = restored(&cluster, &walpoint, &scratch, &["--tablespace", &mapping])?;
    assert_eq!(restored.value("select count(*) from t")?, "5000");
    let location = restored.value("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'space'")?;
    assert_eq!(location, new.display().to_string());
    Ok(())
}

#[test]
fn configuration_outside_the_data_directory_comes_back_beside() -> Result<()> {
    let options = ClusterOptions { layout: LayoutKind::Debian, ..ClusterOptions::default() };
    let Some((cluster, walpoint, scratch)) = archiving(options)? else { return Ok(()) };
    cluster.execute("create table t as select n from generate_series(1, 10) n")?;
    walpoint.ok(&["backup"])?;
    cluster.switch_and_wait_archived(START)?;
    let restored = restored(&cluster, &walpoint, &scratch, &[])?;
    assert_eq!(restored.value("select count(*) from t")?, "10");
    let kept = restored.data().join("walpoint-config");
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        assert!(find(&kept, name)?, "{name} is not under {}", kept.display());
    }
    Ok(())
}

fn find(directory: &Path, name: &str) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|it| it == name) || (path.is_dir() && find(&path, name)?) {
            return Ok(true);
        }
    }
    Ok(false)
}
