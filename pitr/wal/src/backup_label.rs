//! `backup_label`: tells a restored server where its backup began.

use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::timeline::TimelineId;

/// What `backup_label` says (`read_backup_label`, access/transam/xlogrecovery.c,
/// in 13 and 14 xlog.c). The start time is left out: it is written in the server's
/// `log_timezone` and cannot be read without knowing that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay begins: the redo point of the checkpoint below.
    pub start: Lsn,
    /// The segment that `start` lies in.
    pub start_segment: SegmentName,
    /// Address of the checkpoint's record.
    pub checkpoint: Lsn,
    /// `streamed` for a backup between start and stop, `pg_rewind` for its work.
    pub method: String,
    /// The backup was taken from a standby.
    pub from_standby: bool,
    /// Always there since PostgreSQL 11.
    pub start_timeline: Option<TimelineId>,
    /// The words given when the backup was started.
    pub label: String,
    /// Set by PostgreSQL 17's own incremental backups, which no server starts from as they are.
    pub incremental_from: Option<Lsn>,
}

/// The text is not a `backup_label` that PostgreSQL would accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read backup_label: {problem}")]
pub struct BackupLabelError {
    /// What is wrong with it.
    pub problem: String,
}

impl BackupLabel {
    /// Reads the content of a `backup_label` file.
    pub fn parse(text: &str) -> Result<BackupLabel, BackupLabelError> {
        let mut lines = text.lines();
        let (start, start_segment) = start_line(lines.next())?;
        let checkpoint = lines.next().and_then(|line| line.strip_prefix("CHECKPOINT LOCATION: "));
        let checkpoint = checkpoint.and_then(|lsn| lsn.parse().ok());
        let checkpoint = checkpoint.ok_or_else(|| refused("line 2 is not CHECKPOINT LOCATION"))?;
        let label = BackupLabel {
            start,
            start_segment,
            checkpoint,
            method: String::new(),
            from_standby: false,
            start_timeline: None,
            label: String::new(),
            incremental_from: None,
        };
        lines.try_fold(label, other_line)
    }
}

fn refused(problem: impl Into<String>) -> BackupLabelError {
    BackupLabelError { problem: problem.into() }
}

fn start_line(line: Option<&str>) -> Result<(Lsn, SegmentName), BackupLabelError> {
    let parsed = || {
        let (lsn, file) = line?.strip_prefix("START WAL LOCATION: ")?.split_once(" (file ")?;
        Some((lsn.parse().ok()?, file.strip_suffix(')')?.parse().ok()?))
    };
    parsed().ok_or_else(|| refused("line 1 is not START WAL LOCATION with a segment"))
}

/// The lines after the second may be missing, and unknown ones are no error.
fn other_line(mut label: BackupLabel, line: &str) -> Result<BackupLabel, BackupLabelError> {
    let Some((name, value)) = line.split_once(": ") else { return Ok(label) };
    match name {
        "BACKUP METHOD" => label.method = value.to_owned(),
        "BACKUP FROM" => label.from_standby = value == "standby",
        "LABEL" => label.label = value.to_owned(),
        "START TIMELINE" => {
            let timeline = value.parse().ok().and_then(TimelineId::new);
            let timeline = timeline.ok_or_else(|| refused(format!("START TIMELINE is \"{value}\"")))?;
            if timeline != label.start_segment.timeline {
                let of_file = label.start_segment.timeline;
                return Err(refused(format!("START TIMELINE is {timeline}, the segment's is {of_file}")));
            }
            label.start_timeline = Some(timeline);
        }
        "INCREMENTAL FROM LSN" => {
            label.incremental_from =
                Some(value.parse().map_err(|e| refused(format!("INCREMENTAL FROM LSN: {e}")))?);
        }
        _ => {}
    }
    Ok(label)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const REAL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-20 21:45:00 UTC\nLABEL: a: b\nSTART TIMELINE: 1\n";

    #[test]
    fn reads_what_a_primary_writes() {
        let label = BackupLabel::parse(REAL).unwrap();
        assert_eq!(label.start, Lsn(0x200_0028));
        assert_eq!(label.checkpoint, Lsn(0x200_0060));
        assert_eq!(label.start_segment.to_string(), "000000010000000000000002");
        assert_eq!((label.method.as_str(), label.label.as_str()), ("streamed", "a: b"));
        assert!(!label.from_standby);
        assert_eq!(label.start_timeline, Some(TimelineId::FIRST));
        assert_eq!(label.incremental_from, None);
    }

    #[test]
    fn an_incremental_backup_says_so() {
        let text = format!("{REAL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        assert_eq!(BackupLabel::parse(&text).unwrap().incremental_from, Some(Lsn(0x100_0028)));
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        assert!(BackupLabel::parse("").is_err());
        assert!(BackupLabel::parse(&REAL.replace("(file ", "(")).is_err());
        assert!(BackupLabel::parse(&REAL.replace("CHECKPOINT", "CHECK")).is_err());
        assert!(BackupLabel::parse(&REAL.replace("TIMELINE: 1", "TIMELINE: 2")).is_err());
        assert!(BackupLabel::parse(&REAL.replace("TIMELINE: 1", "TIMELINE: 0")).is_err());
    }
}
