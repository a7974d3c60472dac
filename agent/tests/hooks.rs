//! Every row of the exit status table, on a directory archive and real WAL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod stage;

use stage::{FULL, LAST, OPEN, SMALL, SPANNED, Stage, fixture, ran};
use std::path::{Path, PathBuf};

const NEXT: &str = "00000001000000000000000D";

fn flip(path: &Path, offset: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The one stored object whose key contains `name`.
fn object(stage: &Stage, name: &str) -> PathBuf {
    let keys: Vec<String> = stage.keys().into_iter().filter(|key| key.contains(name)).collect();
    assert_eq!(keys.len(), 1, "{keys:?}");
    stage.archive().join(&keys[0])
}

#[test]
fn what_was_pushed_comes_back() {
    let stage = Stage::archived();
    for name in [FULL, SPANNED, SMALL, LAST] {
        stage.get(name).expect(0);
        assert!(stage.delivered() == fixture(name), "{name} came back changed");
    }
}

#[test]
fn the_same_file_again_is_no_conflict() {
    let stage = Stage::new();
    stage.push(SMALL).expect(0);
    let keys = stage.keys();
    stage.push(SMALL).expect(0);
    assert_eq!(stage.keys(), keys);
}

#[test]
fn a_push_is_quiet() {
    let stage = Stage::new();
    let ran = stage.push(SMALL).expect(0);
    assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
}

#[test]
fn other_content_is_refused_and_what_was_acknowledged_stays() {
    let stage = Stage::archived();
    // Past the switch: no record is touched.
    flip(&stage.wal(SMALL), 900_000);
    stage.push(SMALL).expect(3).says("walpoint resolve").says("written by");
    stage.get(SMALL).expect(0);
    assert!(stage.delivered() == fixture(SMALL));
    assert!(stage.keys().iter().any(|key| key.contains("/conflict/")), "{:?}", stage.keys());
}

#[test]
fn a_conflict_is_shown_and_resolved() {
    let stage = Stage::archived();
    flip(&stage.wal(SMALL), 900_000);
    stage.push(SMALL).expect(3);
    let shown = stage.run(&["list", "--wal", SMALL, "--json"]).expect(0).json();
    let contents = shown["contents"].as_array().unwrap().clone();
    let states: Vec<&str> = contents.iter().map(|it| it["state"].as_str().unwrap()).collect();
    assert_eq!((states.as_slice(), &shown["file"]), (&["used", "refused"][..], &SMALL.into()));
    assert!(contents.iter().all(|it| it["writer"].is_string()), "{shown}");
    let other = contents[1]["content"].as_str().unwrap();
    let said = stage.run(&["resolve", SMALL, "--keep", other, "--json"]).expect(0).json();
    assert_eq!((&said["file"], &said["used"]), (&SMALL.into(), &other.into()), "{said}");
    stage.get(SMALL).expect(0);
    assert!(stage.delivered() == std::fs::read(stage.wal(SMALL)).unwrap());
    stage.run(&["resolve", SMALL, "--keep", "0000000000000000"]).expect(2);
}

#[test]
fn a_file_of_another_cluster_is_4() {
    let stage = Stage::new();
    stage.make_data_directory("data", "pg_control-of-another-cluster");
    stage.push(SMALL).expect(4);
    assert!(stage.keys().is_empty(), "{:?}", stage.keys());
}

#[test]
fn a_file_that_is_not_what_its_name_says_is_refused() {
    let stage = Stage::new();
    std::fs::write(stage.wal(NEXT), fixture(SMALL)).unwrap();
    stage.push(NEXT).expect(2).says("named");
    std::fs::write(stage.wal(NEXT), &fixture(SMALL)[..500_000]).unwrap();
    stage.push(NEXT).expect(2).says("bytes");
    std::fs::write(stage.wal(NEXT), vec![0; 1 << 20]).unwrap();
    stage.push(NEXT).expect(2);
    std::fs::write(stage.wal("rubbish"), "x").unwrap();
    stage.push("rubbish").expect(2);
    stage.push("000000010000000000000099").expect(1).says("No such file");
    assert!(stage.keys().iter().all(|key| !key.contains("/wal/")), "{:?}", stage.keys());
}

#[test]
fn a_segment_that_is_still_open_is_refused() {
    let stage = Stage::new();
    stage.push(OPEN).expect(1).says("not complete");
    assert!(stage.keys().iter().all(|key| !key.contains("/wal/")), "{:?}", stage.keys());
}

#[test]
fn a_damaged_segment_is_shipped_and_shown() {
    let stage = Stage::new();
    flip(&stage.wal(FULL), 500_000);
    stage.push(FULL).expect(0).says("damaged");
    for name in [SPANNED, SMALL] {
        stage.push(name).expect(0);
    }
    let shown = stage.run(&["list", "--wal", "--json"]).expect(0).json();
    let damaged = &shown["timelines"][0]["damaged"];
    assert_eq!(
        (damaged[0]["segment"].as_str(), damaged.as_array().unwrap().len()),
        (Some(FULL), 1),
        "{shown}"
    );
}

#[test]
fn an_unknown_version_is_shipped_with_a_warning() {
    let stage = Stage::new();
    let mut bytes = fixture(SMALL);
    bytes[..2].copy_from_slice(&[0xEE, 0xD1]);
    std::fs::write(stage.wal(SMALL), &bytes).unwrap();
    stage.push(SMALL).expect(0).says("D1EE");
}

#[test]
fn pages_of_another_size_are_shipped_with_a_warning_and_come_back() {
    let stage = Stage::new();
    let mut bytes = fixture(SMALL);
    bytes[36..40].copy_from_slice(&16384u32.to_le_bytes());
    std::fs::write(stage.wal(SMALL), &bytes).unwrap();
    stage.push(SMALL).expect(0).says("without being validated").says("16384");
    stage.get(SMALL).expect(0);
    assert!(stage.delivered() == bytes);
    // No server has pages of this size: then it is no WAL.
    bytes[36..40].copy_from_slice(&16383u32.to_le_bytes());
    std::fs::write(stage.wal(FULL), &bytes).unwrap();
    stage.push(FULL).expect(2);
}

#[test]
fn other_files_are_kept_by_the_same_rule() {
    let stage = Stage::new();
    let backup = format!("{SMALL}.00000028.backup");
    let partial = format!("{OPEN}.partial");
    for (name, content) in [
        ("00000002.history", b"1\t0/C00028\tno recovery target specified\n".to_vec()),
        (backup.as_str(), b"START WAL LOCATION: 0/A00028 (file 00000001000000000000000A)\n".to_vec()),
        (partial.as_str(), fixture(OPEN)),
    ] {
        std::fs::write(stage.wal(name), &content).unwrap();
        stage.push(name).expect(0);
        stage.push(name).expect(0);
        stage.get(name).expect(0);
        assert!(stage.delivered() == content, "{name}");
    }
    std::fs::write(stage.wal("00000002.history"), b"1\t0/B00028\tanother one\n").unwrap();
    stage.push("00000002.history").expect(3).says("resolve");
    std::fs::write(stage.wal(&backup), b"something else\n").unwrap();
    stage.push(&backup).expect(3);
}

#[test]
fn the_end_of_a_timeline_that_was_left_is_archived_as_partial() {
    for there in [false, true] {
        let stage = Stage::new();
        let partial = format!("{OPEN}.partial");
        let refused = stage.push(OPEN).expect(1).says("without a switch");
        let end = refused.stderr.split("its WAL ends at ").nth(1).unwrap().split_whitespace().next().unwrap();
        std::fs::write(stage.wal("00000002.history"), format!("1\t{end}\tno reason\n")).unwrap();
        if there {
            stage.push("00000002.history").expect(0);
            std::fs::remove_file(stage.wal("00000002.history")).unwrap();
        }
        stage.push(OPEN).expect(0);
        stage.push(OPEN).expect(0);
        stage.get(&partial).expect(0);
        assert!(stage.delivered() == fixture(OPEN));
        assert_ne!(stage.get(OPEN).status, 0, "nobody takes it for the whole segment");
        // Whoever has that file recycled from another one, and whoever was promoted, keeps theirs too.
        let mut recycled = fixture(OPEN);
        let last = recycled.len() - 1;
        recycled[last] = 1;
        std::fs::write(stage.wal(&partial), &recycled).unwrap();
        stage.push(&partial).expect(0);
        stage.push(OPEN).expect(0);
    }
}

#[test]
fn a_history_that_cannot_be_read_is_refused() {
    let stage = Stage::new();
    std::fs::write(stage.wal("00000002.history"), "nonsense").unwrap();
    stage.push("00000002.history").expect(2);
}

#[test]
fn a_push_ends_at_its_deadline() {
    let stage = Stage::new();
    let started = std::time::Instant::now();
    let mut command = stage.command(&["archive-push", &format!("pg_wal/{SMALL}")]);
    command.env("WALPOINT_ARCHIVE_URL", "s3://bucket").env("WALPOINT_ARCHIVE_ENDPOINT", "http://127.0.0.1:9");
    command.env("WALPOINT_ARCHIVE_REGION", "garage").env("WALPOINT_ARCHIVE_PUSH_DEADLINE", "1s");
    command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "y");
    ran(&mut command).expect(1);
    // One second, and one for the MiB.
    assert!(started.elapsed() < std::time::Duration::from_secs(8), "{:?}", started.elapsed());
}

#[test]
fn what_never_was_there_is_1() {
    let stage = Stage::archived();
    for name in [NEXT, "00000001.history", "00000002.history", "000000020000000000000008"] {
        let ran = stage.get(name).expect(1);
        assert!(ran.stderr.is_empty(), "{ran:?}");
    }
}

#[test]
fn a_gap_is_255() {
    let stage = Stage::new();
    for name in [FULL, SMALL] {
        stage.push(name).expect(0);
    }
    stage.get(SPANNED).expect(255).says(SPANNED);
}

#[test]
fn an_archive_without_this_cluster_is_255() {
    let stage = Stage::new();
    stage.get(SMALL).expect(255);
    stage.push(SMALL).expect(0);
    stage.make_data_directory("data", "pg_control-of-another-cluster");
    stage.get(SMALL).expect(255);
}

#[test]
fn a_damaged_object_is_255() {
    let stage = Stage::archived();
    flip(&object(&stage, SMALL), 60);
    stage.get(SMALL).expect(255).says("damaged");
    assert!(!stage.wal("RECOVERYXLOG").exists());
}

#[test]
fn a_wrong_or_absent_key_is_255() {
    let stage = Stage::new();
    // The public half of a key that nobody here has.
    let recipient = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    stage.configure(&format!("[encryption]\nrecipients = [\"{recipient}\"]\n"));
    stage.push(SMALL).expect(0);
    stage.get(SMALL).expect(255).says("identity");
}

#[test]
fn a_standby_is_told_to_ask_again() {
    let stage = Stage::archived();
    std::fs::write(stage.data().join("standby.signal"), "").unwrap();
    std::fs::write(stage.data().join("recovery.signal"), "").unwrap();
    flip(&object(&stage, SMALL), 60);
    stage.get(SMALL).expect(1).says("asks again");
    if cfg!(debug_assertions) {
        let mut panicking = stage.command(&["archive-get", SMALL, "pg_wal/RECOVERYXLOG"]);
        ran(panicking.env("WALPOINT_TEST_PANIC", "archive-get")).expect(1);
    }
    std::fs::write(stage.config(), "nonsense").unwrap();
    stage.get(SMALL).expect(1).says("asks again");
    stage.configure("standby_on_outage = \"stop\"\n");
    stage.get(SMALL).expect(255);
}

#[test]
fn a_contract_that_cannot_be_read_is_255() {
    let stage = Stage::archived();
    let get = ["archive-get", "--contract", "walpoint.recovery.json", NEXT, "pg_wal/RECOVERYXLOG"];
    stage.run(&get).expect(255).says("walpoint.recovery.json");
    std::fs::write(stage.data().join("walpoint.recovery.json"), "{}").unwrap();
    stage.run(&get).expect(255);
}

#[test]
fn a_contract_says_what_is_a_gap() {
    let stage = Stage::archived();
    let path = serde_json::json!([{"timeline": 1, "begin": "0/0", "end": null}]);
    let get = |name| stage.get_by_contract(name).status;
    let contract = |last: &str| stage.promise(path.clone(), last);
    contract(SMALL);
    assert_eq!((get(SMALL), get(NEXT)), (0, 1));
    contract(NEXT);
    assert_eq!(get(NEXT), 255);
}

#[test]
fn an_absolute_path_finds_its_data_directory() {
    let stage = Stage::archived();
    let destination = stage.wal("RECOVERYXLOG");
    let mut command = stage.command(&["archive-get", SMALL, destination.to_str().unwrap()]);
    ran(command.current_dir("/")).expect(0);
    assert!(stage.delivered() == fixture(SMALL));
    let source = stage.wal(SMALL);
    let mut command = stage.command(&["archive-push", source.to_str().unwrap()]);
    ran(command.current_dir("/")).expect(0);
}

/// What the one object whose key contains `name` says of itself.
fn metadata(stage: &Stage, name: &str) -> String {
    let mut path = object(stage, name).into_os_string();
    path.push(".meta");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_record_that_spans_in_is_checked_when_its_beginning_is_at_hand() {
    let with = Stage::new();
    with.push(SPANNED).expect(0);
    assert!(
        metadata(&with, SPANNED).replace(' ', "").contains("\"edge-checked\":\"yes\""),
        "{}",
        metadata(&with, SPANNED)
    );
    let without = Stage::new();
    std::fs::remove_file(without.wal(FULL)).unwrap();
    without.push(SPANNED).expect(0);
    assert!(metadata(&without, SPANNED).replace(' ', "").contains("\"edge-checked\":\"no\""));
}

#[test]
fn damage_in_the_record_that_spans_in_is_seen() {
    let stage = Stage::new();
    // Within the part of the first record that lies in this segment.
    flip(&stage.wal(SPANNED), 60);
    stage.push(SPANNED).expect(0).says("damaged");
}

/// Changes one character of what the object says of itself.
fn alter_metadata(stage: &Stage, name: &str, from: &str, to: &str) {
    let text = metadata(stage, name);
    assert!(text.contains(from), "{text}");
    let mut path = object(stage, name).into_os_string();
    path.push(".meta");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn metadata_that_were_changed_are_damage_and_hold_back_no_other_file() {
    let stage = Stage::archived();
    alter_metadata(&stage, SMALL, "\"edge-checked\":\"yes\"", "\"edge-checked\":\"no\"");
    stage.get(SMALL).expect(255).says("not what was stored").says(SMALL);
    // The same content again is not acknowledged.
    stage.push(SMALL).expect(1).says("not what was stored").says(SMALL);
    stage.get(FULL).expect(0);
    stage.push(FULL).expect(0);

    alter_metadata(&stage, LAST, "\"validated\":\"yes\"", "\"validated\":\"no\"");
    let shown = stage.run(&["list", "--wal", "--json"]).expect(0).json();
    let damaged = shown["timelines"][0]["damaged"].as_array().unwrap().clone();
    assert!(damaged.iter().any(|it| it["segment"] == LAST), "{shown}");
}

#[test]
fn a_run_of_wal_goes_on_from_segment_to_segment() {
    let stage = Stage::archived();
    for name in [FULL, SPANNED, SMALL, LAST] {
        let text = metadata(&stage, name);
        assert!(text.contains("0/800000"), "{name} does not say where its run began: {text}");
    }
}

/// `…0A` as the first segment of timeline 2: the page header alone says so, and has no checksum.
fn on_timeline_2(stage: &Stage) -> &'static str {
    let name = "00000002000000000000000A";
    let mut bytes = fixture(SMALL);
    bytes[4] = 2;
    std::fs::write(stage.wal(name), bytes).unwrap();
    name
}

#[test]
fn a_segment_brings_the_history_of_its_timeline() {
    let stage = Stage::archived();
    let name = on_timeline_2(&stage);
    std::fs::write(stage.wal("00000002.history"), "1\t0/A00028\tno reason\n").unwrap();
    stage.push(name).expect(0);
    assert!(stage.keys().iter().any(|key| key.contains("timeline/00000002.history")), "{:?}", stage.keys());
    // The run goes on from the parent's last segment.
    assert!(metadata(&stage, name).contains("0/800000"), "{}", metadata(&stage, name));
}

#[test]
fn a_history_that_is_nowhere_is_missed_aloud() {
    let stage = Stage::archived();
    let name = on_timeline_2(&stage);
    stage.push(name).expect(0).says("00000002.history");
    // PostgreSQL would take the number 2 for free.
    stage.get("00000002.history").expect(255).says("archive-push");
}

#[test]
fn another_history_of_the_timeline_is_a_conflict() {
    let stage = Stage::archived();
    let name = on_timeline_2(&stage);
    std::fs::write(stage.wal("00000002.history"), "1\t0/A00028\tours\n").unwrap();
    stage.push("00000002.history").expect(0);
    std::fs::write(stage.wal("00000002.history"), "1\t0/A00028\tof a clone\n").unwrap();
    stage.push(name).expect(3);
}
