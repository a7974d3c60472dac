//! A hundred thousand files that wait: little memory, little work, the oldest first.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use walpoint_tests::agent::Agent;
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, Scene};
use walpoint_tests::user::User;

const FILES: u64 = 100_000;
/// So many come first: what one more costs is told by the difference, and not by what any work takes.
const FIRST: u64 = 20_000;
const MIB: u64 = 1 << 20;

/// Notes that these segments after this one are to be archived. There is nothing behind the notes.
fn make_notes(status: &Path, after: &str, which: std::ops::Range<u64>) -> Result<()> {
    let number = u64::from_str_radix(&after[8..16], 16)? << 12 | u64::from_str_radix(&after[16..], 16)?;
    for number in number + 1 + which.start..number + 1 + which.end {
        let name = format!("00000001{:08X}{:08X}", number >> 12, number & 0xFFF);
        std::fs::write(status.join(format!("{name}.ready")), "")?;
    }
    User::current()?.own(status)
}

#[test]
fn a_hundred_thousand_waiting_files_cost_little() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options =
        ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    Agent::configure(&scene.walpoint, scene.cluster.scratch().path())?;
    scene.archive_everything()?;
    // The server is not there to take the notes away, which lead nowhere.
    scene.cluster.configure("archive_command = 'false'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    let mut segments = Vec::new();
    for number in 0..3 {
        scene.cluster.execute(&format!("create table t{number}(n int)"))?;
        segments.push(scene.cluster.value("select pg_walfile_name(pg_switch_wal())")?);
    }
    scene.cluster.stop(Stop::Immediate)?;
    let status = scene.cluster.data().join("pg_wal/archive_status");
    let last = segments.last().context("a segment")?.clone();
    let aside = scene.cluster.scratch().make_dir("aside")?;
    for segment in &segments {
        rustix::fs::rename(status.join(format!("{segment}.ready")), aside.join(segment))?;
    }
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    // Nothing can be shipped: all of them wait.
    let archive = scene.archive_directory()?.to_owned();
    let gone = archive.with_extension("gone");
    rustix::fs::rename(&archive, &gone)?;
    for segment in &segments {
        rustix::fs::rename(aside.join(segment), status.join(format!("{segment}.ready")))?;
    }
    make_notes(&status, &last, 0..FIRST)?;
    agent.wait_status("the first of them to be seen", ARCHIVING_LIMIT, |report| {
        report["waiting"]["files"].as_u64() >= Some(FIRST)
    })?;
    let few = agent.memory()?.1;
    make_notes(&status, &last, FIRST..FILES)?;
    let report = agent.wait_status("all of them to be seen", ARCHIVING_LIMIT, |report| {
        report["waiting"]["files"].as_u64() >= Some(FILES)
    })?;
    assert_eq!(
        report["waiting"]["bytes"].as_u64(),
        report["waiting"]["files"].as_u64().map(|files| files * MIB)
    );
    let (begun, used) = (Instant::now(), agent.cpu_seconds()?);
    std::thread::sleep(Duration::from_secs(20));
    let share = (agent.cpu_seconds()? - used) / begun.elapsed().as_secs_f64();
    let (resident, most) = agent.memory()?;
    println!(
        "with few {} KiB, resident {} KiB, at most {} KiB, {:.1} % of a core",
        few >> 10,
        resident >> 10,
        most >> 10,
        share * 100.0
    );
    assert!(share < 0.2, "it is busy with waiting: {share}");
    assert!(most.saturating_sub(few) < 2 * MIB * (FILES - FIRST) / 10_000, "{few} {most}");

    // Those that are real are the oldest, and go first.
    rustix::fs::rename(&gone, &archive)?;
    agent.wait_status("the real ones to be shipped", ARCHIVING_LIMIT, |report| {
        report["shipped"]["files"].as_u64() >= u64::try_from(segments.len()).ok()
    })?;
    for segment in &segments {
        assert!(!archive_files::named(&archive, segment).is_empty(), "{segment}");
    }
    Ok(())
}
