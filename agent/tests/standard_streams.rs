//! A status must not change because a log line could not be written: standard error full, closed, and a pipe
//! that nobody reads, for every status; and a panic in each hook.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use stage::{FULL, OPEN, SMALL, SPANNED, Stage, fixture};
use std::fs::File;
use std::process::{Command, Stdio};

/// Runs a command with the standard error of each kind; all must end with this status.
#[track_caller]
fn ends_with(status: i32, command: impl Fn() -> Command) {
    let quiet = |mut command: Command| command.stdout(Stdio::null()).status().unwrap().code();
    let mut full = command();
    full.stderr(File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(quiet(full), Some(status), "standard error full");

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut unread = command();
    unread.stderr(writer);
    assert_eq!(quiet(unread), Some(status), "standard error a closed pipe");

    let plain = command();
    let mut closed = Command::new("sh");
    closed.args(["-c", "exec \"$0\" \"$@\" 2>&-"]).arg(plain.get_program()).args(plain.get_args());
    closed.current_dir(plain.get_current_dir().unwrap());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => closed.env(name, value),
            None => closed.env_remove(name),
        };
    }
    assert_eq!(quiet(closed), Some(status), "standard error closed");
}

fn push(stage: &Stage, name: &str) -> Command {
    stage.command(&["--log-level", "trace", "archive-push", &format!("pg_wal/{name}")])
}

fn get(stage: &Stage, name: &str) -> Command {
    stage.command(&["--log-level", "trace", "archive-get", name, "pg_wal/RECOVERYXLOG"])
}

#[test]
fn archive_push_keeps_its_status() {
    let stage = Stage::new();
    stage.push(SMALL).expect(0);
    ends_with(0, || push(&stage, SMALL));
    ends_with(1, || push(&stage, OPEN));
    ends_with(2, || push(&stage, "nonsense"));
    let mut other = fixture(SMALL);
    *other.last_mut().unwrap() = 1;
    std::fs::write(stage.wal(SMALL), other).unwrap();
    ends_with(3, || push(&stage, SMALL));
    stage.make_data_directory("data", "pg_control-of-another-cluster");
    ends_with(4, || push(&stage, FULL));
}

#[test]
fn archive_get_keeps_its_status() {
    let stage = Stage::new();
    for name in [FULL, SMALL] {
        stage.push(name).expect(0);
    }
    ends_with(0, || get(&stage, SMALL));
    ends_with(1, || get(&stage, "00000001.history"));
    ends_with(255, || get(&stage, SPANNED));
    ends_with(255, || get(&stage, "nonsense"));
    std::fs::write(stage.config(), "nonsense").unwrap();
    ends_with(255, || get(&stage, SMALL));
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_chooses_no_status() {
    let stage = Stage::new();
    let panicking = |mut command: Command, name: &str| {
        command.env("WALPOINT_TEST_PANIC", name);
        command
    };
    ends_with(1, || panicking(push(&stage, SMALL), "archive-push"));
    ends_with(255, || panicking(get(&stage, SMALL), "archive-get"));
    ends_with(3, || panicking(stage.command(&["check"]), "check"));
    ends_with(1, || panicking(stage.command(&["list"]), "command"));
}

/// On a thread of its own, where what falls over takes nobody along.
#[cfg(debug_assertions)]
#[test]
fn a_panic_in_a_task_chooses_no_status() {
    let stage = Stage::new();
    stage.push(FULL).expect(0);
    let panicking = |mut command: Command, place: &str| {
        command.env("WALPOINT_TEST_PANIC", place);
        command
    };
    ends_with(1, || panicking(push(&stage, SMALL), "sealing"));
    ends_with(255, || panicking(get(&stage, FULL), "opening"));
    assert!(!stage.keys().iter().any(|key| key.contains(SMALL)), "{:?}", stage.keys());
    assert!(!stage.wal("RECOVERYXLOG").exists());
}

#[test]
fn other_commands_keep_their_status() {
    let stage = Stage::archived();
    ends_with(0, || stage.command(&["list", "--wal"]));
    ends_with(2, || stage.command(&["plan"]));
    ends_with(4, || stage.command(&["list", "--cluster", "1"]));
    ends_with(6, || stage.command(&["plan", "--latest"]));
}

#[test]
fn a_listing_that_nobody_reads_ends_quietly() {
    let stage = Stage::archived();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = stage.command(&["list", "--wal"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = stage.command(&["list", "--wal"]).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1), "a listing that was cut off is not done");
}

#[test]
fn every_line_of_a_json_log_is_one_object() {
    let stage = Stage::archived();
    let said = |mut command: Command, status: i32| {
        command.args(["--log-format", "json", "--log-level", "debug"]);
        let ran = stage::ran(&mut command).expect(status);
        assert!(!ran.stderr.is_empty(), "{ran:?}");
        for line in ran.stderr.lines() {
            let parsed: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(parsed["level"].is_string() && parsed["message"].is_string(), "{line}");
        }
    };
    said(stage.command(&["plan", "--nonsense"]), 2);
    said(stage.command(&["list", "--cluster", "1"]), 4);
    said(stage.command(&["check", "--config", "/nowhere/walpoint.toml"]), 3);
    said(stage.command(&["archive-push", "nonsense"]), 2);
    if cfg!(debug_assertions) {
        for (role, words, status) in
            [("command", &["list"][..], 1), ("archive-get", &["archive-get", SMALL, "x"], 255)]
        {
            let mut command = stage.command(words);
            command.env("WALPOINT_TEST_PANIC", role);
            said(command, status);
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_panic_is_an_error_object_with_json() {
    let stage = Stage::new();
    let mut command = stage.command(&["list", "--json"]);
    let error = stage::ran(command.env("WALPOINT_TEST_PANIC", "command")).expect(1).json();
    assert_eq!(error["status"], 1);
}
