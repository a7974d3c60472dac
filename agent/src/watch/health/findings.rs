//! What is wrong, one sentence each, worst first.

use super::report::spoken;
use super::{
    ArchiveState, Gap, Level, Missing, MissingSegment, ServerState, Snapshot, Thresholds, UNTIL_FULL, age,
};

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
    findings.extend(judge_disk(snapshot));
    findings.extend(snapshot.server.as_ref().ok().and_then(judge_unseen));
    findings.retain(|finding| finding.level > Level::Ok);
    // Stable: what was found first stands first among equals.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    findings
}

fn judge_server(server: &ServerState, findings: &mut Vec<Finding>) {
    if server.is_restored_copy {
        let text = "not protected: a restored copy that has not come out of recovery (promote it; \"walpoint take-over\" lets it archive)";
        findings.push(Finding::new(Level::Critical, text));
    } else if server.archives_itself() {
        judge_archiver(server, findings);
    }
    if !server.has_fsync {
        let text = "fsync is off: what a crash takes back from the disk the archive may already have, and the cluster itself may not survive it";
        findings.push(Finding::new(Level::Warning, text));
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

fn judge_archiver(server: &ServerState, findings: &mut Vec<Finding>) {
    if server.archive_mode == "off" {
        findings.push(Finding::new(
            Level::Critical,
            "not protected: archive_mode is off (after a restore, or a standby's promotion, \"walpoint take-over\" turns it on)",
        ));
    } else if !server.has_archiver {
        findings.push(Finding::new(Level::Critical, "not protected: archive_command is empty"));
    } else if !server.archives_with_walpoint {
        let text = "archive_command does not call walpoint archive-push (\"walpoint init\" prints the line)";
        findings.push(Finding::new(Level::Warning, text));
    }
}

/// The newest timeline is what a restore takes; a server on an older one is
/// overtaken. One on a newer one has not pushed its history yet, or there is no
/// backup on its way.
fn judge_timeline(server: &ServerState, archive: &ArchiveState) -> Option<Finding> {
    let followed = archive.followed.filter(|followed| *followed > server.timeline)?;
    let ours = server.timeline;
    let text = format!(
        "the archive follows timeline {followed}, and this server writes timeline {ours}: restore --latest leaves out what it writes (--target-timeline {ours} takes it)"
    );
    (!server.is_in_recovery).then(|| Finding::new(Level::Critical, text))
}

/// Segments that will not arrive by themselves, one sentence for each fate.
fn judge_missing(snapshot: &Snapshot, missing: &[MissingSegment], thresholds: &Thresholds) -> Vec<Finding> {
    let is_old = |since| age(snapshot.now, since) >= thresholds.in_flight;
    let sentence = |text: &str, fits: &dyn Fn(Missing) -> bool| {
        let names: Vec<_> = missing.iter().filter(|it| fits(it.missing)).map(|it| it.name).collect();
        let (first, last) = (names.first()?, names.last()?);
        let what = match names.len() {
            1 => format!("segment {first} is"),
            count => format!("{count} segments, {first} to {last}, are"),
        };
        Some(Finding::new(Level::Critical, format!("{what} {text}")))
    };
    [
        sentence(
            "neither in the archive nor in pg_wal any more: recovery cannot go past it, take a base backup",
            &|it| it == Missing::Gone,
        ),
        sentence(
            "not in the archive although archive_command reported success: walpoint archive-push it while pg_wal has it, else take a base backup",
            &|it| matches!(it, Missing::CalledArchived { since, .. } if is_old(since)),
        ),
        sentence(
            "complete and not in the archive, and PostgreSQL does not offer it to the archiver: walpoint archive-push it",
            &|it| matches!(it, Missing::NotOffered { written } if is_old(written)),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
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
    for (key, reason) in &archive.unreadable {
        findings.push(Finding::new(Level::Critical, format!("\"{key}\" cannot be read: {reason}")));
    }
    let server = snapshot.server.as_ref().ok();
    findings.extend(server.and_then(|server| judge_timeline(server, archive)));
    findings.extend(judge_missing(snapshot, &archive.missing, thresholds));
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
        None => findings.push(Finding::new(Level::Critical, no_good_backup(snapshot, archive))),
        Some(age) => {
            let text = format!("the last good backup is {} old", spoken(age));
            findings.push(Finding::new(thresholds.backup_age.level(age), text));
        }
    }
}

/// The archive follows another timeline then.
fn no_good_backup(snapshot: &Snapshot, archive: &ArchiveState) -> String {
    let is_elsewhere = archive.last_backup.is_none() && archive.off_the_way > 0;
    let Some(server) = snapshot.server.as_ref().ok().filter(|_| is_elsewhere) else {
        return "there is no good backup".into();
    };
    let (ours, followed) = (server.timeline, archive.followed);
    let instead = followed.map(|it| format!(", restore --latest follows timeline {it}")).unwrap_or_default();
    format!(
        "no base backup lies on the way to timeline {ours}: nothing that this server writes can be restored{instead} (take one with walpoint backup)"
    )
}

fn judge_lag(snapshot: &Snapshot, thresholds: &Thresholds, findings: &mut Vec<Finding>) {
    let Some(lag) = snapshot.lag() else { return };
    let oldest = snapshot.server.as_ref().ok().and_then(|server| server.waiting.oldest.as_ref());
    let missing = snapshot.archive.as_ref().ok().and_then(|archive| archive.missing.first());
    let what = match (missing, oldest) {
        (Some(missing), _) => missing.name.to_string(),
        (None, Some((name, _))) => name.clone(),
        (None, None) => "the segment that is being written".to_owned(),
    };
    let text = format!("WAL has waited {} for the archive, {what} first", spoken(lag));
    findings.push(Finding::new(thresholds.wal_lag.level(lag), text));
}

fn judge_disk(snapshot: &Snapshot) -> Option<Finding> {
    let left = snapshot.full_in()?;
    let (warning, critical) = UNTIL_FULL;
    let level = match left {
        left if left <= critical => Level::Critical,
        left if left <= warning => Level::Warning,
        _ => return None,
    };
    let text = format!(
        "the disk of pg_wal is full in {} if WAL comes on at this rate and none is archived: then PostgreSQL stops",
        spoken(left)
    );
    Some(Finding::new(level, text))
}

fn judge_unseen(server: &ServerState) -> Option<Finding> {
    let why = server.unseen.as_ref().filter(|_| server.archives_itself())?;
    let text = format!(
        "could not tell how old the WAL outside the archive is: {why} (run check on the server's host, as the owner of its data directory)"
    );
    Some(Finding::new(Level::Warning, text))
}
