//! A server is stopped while a hook is at work: it ends at once, whatever the
//! store does, and goes on from there when it starts again.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;

/// Far below the hooks' own deadlines, which are half a minute and more.
const QUICK: Duration = Duration::from_secs(10);

#[test]
fn a_server_that_is_stopped_in_mid_push_or_while_recovery_waits_ends_at_once_and_goes_on() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let mut scene = Scene::start(Cluster::init(&postgres, ClusterOptions::default())?, place)?;
    scene.cluster.execute("create table t as select 1 as n")?;
    scene.backup()?;
    // The backup's own small file, too: it would be pushed first.
    scene.archive_everything()?;

    in_mid_push(&mut scene, &proxy)?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.restore(&["--latest"])?;
    while_recovery_waits(&mut restored, &scene.walpoint.config, &proxy)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    ensure!(restored.value("select count(*) from t")? == "2", "not all rows came back");
    restored.stop(Stop::Immediate)
}

/// `pg_ctl stop -m immediate`: SIGQUIT for the postmaster, and from it for all that it started.
fn in_mid_push(scene: &mut Scene, proxy: &Proxy) -> Result<()> {
    proxy.forget_requests();
    proxy.add(Rule::new(Fault::Blackhole).method("PUT").target("/wal/"));
    scene.cluster.execute("insert into t values (2)")?;
    let segment = scene.cluster.value("select pg_walfile_name(pg_switch_wal())")?;
    wait::until_true("the segment to be on its way", ARCHIVING_LIMIT, || {
        Ok(proxy.count("PUT", &segment) > 0 && is_at_work("archive-push", &scene.walpoint.config))
    })?;
    stop_quickly(&mut scene.cluster, Stop::Immediate, "archive-push", &scene.walpoint.config)?;
    let status = scene.cluster.data().join("pg_wal/archive_status");
    ensure!(status.join(format!("{segment}.ready")).exists(), "{segment} is not offered any more");
    proxy.clear();
    scene.cluster.start()?;
    wait::until_true("the segment to be archived", ARCHIVING_LIMIT, || {
        Ok(status.join(format!("{segment}.done")).exists())
    })
}

/// `pg_ctl stop -m fast`: the startup process gets SIGTERM, and what it runs.
fn while_recovery_waits(restored: &mut Cluster, config: &Path, proxy: &Proxy) -> Result<()> {
    proxy.add(Rule::new(Fault::Blackhole).target("wal"));
    restored.launch()?;
    wait::until_true("recovery to wait for WAL", RECOVERY_LIMIT, || Ok(is_at_work("archive-get", config)))?;
    stop_quickly(restored, Stop::Fast, "archive-get", config)?;
    let log = restored.log();
    ensure!(!log.contains("archive recovery complete"), "recovery ended because it was stopped\n{log}");
    proxy.clear();
    Ok(())
}

fn stop_quickly(cluster: &mut Cluster, how: Stop, hook: &str, config: &Path) -> Result<()> {
    let begun = Instant::now();
    cluster.stop(how)?;
    let elapsed = begun.elapsed();
    ensure!(elapsed < QUICK, "it took {elapsed:?} to stop\n{}", cluster.log());
    wait::until_true(&format!("{hook} to end with its server"), QUICK, || Ok(!is_at_work(hook, config)))
}

/// Whether a hook with this configuration runs.
fn is_at_work(hook: &str, config: &Path) -> bool {
    let config = config.display().to_string();
    let runs = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        // Not the shell around it, which may end before it.
        line.contains("walpoint")
            && !line.starts_with("sh\0")
            && line.contains(hook)
            && line.contains(&config)
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().any(runs)
}
