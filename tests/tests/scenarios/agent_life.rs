//! How the agent begins, is asked, and ends.

use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;
use walpoint_tests::agent::Agent;
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::{ARCHIVING_LIMIT, Scene};
use walpoint_tests::wait;

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    Agent::configure(&scene.walpoint, scene.cluster.scratch().path())?;
    Ok(Some(scene))
}

#[test]
fn there_is_one_agent_for_a_data_directory() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let first = Agent::start(&scene.walpoint, &scene.cluster)?;
    let second = scene.walpoint.run(&["agent"])?.expect(1)?;
    assert!(second.stderr.contains(&format!("process {}", first.pid())), "{second}");
    assert_eq!(first.status()?["agent"]["pid"], first.pid());
    // Two at once, of which nobody was there before: one of them stays.
    first.kill()?;
    let scratch = scene.cluster.scratch().path();
    let mut two = [Agent::launch(&scene.walpoint, scratch)?, Agent::launch(&scene.walpoint, scratch)?];
    wait::until_true("one of two to give way", Duration::from_secs(30), || {
        Ok(scene.walpoint.run(&["status"])?.code() == 0)
    })?;
    let pid = scene.walpoint.json(&["status"])?.1["agent"]["pid"].as_u64();
    let loser = two.iter_mut().find(|agent| Some(u64::from(agent.pid())) != pid).unwrap();
    assert_eq!(loser.wait_end()?.code(), Some(1));
    scene.archive_everything()?;
    Ok(())
}

#[test]
fn without_an_agent_status_says_so() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let outcome = scene.walpoint.run(&["status"])?.expect(1)?;
    assert!(outcome.stderr.contains("none listens"), "{outcome}");
    let (status, error) = scene.walpoint.json(&["status"])?;
    assert_eq!((status, &error["status"]), (1, &serde_json::json!(1)), "{error}");
    Ok(())
}

#[test]
fn status_names_what_scripts_read() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    scene.archive_everything()?;
    let report = agent.wait_status("a file to be shipped", ARCHIVING_LIMIT, |report| {
        report["shipped"]["files"].as_u64() >= Some(1)
    })?;
    for name in [
        "agent/pid",
        "waiting/files",
        "waiting/bytes",
        "shipped/files",
        "shipped/bytes",
        "shipped/ahead",
        "shipped/files_per_second",
        "store/latency_ms",
        "pg_wal/free_bytes",
    ] {
        assert!(
            report.pointer(&format!("/{name}")).is_some_and(serde_json::Value::is_number),
            "{name}: {report}"
        );
    }
    for name in ["agent/version", "agent/since", "shipped/last"] {
        assert!(
            report.pointer(&format!("/{name}")).is_some_and(serde_json::Value::is_string),
            "{name}: {report}"
        );
    }
    for name in [
        "waiting/oldest_seconds",
        "store/bytes_per_second",
        "failing_seconds",
        "last_error",
        "pg_wal/hours_left",
        "tail",
    ] {
        assert!(report.pointer(&format!("/{name}")).is_some(), "{name}: {report}");
    }
    assert!(report["shipping"].is_array());
    let text = scene.walpoint.ok(&["status"])?.stdout;
    assert!(text.starts_with("agent") && text.contains("waiting"), "{text}");
    Ok(())
}

#[test]
fn an_agent_whose_directory_became_another_clusters_leaves() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let mut agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    scene.cluster.stop(Stop::Fast)?;
    let other = Cluster::init(&scene.cluster.postgres, ClusterOptions::default())?;
    for entry in std::fs::read_dir(scene.cluster.data())?.flatten() {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    let mut command = std::process::Command::new("cp");
    command.arg("-a").arg("--no-target-directory").arg(other.data()).arg(scene.cluster.data());
    assert!(command.status()?.success());
    assert_eq!(agent.wait_end()?.code(), Some(4));
    assert!(agent.log().contains("holds another cluster now"), "{}", agent.log());
    Ok(())
}

#[test]
fn told_to_leave_it_finishes_what_is_under_way_and_begins_nothing() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let scene = Scene::start(Cluster::init(&postgres, ClusterOptions::default())?, place)?;
    scene.walpoint.configure(&format!(
        "[agent]\nsocket_directory = \"{}/sockets\"\nworkers = 2",
        scene.cluster.scratch().path().display()
    ))?;
    scene.archive_everything()?;
    scene.cluster.configure("archive_command = 'false'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    proxy.add(Rule::new(Fault::Delay(Duration::from_secs(3))).method("PUT"));
    let mut agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    for number in 0..4 {
        scene.cluster.execute(&format!("create table t{number}(n int)"))?;
        scene.cluster.execute("select pg_switch_wal()")?;
    }
    let report = agent.wait_status("two files to be under way", ARCHIVING_LIMIT, |report| {
        report["shipping"].as_array().map(Vec::len) == Some(2)
            && report["waiting"]["files"].as_u64() >= Some(4)
    })?;
    proxy.forget_requests();
    assert_eq!(agent.terminate()?.code(), Some(0));
    let (_, listing) = scene.walpoint.json(&["list", "--wal"])?;
    let last = listing["timelines"][0]["last"].as_str().unwrap_or_default().to_owned();
    assert_eq!(report["shipping"][1], last.as_str(), "{listing}\n{}", agent.log());
    // The hook goes on where it left.
    scene.walpoint.run(&["status"])?.expect(1)?;
    Ok(())
}

#[test]
fn the_configuration_is_read_again_and_a_wrong_one_changes_nothing() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    scene.cluster.configure("archive_command = 'false'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    let good = std::fs::read_to_string(&scene.walpoint.config)?;
    let said = |text: &str| {
        wait::until_true(&format!("the agent to say: {text}"), ARCHIVING_LIMIT, || {
            Ok(agent.log().contains(text))
        })
    };
    std::fs::write(&scene.walpoint.config, format!("{good}\nnonsense"))?;
    agent.signal(Signal::HUP)?;
    said("could not use the configuration, going on with the one before")?;
    std::fs::write(&scene.walpoint.config, &good)?;
    let segment = scene.cluster.value("create table t(n int); select pg_walfile_name(pg_switch_wal())")?;
    agent.wait_status("the segment to be shipped", ARCHIVING_LIMIT, |report| {
        report["shipped"]["last"] == segment.as_str()
    })?;

    // Another archive: what is in the first is not in the second.
    let elsewhere = scene.cluster.scratch().make_dir("elsewhere")?;
    let archive = scene.archive_directory()?.display().to_string();
    std::fs::write(&scene.walpoint.config, good.replace(&archive, &elsewhere.display().to_string()))?;
    agent.signal(Signal::HUP)?;
    said("the configuration was read again")?;
    wait::until_true("the segment to be shipped there too", ARCHIVING_LIMIT, || {
        Ok(!archive_files::named(&elsewhere, &segment).is_empty())
    })
}
