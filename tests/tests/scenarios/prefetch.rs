//! Fetching ahead makes recovery faster and changes nothing else: not when whoever does it is killed, his disk is
//! full, or the timeline changes. It ends by itself.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use walpoint_tests::age::Identity;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::prefetch::{self, Spools, counts};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;

use crate::full_disk::SmallDisk;

mod spooled;

const CONTRACT: &str = "--contract walpoint.recovery.json";
const SEGMENTS: usize = 30;
/// It looks every second whether there still is a recovery.
const END_LIMIT: Duration = Duration::from_secs(15);

/// A stopped cluster with a backup and so many segments behind it, one row in each.
fn with_segments(mut scene: Scene, segments: usize) -> Result<Scene> {
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    for n in 1..=segments {
        scene.cluster.execute(&format!("insert into t values ({n})"))?;
        scene.archive_everything()?;
    }
    scene.cluster.stop(Stop::Fast)?;
    Ok(scene)
}

fn on_directory(segments: usize) -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    with_segments(Scene::on_directory(&postgres, ClusterOptions::default())?, segments).map(Some)
}

fn spools(scene: &Scene, more: &str) -> Result<Spools> {
    Spools::configure(&scene.walpoint, &scene.cluster.scratch().path().join("spools"), more)
}

fn expect_rows(restored: &Cluster, rows: usize) -> Result<()> {
    let found = restored.value("select count(*) || ' ' || coalesce(sum(n), 0) from t")?;
    ensure!(found == format!("{rows} {}", rows * (rows + 1) / 2), "other rows: {found}");
    Ok(())
}

fn expect_gone(data: &Path, spools: &Spools) -> Result<()> {
    wait::until_true("whoever fetched ahead to end", END_LIMIT, || Ok(prefetch::processes(data).is_empty()))?;
    ensure!(spools.list().is_empty(), "it left {:?}", spools.list());
    Ok(())
}

#[test]
fn recovery_gets_most_of_its_wal_from_what_was_fetched_ahead() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let scene = Scene::on_garage(&postgres, garage, ClusterOptions::default())?;
    let mut scene = with_segments(scene, SEGMENTS)?;
    let spools = spools(&scene, "")?;
    let mut restored = scene.restore(&["--latest"])?;
    prefetch::log_it(&scene.walpoint, &restored, CONTRACT)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    expect_rows(&restored, SEGMENTS)?;
    let (ahead, all) = counts(&restored.log());
    ensure!(
        all >= SEGMENTS && ahead * 3 >= all * 2,
        "{ahead} of {all} were fetched ahead\n{}",
        restored.log()
    );
    expect_gone(restored.data(), &spools)?;
    restored.stop(Stop::Fast)
}

#[test]
fn a_standby_is_fetched_ahead_for_out_of_an_encrypted_archive() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    let Some(identity) = Identity::generate(scene.cluster.scratch().path(), "identity.txt")? else {
        return Ok(());
    };
    scene.walpoint.configure(&format!(
        "[encryption]\nrecipients = [\"{}\"]\nidentity_file = \"{}\"",
        identity.recipient,
        identity.file.display()
    ))?;
    let mut scene = with_segments(scene, SEGMENTS)?;
    let spools = spools(&scene, "")?;
    let mut standby = scene.restore(&["--standby"])?;
    prefetch::log_it(&scene.walpoint, &standby, "")?;
    standby.launch()?;
    wait::until_true("the standby to follow", RECOVERY_LIMIT, || {
        Ok(standby.value("select count(*) from t").is_ok_and(|count| count == SEGMENTS.to_string()))
    })?;
    expect_rows(&standby, SEGMENTS)?;
    let (ahead, all) = counts(&standby.log());
    ensure!(ahead * 2 >= all, "{ahead} of {all} were fetched ahead\n{}", standby.log());
    standby.stop(Stop::Fast)?;
    prefetch::signal(standby.data(), Signal::TERM)?;
    expect_gone(standby.data(), &spools)
}

#[test]
fn whoever_fetches_ahead_can_be_killed_in_the_middle() -> Result<()> {
    let Some(mut scene) = on_directory(SEGMENTS)? else { return Ok(()) };
    let spools = spools(&scene, "")?;
    for by_hand in [false, true] {
        let mut restored =
            if by_hand { scene.restore_by_hand("latest")? } else { scene.restore(&["--latest"])? };
        prefetch::log_it(&scene.walpoint, &restored, if by_hand { "" } else { CONTRACT })?;
        restored.launch()?;
        let mut killed = 0;
        wait::until_true("the server to open", RECOVERY_LIMIT, || {
            // Each time that somebody is there, as long as there is a recovery.
            if killed < 3 && !spools.segments().is_empty() && !restored.is_open() {
                killed += usize::from(prefetch::signal(restored.data(), Signal::KILL).is_ok());
            }
            ensure!(restored.is_running()?, "{}", restored.log());
            Ok(restored.is_open())
        })?;
        ensure!(killed > 0, "nobody was killed");
        expect_rows(&restored, SEGMENTS)?;
        restored.stop(Stop::Immediate)?;
        prefetch::signal(restored.data(), Signal::KILL).unwrap_or_default();
    }
    Ok(())
}

#[test]
fn a_timeline_that_forks_off_in_mid_stream_is_followed() -> Result<()> {
    let Some(mut scene) = on_directory(10)? else { return Ok(()) };
    let spools = spools(&scene, "")?;
    let mut successor = scene.recover(&["--latest", "--take-over"])?;
    for n in 11..=20 {
        successor.execute(&format!("insert into t values ({n})"))?;
        successor.switch_and_wait_archived(RECOVERY_LIMIT)?;
    }
    successor.stop(Stop::Fast)?;
    // The old primary goes on, with WAL that is foreign to the new timeline.
    scene.cluster.start()?;
    for n in 100..110 {
        scene.cluster.execute(&format!("insert into t values ({n})"))?;
        scene.archive_everything()?;
    }
    scene.cluster.stop(Stop::Fast)?;
    for by_hand in [false, true] {
        let mut restored = match by_hand {
            true => scene.restore_by_hand("2")?,
            false => scene.restore(&["--latest", "--target-timeline", "2"])?,
        };
        prefetch::log_it(&scene.walpoint, &restored, if by_hand { "" } else { CONTRACT })?;
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        expect_rows(&restored, 20)?;
        let (ahead, all) = counts(&restored.log());
        ensure!(ahead * 2 >= all, "{ahead} of {all} were fetched ahead\n{}", restored.log());
        expect_gone(restored.data(), &spools)?;
        restored.stop(Stop::Immediate)?;
    }
    Ok(())
}

#[test]
fn a_full_spool_disk_costs_speed_and_nothing_else() -> Result<()> {
    let Some(mut scene) = on_directory(SEGMENTS)? else { return Ok(()) };
    let Some(disk) = SmallDisk::mount(64)? else { return Ok(()) };
    let spools = Spools::configure(&scene.walpoint, &disk.path, "")?;
    let mut restored = scene.restore(&["--latest"])?;
    prefetch::log_it(&scene.walpoint, &restored, CONTRACT)?;
    restored.launch()?;
    wait::until_true("something to be fetched ahead", RECOVERY_LIMIT, || Ok(!spools.segments().is_empty()))?;
    disk.fill()?;
    // What a killed one leaves on a full disk does not keep the next one away.
    prefetch::signal(restored.data(), Signal::KILL)?;
    restored.wait_open(RECOVERY_LIMIT)?;
    expect_rows(&restored, SEGMENTS)?;
    restored.stop(Stop::Immediate)?;
    expect_gone(restored.data(), &spools)?;

    // Full from the beginning.
    disk.fill()?;
    let mut restored = scene.restore(&["--latest"])?;
    prefetch::log_it(&scene.walpoint, &restored, CONTRACT)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    expect_rows(&restored, SEGMENTS)?;
    ensure!(counts(&restored.log()).0 == 0, "fetched ahead into no room\n{}", restored.log());
    restored.stop(Stop::Immediate)
}

#[test]
fn two_recoveries_on_one_host_do_not_disturb_each_other() -> Result<()> {
    let Some(mut scene) = on_directory(SEGMENTS)? else { return Ok(()) };
    let spools = spools(&scene, "")?;
    let mut both = [scene.restore(&["--latest"])?, scene.restore(&["--latest"])?];
    for restored in &mut both {
        prefetch::log_it(&scene.walpoint, restored, CONTRACT)?;
        restored.launch()?;
    }
    for restored in &mut both {
        restored.wait_open(RECOVERY_LIMIT)?;
        expect_rows(restored, SEGMENTS)?;
        let (ahead, all) = counts(&restored.log());
        ensure!(ahead * 2 >= all, "{ahead} of {all} were fetched ahead\n{}", restored.log());
        wait::until_true("it to end", END_LIMIT, || Ok(prefetch::processes(restored.data()).is_empty()))?;
    }
    ensure!(spools.list().is_empty(), "{:?}", spools.list());
    both.iter_mut().try_for_each(|restored| restored.stop(Stop::Immediate))
}

#[test]
fn nothing_is_fetched_ahead_where_that_is_switched_off_or_nobody_recovers() -> Result<()> {
    let Some(mut scene) = on_directory(5)? else { return Ok(()) };
    let off = scene.walpoint.with_config(|text| format!("{text}\n[agent]\nspool = \"0B\"\n"))?;
    let by_default = std::mem::replace(&mut scene.walpoint, off);
    let mut restored = scene.restore(&["--latest"])?;
    prefetch::log_it(&scene.walpoint, &restored, CONTRACT)?;
    restored.launch()?;
    wait::until_true("the server to open", RECOVERY_LIMIT, || {
        ensure!(prefetch::processes(restored.data()).is_empty(), "somebody fetches ahead");
        Ok(restored.is_open())
    })?;
    ensure!(counts(&restored.log()).0 == 0, "{}", restored.log());
    // A person asks, with fetching ahead on, in a cluster that recovers no more.
    let segment = restored.value("select pg_walfile_name('0/4000000')")?;
    let asked = by_default.run_in(restored.data(), &["archive-get", &segment, "pg_wal/asked"])?;
    ensure!([0, 1].contains(&asked.code()), "{asked}");
    ensure!(prefetch::processes(restored.data()).is_empty(), "somebody fetches ahead");
    restored.stop(Stop::Immediate)
}

#[test]
fn it_ends_when_nobody_asks_or_the_data_directory_is_gone_and_when_it_is_told_to() -> Result<()> {
    let Some(mut scene) = on_directory(5)? else { return Ok(()) };
    let spools = spools(&scene, "")?;
    let (first, walpoint) = (spooled::first_segment(&scene)?, scene.walpoint.clone());
    let begin = |restored: &Cluster| -> Result<()> {
        spooled::get(&walpoint, restored, &first)?.success()?;
        wait::until_true("something to be fetched ahead", END_LIMIT, || Ok(!spools.segments().is_empty()))
    };
    let restored = scene.restore(&["--latest"])?;
    begin(&restored)?;
    ensure!(prefetch::processes(restored.data()).len() == 1, "{:?}", prefetch::processes(restored.data()));
    prefetch::signal(restored.data(), Signal::TERM)?;
    expect_gone(restored.data(), &spools)?;

    begin(&restored)?;
    let moved = restored.data().with_extension("moved");
    rustix::fs::rename(restored.data(), &moved)?;
    expect_gone(restored.data(), &spools)?;
    rustix::fs::rename(&moved, restored.data())?;

    // What it had was removed with it. After one that was killed another one begins, and what that leaves goes with the
    // next, of any recovery.
    begin(&restored)?;
    prefetch::signal(restored.data(), Signal::KILL)?;
    wait::until_true("it to be dead", END_LIMIT, || Ok(prefetch::processes(restored.data()).is_empty()))?;
    spooled::get(&walpoint, &restored, &first)?.success()?;
    wait::until_true("another one to begin", END_LIMIT, || {
        Ok(!prefetch::processes(restored.data()).is_empty())
    })?;
    begin(&restored)?;
    prefetch::signal(restored.data(), Signal::KILL)?;
    ensure!(!spools.segments().is_empty(), "nothing was left");
    let other = scene.restore(&["--latest"])?;
    begin(&other)?;
    wait::until_true("what was left to go", END_LIMIT, || Ok(spools.list().len() == 1))?;
    let begun = std::time::Instant::now();
    wait::until_true("it to end", Duration::from_secs(90), || {
        Ok(prefetch::processes(other.data()).is_empty())
    })?;
    ensure!(begun.elapsed() > Duration::from_secs(40), "it did not wait for a question");
    ensure!(spools.list().is_empty(), "{:?}", spools.list());
    Ok(())
}

/// PostgreSQL before 16 hands on whatever its startup process has open.
#[test]
fn it_has_nothing_open_that_was_postgresqls() -> Result<()> {
    let Some(mut scene) = on_directory(5)? else { return Ok(()) };
    let spools = spools(&scene, "")?;
    let first = spooled::first_segment(&scene)?;
    let restored = scene.restore(&["--latest"])?;
    let held = restored.data().join("PG_VERSION");
    let file = File::open(&held)?;
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty())?;
    spooled::get(&scene.walpoint, &restored, &first)?.success()?;
    wait::until_true("something to be fetched ahead", END_LIMIT, || Ok(!spools.segments().is_empty()))?;
    drop(file);
    let pids = prefetch::processes(restored.data());
    let pid = pids.first().context("nobody fetches ahead")?;
    let mut open = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        ensure!(
            !["0", "1", "2"].contains(&number.as_str()) || target == Path::new("/dev/null"),
            "{target:?}"
        );
        open.push(target);
    }
    ensure!(open.len() > 3 && !open.contains(&held), "{open:?}");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let session =
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(3)).context("no session")?;
    ensure!(session == pid.to_string(), "it is in the session {session}");
    ensure!(std::fs::read_link(format!("/proc/{pid}/cwd"))? == Path::new("/"), "it stays in a directory");
    prefetch::signal(restored.data(), Signal::TERM)?;
    expect_gone(restored.data(), &spools)
}
