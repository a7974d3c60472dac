//! What recovery can do without never stops it, whatever became of the archive; what it needs does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stage;

use stage::{FULL, LAST, SMALL, SPANNED, Stage, fixture};
use std::time::{Duration, Instant};

/// Far above what a run takes, and below any wait for an archive that is away.
const QUICKLY: Duration = Duration::from_secs(10);

/// A recovery that ends in `…0A`, along timeline 2 that left timeline 1 in `…09`.
fn stage() -> Stage {
    let stage = Stage::archived();
    let path = serde_json::json!([
        {"timeline": 1, "begin": "0/0", "end": "0/900098"},
        {"timeline": 2, "begin": "0/900098", "end": null},
    ]);
    stage.promise(path, "00000002000000000000000A");
    stage
}

const BEYOND: &str = "00000002000000000000000B";
const NEEDED: &str = "00000002000000000000000A";

/// Asks for every kind of file, with the archive as `break_it` left it.
fn recovery_goes_on_and_stops_where_it_must(break_it: impl FnOnce(&Stage)) {
    let stage = stage();
    break_it(&stage);
    let started = Instant::now();
    for dispensable in [BEYOND, LAST, "00000001.history"] {
        stage.get_by_contract(dispensable).expect(1);
    }
    assert!(started.elapsed() < QUICKLY, "after {:?}", started.elapsed());
    for needed in [NEEDED, FULL, SPANNED, "00000002.history"] {
        stage.get_by_contract(needed).expect(255);
    }
}

/// Waiting for what is needed is worth more time than a test has.
const PATIENT: &str = "[archive_get]\nretry_for = \"2s\"\n";

#[test]
fn the_archive_is_away() {
    recovery_goes_on_and_stops_where_it_must(Stage::take_archive_away);
}

#[test]
fn the_store_does_not_answer() {
    recovery_goes_on_and_stops_where_it_must(|stage| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let archive = format!("url = \"s3://bucket\"\nendpoint = \"http://127.0.0.1:{port}\"\n");
        std::fs::write(stage.config(), format!("[archive]\n{archive}{PATIENT}")).unwrap();
    });
}

#[test]
fn no_archive_is_configured() {
    recovery_goes_on_and_stops_where_it_must(|stage| {
        std::fs::write(stage.config(), PATIENT).unwrap();
    });
}

#[test]
fn what_recovery_can_do_without_is_served_where_it_is_there() {
    let stage = Stage::archived();
    stage.promise(serde_json::json!([{"timeline": 1, "begin": "0/0", "end": null}]), SMALL);
    stage.get_by_contract(LAST).expect(0);
    assert!(stage.delivered() == fixture(LAST));
}
