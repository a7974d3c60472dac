//! The hook and the agent: a file is acknowledged when it is durable, whoever shipped it, and whatever is wrong with
//! the agent the hook does the work itself.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Signal;
use walpoint_tests::agent::Agent;
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::ledger::Ledger;
use walpoint_tests::process::Outcome;
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::user::User;
use walpoint_tests::wait;

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options = ClusterOptions {
        configuration: "wal_keep_size = '1GB'\nmax_prepared_transactions = 20".into(),
        ..ClusterOptions::default()
    };
    let scene = Scene::on_directory(&postgres, options)?;
    Agent::configure(&scene.walpoint, scene.cluster.scratch().path())?;
    Ok(Some(scene))
}

/// The hook says in the server's log what it did.
fn log_the_hook(scene: &Scene) -> Result<()> {
    scene.cluster.configure(&format!(
        "archive_command = '{} --log-level debug archive-push %p'",
        scene.walpoint.hook_prefix()
    ))?;
    scene.cluster.execute("select pg_reload_conf()")
}

/// PostgreSQL's archiver does nothing until [`log_the_hook`].
fn hold_the_archiver(scene: &Scene) -> Result<()> {
    scene.cluster.configure("archive_command = 'false'")?;
    scene.cluster.execute("select pg_reload_conf()")
}

/// Finishes a segment and returns its name; nobody waits for its archiving.
fn finish_segment(scene: &Scene, row: &str) -> Result<String> {
    scene
        .cluster
        .execute(&format!("create table if not exists t(row text); insert into t values ('{row}')"))?;
    let segment = scene.cluster.value("select pg_walfile_name(pg_switch_wal())")?;
    scene.cluster.execute("checkpoint")?;
    Ok(segment)
}

fn push(scene: &Scene, segment: &str) -> Result<Outcome> {
    let path = format!("pg_wal/{segment}");
    scene.walpoint.run_in(scene.cluster.data(), &["--log-level", "debug", "archive-push", &path])
}

fn socket(scene: &Scene) -> Result<PathBuf> {
    let sockets = scene.cluster.scratch().path().join("sockets");
    let mut entries = std::fs::read_dir(&sockets)?.flatten().map(|entry| entry.path());
    entries.find(|path| path.extension().is_some_and(|end| end == "sock")).context("there is no socket")
}

#[test]
fn under_load_the_agent_ships_and_the_hook_is_told_and_all_rows_come_back() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    log_the_hook(&scene)?;
    let ledger = Ledger::start(&scene.cluster, 4, 4711)?;
    let shipped = |report: &serde_json::Value| report["shipped"]["files"].as_u64() >= Some(12);
    let report = agent.wait_status("twelve files to be shipped", ARCHIVING_LIMIT, shipped)?;
    assert_eq!(report["last_error"], serde_json::Value::Null, "{report}");
    ledger.finish()?;
    let last = scene.archive_everything()?;
    let rows = scene.cluster.value("select count(*)::text from ledger")?;
    assert_eq!(scene.cluster.value("select failed_count::text from pg_stat_archiver")?, "0");
    let log = scene.cluster.log();
    let by_agent = log.matches("the agent archived \"").count();
    assert!(by_agent >= 8 && log.contains(&format!("the agent archived \"{last}\"")), "{by_agent}\n{log}");

    // Many at once, and still one unbroken run of WAL: each knows how the one before leads to it.
    let (status, listing) = scene.walpoint.json(&["list", "--wal"])?;
    assert_eq!((status, listing["timelines"][0]["gaps"].as_array().map(Vec::len)), (0, Some(0)), "{listing}");
    assert_eq!(runs(&scene)?, 1);

    agent.kill()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select count(*)::text from ledger")?, rows);
    restored.stop(Stop::Immediate)
}

/// How many runs of WAL the metadata of the segments of the archive speak of.
fn runs(scene: &Scene) -> Result<usize> {
    let mut starts = std::collections::BTreeSet::new();
    for file in archive_files::named(scene.archive_directory()?, ".meta") {
        let text = std::fs::read_to_string(&file)?;
        let meta: serde_json::Value = serde_json::from_str(&text)?;
        if let Some(start) = find(&meta, "run-start") {
            starts.insert(start.to_string());
        }
    }
    Ok(starts.len())
}

fn find<'a>(value: &'a serde_json::Value, name: &str) -> Option<&'a serde_json::Value> {
    let object = value.as_object()?;
    object.get(name).or_else(|| object.values().find_map(|value| find(value, name)))
}

#[test]
fn the_hook_archives_by_itself_whatever_is_wrong_with_the_agent() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    hold_the_archiver(&scene)?;
    let alone = |row: &str, why: &str, limit: u64| -> Result<()> {
        let segment = finish_segment(&scene, row)?;
        let begun = Instant::now();
        let outcome = push(&scene, &segment)?.success()?;
        let took = begun.elapsed();
        assert!(!outcome.stderr.contains("the agent archived"), "{row}: {outcome}");
        assert!(outcome.stderr.contains(why), "{row}: {outcome}");
        assert!(took < Duration::from_secs(limit), "{row}: {took:?}");
        assert!(!archive_files::named(scene.archive_directory()?, &segment).is_empty());
        Ok(())
    };
    alone("none yet", "", 5)?;

    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    let segment = finish_segment(&scene, "with")?;
    let outcome = push(&scene, &segment)?.success()?;
    assert!(outcome.stderr.contains("the agent archived"), "{outcome}");

    // It hangs: the kernel takes the connection and nobody speaks.
    agent.signal(Signal::STOP)?;
    alone("stopped", "has said nothing", 10)?;
    agent.signal(Signal::CONT)?;

    // It was told of another archive than the hook.
    let elsewhere = scene.cluster.scratch().make_dir("elsewhere")?;
    let archive = scene.archive_directory()?.display().to_string();
    let other =
        scene.walpoint.with_config(|text| text.replace(&archive, &elsewhere.display().to_string()))?;
    let segment = finish_segment(&scene, "elsewhere")?;
    let path = format!("pg_wal/{segment}");
    let outcome = other.run_in(scene.cluster.data(), &["archive-push", &path])?.success()?;
    assert!(outcome.stderr.contains("another archive"), "{outcome}");
    assert!(!archive_files::named(&elsewhere, &segment).is_empty(), "it is where the hook was to put it");

    // kill -9: the socket stays.
    let path = socket(&scene)?;
    agent.kill()?;
    assert!(path.exists());
    alone("killed", "", 5)?;

    // Something that speaks otherwise, of another version, listens there; it says yes to everything.
    std::fs::remove_file(&path)?;
    liar(&path, "{\"walpoint\":2,\"version\":\"9.9.9\"}\n{\"status\":0}\n")?;
    // Listening as root, it is another user's beside.
    let why = if User::current()?.dropped { "belongs to uid 0" } else { "protocol 2" };
    alone("another protocol", why, 5)?;

    // A directory that others can write to: whoever listens there is not asked.
    let sockets = path.parent().context("a directory")?;
    std::fs::set_permissions(sockets, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    alone("open to all", "is open to other users", 5)
}

/// Listens as the user whose hook will come, and says the same to everybody.
fn liar(path: &Path, says: &'static str) -> Result<()> {
    let listener = UnixListener::bind(path)?;
    User::current()?.own(path)?;
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = std::io::Write::write_all(&mut stream, says.as_bytes());
        }
    });
    Ok(())
}

#[test]
fn a_path_outside_pg_wal_is_not_taken_for_the_file_of_that_name() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    hold_the_archiver(&scene)?;
    let _agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    let segment = finish_segment(&scene, "one")?;
    push(&scene, &segment)?.success()?;
    // The same name elsewhere, with other content: one byte of the unused rest.
    let mut bytes = std::fs::read(scene.cluster.data().join("pg_wal").join(&segment))?;
    *bytes.last_mut().unwrap() ^= 1;
    let beside = scene.cluster.scratch().make_dir("beside")?.join(&segment);
    std::fs::write(&beside, bytes)?;
    User::current()?.own(&beside)?;
    let outcome = scene.walpoint.run_in(scene.cluster.data(), &["archive-push", beside.to_str().unwrap()])?;
    outcome.expect(3).map(drop)
}

#[test]
fn a_file_that_took_the_name_of_one_that_was_shipped_is_not_acknowledged_from_memory() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.cluster.stop(Stop::Fast)?;
    let copy = scene.cluster.scratch().path().join("copy");
    copy_directory(scene.cluster.data(), &copy)?;
    scene.cluster.start()?;
    hold_the_archiver(&scene)?;
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    let segment = finish_segment(&scene, "the first life")?;
    agent.wait_status("the segment to be shipped ahead", ARCHIVING_LIMIT, |report| {
        report["shipped"]["last"].as_str() >= Some(segment.as_str())
    })?;

    // The directory goes back in place, as from a snapshot, and lives another life under the same names.
    agent.signal(Signal::STOP)?;
    scene.cluster.stop(Stop::Immediate)?;
    for entry in std::fs::read_dir(scene.cluster.data())?.flatten() {
        let path = entry.path();
        if path.is_dir() { std::fs::remove_dir_all(&path)? } else { std::fs::remove_file(&path)? }
    }
    copy_directory(&copy, scene.cluster.data())?;
    scene.cluster.start()?;
    hold_the_archiver(&scene)?;
    let again = finish_segment(&scene, "the second life")?;
    assert_eq!(again, segment, "the shape was not staged");
    agent.signal(Signal::CONT)?;
    let refused = push(&scene, &segment)?.expect(3)?;
    assert!(refused.stderr.contains("walpoint resolve"), "{refused}");
    // And never, whatever the agent has seen by now.
    agent.wait_status("the agent to meet it too", ARCHIVING_LIMIT, |report| {
        report["last_error"]["error"].as_str().is_some_and(|error| error.contains(&segment))
    })?;
    push(&scene, &segment)?.expect(3)?;
    Ok(())
}

/// The content of a directory, with owners and times, into another that is made or there.
fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    let mut command = std::process::Command::new("cp");
    command.arg("-a").arg("--no-target-directory").arg(from).arg(to);
    let status = command.status().context("run cp")?;
    anyhow::ensure!(status.success(), "cp ended with {status}");
    Ok(())
}

#[test]
fn what_the_agent_shipped_before_it_was_killed_is_acknowledged_when_it_is_offered() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    hold_the_archiver(&scene)?;
    let agent = Agent::start(&scene.walpoint, &scene.cluster)?;
    let segments: Vec<String> =
        (0..4).map(|number| finish_segment(&scene, &number.to_string())).collect::<Result<_>>()?;
    agent.wait_status("four segments to be ahead", ARCHIVING_LIMIT, |report| {
        report["shipped"]["ahead"].as_u64() >= Some(4) && report["waiting"]["files"] == 0
    })?;
    agent.kill()?;
    log_the_hook(&scene)?;
    let status = scene.cluster.data().join("pg_wal/archive_status");
    wait::until_true("all of them to be archived", ARCHIVING_LIMIT, || {
        Ok(segments.iter().all(|segment| status.join(format!("{segment}.done")).exists()))
    })?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    restored.wait_open(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*)::text from t")?, "4");
    restored.stop(Stop::Immediate)
}
