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
        if let (Some(probed), Some(report)) = (&probed, report.as_object_mut()) {
            let seconds = probed.took.as_secs_f64();
            report.insert("probe".into(), json!({ "segment": probed.segment, "seconds": seconds }));
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

/// A segment that went all the way.
struct Probed {
    segment: SegmentName,
    took: Duration,
}

/// Ends the segment that is being written and waits until it is in the
/// archive, whole.
async fn probe(session: &Session, archive: &Archive, settings: &Settings) -> Result<Probed, Failure> {
    let started = Instant::now();
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
