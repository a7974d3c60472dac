//! A base backup exists only when it is complete, and holds what the running
//! cluster held, whatever happens to files meanwhile.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::scene::Scene;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};
use walpoint_tests::{programs, wait};

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    Scene::on_directory(&postgres, ClusterOptions::default()).map(Some)
}

fn backups(walpoint: &Walpoint) -> Result<Vec<serde_json::Value>> {
    let (_, list) = walpoint.json(&["list"])?;
    list["backups"].as_array().cloned().with_context(|| format!("no backups in {list}"))
}

/// The archiver tries and fails from now on.
fn break_archiving(cluster: &Cluster) -> Result<()> {
    cluster.execute("alter system set archive_command = 'exit 1 # walpoint archive-push %p'")?;
    reload(cluster)
}

/// The reload is a signal: waits until a new session sees the last setting.
fn reload(cluster: &Cluster) -> Result<()> {
    let wanted = cluster.value(
        "select setting from pg_file_settings where name = 'archive_command' order by seqno desc limit 1",
    )?;
    cluster.execute("select pg_reload_conf()")?;
    wait::until_true("the settings to be read", Duration::from_secs(10), || {
        let shown = cluster.value("show archive_command")?;
        Ok(shown == wanted || (wanted.is_empty() && shown == "(disabled)"))
    })
}

#[test]
fn a_backup_of_a_busy_cluster_comes_back_whole() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let cluster = &scene.cluster;
    cluster.execute("create table kept as select n, repeat('x', 500) from generate_series(1, 20000) n")?;
    cluster.execute("create unlogged table passing as select n from generate_series(1, 1000) n")?;
    let is_done = Arc::new(AtomicBool::new(false));
    let churn = churn(cluster, Arc::clone(&is_done))?;
    let taken = scene.backup();
    is_done.store(true, Ordering::Relaxed);
    churn.join().expect("the churn panicked")?;
    assert!(taken?.contains("-full-"));
    scene.archive_everything()?;
    let rounds = scene.cluster.value("select count(*) from rounds")?;
    scene.cluster.stop(Stop::Fast)?;

    let restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select count(*) || '/' || sum(n) from kept")?, "20000/200010000");
    assert_eq!(restored.value("select count(*) from rounds")?, rounds);
    assert_eq!(restored.value("select count(*) from passing")?, "0", "an unlogged table is empty");
    // Every index and every table can be read to its end.
    restored.execute("vacuum (freeze)")?;
    Ok(())
}

/// Makes, cuts and drops tables until it is told to stop.
fn churn(cluster: &Cluster, is_done: Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    cluster.execute("create table rounds (n int primary key); create table cut (filler text)")?;
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
fn wal_that_never_arrives_leaves_no_backup() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    break_archiving(&scene.cluster)?;
    let hasty = scene.walpoint.with_config(|text| format!("{text}\n[backup]\nwal_timeout = \"3s\"\n"))?;
    let outcome = hasty.run(&["backup"])?.expect(1)?;
    assert!(outcome.stderr.contains("not complete"), "{outcome}");
    assert!(outcome.stderr.contains("segment 00000001"), "the segment awaited is not named\n{outcome}");
    assert!(outcome.stderr.contains("archiver failed"), "{outcome}");
    assert_eq!(outcome.stdout, "");
    assert_eq!(backups(&scene.walpoint)?.len(), 0);
    Ok(())
}

/// The server calls every segment archived, and one of them is not in the archive.
#[test]
fn a_segment_that_is_archived_only_by_the_servers_word_leaves_no_backup() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    // The backup begins with a segment of its own when something is in this one.
    scene.cluster.execute("create table t as select 1 as n")?;
    let next = "select pg_walfile_name(pg_current_wal_insert_lsn() + 1048576)";
    let lost = scene.cluster.value(next)?;
    let push = format!("{} archive-push %p", scene.walpoint.hook_prefix());
    let command = format!("case %f in {lost}) true;; *) {push};; esac");
    scene.cluster.execute(&format!("alter system set archive_command = '{command}'"))?;
    reload(&scene.cluster)?;
    let hasty = scene.walpoint.with_config(|text| format!("{text}\n[backup]\nwal_timeout = \"3s\"\n"))?;
    let outcome = hasty.run(&["backup"])?.expect(1)?;
    assert!(outcome.stderr.contains(&lost), "the segment that is missing is not named\n{outcome}");
    assert_eq!(backups(&scene.walpoint)?.len(), 0);
    let archived = scene.cluster.value("select last_archived_wal from pg_stat_archiver")?;
    assert!(archived >= lost, "the shape was not staged: {archived} was the last");
    Ok(())
}

#[test]
fn a_server_that_does_not_archive_is_refused_before_anything_is_read() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    scene.cluster.execute("alter system set archive_command = ''")?;
    reload(&scene.cluster)?;
    let outcome = scene.walpoint.run(&["backup"])?.expect(2)?;
    assert!(outcome.stderr.contains("archive_command is empty"), "{outcome}");

    let mut off = Cluster::init(&scene.cluster.postgres, ClusterOptions::default())?;
    off.start()?;
    let place = ArchivePlace::directory(off.scratch())?;
    let walpoint = Walpoint::new(off.scratch(), &place, Some(&off))?;
    let outcome = walpoint.run(&["backup"])?.expect(2)?;
    assert!(outcome.stderr.contains("archive_mode is off"), "{outcome}");
    let ArchivePlace::Directory(directory) = place else { return Ok(()) };
    assert_eq!(std::fs::read_dir(directory)?.count(), 0, "the archive knows a cluster that has no WAL in it");
    Ok(())
}

#[test]
fn a_connection_to_another_cluster_is_status_4() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let mut other = Cluster::init(&scene.cluster.postgres, ClusterOptions::default())?;
    other.start()?;
    let crossed = scene.walpoint.with_config(|text| {
        text.replace(&scene.cluster.connection("walpoint"), &other.connection("walpoint"))
    })?;
    let outcome = crossed.run(&["backup"])?.expect(4)?;
    assert!(outcome.stderr.contains("system identifier"), "{outcome}");
    Ok(())
}

#[test]
fn without_a_connection_the_data_directorys_own_server_is_found() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let line = format!("connection = \"{}\"\n", scene.cluster.connection("walpoint"));
    let without = scene.walpoint.with_config(|text| text.replace(&line, ""))?;
    without.ok(&["backup"])?;
    Ok(())
}

#[test]
fn two_backups_at_once_are_two_backups() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let second = scene.walpoint.clone();
    let other = std::thread::spawn(move || second.ok(&["backup"]));
    let one = scene.backup()?;
    let two = other.join().expect("the second backup panicked")?.last_line()?.to_owned();
    assert_ne!(one, two);
    assert_eq!(backups(&scene.walpoint)?.len(), 2);
    Ok(())
}

/// Waits until a backup has been stopped and only WAL is missing: the server
/// has made its backup history file, and nothing archives that either.
fn wait_for_wal(cluster: &Cluster) -> Result<()> {
    let waiting = cluster.data().join("pg_wal/archive_status");
    wait::until_true("the backup to wait for WAL", Duration::from_secs(60), || {
        let names =
            std::fs::read_dir(&waiting)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.into_iter().any(|name| name.ends_with(".backup.ready")))
    })
}

#[test]
fn a_backup_that_is_interrupted_is_none_and_leaves_the_server_alone() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    // Nothing arrives, so the backup waits for WAL when the signal comes.
    break_archiving(&scene.cluster)?;
    let said = scene.cluster.scratch().path().join("said");
    let mut child = scene.walpoint.spawn(Path::new("/"), &["backup"], &File::create(&said)?)?;
    let sessions = "select count(*) from pg_stat_activity where application_name = 'walpoint'";
    wait_for_wal(&scene.cluster)?;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    let status = child.wait()?;
    let said = std::fs::read_to_string(&said)?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted by SIGINT"), "{said}");
    assert_eq!(backups(&scene.walpoint)?.len(), 0);
    wait::until_true("the session to end", Duration::from_secs(10), || {
        Ok(scene.cluster.value(sessions)? == "0")
    })
}

#[test]
fn a_session_that_ends_while_files_are_read_ends_the_backup() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    // Enough to read for the session to be found and ended meanwhile.
    scene
        .cluster
        .execute("create table t as select n, repeat('x', 900) from generate_series(1, 200000) n")?;
    let said = scene.cluster.scratch().path().join("said");
    let mut child = scene.walpoint.spawn(Path::new("/"), &["backup"], &File::create(&said)?)?;
    let sql = scene.cluster.sql()?;
    wait::until_true("the backup's session to be ended", Duration::from_secs(60), || {
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                     where application_name = 'walpoint' and state = 'idle' and query like '%backup%start%'";
        Ok(sql.value(ended)? != "0")
    })?;
    let status = child.wait()?;
    let said = std::fs::read_to_string(&said)?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the session with the server ended"), "{said}");
    assert_eq!(backups(&scene.walpoint)?.len(), 0);
    Ok(())
}

#[test]
fn a_server_that_restarts_while_wal_is_awaited_does_not_end_the_backup() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    break_archiving(&scene.cluster)?;
    let said = scene.cluster.scratch().path().join("said");
    let mut child = scene.walpoint.spawn(Path::new("/"), &["backup"], &File::create(&said)?)?;
    wait_for_wal(&scene.cluster)?;
    scene.cluster.execute("alter system reset archive_command")?;
    scene.cluster.kill()?;
    scene.cluster.start()?;
    let status = child.wait()?;
    assert_eq!(status.code(), Some(0), "{}", std::fs::read_to_string(&said)?);
    assert_eq!(backups(&scene.walpoint)?.len(), 1);
    let restored = scene.recover(&["--target-immediate"])?;
    assert_eq!(restored.value("select count(*) > 0 from pg_class")?, "t");
    Ok(())
}

#[test]
fn a_copy_of_the_cluster_is_not_backed_up_in_its_place() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    let copy = scene.restore(&["--latest"])?;
    // The original's server, the copy's directory.
    let crossed = scene.walpoint.with_config(|text| {
        text.replace(&scene.cluster.data().display().to_string(), &copy.data().display().to_string())
    })?;
    let outcome = crossed.run(&["backup"])?.expect(4)?;
    assert!(outcome.stderr.contains("a copy of this one"), "{outcome}");
    assert_eq!(backups(&scene.walpoint)?.len(), 1);
    Ok(())
}

#[test]
fn settings_of_its_role_neither_end_a_backup_nor_change_it() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let sql = scene.cluster.sql()?;
    sql.execute("create table t as select n, repeat(md5(n::text), 12) from generate_series(1, 150000) n")?;
    // 13 has no such timeout. Reading the files takes longer than that.
    sql.execute(
        "do $$ begin
            if current_setting('idle_session_timeout', true) is not null then
                alter role walpoint set idle_session_timeout = '400ms';
            end if;
        end $$;
        alter role walpoint set lock_timeout = '20ms';
        alter role walpoint set client_encoding = 'LATIN1';
        alter role walpoint set search_path = 'elsewhere';
        alter role walpoint set default_transaction_read_only = on;
        alter role walpoint set default_transaction_isolation = 'serializable';
        alter role walpoint set standard_conforming_strings = off;
        alter role walpoint set datestyle = 'SQL';
        alter role walpoint set timezone = 'Asia/Kolkata'",
    )?;
    scene.backup()?;
    let backups = backups(&scene.walpoint)?;
    assert_eq!(backups.len(), 1);
    let taken = backups[0]["stop"]["time"].as_str().context("no time")?.to_owned();
    let age = sql.value(&format!("select extract(epoch from now() - '{taken}')::int"))?.parse::<i64>()?;
    assert!((-5..300).contains(&age), "it ended {age} s ago, at {taken}");
    Ok(())
}
