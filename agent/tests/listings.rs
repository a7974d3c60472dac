//! What `list`, `window`, `plan` and `restore` say of an archive that holds WAL: the names in their JSON are
//! part of the interface.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use serde_json::Value;
use stage::{FULL, LAST, SMALL, SPANNED, Stage};

fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn has(value: &Value, expected: &[&str]) {
    let found = names(value);
    for name in expected {
        assert!(found.contains(name), "{name} is missing: {value}");
    }
}

#[test]
fn wal_is_listed_by_timeline_with_its_gaps() {
    let stage = Stage::new();
    for name in [FULL, SMALL, LAST] {
        stage.push(name).expect(0);
    }
    std::fs::write(stage.wal("00000002.history"), "1\t0/B00100\tno reason\n").unwrap();
    stage.push("00000002.history").expect(0);
    let listed = stage.run(&["list", "--wal", "--json"]).expect(0).json();
    let timelines = listed["timelines"].as_array().unwrap();
    for timeline in timelines {
        has(
            timeline,
            &["timeline", "parent", "fork_lsn", "first", "last", "count", "gaps", "conflicts", "damaged"],
        );
    }
    let (first, second) = (&timelines[0], &timelines[1]);
    assert_eq!((&first["first"], &first["last"], &first["count"]), (&FULL.into(), &LAST.into(), &3.into()));
    assert_eq!(first["gaps"], serde_json::json!([{ "first": SPANNED, "last": SPANNED }]));
    assert_eq!((&second["parent"], &second["fork_lsn"]), (&1.into(), &"0/B00100".into()));
    assert_eq!((&second["first"], &second["count"]), (&Value::Null, &0.into()));
    let text = stage.run(&["list", "--wal"]).expect(0).stdout;
    assert!(text.contains(&format!("gap: {SPANNED} to {SPANNED}")), "{text}");
}

#[test]
fn what_cannot_be_read_is_named_in_json_as_in_text() {
    let stage = Stage::archived();
    std::fs::write(stage.wal("00000002.history"), "1\t0/B00100\tno reason\n").unwrap();
    stage.push("00000002.history").expect(0);
    let key = stage.keys().into_iter().find(|key| key.contains("00000002.history")).unwrap();
    let sound = std::fs::read(stage.archive().join(&key)).unwrap();
    std::fs::write(stage.archive().join(&key), vec![b'x'; sound.len()]).unwrap();
    let text = stage.run(&["list", "--wal"]).expect(0).stdout;
    assert!(text.contains(&format!("damaged: {key}")), "{text}");
    for arguments in [&["list", "--wal", "--json"][..], &["list", "--json"], &["window", "--json"]] {
        let damaged = &stage.run(arguments).expect(0).json()["damaged"];
        assert_eq!(damaged[0]["key"], key.as_str(), "{arguments:?}: {damaged}");
        assert!(damaged[0]["reason"].is_string(), "{damaged}");
    }
}

#[test]
fn wal_before_a_fork_that_was_never_archived_is_a_gap() {
    let stage = Stage::new();
    for name in [FULL, SPANNED] {
        stage.push(name).expect(0);
    }
    // Timeline 2 begins in 0B; 0A of timeline 1 is nowhere.
    std::fs::write(stage.wal("00000002.history"), "1\t0/B00100\tno reason\n").unwrap();
    stage.push("00000002.history").expect(0);
    let listed = stage.run(&["list", "--wal", "--json"]).expect(0).json();
    assert_eq!(listed["timelines"][0]["gaps"], serde_json::json!([{ "first": SMALL, "last": SMALL }]));
}

#[test]
fn an_archive_without_a_backup_has_no_window() {
    let stage = Stage::archived();
    let listed = stage.run(&["list", "--json"]).expect(0).json();
    assert_eq!(listed["backups"], serde_json::json!([]));
    let window = stage.run(&["window", "--json"]).expect(0).json();
    has(&window, &["ranges", "gaps"]);
    assert_eq!(window["ranges"], serde_json::json!([]));
    stage.run(&["window"]).expect(0);
}

#[test]
fn a_target_that_cannot_be_reached_is_6_and_says_why() {
    let stage = Stage::archived();
    let plan = stage.run(&["plan", "--latest", "--json"]).expect(6).json();
    has(&plan, &["reachable", "reason", "nearest", "status", "error", "hint"]);
    assert_eq!((&plan["reachable"], &plan["status"]), (&false.into(), &6.into()));
    has(&plan["nearest"], &["before", "after"]);
    let restored = stage.path("restored");
    let restore = ["restore", "--latest", "--json", "--data-directory", restored.to_str().unwrap()];
    // As root, whose the files would be is asked first: the directory above is root's here.
    let expected = if rustix::process::geteuid().is_root() { 2 } else { 6 };
    assert_eq!(stage.run(&restore).expect(expected).json()["status"], expected);
    assert!(!restored.exists());
}

#[test]
fn restore_refuses_a_directory_that_is_not_empty() {
    let stage = Stage::archived();
    let data = stage.data();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(stage.root.path(), Some(65534), Some(65534)).unwrap();
    }
    let restore = ["restore", "--latest", "--json", "--data-directory", data.to_str().unwrap()];
    assert_eq!(stage.run(&restore).expect(7).json()["status"], 7);
}

#[test]
fn several_clusters_are_listed_with_what_they_have() {
    let stage = Stage::archived();
    let other = stage.make_data_directory("other", "pg_control-of-another-cluster");
    std::fs::write(other.join("pg_wal/00000002.history"), "1\t0/B00100\tno reason\n").unwrap();
    let mut push = stage.command(&["archive-push", "pg_wal/00000002.history"]);
    stage::ran(push.current_dir(&other)).expect(0);
    let ran = stage.run(&["list"]).expect(2).says("holds several clusters").says("--cluster");
    assert_eq!(ran.stderr.matches("(PostgreSQL 15, no backup)").count(), 2, "{ran:?}");
}

#[test]
fn the_cluster_is_chosen_or_asked_for() {
    let stage = Stage::archived();
    let id = stage.run(&["list", "--json"]).expect(0).json()["cluster"].as_str().unwrap().to_owned();
    stage.run(&["list", "--cluster", &id]).expect(0);
    stage.run(&["list", "--cluster", "1"]).expect(4).says(&id);
    stage.run(&["list", "--cluster", "nonsense"]).expect(2);
}

#[test]
fn another_cluster_that_cannot_be_read_is_no_trouble_of_this_one() {
    let stage = Stage::archived();
    let id = stage.run(&["list", "--json"]).expect(0).json()["cluster"].as_str().unwrap().to_owned();
    let (ours, other) = (stage.archive().join(&id), stage.archive().join("13"));
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(ours.join("cluster.json.meta"), other.join("cluster.json.meta")).unwrap();
    std::fs::write(other.join("cluster.json"), "").unwrap();
    stage.run(&["list", "--cluster", &id]).expect(0);
    stage.configure(&format!("[postgres]\ndata_directory = \"{}\"\n", stage.data().display()));
    for command in [&["list"][..], &["list", "--wal"], &["window"]] {
        stage.run(command).expect(0);
    }
    stage.run(&["plan", "--latest"]).expect(6);
    stage.configure("");
    stage.run(&["list"]).expect(2).says(&id);
    stage.run(&["list"]).expect(2).says("13 (its cluster.json cannot be read");
    stage.run(&["list", "--cluster", "13"]).expect(5).says("13/cluster.json");
}
