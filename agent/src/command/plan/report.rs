//! A plan in words and as JSON.

use crate::cli::TargetArgs;
use crate::config::{Settings, sizes};
use crate::exit::Status;
use serde_json::{Value, json};
use std::time::Duration;
use walpoint_archive::BackupSummary;
use walpoint_archive::verification::ReadSpeed;
use walpoint_pitr::locate::CommitPoint;
use walpoint_pitr::plan::{Moment, RecoveryPlan, SegmentPlan, Unreachable};
use walpoint_pitr::restore::Destination;

/// Bytes of data files a second that the estimate supposes a restore to fetch, verify and write where nothing was
/// measured: the network and the disks decide, and the report says what was supposed.
const SUPPOSED_FETCHING: u64 = 100 << 20;
/// Bytes of WAL a second that the estimate supposes PostgreSQL to replay. Chosen as well.
const SUPPOSED_REPLAY: u64 = 30 << 20;

/// The object that `plan --json` prints for a target that can be reached. `command` carries it out; what that
/// puts out of action is null where it could not be read.
pub fn reachable_json(plan: &RecoveryPlan, command: Option<&str>, neutralised: Option<&[String]>) -> Value {
    let prepared: Vec<Value> = plan
        .prepared_open
        .iter()
        .map(|prepared| json!({ "xid": prepared.xid, "gid": prepared.gid, "lsn": prepared.lsn }))
        .collect();
    json!({
        "reachable": true,
        "exact": true,
        "reason": Value::Null,
        "cluster": plan.system_identifier,
        "target": plan.target.to_string(),
        "exclusive": plan.exclusive,
        "backup": { "id": plan.backup.id, "why": plan.why_backup },
        "timeline": plan.timeline,
        "path": plan.path,
        "record_timeline": plan.record_timeline,
        "last_record": { "lsn": plan.last_record, "end": plan.last_record_end },
        "segments": plan.segments,
        "last_included": plan.last_included,
        "first_excluded": plan.first_excluded,
        "prepared": prepared,
        "bytes_to_fetch": plan.bytes_to_fetch,
        "estimated_seconds": estimated(plan).as_secs(),
        "estimate": {
            "read_bytes_per_second": plan.measured.map(ReadSpeed::bytes_per_second),
            "measured_at": plan.measured.map(|speed| speed.at),
            "supposed_restore_bytes_per_second": plan.measured.is_none().then_some(SUPPOSED_FETCHING),
            "supposed_replay_bytes_per_second": SUPPOSED_REPLAY,
        },
        "warnings": plan.warnings,
        "notes": plan.notes,
        "command": command,
        "neutralised": neutralised,
    })
}

/// The same of a plan to a segment: null where only content says it. No command: that needs the key.
pub fn to_segment_json(plan: &SegmentPlan, neutralised: Option<&[String]>) -> Value {
    let mut object = reachable_json(plan.bounds(), None, neutralised);
    object["exact"] = json!(false);
    for unknown in ["last_record", "last_included", "first_excluded", "prepared"] {
        object[unknown] = Value::Null;
    }
    object
}

/// The object for a target that cannot be reached. `exact` is false when metadata alone showed it.
pub fn unreachable_json(why: &Unreachable, exact: bool) -> Value {
    json!({
        "reachable": false,
        "exact": exact,
        "reason": why.reason,
        "nearest": why.nearest,
        "candidates": why.candidates,
        "status": Status::Unreachable.code(),
        "error": why.reason,
        "hint": why.hint,
    })
}

/// For people.
pub fn reachable_text(plan: &RecoveryPlan) -> String {
    let exclusive = if plan.exclusive { ", itself left out" } else { "" };
    let mut text = format!("the target can be reached: {}{exclusive}\n\n", plan.target);
    text += &way(plan);
    let mut line = |name: &str, value: String| text += &format!("{name:<20}{value}\n");
    line("last record", format!("{}, on timeline {}", plan.last_record, plan.record_timeline));
    line("last included", commit(plan.last_included.as_ref(), "no commit after the backup's beginning"));
    line("first excluded", commit(plan.first_excluded.as_ref(), "none: everything known is included"));
    for prepared in &plan.prepared_open {
        let gid = prepared.gid.as_deref().unwrap_or("name unknown");
        line("left prepared", format!("transaction {} \"{gid}\" at {}", prepared.xid, prepared.lsn));
    }
    text + &cost(plan)
}

/// For people: a plan that names no record.
pub fn to_segment_text(plan: &SegmentPlan) -> String {
    let plan = plan.bounds();
    format!("the target can be reached: {}\n\n{}{}", plan.target, way(plan), cost(plan))
}

/// What recovery begins with, and goes along.
fn way(plan: &RecoveryPlan) -> String {
    let segments = &plan.segments;
    let (first, last, stored) = (segments.first, segments.last, sizes::human(segments.bytes));
    let lines = [
        ("cluster", plan.system_identifier.to_string()),
        ("base backup", format!("{} ({})", plan.backup.id, plan.why_backup)),
        ("timeline", path(plan)),
        ("WAL", format!("{} segments, {first} to {last}, {stored} stored", segments.count)),
    ];
    lines.iter().map(|(name, value)| format!("{name:<20}{value}\n")).collect()
}

/// What it takes, and what to mind.
fn cost(plan: &RecoveryPlan) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text += &format!("{name:<20}{value}\n");
    line("to fetch", &sizes::human(plan.bytes_to_fetch));
    line("estimated", &estimate(plan));
    for warning in &plan.warnings {
        line("warning", warning);
    }
    for note in &plan.notes {
        line("note", note);
    }
    text
}

/// For people.
pub fn unreachable_text(why: &Unreachable) -> String {
    let mut text = format!("the target cannot be reached: {}\n", why.reason);
    for (name, moment) in [("nearest before", &why.nearest.before), ("nearest after", &why.nearest.after)] {
        if let Some(moment) = moment {
            text += &format!("{name:<20}{}\n", at(moment));
        }
    }
    for candidate in &why.candidates {
        let xid = candidate.xid.map(|xid| format!("transaction {xid}, ")).unwrap_or_default();
        let time = candidate.time.map(|time| format!(", {time}")).unwrap_or_default();
        let (lsn, timeline) = (candidate.lsn, candidate.timeline);
        text += &format!("{:<20}{xid}--target-lsn {lsn} on timeline {timeline}{time}\n", "it can mean");
    }
    if let Some(hint) = &why.hint {
        text += &format!("hint: {hint}\n");
    }
    text
}

/// The command that carries this plan out.
pub fn restore_command_line(
    settings: &Settings,
    args: &TargetArgs,
    destination: Option<&Destination>,
) -> String {
    let mut words = vec!["walpoint".to_owned()];
    if let Some(config) = &settings.source {
        words.extend(["--config".to_owned(), config.display().to_string()]);
    }
    words.push("restore".to_owned());
    words.extend(args.words());
    let directory = destination.map(|it| it.data_directory.display().to_string());
    words.extend(["--data-directory".to_owned(), directory.unwrap_or_else(|| "DIRECTORY".to_owned())]);
    for mapping in destination.iter().flat_map(|it| &it.tablespaces) {
        words.extend(["--tablespace".to_owned(), format!("{}={}", mapping.from, mapping.to.display())]);
    }
    for database in destination.iter().flat_map(|it| &it.databases) {
        words.extend(["--include-database".to_owned(), database.clone()]);
    }
    if destination.is_some_and(|it| it.delta) {
        words.push("--delta".to_owned());
    }
    if destination.is_some_and(|it| it.discard_wal) {
        words.push("--discard-wal".to_owned());
    }
    if destination.is_some_and(|it| it.take_over) {
        words.push("--take-over".to_owned());
    }
    words.iter().map(|word| crate::postgres_command::shell_word(word)).collect::<Vec<_>>().join(" ")
}

/// What becomes of the subscriptions that the backup has, when it has any.
pub fn subscriptions(backup: &BackupSummary) -> Option<String> {
    let names = backup.subscriptions.as_deref().filter(|names| !names.is_empty())?;
    Some(format!(
        "the original subscribes to others ({}): a copy does not, unless it is restored with --take-over",
        names.join(", ")
    ))
}

fn path(plan: &RecoveryPlan) -> String {
    let step = |step: &walpoint_wal::PathStep| match step.end {
        Some(end) => format!("{} up to {end}", step.timeline),
        None => step.timeline.to_string(),
    };
    plan.path.iter().map(step).collect::<Vec<_>>().join(", then ")
}

fn commit(commit: Option<&CommitPoint>, none: &str) -> String {
    commit.map_or_else(
        || none.to_owned(),
        |commit| format!("transaction {} at {}, committed {}", commit.xid, commit.lsn, commit.time),
    )
}

fn at(moment: &Moment) -> String {
    let time = moment.time.map(|time| format!(", {time}")).unwrap_or_default();
    format!("--target-lsn {}{time}", moment.lsn)
}

/// In words, with what it rests on.
fn estimate(plan: &RecoveryPlan) -> String {
    let (seconds, replay) = (estimated(plan).as_secs(), sizes::human(SUPPOSED_REPLAY));
    match plan.measured {
        Some(speed) => format!(
            "about {seconds} s, if the archive is read as fast as by verify on {} ({}/s stored), the disk keeps up, \
             and {replay}/s of WAL are replayed, which was not measured",
            speed.at,
            sizes::human(speed.bytes_per_second()),
        ),
        None => format!(
            "about {seconds} s, if {}/s of data are restored and {replay}/s of WAL replayed; nothing was measured: \
             walpoint verify does",
            sizes::human(SUPPOSED_FETCHING)
        ),
    }
}

fn estimated(plan: &RecoveryPlan) -> Duration {
    let wal = plan.segments.count.saturating_mul(plan.segment_size.bytes());
    let fetching = match plan.measured {
        Some(speed) => plan.bytes_to_fetch / speed.bytes_per_second(),
        None => plan.backup.bytes.data / SUPPOSED_FETCHING,
    };
    Duration::from_secs(1 + fetching + wal / SUPPOSED_REPLAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_pitr::plan::{Nearest, Segments};
    use walpoint_pitr::target::Target;
    use walpoint_wal::{Lsn, PathStep, SegmentName, TimelineId, Timestamp};

    fn plan() -> RecoveryPlan {
        let backup: walpoint_archive::BackupSummary =
            serde_json::from_str(include_str!("../../../tests/fixtures/backup.json")).unwrap();
        let segment = |text: &str| -> SegmentName { text.parse().unwrap() };
        RecoveryPlan {
            system_identifier: backup.system_identifier,
            segment_size: backup.segment_size,
            backup,
            why_backup: "the only one".to_owned(),
            path: vec![PathStep { timeline: TimelineId::FIRST, begin: Lsn(0), end: None }],
            timeline: TimelineId::FIRST,
            record_timeline: TimelineId::FIRST,
            last_record: Lsn(0xA2_0348),
            last_record_end: Lsn(0xA2_0388),
            segments: Segments {
                first: segment("000000010000000000000009"),
                last: segment("00000001000000000000000A"),
                count: 2,
                bytes: 28_216,
            },
            last_included: Some(CommitPoint {
                xid: 726,
                lsn: Lsn(0xA1_08A0),
                time: Timestamp(848_526_300_000_000),
            }),
            first_excluded: None,
            prepared_open: Vec::new(),
            measured: None,
            bytes_to_fetch: 3_025_587,
            target: Target::Latest,
            exclusive: false,
            warnings: vec!["mind the gap".to_owned()],
            notes: Vec::new(),
        }
    }

    #[test]
    fn the_names_of_a_plan_are_the_interface() {
        let neutralised = ["archive_mode in postgresql.conf".to_owned()];
        let plan = reachable_json(&plan(), Some("walpoint restore --latest"), Some(&neutralised));
        assert_eq!((&plan["reachable"], &plan["reason"]), (&json!(true), &Value::Null));
        assert_eq!(plan["backup"]["id"], "20261121T005909Z-full-66a14c");
        assert_eq!(plan["timeline"], 1);
        assert_eq!(
            (&plan["command"], &plan["neutralised"]),
            (&json!("walpoint restore --latest"), &json!(neutralised))
        );
        assert_eq!(
            plan["segments"],
            json!({
                "first": "000000010000000000000009", "last": "00000001000000000000000A",
                "count": 2, "bytes": 28_216,
            })
        );
        let included = json!({ "xid": 726, "lsn": "0/A108A0", "time": "2026-11-20T21:45:00.000000Z" });
        assert_eq!((&plan["last_included"], &plan["first_excluded"]), (&included, &Value::Null));
    }

    #[test]
    fn the_names_of_what_cannot_be_reached_are_the_interface() {
        let before = Moment { lsn: Lsn(0xB0_0000), time: None };
        let why = Unreachable {
            reason: "a gap".to_owned(),
            nearest: Nearest { before: Some(before), after: None },
            hint: None,
            candidates: Vec::new(),
        };
        let plan = unreachable_json(&why, true);
        assert_eq!(
            (&plan["reachable"], &plan["reason"], &plan["status"]),
            (&json!(false), &json!("a gap"), &json!(6))
        );
        assert_eq!(plan["nearest"], json!({ "before": { "lsn": "0/B00000", "time": null }, "after": null }));
        assert!(unreachable_text(&why).contains("--target-lsn 0/B00000"));
    }

    #[test]
    fn people_read_the_same() {
        let text = reachable_text(&plan());
        for what in [
            "20261121T005909Z-full-66a14c",
            "transaction 726 at 0/A108A0",
            "mind the gap",
            "2 segments",
            "about 1 s, if 100 MiB/s of data are restored and 30.0 MiB/s of WAL replayed",
        ] {
            assert!(text.contains(what), "{what}: {text}");
        }
    }

    #[test]
    fn an_estimate_says_what_it_rests_on() {
        let mut plan = plan();
        plan.bytes_to_fetch = 1 << 30;
        let at = Timestamp(848_526_300_000_000);
        plan.measured = Some(ReadSpeed { at, bytes: 512 << 20, micros: 8_000_000 });
        let text = reachable_text(&plan);
        assert!(
            text.contains("about 17 s, if the archive is read as fast as by verify on 2026-11-20"),
            "{text}"
        );
        assert!(text.contains("64.0 MiB/s stored"), "{text}");
        let json = reachable_json(&plan, None, None);
        assert_eq!(json["estimate"]["read_bytes_per_second"], 64 << 20);
        assert_eq!(json["estimate"]["measured_at"], "2026-11-20T21:45:00.000000Z");
    }
}
