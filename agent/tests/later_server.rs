//! A PostgreSQL later than this program: its WAL is archived and handed back, and nothing else is done with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod stage;

use stage::{FULL, LAST, SMALL, SPANNED, Stage, fixture};

const SEGMENTS: [&str; 4] = [FULL, SPANNED, SMALL, LAST];

/// WAL as a later version may write it: another magic, and no telling what follows.
fn later(name: &str) -> Vec<u8> {
    let mut bytes = fixture(name);
    bytes[..2].copy_from_slice(&[0xEE, 0xD1]);
    bytes
}

/// The cluster's `pg_control` in a version that nobody knows yet: all but the first 12 bytes is moved.
fn grow_old(stage: &Stage) {
    let path = stage.data().join("global/pg_control");
    let mut control = std::fs::read(&path).unwrap();
    control[8..12].copy_from_slice(&1900u32.to_le_bytes());
    control[12..].rotate_right(16);
    std::fs::write(path, control).unwrap();
}

fn stage() -> Stage {
    let stage = Stage::new();
    grow_old(&stage);
    for name in SEGMENTS {
        std::fs::write(stage.wal(name), later(name)).unwrap();
    }
    stage
}

fn pushed() -> Stage {
    let stage = stage();
    for name in SEGMENTS {
        stage.push(name).expect(0).says("1900").says("without being validated");
    }
    stage
}

#[test]
fn its_wal_is_archived_and_comes_back() {
    let stage = pushed();
    for name in SEGMENTS {
        stage.get(name).expect(0);
        assert!(stage.delivered() == later(name), "{name} came back changed");
    }
}

#[test]
fn the_rules_of_archiving_hold() {
    let stage = pushed();
    stage.push(SMALL).expect(0);
    let mut other = later(SMALL);
    other[900_000] ^= 1;
    std::fs::write(stage.wal(SMALL), &other).unwrap();
    stage.push(SMALL).expect(3);
    std::fs::write(stage.wal(SPANNED), &later(SPANNED)[..500_000]).unwrap();
    stage.push(SPANNED).expect(2).says("500000");
    let history = "00000002.history";
    std::fs::write(stage.wal(history), "1\t0/C00000\tno reason\n").unwrap();
    stage.push(history).expect(0);
    stage.get(history).expect(0);
}

#[test]
fn the_end_of_its_archive_is_the_end_and_a_gap_is_a_gap() {
    let stage = pushed();
    stage.get("00000001000000000000000D").expect(1);
    for key in stage.keys().iter().filter(|key| key.contains(SMALL)) {
        std::fs::remove_file(stage.archive().join(key)).unwrap();
    }
    stage.get(SMALL).expect(255).says(LAST);
}

#[test]
fn an_archive_that_has_nothing_of_it_says_nothing() {
    let stage = stage();
    stage.get(SMALL).expect(255);
}

#[test]
fn a_contract_holds_for_it() {
    let stage = pushed();
    stage.promise(serde_json::json!([{"timeline": 1, "begin": "0/0", "end": null}]), SMALL);
    stage.get_by_contract(SMALL).expect(0);
    assert!(stage.delivered() == later(SMALL));
    stage.take_archive_away();
    stage.get_by_contract(LAST).expect(1);
    stage.get_by_contract(SMALL).expect(255);
}

#[test]
fn what_is_not_known_of_it_is_written_down_when_it_is_known() {
    let stage = stage();
    stage.push(SPANNED).expect(0);
    let has_cluster = |stage: &Stage| stage.keys().iter().any(|key| key.ends_with("cluster.json"));
    assert!(!has_cluster(&stage), "{:?}", stage.keys());
    // A later program, which knows this version.
    stage.make_data_directory("data", "pg_control");
    std::fs::write(stage.wal(SMALL), fixture(SMALL)).unwrap();
    stage.push(SMALL).expect(0);
    assert!(has_cluster(&stage), "{:?}", stage.keys());
}

#[test]
fn what_is_known_of_the_cluster_is_not_contradicted() {
    let stage = Stage::archived();
    grow_old(&stage);
    let next = "00000001000000000000000E";
    let mut large = later(SMALL);
    large.resize(2 << 20, 0);
    std::fs::write(stage.wal(next), large).unwrap();
    stage.push(next).expect(4).says("WAL segment size");
}

#[test]
fn known_wal_is_validated_all_the_same() {
    let stage = Stage::new();
    grow_old(&stage);
    std::fs::write(stage.wal(LAST), fixture(SMALL)).unwrap();
    stage.push(LAST).expect(2).says("named");
    stage.push(SMALL).expect(0);
}

#[test]
fn a_backup_of_it_is_refused() {
    let stage = stage();
    let data = stage.data();
    stage.configure(&format!("[postgres]\ndata_directory = \"{}\"\n", data.display()));
    stage.run(&["backup"]).expect(2).says("1900").says("later than this walpoint");
}

#[test]
fn another_cluster_is_not_taken_for_it() {
    let stage = Stage::archived();
    stage.make_data_directory("data", "pg_control-of-another-cluster");
    grow_old(&stage);
    stage.configure(&format!("[postgres]\ndata_directory = \"{}\"\n", stage.data().display()));
    stage.run(&["list"]).expect(4).says(&stage.system_identifier());
}

#[test]
fn a_damaged_control_file_is_no_later_version() {
    let stage = Stage::new();
    std::fs::write(stage.data().join("global/pg_control"), vec![0; 8192]).unwrap();
    stage.push(SMALL).expect(1);
    assert!(stage.keys().is_empty(), "{:?}", stage.keys());
}
