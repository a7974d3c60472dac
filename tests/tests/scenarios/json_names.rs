//! What scripts read: the names in the JSON of every command on a real archive, and how times, LSNs and
//! transaction numbers are written there. Names may be added, none may change.

use anyhow::{Context, Result};
use serde_json::Value;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::walpoint::Walpoint;

/// What is written where a name stands.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Time,
    Lsn,
    Number,
    Flag,
    Text,
    List,
    Object,
    Null,
}

use Kind::{Flag, List, Lsn, Null, Number, Object, Text, Time};

fn is(value: &Value, kind: Kind) -> bool {
    match kind {
        Time => value.as_str().is_some_and(is_time),
        Lsn => value.as_str().is_some_and(is_lsn),
        Number => value.is_number(),
        Flag => value.is_boolean(),
        Text => value.as_str().is_some_and(|text| !text.is_empty() && !is_time(text)),
        List => value.is_array(),
        Object => value.is_object(),
        Null => value.is_null(),
    }
}

/// RFC 3339 in UTC with microseconds: `2026-11-20T21:45:00.123456Z`.
fn is_time(text: &str) -> bool {
    let form = "0000-00-00T00:00:00.000000Z";
    let digit = |c: char| if c.is_ascii_digit() { '0' } else { c };
    text.chars().map(digit).collect::<String>() == form
}

fn is_lsn(text: &str) -> bool {
    let half = |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
    text.split_once('/').is_some_and(|(high, low)| half(high) && half(low))
}

/// Every name with what is written there; `a/b` is `b` in `a`, `a/0/b` that of the first in a list.
#[track_caller]
fn has(object: &Value, names: &[(&str, Kind)]) {
    for (name, kind) in names {
        let found = object.pointer(&format!("/{name}"));
        assert!(found.is_some_and(|found| is(found, *kind)), "{name} is not {kind:?}: {object:#}");
    }
}

fn object(walpoint: &Walpoint, status: i32, args: &[&str]) -> Result<Value> {
    let with_json = [&["--json"], args].concat();
    let outcome = walpoint.run(&with_json)?.expect(status)?;
    assert_eq!(outcome.stdout.lines().count(), 1, "one object and nothing else\n{outcome}");
    outcome.json()
}

fn insert(scene: &Scene) -> Result<String> {
    scene.cluster.value("with done as (insert into t values (1) returning n) select txid_current() from done")
}

#[test]
fn names_and_forms_are_the_interface() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t (n int)")?;
    let xid = insert(&scene)?;
    let backup = object(&scene.walpoint, 0, &["backup"])?;
    has(&backup, &BACKUP);
    let inside = insert(&scene)?;
    insert(&scene)?;
    scene.archive_everything()?;

    listings(&scene.walpoint)?;
    plans(&scene.walpoint, &inside, &xid)?;
    health(&scene.walpoint)?;
    restore_and_take_over(&mut scene)
}

const BACKUP: [(&str, Kind); 10] = [
    ("id", Text),
    ("kind", Text),
    ("parent", Null),
    ("timeline", Number),
    ("start/lsn", Lsn),
    ("start/time", Time),
    ("stop/lsn", Lsn),
    ("stop/time", Time),
    ("bytes/data", Number),
    ("bytes/stored", Number),
];

fn listings(walpoint: &Walpoint) -> Result<()> {
    let listed = object(walpoint, 0, &["list"])?;
    let backup = &listed["backups"][0];
    has(backup, &BACKUP);
    has(
        backup,
        &[
            ("damaged_pages", Number),
            ("verified_at", Null),
            ("content_verified_at", Null),
            ("damaged_objects", Number),
        ],
    );
    assert_eq!(backup["kind"], "full");

    // Who has to choose a cluster knows it by its last backup.
    let choose = object(walpoint, 4, &["list", "--cluster", "1"])?;
    let day = backup["stop"]["time"].as_str().context("a time")?.get(..10).context("a day")?.to_owned();
    let said = choose["error"].as_str().context("an error")?;
    assert!(said.contains(&format!("last backup {day}")), "{said}");

    let wal = object(walpoint, 0, &["list", "--wal"])?;
    let timeline = [("timeline", Number), ("parent", Null), ("fork_lsn", Null), ("first", Text)];
    let content = [
        ("last", Text),
        ("count", Number),
        ("tail", Null),
        ("gaps", List),
        ("conflicts", List),
        ("damaged", List),
    ];
    has(&wal["timelines"][0], &[&timeline[..], &content].concat());
    has(&wal, &[("damaged", List)]);
    let first = wal["timelines"][0]["first"].as_str().context("a segment")?.to_owned();
    let file = object(walpoint, 0, &["list", "--wal", &first])?;
    has(
        &file,
        &[("file", Text), ("used", Text), ("contents/0/content", Text), ("contents/0/stored_at", Time)],
    );

    let verified = object(walpoint, 0, &["verify"])?;
    has(&verified, &VERIFY);
    has(
        &object(walpoint, 0, &["list"])?["backups"][0],
        &[("verified_at", Time), ("content_verified_at", Time)],
    );

    let window = object(walpoint, 0, &["window"])?;
    let from = [("timeline", Number), ("from/lsn", Lsn), ("from/time", Time)];
    has(&window["ranges"][0], &[&from[..], &[("to/lsn", Lsn), ("to/time", Time), ("backup", Text)]].concat());
    has(&window, &[("gaps", List)]);
    Ok(())
}

const VERIFY: [(&str, Kind); 21] = [
    ("cluster", Text),
    ("sound", Flag),
    ("quick", Flag),
    ("findings", List),
    ("ranges/0/timeline", Number),
    ("ranges/0/from/lsn", Lsn),
    ("ranges/0/to/lsn", Lsn),
    ("ranges/0/backup", Text),
    ("backups/0/id", Text),
    ("backups/0/verified_at", Time),
    ("read/objects", Number),
    ("read/bytes", Number),
    ("read/bytes_along", Number),
    ("read/length_only", Number),
    ("left/bytes", Number),
    ("goes_on_since", Null),
    ("unread", List),
    ("incomplete", List),
    ("unreferenced", List),
    ("refused", List),
    ("unknown", List),
];

const PLAN: [(&str, Kind); 10] = [
    ("reachable", Flag),
    ("reason", Null),
    ("backup/id", Text),
    ("timeline", Number),
    ("segments/first", Text),
    ("segments/last", Text),
    ("segments/count", Number),
    ("segments/bytes", Number),
    ("command", Text),
    ("neutralised", List),
];

fn plans(walpoint: &Walpoint, inside: &str, before: &str) -> Result<()> {
    let plan = object(walpoint, 0, &["plan", "--target-xid", inside])?;
    has(&plan, &PLAN);
    for name in ["last_included", "first_excluded"] {
        has(&plan[name], &[("xid", Number), ("lsn", Lsn), ("time", Time)]);
    }
    assert_eq!(plan["last_included"]["xid"].to_string(), inside);
    let latest = object(walpoint, 0, &["plan", "--latest"])?;
    has(&latest, &[("first_excluded", Null), ("last_included", Object)]);

    // Committed before the backup: no WAL that is replayed holds it.
    for target in [["--target-xid", before], ["--target-time", "2001-01-01 00:00:00Z"]] {
        let plan = object(walpoint, 6, &["plan", target[0], target[1]])?;
        has(&plan, &[("reachable", Flag), ("reason", Text), ("status", Number), ("error", Text)]);
        assert_eq!((&plan["reachable"], &plan["status"]), (&false.into(), &6.into()));
    }
    let early = object(walpoint, 6, &["plan", "--target-time", "2001-01-01 00:00:00Z"])?;
    has(&early, &[("nearest/before", Null), ("nearest/after/lsn", Lsn), ("nearest/after/time", Time)]);
    let listed = object(walpoint, 0, &["list"])?;
    assert_eq!(early["nearest"]["after"], listed["backups"][0]["stop"], "the first backup's end");
    Ok(())
}

fn health(walpoint: &Walpoint) -> Result<()> {
    let report = object(walpoint, 0, &["check", "--probe"])?;
    let now = [("lag_seconds", Number), ("unarchived_bytes", Number), ("backup_age_seconds", Number)];
    let archiver = [("archiver/last_archived", Text), ("archiver/last_archived_time", Time)];
    let backup = [("last_good_backup/id", Text), ("last_good_backup/stopped", Time)];
    let lists =
        [("gaps", List), ("missing", List), ("damaged", List), ("conflicts", List), ("unreadable", List)];
    has(&report, &[&now[..], &archiver, &backup, &lists].concat());
    has(&report, &[("status", Text), ("findings", List), ("waiting/count", Number)]);
    has(&report, &[("pg_wal/free_bytes", Number), ("pg_wal/hours_left", Null)]);
    has(&report, &[("probe/segment", Text), ("probe/seconds", Number), ("thresholds", Object)]);
    Ok(())
}

fn restore_and_take_over(scene: &mut Scene) -> Result<()> {
    let directory = scene.fresh_directory();
    let into = directory.to_str().context("the directory's name is not UTF-8")?;
    let restored = object(&scene.walpoint, 0, &["restore", "--latest", "--data-directory", into])?;
    let done = [("data_directory", Text), ("start_command", Text), ("neutralised", List), ("warnings", List)];
    has(&restored, &[&done[..], &[("bytes", Number), ("files", Number), ("plan", Object)]].concat());
    has(&restored["plan"], &PLAN);
    let refused = object(&scene.walpoint, 7, &["restore", "--latest", "--data-directory", into])?;
    has(&refused, &[("status", Number), ("error", Text), ("hint", Text)]);
    assert_eq!(refused.as_object().context("an object")?.len(), 3);

    scene.cluster.stop(Stop::Fast)?;
    let mut copy = Cluster::restored(&directory, &scene.cluster)?;
    copy.start_expect_ready(RECOVERY_LIMIT)?;
    let walpoint = scene.walpoint_for(&copy)?;
    let first = object(&walpoint, 1, &["take-over"])?;
    has(&first, &[("status", Number), ("error", Text), ("hint", Text)]);
    copy.stop(Stop::Fast)?;
    copy.start_expect_ready(RECOVERY_LIMIT)?;
    let backup = object(&walpoint, 0, &["take-over"])?;
    has(&backup, &BACKUP);
    assert_eq!(backup["timeline"], 2);

    let wal = object(&walpoint, 0, &["list", "--wal"])?;
    has(&wal["timelines"][1], &[("parent", Number), ("fork_lsn", Lsn)]);
    copy.stop(Stop::Fast)
}
