//! Progress is for whoever watches: a bar that is drawn anew on a terminal, plain
//! lines elsewhere, and never a byte of it on standard output.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::process::{Outcome, run};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::user::User;
use walpoint_tests::walpoint::CALL_LIMIT;

/// Runs a program on a terminal with a pseudo-terminal's other end, except for
/// standard output, which goes to a file. util-linux; every Debian has it.
const TERMINAL: &str = "/usr/bin/script";

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene
        .cluster
        .execute("create table t as select n, repeat(md5(n::text), 10) from generate_series(1, 20000) n")?;
    scene.backup()?;
    Ok(Some(scene))
}

fn is_control(c: char) -> bool {
    c.is_control() && c != '\n'
}

#[test]
fn a_pipe_gets_plain_lines_and_standard_output_the_result_alone() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let directory = scene.fresh_directory();
    let data = directory.to_str().context("a path")?;
    let restore =
        scene.walpoint.run(&["--json", "restore", "--latest", "--data-directory", data])?.success()?;
    let backup = scene.walpoint.run(&["--json", "backup"])?.success()?;
    for (outcome, name) in [(restore, "restore: "), (backup, "backup: ")] {
        assert!(!outcome.stderr.contains(is_control), "{:?}", outcome.stderr);
        let lines: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with(name)).collect();
        assert!(lines.len() >= 2, "{outcome}");
        let last = lines.last().context("a line")?;
        assert!(last.contains("(100 %)") || name == "backup: ", "{outcome}");
        // One JSON document and nothing else.
        outcome.json()?;
    }
    Ok(())
}

#[test]
fn a_json_log_has_progress_and_plan_as_lines_of_it() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let directory = scene.fresh_directory();
    let data = directory.to_str().context("a path")?;
    let restore =
        scene.walpoint.ok(&["--log-format", "json", "restore", "--latest", "--data-directory", data])?;
    let backup = scene.walpoint.ok(&["--log-format", "json", "backup"])?;
    for (outcome, expected) in
        [(restore, &["the target can be reached", "restore: "][..]), (backup, &["backup: "])]
    {
        let messages = messages(&outcome)?;
        for what in expected {
            assert!(messages.iter().any(|message| message.contains(what)), "{what}: {messages:#?}");
        }
    }
    Ok(())
}

/// The messages of a log that must be JSON in every line.
fn messages(outcome: &Outcome) -> Result<Vec<String>> {
    let message = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        Ok(line["message"].as_str().context("a message")?.to_owned())
    };
    outcome.stderr.lines().map(message).collect()
}

#[test]
fn a_terminal_gets_a_bar_and_standard_output_the_result_alone() -> Result<()> {
    if !Path::new(TERMINAL).exists() {
        return programs::missing::<()>("no script of util-linux, which makes a terminal").map(|_| ());
    }
    let Some(mut scene) = scene()? else { return Ok(()) };
    let directory = scene.fresh_directory();
    let result = scene.cluster.scratch().path().join("stdout");
    let outcome =
        on_terminal(&scene, &result, &["--json", "restore", "--latest", "--data-directory"], &directory)?
            .success()?;
    // `script` copies what the terminal shows.
    let shown = &outcome.stdout;
    assert!(shown.contains("restore: "), "{shown:?}");
    assert!(shown.matches('\r').count() >= 2 && shown.contains('\u{1b}'), "{shown:?}");
    assert!(!shown.contains("(100 %)"), "no lines beside the bar: {shown:?}");
    let result = std::fs::read_to_string(result)?;
    let json: serde_json::Value =
        serde_json::from_str(&result).with_context(|| format!("stdout: {result}"))?;
    assert!(json["files"].as_u64().is_some_and(|files| files > 100), "{json}");

    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(walpoint_tests::scene::RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, "20000");
    restored.stop(Stop::Fast)
}

fn on_terminal(scene: &Scene, result: &Path, args: &[&str], last: &Path) -> Result<Outcome> {
    let words: Vec<String> = [scene.walpoint.binary().display().to_string(), "--config".to_owned()]
        .into_iter()
        .chain([scene.walpoint.config.display().to_string()])
        .chain(args.iter().map(|arg| (*arg).to_owned()))
        .chain([last.display().to_string()])
        .collect();
    let line = format!("{} > {}", words.join(" "), result.display());
    let mut command = User::current()?.command(&PathBuf::from(TERMINAL));
    command.env("TERM", "xterm").args(["-q", "-e", "-c", &line, "/dev/null"]);
    run(command, CALL_LIMIT)
}
