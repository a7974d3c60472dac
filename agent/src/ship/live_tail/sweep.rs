//! Takes the pieces of a segment away when the whole segment has been in the archive for a while.

use super::Ground;
use crate::exit::Failure;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use walpoint_archive::{TailRemoval, Usable};
use walpoint_wal::{SegmentName, WalFileName};

/// How long the whole segment has been seen before its pieces go: whoever listed them before has read them
/// by then.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// The same after one that did not find what it looked for.
const AFTER_MISSING: Duration = Duration::from_secs(30);

/// Segments whose pieces are to go.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Those whose whole is not known to be there.
    awaited: BTreeSet<SegmentName>,
    /// Those whose whole was seen, and when.
    seen: VecDeque<(SegmentName, Instant)>,
    /// Folders to look for leftovers in; none before the first look.
    folders: Option<Vec<SegmentName>>,
    looked: Option<Instant>,
    /// When a whole was looked for and was not there.
    missed: Option<Instant>,
}

impl Sweep {
    /// A segment was shipped to its end.
    pub fn add(&mut self, name: SegmentName) {
        self.awaited.insert(name);
    }

    /// Does what is due. Gives an alarm when a whole segment is not what was shipped of it.
    ///
    /// # Errors
    /// Those of the archive.
    pub async fn once(
        &mut self,
        ground: &Ground,
        open: Option<SegmentName>,
        now: Instant,
    ) -> Result<Option<String>, Failure> {
        if self.looked.is_some_and(|looked| now.duration_since(looked) < EVERY) {
            return Ok(None);
        }
        self.looked = Some(now);
        self.find_leftovers(ground, open).await?;
        if self.missed.is_none_or(|missed| now.duration_since(missed) >= AFTER_MISSING) {
            self.look_for_wholes(ground, now).await?;
        }
        self.remove_old(ground, now).await
    }

    /// Pieces of segments that an agent shipped which is no more: a folder at a time.
    async fn find_leftovers(&mut self, ground: &Ground, open: Option<SegmentName>) -> Result<(), Failure> {
        let folders = match &mut self.folders {
            Some(folders) => folders,
            None => self.folders.insert(ground.archive.wal_folders().await?),
        };
        let Some(folder) = folders.pop() else { return Ok(()) };
        for name in ground.archive.tails_in(&folder).await? {
            let is_known = Some(name) == open || self.awaited.contains(&name);
            if !is_known && !self.seen.iter().any(|(seen, _)| *seen == name) {
                self.awaited.insert(name);
            }
        }
        Ok(())
    }

    /// PostgreSQL archives in order, so the first one that is missing ends the look; not for another timeline,
    /// for one that was left may never have it.
    async fn look_for_wholes(&mut self, ground: &Ground, now: Instant) -> Result<(), Failure> {
        self.missed = None;
        let mut missing_on = None;
        for name in self.awaited.clone() {
            if missing_on == Some(name.timeline) {
                continue;
            }
            let state = ground.archive.wal_variants(&WalFileName::Segment(name)).await?;
            match state.usable() {
                Usable::One(_) => {
                    self.awaited.remove(&name);
                    self.seen.push_back((name, now));
                }
                Usable::Nothing | Usable::Ambiguous(_) => {
                    missing_on = Some(name.timeline);
                    self.missed = Some(now);
                }
            }
        }
        Ok(())
    }

    async fn remove_old(&mut self, ground: &Ground, now: Instant) -> Result<Option<String>, Failure> {
        let is_old = |(_, seen): &(SegmentName, Instant)| now.duration_since(*seen) >= KEPT_FOR;
        while let Some((name, _)) = self.seen.front().copied().filter(is_old) {
            let removal = ground.archive.remove_tail(&name).await?;
            self.seen.pop_front();
            match removal {
                TailRemoval::Removed(pieces) => {
                    tracing::debug!("\"{name}\" is in the archive whole; {pieces} pieces of it are gone");
                }
                TailRemoval::Needed => {
                    self.awaited.insert(name);
                }
                TailRemoval::Contradicted { .. } => {
                    return Ok(Some(format!(
                        "\"{name}\" in the archive is not what was shipped of it while it was being written: a \
                         disk or a snapshot took back WAL that was durable, or two servers archive this timeline"
                    )));
                }
            }
        }
        Ok(None)
    }
}
