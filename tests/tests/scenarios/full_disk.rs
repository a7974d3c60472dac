//! A disk that is full costs no more than the try: nothing half-written counts, and
//! the error says what there was no room for.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::{Scratch, make_private_dir};
use walpoint_tests::user::User;
use walpoint_tests::wait;
use walpoint_tests::walpoint::ArchivePlace;

/// A file system of its own, small enough to be filled.
pub struct SmallDisk {
    pub path: PathBuf,
    // Goes after the file system, which lies in it.
    _scratch: Scratch,
}

impl SmallDisk {
    /// None, said aloud, where nothing can be mounted.
    pub fn mount(mebibytes: u32) -> Result<Option<SmallDisk>> {
        let scratch = Scratch::new("disk")?;
        let path = scratch.make_dir("disk")?;
        let user = User::current()?;
        let options = format!("size={mebibytes}m,mode=0700,uid={},gid={}", user.uid, user.gid);
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return programs::missing(&format!("no tmpfs can be mounted here (root may: {why})"));
        }
        Ok(Some(SmallDisk { path, _scratch: scratch }))
    }

    /// Takes all the room that is left.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.path.join("filler"))?;
        let mut chunk = vec![0; 1 << 20];
        while !chunk.is_empty() {
            match file.write(&chunk) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    chunk.truncate(chunk.len() / 2)
                }
                Err(error) => return Err(error).context("fill the disk"),
            }
        }
        Ok(())
    }

    fn make_room(&self) -> Result<()> {
        std::fs::remove_file(self.path.join("filler")).context("make room")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there keeps nobody else.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn ended(mut child: Child) -> Result<i32> {
    let status = wait::until("walpoint to end", Duration::from_secs(60), || Ok(child.try_wait()?))?;
    status.code().context("walpoint was killed")
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a pid")?;
    kill_process(pid, signal).context("signal walpoint")
}

#[test]
fn a_restore_that_runs_out_of_space_leaves_nothing_that_starts() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(disk) = SmallDisk::mount(160)? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene
        .cluster
        .execute("create table t as select n, repeat(md5(n::text), 10) from generate_series(1, 50000) n")?;
    scene.backup()?;
    scene.archive_everything()?;

    let data = disk.path.join("data");
    let output = scene.cluster.scratch().path().join("output");
    let args = ["restore", "--latest", "--data-directory", data.to_str().context("a path")?];
    let child = scene.walpoint.spawn(Path::new("/"), &args, &std::fs::File::create(&output)?)?;
    // Held as soon as it has begun to write, for there was room enough when it looked.
    let begun = Instant::now();
    while !data.join("walpoint.restoring").exists() {
        if begun.elapsed() > Duration::from_secs(60) {
            bail!("the restore did not begin: {}", std::fs::read_to_string(&output)?);
        }
        std::thread::yield_now();
    }
    signal(&child, Signal::STOP)?;
    disk.fill()?;
    signal(&child, Signal::CONT)?;
    let code = ended(child)?;
    let said = std::fs::read_to_string(&output)?;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("No space left on device") && said.contains("make room"), "{said}");
    assert!(!data.join("global/pg_control").exists());
    Cluster::restored(&data, &scene.cluster)?.start_expect_fatal(RECOVERY_LIMIT)?;

    // The rest of it is in the way, and is said to be; a look that does not write says all at once.
    let again = scene.walpoint.run(&args)?.expect(7)?;
    assert!(again.stderr.contains("did not end"), "{again}");
    let dry: Vec<&str> = args.into_iter().chain(["--dry-run"]).collect();
    let again = scene.walpoint.run(&dry)?.expect(7)?;
    assert!(again.stderr.contains("did not end") && again.stderr.contains("are needed there"), "{again}");
    let plan = ["plan", "--latest", "--data-directory", args[3]];
    let (status, plan) = scene.walpoint.json(&plan)?;
    assert!(status == 0 && plan["warnings"].to_string().contains("are needed there"), "{plan}");
    std::fs::remove_dir_all(&data)?;
    let again = scene.walpoint.run(&args)?.expect(7)?;
    assert!(again.stderr.contains("are needed there"), "{again}");
    assert!(!data.exists());
    disk.make_room()?;
    scene.restore_into(&data, &["--latest"])?.success()?;
    let mut restored = Cluster::restored(&data, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, "50000");
    restored.stop(Stop::Fast)?;
    scene.cluster.stop(Stop::Fast)
}

#[test]
fn a_segment_that_there_is_no_room_for_is_not_the_end_of_the_archive() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(disk) = SmallDisk::mount(4)? else { return Ok(()) };
    let scene = Scene::on_directory(&postgres, ClusterOptions { wal_segsize_mb: 16, ..Default::default() })?;
    scene.cluster.execute("create table t as select n, md5(n::text) from generate_series(1, 200000) n")?;
    let segment = scene.archive_everything()?;
    let wal = disk.path.join("pg_wal");
    make_private_dir(&wal)?;
    let target = wal.join("RECOVERYXLOG");
    let args = ["archive-get", &segment, target.to_str().context("a path")?];
    let outcome = scene.walpoint.run_in(scene.cluster.data(), &args)?.expect(255)?;
    assert!(outcome.stderr.contains("No space left on device"), "{outcome}");
    let left: Vec<_> = std::fs::read_dir(&wal)?.flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn a_full_archive_acknowledges_nothing_and_goes_on_when_there_is_room() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(disk) = SmallDisk::mount(64)? else { return Ok(()) };
    let archive = disk.path.join("archive");
    make_private_dir(&archive)?;
    let cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let mut scene = Scene::start(cluster, ArchivePlace::Directory(archive.clone()))?;
    // A store that has no room may have some soon, and is tried again for so long.
    scene.walpoint.configure("[archive_push]\ndeadline = \"2s\"\n")?;
    scene.cluster.execute("create table t (n int)")?;
    scene.backup()?;
    scene.archive_everything()?;

    disk.fill()?;
    let before = objects(&archive)?;
    let sql = scene.cluster.sql()?;
    sql.execute("insert into t select generate_series(1, 5000)")?;
    let segment = sql.value("select pg_walfile_name(pg_switch_wal())")?;
    wait::until_true("archiving to fail", ARCHIVING_LIMIT, || {
        Ok(sql.value("select failed_count from pg_stat_archiver")?.parse::<u64>()? > 0)
    })?;
    let pushed = scene
        .walpoint
        .run_in(scene.cluster.data(), &["archive-push", &format!("pg_wal/{segment}")])?
        .expect(1)?;
    assert!(pushed.stderr.contains("No space left on device"), "{pushed}");
    assert_eq!(objects(&archive)?, before, "nothing is visible");

    disk.make_room()?;
    scene
        .walpoint
        .run_in(scene.cluster.data(), &["archive-push", &format!("pg_wal/{segment}")])?
        .success()?;
    // A new segment wakes the archiver, which would wait a minute after its failures.
    scene.archive_everything()?;
    drop(sql);
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select count(*) from t")?, "5000");
    restored.stop(Stop::Fast)
}

/// Every object's path. What a store keeps for itself has a leading dot.
fn objects(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|it| it != "meta")
                && !path.file_name().is_some_and(|it| it.to_string_lossy().starts_with('.'))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
