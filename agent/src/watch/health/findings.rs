//! What is wrong, one sentence each, worst first.

use super::report::spoken;
use super::{ArchiveState, Gap, Level, ServerState, Snapshot, Thresholds, age};

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub text: String,
}

impl Finding {
    fn new(level: Level, text: impl Into<String>) -> Finding {
        Finding { level, text: text.into() }
    }
}

/// Judges the snapshot. No finding means that all is well.
pub fn judge(snapshot: &Snapshot, thresholds: &Thresholds) -> Vec<Finding> {
    let mut findings = Vec::new();
    match &snapshot.server {
        Ok(server) => judge_server(server, &mut findings),
        Err(why) => findings.push(Finding::new(Level::Critical, why)),
    }
    match &snapshot.archive {
        Ok(archive) => judge_archive(snapshot, archive, thresholds, &mut findings),
        Err(why) => findings.push(Finding::new(Level::Critical, why)),
    }
    judge_lag(snapshot, thresholds, &mut findings);
    findings.retain(|finding| finding.level > Level::Ok);
    // Stable: what was found first stands first among equals.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

fn judge_server(server: &ServerState, findings: &mut Vec<Finding>) {
    if server.archive_mode == "off" {
        findings.push(Finding::new(
            Level::Critical,
            "not protected: archive_mode is off (after a restore, \"walpoint take-over\" turns it on)",
        ));
    } else if !server.has_archiver {
        findings.push(Finding::new(Level::Critical, "not protected: archive_command is empty"));
    }
    if server.archiver.is_failing() {
        let file = server.archiver.last_failed_wal.as_deref().unwrap_or("a file");
        let text = format!(
            "archiving fails: {file} could not be archived, {} failures so far",
            server.archiver.failed_count
        );
        findings.push(Finding::new(Level::Warning, text));
    }
}

fn judge_archive(
    snapshot: &Snapshot,
    archive: &ArchiveState,
    thresholds: &Thresholds,
    findings: &mut Vec<Finding>,
) {
    for timeline in &archive.missing_histories {
        findings.push(Finding::new(
            Level::Critical,
            format!("the history file of timeline {timeline} is not in the archive"),
        ));
    }
    findings.extend(archive.gaps.iter().filter_map(|gap| judge_gap(snapshot, gap, thresholds)));
    for damage in &archive.damaged {
        let text = format!("segment {} is damaged at {}", damage.segment, damage.lsn);
        findings.push(Finding::new(Level::Critical, text));
    }
    for name in &archive.ambiguous {
        let text = format!("{name} has two contents and no decision (walpoint list --wal {name})");
        findings.push(Finding::new(Level::Critical, text));
    }
    for name in &archive.refused {
        let text = format!("another content of {name} was refused (walpoint list --wal {name})");
        findings.push(Finding::new(Level::Warning, text));
    }
    judge_backups(snapshot, archive, thresholds, findings);
}

fn judge_gap(snapshot: &Snapshot, gap: &Gap, thresholds: &Thresholds) -> Option<Finding> {
    let is_on_its_way =
        gap.followed_since.is_some_and(|since| age(snapshot.now, since) < thresholds.in_flight);
    let missing = if gap.first == gap.last {
        format!("segment {} is missing in the archive", gap.first)
    } else {
        format!("segments {} to {} are missing in the archive", gap.first, gap.last)
    };
    // After a crash PostgreSQL can have a full segment that it never offers to the archiver.
    let text = format!("{missing}: walpoint archive-push it if pg_wal still has it, else take a base backup");
    (!is_on_its_way).then(|| Finding::new(Level::Critical, text))
}

fn judge_backups(
    snapshot: &Snapshot,
    archive: &ArchiveState,
    thresholds: &Thresholds,
    findings: &mut Vec<Finding>,
) {
    if let Some(backup) = archive.last_backup.as_ref().filter(|backup| backup.damaged_pages > 0) {
        let text = format!("the last backup {} holds {} damaged pages", backup.id, backup.damaged_pages);
        findings.push(Finding::new(Level::Warning, text));
    }
    match snapshot.backup_age() {
        None => findings.push(Finding::new(Level::Critical, "there is no good backup")),
        Some(age) => {
            let text = format!("the last good backup is {} old", spoken(age));
            findings.push(Finding::new(thresholds.backup_age.level(age), text));
        }
    }
}

fn judge_lag(snapshot: &Snapshot, thresholds: &Thresholds, findings: &mut Vec<Finding>) {
    let Some(lag) = snapshot.lag() else { return };
    let oldest = snapshot.server.as_ref().ok().and_then(|server| server.waiting.oldest.as_ref());
    let what = oldest.map_or("the segment that is being written", |(name, _)| name.as_str());
    let text = format!("WAL has waited {} for the archive, {what} first", spoken(lag));
    findings.push(Finding::new(thresholds.wal_lag.level(lag), text));
}
