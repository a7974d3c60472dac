//! The store goes away under load, with the agent at work. Nothing acknowledged is missing, PostgreSQL goes on, what
//! the agent says of it is true, and afterwards all of it is drained.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use walpoint_tests::agent::Agent;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::ledger::Ledger;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::{ARCHIVING_LIMIT, Scene};
use walpoint_tests::wait;
use walpoint_tests::walpoint::ArchivePlace;

/// How long the store is away, in seconds; the promise is for five minutes.
const AWAY: &str = "WALPOINT_TEST_OUTAGE_SECONDS";

fn start(place: ArchivePlace, cluster: Cluster) -> Result<Scene> {
    let scene = Scene::start(cluster, place)?;
    Agent::configure(&scene.walpoint, scene.cluster.scratch().path())?;
    scene.backup()?;
    Ok(scene)
}

fn options() -> ClusterOptions {
    ClusterOptions { configuration: "max_prepared_transactions = 20".into(), ..ClusterOptions::default() }
}

/// Load before, during and after; then everything comes back.
fn ride_out(
    mut scene: Scene,
    away: impl FnOnce() -> Result<()>,
    back: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    let ledger = Ledger::start(&scene.cluster, 4, 7)?;
    ledger.wait_for_commits(500, ARCHIVING_LIMIT)?;
    away()?;
    let report = agent.wait_status("the agent to see that nothing goes", ARCHIVING_LIMIT, |report| {
        report["failing_seconds"].is_number() && report["waiting"]["files"].as_u64() >= Some(2)
    })?;
    assert!(report["last_error"]["error"].is_string(), "{report}");
    let seconds = std::env::var(AWAY).ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    std::thread::sleep(Duration::from_secs(seconds));
    // PostgreSQL goes on serving.
    ledger.wait_for_commits(200, ARCHIVING_LIMIT)?;
    let report = agent.status()?;
    let is_true = report["waiting"]["oldest_seconds"].as_f64() >= Some(seconds as f64)
        && report["failing_seconds"].as_f64() >= Some(seconds as f64)
        && report["pg_wal"]["free_bytes"].as_u64() > Some(0);
    assert!(is_true, "{report}");
    back()?;
    ledger.wait_for_commits(500, ARCHIVING_LIMIT)?;
    ledger.finish()?;
    scene.archive_everything()?;
    agent.wait_status("the backlog to be drained", ARCHIVING_LIMIT, |report| {
        report["waiting"]["files"] == 0 && report["failing_seconds"].is_null()
    })?;
    let log = agent.log();
    assert_eq!(log.matches("going on trying").count(), 1, "an outage is said once\n{log}");
    assert_eq!(log.matches("archiving goes on").count(), 1, "and its end\n{log}");
    let rows = scene
        .cluster
        .value("select count(*) || ' ' || md5(string_agg(payload, ',' order by id)) from ledger")?;
    agent.kill()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    let found =
        restored.value("select count(*) || ' ' || md5(string_agg(payload, ',' order by id)) from ledger")?;
    assert_eq!(found, rows);
    restored.stop(Stop::Immediate)
}

#[test]
fn an_archive_directory_that_goes_away_and_comes_back() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let cluster = Cluster::init(&postgres, options())?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let scene = start(place, cluster)?;
    let here = scene.archive_directory()?.to_owned();
    let gone = here.with_extension("gone");
    ride_out(scene, || Ok(rustix::fs::rename(&here, &gone)?), || Ok(rustix::fs::rename(&gone, &here)?))
}

/// Gives all directories from `root` on this mode.
fn set_mode(root: &Path, mode: u32) -> Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            set_mode(&entry.path(), mode)?;
        }
    }
    Ok(std::fs::set_permissions(root, Permissions::from_mode(mode))?)
}

#[test]
fn an_archive_directory_that_turns_read_only_and_comes_back() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let cluster = Cluster::init(&postgres, options())?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let scene = start(place, cluster)?;
    let here = scene.archive_directory()?.to_owned();
    ride_out(scene, || set_mode(&here, 0o500), || set_mode(&here, 0o700))
}

#[test]
fn a_store_that_refuses_connections_and_comes_back() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let scene = start(place, Cluster::init(&postgres, options())?)?;
    ride_out(scene, || proxy.take_down(), || proxy.bring_back())
}

#[test]
fn a_store_that_trickles_is_an_outage() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let scene = start(place, Cluster::init(&postgres, options())?)?;
    scene.walpoint.configure("[archive_push]\ndeadline = \"3s\"")?;
    scene.archive_everything()?;
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    proxy.add(Rule::new(Fault::Trickle(1)));
    let segment = scene.cluster.value("create table t(n int); select pg_walfile_name(pg_switch_wal())")?;
    agent.wait_status("the agent to call it an outage", Duration::from_secs(60), |report| {
        report["failing_seconds"].is_number()
    })?;
    proxy.clear();
    let done = scene.cluster.data().join(format!("pg_wal/archive_status/{segment}.done"));
    wait::until_true("the segment to be archived", ARCHIVING_LIMIT, || Ok(done.exists()))?;
    agent.wait_status("the agent to see the end of it", Duration::from_secs(60), |report| {
        report["failing_seconds"].is_null()
    })?;
    Ok(())
}
