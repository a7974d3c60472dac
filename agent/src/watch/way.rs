//! The way to the timeline that the server writes, and the base backups on it. No other backup can bring back
//! what the server writes, however new it is.

use walpoint_archive::{BackupHead, Catalog};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::timeline::{PathStep, TimelineHistory, TimelineId};

/// A way and the backups that a recovery along it can begin with.
#[derive(Debug)]
pub struct Way<'a> {
    pub path: TimelinePath,
    /// Does a history say so? Else it is the timeline alone.
    pub is_known: bool,
    /// Newest first.
    pub backups: Vec<&'a BackupHead>,
}

impl<'a> Way<'a> {
    /// By the archive's history, else by the server's own.
    pub fn to(catalog: &'a Catalog, timeline: TimelineId, own: Option<&TimelineHistory>) -> Way<'a> {
        let own = own.filter(|history| history.timeline == timeline);
        let own = own.map(|history| TimelinePath { timeline, steps: history.path() });
        let known = TimelinePath::to(catalog, timeline).ok().or(own);
        let is_known = known.is_some();
        let path = known.unwrap_or_else(|| alone(timeline));
        let mut backups: Vec<_> = catalog.backups.iter().filter(|backup| path.holds(backup)).collect();
        backups.sort_by_key(|backup| std::cmp::Reverse((backup.stop.time, &backup.id)));
        Way { path, is_known, backups }
    }

    /// Where the WAL begins that so many of the newest backups need; `None` without a backup.
    pub fn beginning(&self, look_back: u32) -> Option<Lsn> {
        let back = usize::try_from(look_back.max(1)).unwrap_or(usize::MAX);
        self.backups.iter().take(back).map(|backup| backup.start.lsn).min()
    }
}

fn alone(timeline: TimelineId) -> TimelinePath {
    TimelinePath { timeline, steps: vec![PathStep { timeline, begin: Lsn::ZERO, end: None }] }
}

#[cfg(test)]
#[path = "way/tests.rs"]
mod tests;
