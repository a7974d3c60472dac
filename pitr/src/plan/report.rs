//! A plan as others read it: as JSON and as text.

use std::fmt::Write;

use serde::Serialize;
use walpoint_archive::{BackupId, BackupKind};
use walpoint_wal::{Lsn, PathStep, SystemIdentifier, TimelineId, Timestamp};

use super::{Candidate, Moment, Nearest, PlanOutcome, RecoveryPlan, Segments, Unreachable};
use crate::locate::{CommitPoint, Prepared};

/// Plain bytes that a recovery is assumed to fetch, and to replay, per second. The
/// estimate says whether to fetch a coffee or to call for a standby, no more.
const BYTES_PER_SECOND: u64 = 60 << 20;

/// What `plan --json` prints. Names and meaning of the fields are fixed; fields may be added.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanReport {
    /// Whether everything that the recovery needs is in the archive.
    pub reachable: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The next step when not.
    pub hint: Option<String>,
    /// What was asked for, in words.
    pub target: Option<String>,
    /// Whether what the target names was to be left out.
    pub exclusive: bool,
    /// The cluster.
    pub system_identifier: Option<SystemIdentifier>,
    /// The base backup.
    pub backup: Option<BackupReport>,
    /// The timeline to hand to PostgreSQL.
    pub timeline: Option<TimelineId>,
    /// The timeline that the last record is on.
    pub record_timeline: Option<TimelineId>,
    /// The way to the timeline, oldest step first.
    pub path: Vec<PathStep>,
    /// Start of the last record to replay.
    pub last_record: Option<Lsn>,
    /// Where it ends.
    pub last_record_end: Option<Lsn>,
    /// The WAL to replay.
    pub segments: Option<Segments>,
    /// The last commit that will be there.
    pub last_included: Option<CommitPoint>,
    /// The first commit that will not.
    pub first_excluded: Option<CommitPoint>,
    /// Prepared transactions that will be open.
    pub prepared_open: Vec<Prepared>,
    /// Stored bytes to fetch in all.
    pub bytes_to_fetch: Option<u64>,
    /// A rough estimate.
    pub estimated_seconds: Option<u64>,
    /// What could go wrong.
    pub warnings: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// What can be reached instead.
    pub nearest: Nearest,
    /// The records that the target can mean, when it can mean several.
    pub candidates: Vec<Candidate>,
}

/// A base backup in a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BackupReport {
    /// Its id.
    pub id: BackupId,
    /// Full or incremental.
    pub kind: BackupKind,
    /// The timeline it was taken on.
    pub timeline: TimelineId,
    /// Where it began.
    pub start: Moment,
    /// Where it ended.
    pub stop: Moment,
    /// Why this one.
    pub why: String,
}

impl RecoveryPlan {
    /// A rough estimate of the recovery's duration in seconds.
    pub fn estimated_seconds(&self) -> u64 {
        let replayed = self.segments.count.saturating_mul(self.segment_size.bytes());
        let fetched = self.backup.bytes.data.max(self.bytes_to_fetch);
        replayed.saturating_add(fetched).div_ceil(BYTES_PER_SECOND)
    }
}

impl PlanOutcome {
    /// For `--json`.
    pub fn report(&self) -> PlanReport {
        match self {
            PlanOutcome::Reachable(plan) => reachable(plan),
            PlanOutcome::Unreachable(unreachable) => refused(unreachable),
        }
    }
}

fn reachable(plan: &RecoveryPlan) -> PlanReport {
    let at = |position: walpoint_archive::summary::Position| Moment {
        lsn: position.lsn,
        time: Some(position.time),
    };
    let backup = &plan.backup;
    PlanReport {
        reachable: true,
        reason: None,
        hint: None,
        target: Some(plan.target.to_string()),
        exclusive: plan.exclusive,
        system_identifier: Some(plan.system_identifier),
        backup: Some(BackupReport {
            id: backup.id.clone(),
            kind: backup.kind,
            timeline: backup.timeline,
            start: at(backup.start),
            stop: at(backup.stop),
            why: plan.why_backup.clone(),
        }),
        timeline: Some(plan.timeline),
        record_timeline: Some(plan.record_timeline),
        path: plan.path.clone(),
        last_record: Some(plan.last_record),
        last_record_end: Some(plan.last_record_end),
        segments: Some(plan.segments),
        last_included: plan.last_included,
        first_excluded: plan.first_excluded,
        prepared_open: plan.prepared_open.clone(),
        bytes_to_fetch: Some(plan.bytes_to_fetch),
        estimated_seconds: Some(plan.estimated_seconds()),
        warnings: plan.warnings.clone(),
        notes: plan.notes.clone(),
        nearest: Nearest::default(),
        candidates: Vec::new(),
    }
}

fn refused(unreachable: &Unreachable) -> PlanReport {
    PlanReport {
        reachable: false,
        reason: Some(unreachable.reason.clone()),
        hint: unreachable.hint.clone(),
        target: None,
        exclusive: false,
        system_identifier: None,
        backup: None,
        timeline: None,
        record_timeline: None,
        path: Vec::new(),
        last_record: None,
        last_record_end: None,
        segments: None,
        last_included: None,
        first_excluded: None,
        prepared_open: Vec::new(),
        bytes_to_fetch: None,
        estimated_seconds: None,
        warnings: Vec::new(),
        notes: Vec::new(),
        nearest: unreachable.nearest,
        candidates: unreachable.candidates.clone(),
    }
}

/// The plan, or why there is none, as lines for people.
pub fn explain(outcome: &PlanOutcome) -> String {
    let lines = match outcome {
        PlanOutcome::Reachable(plan) => lines_of(plan),
        PlanOutcome::Unreachable(unreachable) => lines_of_refusal(unreachable),
    };
    lines.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<16}{value}");
        text
    })
}

type Line = (&'static str, String);

fn lines_of(plan: &RecoveryPlan) -> Vec<Line> {
    let exclusive = if plan.exclusive { " (left out)" } else { "" };
    let mut lines = vec![
        ("target", format!("{}{exclusive}", plan.target)),
        ("reachable", "yes".to_owned()),
        ("base backup", format!("{}: {}", plan.backup.id, plan.why_backup)),
        ("timeline", path_text(plan)),
        ("WAL", segments_text(&plan.segments)),
        ("last record", format!("{}, ends at {}", plan.last_record, plan.last_record_end)),
        ("last included", commit_text(plan.last_included.as_ref(), "no commit in the archive's WAL")),
        ("first left out", commit_text(plan.first_excluded.as_ref(), "none known")),
    ];
    for prepared in &plan.prepared_open {
        let gid = prepared.gid.as_deref().unwrap_or("(unreadable)");
        lines.push(("prepared", format!("transaction {} \"{gid}\" stays open", prepared.xid)));
    }
    lines.push((
        "to fetch",
        format!("{}, roughly {} s in all", bytes_text(plan.bytes_to_fetch), plan.estimated_seconds()),
    ));
    lines.extend(plan.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines.extend(plan.notes.iter().map(|note| ("note", note.clone())));
    lines
}

fn lines_of_refusal(unreachable: &Unreachable) -> Vec<Line> {
    let mut lines = vec![("reachable", "no".to_owned()), ("reason", unreachable.reason.clone())];
    for candidate in &unreachable.candidates {
        let xid = candidate.xid.map(|xid| format!(", transaction {xid}")).unwrap_or_default();
        lines.push((
            "candidate",
            format!("{} on timeline {}{}{xid}", candidate.lsn, candidate.timeline, at(candidate.time)),
        ));
    }
    let moment = |moment: &Moment| format!("{}{}", moment.lsn, at(moment.time));
    lines.extend(unreachable.nearest.before.iter().map(|before| ("nearest before", moment(before))));
    lines.extend(unreachable.nearest.after.iter().map(|after| ("nearest after", moment(after))));
    lines.extend(unreachable.hint.iter().map(|hint| ("hint", hint.clone())));
    lines
}

fn at(time: Option<Timestamp>) -> String {
    time.map(|time| format!(" ({time})")).unwrap_or_default()
}

fn path_text(plan: &RecoveryPlan) -> String {
    let steps = plan.path.iter().map(|step| match step.end {
        Some(end) => format!("{} to {end}", step.timeline),
        None => step.timeline.to_string(),
    });
    steps.collect::<Vec<_>>().join(", then ")
}

fn segments_text(segments: &Segments) -> String {
    let Segments { first, last, count, bytes } = segments;
    let bytes = bytes_text(*bytes);
    if first == last {
        format!("segment {first} ({bytes})")
    } else {
        format!("{count} segments, {first} to {last} ({bytes})")
    }
}

fn commit_text(commit: Option<&CommitPoint>, none: &str) -> String {
    match commit {
        Some(CommitPoint { xid, lsn, time }) => format!("transaction {xid}, committed {time} at {lsn}"),
        None => none.to_owned(),
    }
}

fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
