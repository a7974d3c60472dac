//! The judgement as a monitoring plugin says it: one line, performance data
//! behind a bar, the most severe level first. And as one JSON object.

use std::time::Duration;

use serde::Serialize;

use crate::output::plugin_line;

use super::{Finding, KnownBackup, Level, Limits, Snapshot, Thresholds};

/// The object of `check --json`.
#[derive(Debug, Serialize)]
pub struct Report {
    pub status: &'static str,
    pub findings: Vec<ReportedFinding>,
    pub lag_seconds: Option<f64>,
    pub unarchived_bytes: Option<u64>,
    pub waiting: Option<ReportedWaiting>,
    pub pg_wal: Option<ReportedDisk>,
    pub archiver: Option<ReportedArchiver>,
    pub last_backup: Option<ReportedBackup>,
    pub last_good_backup: Option<ReportedBackup>,
    pub backup_age_seconds: Option<f64>,
    pub gaps: Vec<ReportedGap>,
    /// Complete segments that the archive lacks and that will not arrive by themselves.
    pub missing: Vec<String>,
    pub damaged: Vec<ReportedDamage>,
    pub conflicts: Vec<String>,
    pub missing_histories: Vec<u32>,
    /// Objects that are there and cannot be used.
    pub unreadable: Vec<ReportedObject>,
}

#[derive(Debug, Serialize)]
pub struct ReportedFinding {
    pub level: &'static str,
    pub text: String,
}

#[derive(Debug, Serialize)]
pub struct ReportedWaiting {
    pub count: u64,
    pub oldest: Option<String>,
    pub since: Option<String>,
}

/// The names are those of `status`.
#[derive(Debug, Serialize)]
pub struct ReportedDisk {
    pub free_bytes: Option<u64>,
    pub hours_left: Option<f64>,
}

#[derive(Debug, Serialize)]
pub struct ReportedArchiver {
    pub last_archived: Option<String>,
    pub last_archived_time: Option<String>,
    pub last_failed: Option<String>,
    pub last_failed_time: Option<String>,
    pub failed_count: i64,
}

#[derive(Debug, Serialize)]
pub struct ReportedBackup {
    pub id: String,
    pub stopped: String,
    pub damaged_pages: u64,
}

#[derive(Debug, Serialize)]
pub struct ReportedGap {
    pub first: String,
    pub last: String,
}

#[derive(Debug, Serialize)]
pub struct ReportedObject {
    /// Its key, or the name of the WAL file that it holds.
    pub object: String,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub struct ReportedDamage {
    pub segment: String,
    pub lsn: String,
}

/// The most severe level, OK when there is nothing to find.
pub fn level(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

impl Report {
    pub fn new(snapshot: &Snapshot, findings: &[Finding]) -> Report {
        let archive = snapshot.archive.as_ref().ok();
        let server = snapshot.server.as_ref().ok();
        let named =
            |finding: &Finding| ReportedFinding { level: finding.level.word(), text: finding.text.clone() };
        Report {
            status: level(findings).word(),
            findings: findings.iter().map(named).collect(),
            lag_seconds: snapshot.lag().map(|lag| lag.as_secs_f64()),
            unarchived_bytes: snapshot.unarchived_bytes(),
            waiting: server.map(|server| ReportedWaiting::new(&server.waiting)),
            pg_wal: server.map(|server| ReportedDisk {
                free_bytes: server.free_bytes,
                hours_left: snapshot.full_in().map(|left| left.as_secs_f64() / 3600.0),
            }),
            archiver: server.map(|server| ReportedArchiver::new(&server.archiver)),
            last_backup: archive.and_then(|it| it.last_backup.as_ref()).map(ReportedBackup::new),
            last_good_backup: archive.and_then(|it| it.last_good_backup.as_ref()).map(ReportedBackup::new),
            backup_age_seconds: snapshot.backup_age().map(|age| age.as_secs_f64()),
            gaps: archive.map(reported_gaps).unwrap_or_default(),
            missing: archive.map(reported_missing).unwrap_or_default(),
            damaged: archive.map(reported_damage).unwrap_or_default(),
            conflicts: archive
                .map(|it| it.ambiguous.iter().chain(&it.refused).cloned().collect())
                .unwrap_or_default(),
            missing_histories: archive
                .map(|it| it.missing_histories.iter().map(|timeline| timeline.get()).collect())
                .unwrap_or_default(),
            unreadable: archive.map(reported_unreadable).unwrap_or_default(),
        }
    }
}

fn reported_gaps(archive: &super::ArchiveState) -> Vec<ReportedGap> {
    let gaps = archive.gaps.iter();
    gaps.map(|gap| ReportedGap { first: gap.first.to_string(), last: gap.last.to_string() }).collect()
}

fn reported_missing(archive: &super::ArchiveState) -> Vec<String> {
    let lost = archive.missing.iter().filter(|it| it.missing.is_lost());
    lost.map(|it| it.name.to_string()).collect()
}

fn reported_damage(archive: &super::ArchiveState) -> Vec<ReportedDamage> {
    let damaged = archive.damaged.iter();
    damaged.map(|it| ReportedDamage { segment: it.segment.to_string(), lsn: it.lsn.to_string() }).collect()
}

fn reported_unreadable(archive: &super::ArchiveState) -> Vec<ReportedObject> {
    let objects = archive.unreadable.iter().cloned();
    objects.map(|(object, reason)| ReportedObject { object, reason }).collect()
}

impl ReportedWaiting {
    fn new(waiting: &super::Waiting) -> ReportedWaiting {
        ReportedWaiting {
            count: waiting.count,
            oldest: waiting.oldest.as_ref().map(|(name, _)| name.clone()),
            since: waiting.oldest.as_ref().map(|(_, since)| since.rfc3339()),
        }
    }
}

impl ReportedArchiver {
    fn new(archiver: &crate::session::ArchiverStatistics) -> ReportedArchiver {
        ReportedArchiver {
            last_archived: archiver.last_archived_wal.clone(),
            last_archived_time: archiver.last_archived_time.map(|time| time.rfc3339()),
            last_failed: archiver.last_failed_wal.clone(),
            last_failed_time: archiver.last_failed_time.map(|time| time.rfc3339()),
            failed_count: archiver.failed_count,
        }
    }
}

impl ReportedBackup {
    fn new(backup: &KnownBackup) -> ReportedBackup {
        ReportedBackup {
            id: backup.id.to_string(),
            stopped: backup.stopped.rfc3339(),
            damaged_pages: backup.damaged_pages,
        }
    }
}

/// The line for people and plugins, without its newline.
pub fn text(snapshot: &Snapshot, thresholds: &Thresholds, findings: &[Finding]) -> String {
    let said = if findings.is_empty() {
        all_is_well(snapshot)
    } else {
        let texts: Vec<&str> = findings.iter().map(|finding| finding.text.as_str()).collect();
        texts.join("; ")
    };
    let said = plugin_line(&said);
    let perfdata = perfdata(snapshot, thresholds);
    let bar = if perfdata.is_empty() { "" } else { " | " };
    format!("{}: {said}{bar}{perfdata}", level(findings).word())
}

fn all_is_well(snapshot: &Snapshot) -> String {
    let backup = snapshot.backup_age().map(|age| format!("last backup {} ago", spoken(age)));
    let lag = match snapshot.lag() {
        None => standby(snapshot),
        Some(Duration::ZERO) => "all WAL is in the archive".to_owned(),
        Some(lag) => format!("WAL is in the archive up to {} ago", spoken(lag)),
    };
    [Some(lag), backup].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What it will be like after a promotion belongs to it: nobody looks then.
fn standby(snapshot: &Snapshot) -> String {
    let is_off = snapshot.server.as_ref().is_ok_and(|server| server.archive_mode == "off");
    let promoted =
        "; its archive_mode is off: after a promotion it archives only once walpoint take-over has run";
    format!("a standby, its primary archives{}", if is_off { promoted } else { "" })
}

/// `label=value[unit];warning;critical;minimum`, what is not known left out.
pub fn perfdata(snapshot: &Snapshot, thresholds: &Thresholds) -> String {
    let seconds = |label: &str, value: Option<Duration>, limits: Limits| {
        value.map(|value| {
            let (warning, critical) = (limits.warning.as_secs(), limits.critical.as_secs());
            format!("{label}={:.3}s;{warning};{critical};0", value.as_secs_f64())
        })
    };
    let number =
        |label: &str, unit: &str, value: Option<u64>| value.map(|value| format!("{label}={value}{unit};;;0"));
    let server = snapshot.server.as_ref().ok();
    let archive = snapshot.archive.as_ref().ok();
    let count = |items: usize| u64::try_from(items).unwrap_or(u64::MAX);
    [
        seconds("wal_lag", snapshot.lag(), thresholds.wal_lag),
        number("unarchived", "B", snapshot.unarchived_bytes()),
        number("waiting_files", "", server.map(|it| it.waiting.count)),
        seconds("backup_age", snapshot.backup_age(), thresholds.backup_age),
        number("gaps", "", archive.map(|it| count(it.gaps.len()))),
        number("damaged_segments", "", archive.map(|it| count(it.damaged.len()))),
        number("conflicts", "", archive.map(|it| count(it.ambiguous.len() + it.refused.len()))),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(" ")
}

/// A duration in the two units that matter to people.
pub fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days >= 3 {
        format!("{days} d {} h", hours % 24)
    } else if hours >= 1 {
        format!("{hours} h {} min", minutes % 60)
    } else if minutes >= 1 {
        format!("{minutes} min {} s", seconds % 60)
    } else {
        format!("{seconds} s")
    }
}
