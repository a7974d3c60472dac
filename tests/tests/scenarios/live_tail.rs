//! The whole machine is lost: server, agent and data directory, in one moment. What was acknowledged more
//! than two seconds before is in the archive all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use walpoint_tests::agent::Agent;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::user::User;
use walpoint_tests::wait;

/// What may be lost with the machine.
const LOSS: Duration = Duration::from_secs(2);
/// How long the load runs before.
const LOAD: Duration = Duration::from_secs(6);
const WRITERS: u32 = 3;

/// Clients that insert one row after the other and note when each was acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<(u64, Instant)>>>,
}

impl Writers {
    fn start(cluster: &Cluster) -> Result<Writers> {
        cluster.execute("create table t(n bigint primary key, filler text)")?;
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..WRITERS).map(|client| {
            let (sql, stop) = (cluster.sql()?, Arc::clone(&stop));
            Ok(std::thread::spawn(move || {
                let mut acknowledged = Vec::new();
                for number in (u64::from(client)..).step_by(WRITERS as usize) {
                    let insert = format!("insert into t values ({number}, repeat('x', 300))");
                    if stop.load(Ordering::Relaxed) || sql.execute(&insert).is_err() {
                        break;
                    }
                    acknowledged.push((number, Instant::now()));
                }
                acknowledged
            }))
        });
        let clients = clients.collect::<Result<_>>()?;
        Ok(Writers { stop, clients })
    }

    /// All that was acknowledged before this moment. The server is gone: the clients' errors are their end.
    fn acknowledged_by(self, moment: Instant) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut numbers = Vec::new();
        for client in self.clients {
            let notes = client.join().ok().context("a writer panicked")?;
            numbers.extend(notes.iter().filter(|(_, at)| *at < moment).map(|(number, _)| *number));
        }
        Ok(numbers)
    }
}

/// Loses everything after some load, at the moment that `choose` returns, and restores elsewhere.
fn lose_the_machine(scene: Scene, choose: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    scene.backup()?;
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    lose_after(LOAD, scene, agent, choose)
}

fn lose_after(
    load: Duration,
    mut scene: Scene,
    agent: Agent,
    choose: impl FnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let writers = Writers::start(&scene.cluster)?;
    std::thread::sleep(load);
    choose(&scene.cluster)?;
    agent.status()?;
    let killed = Instant::now();
    agent.kill()?;
    scene.cluster.kill()?;
    let acknowledged = writers.acknowledged_by(killed - LOSS)?;
    std::fs::remove_dir_all(scene.cluster.data())?;

    let mut restored = scene.restore(&["--latest"]).with_context(|| log(&scene))?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    let rows = restored.sql()?.rows("select n from t")?;
    let there: std::collections::BTreeSet<u64> =
        rows.iter().filter_map(|row| row.first()?.as_ref()?.parse().ok()).collect();
    let lost: Vec<&u64> = acknowledged.iter().filter(|number| !there.contains(number)).collect();
    ensure!(
        lost.is_empty() && acknowledged.len() > 100,
        "of {} acknowledged commits {} are lost: {:?}\n{}",
        acknowledged.len(),
        lost.len(),
        lost.iter().take(10).collect::<Vec<_>>(),
        log(&scene)
    );
    println!("{} acknowledged more than 2 s before, {} there", acknowledged.len(), there.len());
    Ok(())
}

fn log(scene: &Scene) -> String {
    let text = std::fs::read_to_string(scene.cluster.scratch().path().join("agent.log")).unwrap_or_default();
    walpoint_tests::cluster::tail(&text, 60)
}

/// A segment that takes longer to fill than the test.
fn large_segments() -> ClusterOptions {
    ClusterOptions { wal_segsize_mb: 64, ..ClusterOptions::default() }
}

#[test]
fn in_the_middle_of_a_segment_no_acknowledged_commit_is_lost() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    lose_the_machine(Scene::on_garage(&postgres, garage, large_segments())?, |_| Ok(()))
}

#[test]
fn right_behind_a_segments_border_no_acknowledged_commit_is_lost() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    lose_the_machine(Scene::on_directory(&postgres, ClusterOptions::default())?, |cluster| {
        let sql = cluster.sql()?;
        let name = || sql.value("select pg_walfile_name(pg_current_wal_lsn())");
        let before = name()?;
        wait::until_true("another segment", Duration::from_secs(60), || Ok(name()? != before))
    })
}

#[test]
fn while_segments_are_switched_no_acknowledged_commit_is_lost() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    lose_the_machine(Scene::on_garage(&postgres, garage, ClusterOptions::default())?, |cluster| {
        let sql = cluster.sql()?;
        for _ in 0..20 {
            sql.execute("select pg_switch_wal()")?;
            std::thread::sleep(Duration::from_millis(150));
        }
        Ok(())
    })
}

/// A clean shutdown and a `recovery.signal` make the server begin another timeline, as a promotion does.
#[test]
fn right_after_a_timeline_switch_no_acknowledged_commit_is_lost() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let mut scene = Scene::on_garage(&postgres, garage, large_segments())?;
    scene.backup()?;
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    scene.cluster.execute("create table before(n int)")?;
    scene.cluster.stop(Stop::Fast)?;
    scene.cluster.configure("restore_command = 'false'")?;
    let signal = scene.cluster.data().join("recovery.signal");
    std::fs::write(&signal, "")?;
    User::current()?.own(&signal)?;
    scene.cluster.start()?;
    let timeline = scene.cluster.value("select timeline_id from pg_control_checkpoint()")?;
    ensure!(timeline == "2", "it is on timeline {timeline}");
    lose_after(Duration::from_secs(4), scene, agent, |_| Ok(()))
}

#[test]
fn with_a_store_that_refuses_every_third_request_no_acknowledged_commit_is_lost() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let scene = Scene::start(Cluster::init(&postgres, large_segments())?, place)?;
    lose_the_machine(scene, |_| {
        proxy.add(Rule::new(Fault::status(503, "SlowDown")).every(3));
        std::thread::sleep(LOAD);
        Ok(())
    })
}
