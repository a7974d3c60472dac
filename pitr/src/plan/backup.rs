//! Which base backup serves. Pure.

use walpoint_archive::BackupHead;
use walpoint_wal::{Lsn, Timestamp};

/// What a backup must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// First record of the unbroken WAL that holds the last record.
    pub chain_start: Lsn,
    /// Start of the last record.
    pub last_record: Lsn,
    /// Where the last record ends.
    pub last_record_end: Lsn,
    /// The target, when it is a time.
    pub time: Option<Timestamp>,
    /// Start of the last commit that will be there.
    pub last_included: Option<Lsn>,
}

/// How a backup fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    /// Recovery can begin with it.
    Serves,
    /// It ended behind the target.
    TooLate,
    /// The WAL is broken between it and the target.
    CutOff,
}

/// A recovery cannot end before the backup it begins with did. A backup that ended behind
/// a target time by its own clock, with no commit since, holds the same rows as were there
/// at the target, but nothing shows that: it is refused like any other that came too late.
pub(crate) fn fit(backup: &BackupHead, need: &Need) -> Fit {
    if backup.stop.lsn > need.last_record_end {
        return Fit::TooLate;
    }
    if backup.redo < need.chain_start {
        return Fit::CutOff;
    }
    // Replay from a checkpoint that is its own redo position begins with the record behind
    // it, so PostgreSQL cannot stop at the checkpoint (`PerformWalRecovery`).
    if backup.redo == backup.checkpoint && need.last_record <= backup.checkpoint {
        return Fit::TooLate;
    }
    let ended_by_target = need.time.is_none_or(|target| backup.stop.time <= target);
    let committed_since = need.last_included.is_some_and(|lsn| lsn >= backup.stop.lsn);
    if ended_by_target || committed_since { Fit::Serves } else { Fit::TooLate }
}

/// The newest backup that serves, and how many do.
pub(crate) fn newest_serving<'a>(backups: &[&'a BackupHead], need: &Need) -> Option<(&'a BackupHead, usize)> {
    let serving = backups.iter().copied().filter(|backup| fit(backup, need) == Fit::Serves);
    let count = serving.clone().count();
    serving.max_by_key(|backup| (backup.stop.lsn, &backup.id)).map(|backup| (backup, count))
}

/// Why this one, in words.
pub(crate) fn why(backup: &BackupHead, count: usize, asked_for: bool) -> String {
    let end = format!("it ended at {} ({})", backup.stop.lsn, backup.stop.time);
    match (asked_for, count) {
        (true, _) => format!("asked for; {end}"),
        (false, 1) => format!("the only one that can be replayed to the target; {end}"),
        (false, count) => format!("the newest of {count} that can be replayed to the target; {end}"),
    }
}
