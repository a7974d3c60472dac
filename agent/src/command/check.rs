//! `check`: is this cluster protected, now? Said as a monitoring plugin says
//! it: one line with performance data, or one JSON object, and the level as
//! exit status.

use std::time::{Duration, Instant};

use serde_json::json;
use walpoint_archive::Archive;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::{SegmentName, SegmentSize};

use crate::backup::wal_wait::{self, Range};
use crate::cli::CheckArgs;
use crate::config::{CheckSettings, Settings};
use crate::exit::{Ending, Failure};
use crate::output;
use crate::session::Session;
use crate::watch::check::Asked;
use crate::watch::health::{self, Finding, Level, Limits, Report, Thresholds};

/// Carries out `check`.
pub async fn run(settings: &Settings, args: &CheckArgs, json: bool) -> Result<Ending, Failure> {
    let asked = Asked::open(settings).await?;
    let probed = match asked.both() {
        Some((session, archive)) if args.probe => Some(probe(session, archive, settings).await),
        _ => None,
    };
    let snapshot = asked.snapshot(settings).await?;
    let thresholds = thresholds(&settings.check);
    let mut findings = health::judge(&snapshot, &thresholds);
    if let Some(Err(failure)) = &probed {
        findings.insert(0, Finding { level: Level::Critical, text: failure.error.clone() });
    }
    let probed = probed.and_then(Result::ok);
    let text = if json {
        let mut report = serde_json::to_value(Report::new(&snapshot, &findings))
            .map_err(|error| Failure::failed(format!("could not write the result as JSON: {error}")))?;
        if let Some(report) = report.as_object_mut() {
            report.insert("thresholds".into(), limits_json(&thresholds));
            if let Some(Probed { segment, took }) = &probed {
                let probe = json!({ "segment": segment, "seconds": took.as_secs_f64() });
                report.insert("probe".into(), probe);
            }
        }
        output::json_line(&report)?
    } else {
        format!("{}\n", health::text(&snapshot, &thresholds, &findings))
    };
    output::result(&text)?;
    Ok(Ending::Level(health::level(&findings).status()))
}

fn thresholds(check: &CheckSettings) -> Thresholds {
    Thresholds {
        wal_lag: Limits { warning: check.wal_lag_warning, critical: check.wal_lag_critical },
        backup_age: Limits { warning: check.backup_age_warning, critical: check.backup_age_critical },
        in_flight: check.in_flight,
    }
}

/// In seconds.
fn limits_json(thresholds: &Thresholds) -> serde_json::Value {
    let limits = |limits: Limits| json!({ "warning": limits.warning.as_secs(), "critical": limits.critical.as_secs() });
    json!({ "lag_seconds": limits(thresholds.wal_lag), "backup_age_seconds": limits(thresholds.backup_age) })
}

/// A segment that went all the way.
struct Probed {
    segment: SegmentName,
    took: Duration,
}

/// Nobody need wait for what nobody sends.
fn may_arrive(session: &Session) -> Result<(), Failure> {
    let server = &session.server;
    let (why, hint) = if server.is_in_recovery {
        ("the server is in recovery and writes no WAL", "run it for the primary")
    } else if server.archive_mode == "off" {
        (
            "archive_mode is off",
            "walpoint init prints the lines for postgresql.conf; after a restore: walpoint take-over",
        )
    } else if !server.has_archiver() {
        ("archive_command is empty", "walpoint init prints the lines for postgresql.conf")
    } else {
        return Ok(());
    };
    Err(Failure::failed(format!("the probe failed: {why}")).with_hint(hint))
}

/// Ends the segment that is being written and waits until it is in the
/// archive, whole.
async fn probe(session: &Session, archive: &Archive, settings: &Settings) -> Result<Probed, Failure> {
    let started = Instant::now();
    may_arrive(session)?;
    let size = SegmentSize::new(session.server.wal_segment_size)
        .map_err(|error| Failure::failed(error.to_string()))?;
    let (_, timeline) = session.wal_position().await?;
    let end = session.switch_wal().await?;
    let last_byte = Lsn(end.0.saturating_sub(1));
    let range = Range { purpose: "the probe failed", timeline, start: last_byte, stop: end, size };
    wal_wait::wait(archive, session, &range, settings.check.probe_timeout).await?;
    let segment = SegmentName::containing(timeline, last_byte, size);
    Ok(Probed { segment, took: started.elapsed() })
}
