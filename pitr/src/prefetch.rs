//! Fetches the segments that recovery will ask for next into the [`crate::spool`], several at a time, as far
//! ahead as replay is fast.
//!
//! All that it does is a favour: `archive-get` hashes what it takes out of the spool, asks the archive when nobody has
//! lately, and fetches what is not there. So whatever fails here is left alone for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::{JoinError, JoinSet};
use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::{Archive, ArchiveError, ContentHash, ObjectKey, Variant};
use walpoint_wal::{SegmentName, SegmentSize, WalFileName};

use crate::contract::{Contract, Need};
use crate::spool::{KNOWN_FOR, Tended};

mod depth;
#[cfg(test)]
mod tests;

use depth::{Depth, room};

/// Objects that one listing shows: more than are ever ahead, and one page of S3.
const LISTED: usize = 256;
/// Pause between two listings while something is ahead.
const LIST_AGAIN: Duration = Duration::from_secs(1);
/// Pause after a failure, of the store or of the spool's disk.
const REST: Duration = Duration::from_secs(5);

/// What is fetched ahead, at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes in the spool.
    pub spool: u64,
    /// Segments at the same time.
    pub at_once: usize,
}

/// Fetches ahead of one recovery.
#[derive(Debug)]
pub struct Prefetch {
    archive: Archive,
    tended: Arc<Tended>,
    contract: Option<Contract>,
    size: SegmentSize,
    limits: Limits,
    depth: Depth,
    asked: Option<SegmentName>,
    /// It was asked for after one that follows it: by a server that starts again, or by `pg_rewind`, which goes on
    /// backwards.
    is_backward: bool,
    /// Objects that are of no use.
    useless: BTreeSet<ObjectKey>,
    known: Known,
    /// When the last listing began, whatever came of it.
    listed_at: Option<Instant>,
    is_listing: bool,
    /// Once for each question: a standby at the archive's end must not cost a listing a second.
    may_list: bool,
    /// What is in the spool, and since when.
    held: BTreeMap<SegmentName, (ContentHash, Instant)>,
    coming: BTreeSet<SegmentName>,
    work: JoinSet<Landing>,
    rests_until: Option<Instant>,
}

/// What the last listing showed.
#[derive(Debug)]
struct Known {
    segments: BTreeMap<SegmentName, Variant>,
    /// When it began.
    at: SystemTime,
    began: Instant,
}

/// What a piece of work came to.
#[derive(Debug)]
enum Landing {
    Listed(Result<Known, ArchiveError>),
    Fetched(SegmentName, ObjectKey, Result<ContentHash, AheadError>),
}

/// Why a segment is not in the spool. Nobody but a log is told.
#[derive(Debug, thiserror::Error)]
enum AheadError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("could not write to the spool: {0}")]
    Spool(#[from] io::Error),
}

impl AheadError {
    fn is_the_objects_own(&self) -> bool {
        match self {
            AheadError::Archive(ArchiveError::Store(error)) => error.kind == StoreErrorKind::Damaged,
            AheadError::Archive(error) => matches!(
                error,
                ArchiveError::Damaged { .. } | ArchiveError::WrongKey { .. } | ArchiveError::NoKey { .. }
            ),
            AheadError::Spool(_) => false,
        }
    }
}

impl Prefetch {
    /// Begins nothing before something is asked for.
    pub fn new(
        archive: Archive,
        tended: Tended,
        contract: Option<Contract>,
        size: SegmentSize,
        limits: Limits,
    ) -> Self {
        Self {
            archive,
            tended: Arc::new(tended),
            contract,
            size,
            limits,
            depth: Depth::new(limits.spool / size.bytes()),
            asked: None,
            is_backward: false,
            useless: BTreeSet::new(),
            known: Known { segments: BTreeMap::new(), at: SystemTime::UNIX_EPOCH, began: Instant::now() },
            listed_at: None,
            is_listing: false,
            may_list: true,
            held: BTreeMap::new(),
            coming: BTreeSet::new(),
            work: JoinSet::new(),
            rests_until: None,
        }
    }

    /// Recovery asks for this segment.
    pub fn asked(&mut self, segment: SegmentName, now: Instant) {
        if self.asked == Some(segment) {
            return;
        }
        match self.held.get(&segment) {
            Some((_, since)) => self.depth.found_after(now.saturating_duration_since(*since)),
            // Another one cannot have been foreseen.
            None if self.following(1).eq([segment]) => self.depth.missed(),
            None => {}
        }
        self.is_backward = self.asked.is_some_and(|before| self.is_before(segment, before));
        self.asked = Some(segment);
        self.may_list = true;
        self.remove_useless();
    }

    /// Begins all that is to be begun now.
    pub fn begin_what_may(&mut self, now: Instant) {
        if self.rests_until.is_some_and(|until| now < until) {
            return;
        }
        self.forget_taken();
        let is_stale = now.saturating_duration_since(self.known.began) > KNOWN_FOR / 2;
        for segment in self.wanted() {
            if self.held.contains_key(&segment) || self.coming.contains(&segment) {
                continue;
            }
            if is_stale && (self.may_list || self.is_listing) {
                return self.list_before(segment, now);
            }
            let Some(variant) = self.known.segments.get(&segment) else {
                return self.list_before(segment, now);
            };
            if self.useless.contains(&variant.key()) {
                continue;
            }
            if self.coming.len() >= self.limits.at_once || !self.has_room() {
                return;
            }
            let variant = variant.clone();
            let key = variant.key();
            self.coming.insert(segment);
            let fetching = Fetching {
                archive: self.archive.clone(),
                tended: Arc::clone(&self.tended),
                segment,
                variant,
                size: self.size,
                listed_at: self.known.at,
            };
            let fetching = fetching.fetch();
            self.work.spawn(async move { Landing::Fetched(segment, key, fetching.await) });
        }
    }

    /// Waits for the next piece of work to end; for ever when none is under way.
    pub async fn land(&mut self) {
        match self.work.join_next().await {
            Some(landing) => self.take(landing),
            None => std::future::pending().await,
        }
    }

    /// Ends all that is under way, and removes the spool.
    pub async fn end(mut self) {
        self.work.shutdown().await;
        if let Ok(tended) = Arc::try_unwrap(self.tended) {
            tended.clear();
        }
    }

    fn take(&mut self, landing: Result<Landing, JoinError>) {
        let now = Instant::now();
        match landing {
            Ok(Landing::Listed(listed)) => {
                self.is_listing = false;
                match listed {
                    Ok(known) => self.known = known,
                    Err(error) => self.rest(&error, now),
                }
            }
            Ok(Landing::Fetched(segment, key, fetched)) => {
                self.coming.remove(&segment);
                match fetched {
                    Ok(content) => {
                        self.held.insert(segment, (content, now));
                        self.remove_useless();
                    }
                    // It is the same the next time; what follows may be sound.
                    Err(error) if error.is_the_objects_own() => drop(self.useless.insert(key)),
                    Err(error) => self.rest(&error, now),
                }
            }
            Err(error) => {
                // Which one it was is not told.
                self.coming.clear();
                self.is_listing = false;
                self.rest(&error, now);
            }
        }
    }

    fn rest(&mut self, why: &dyn std::fmt::Display, now: Instant) {
        tracing::debug!("fetching ahead rests: {why}");
        self.known.segments.clear();
        (self.may_list, self.rests_until) = (true, Some(now + REST));
    }

    /// What recovery will ask for next on this timeline. Where it goes on to another one is seen when it asks.
    fn wanted(&self) -> Vec<SegmentName> {
        if self.is_backward {
            return Vec::new();
        }
        let is_needed = |segment: &SegmentName| {
            let name = WalFileName::Segment(*segment);
            self.contract.as_ref().is_none_or(|contract| contract.judge(&name) == Need::Needed)
        };
        self.following(self.depth.segments()).take_while(is_needed).collect()
    }

    /// So many that follow on what was asked for last.
    fn following(&self, count: usize) -> impl Iterator<Item = SegmentName> + use<'_> {
        std::iter::successors(self.asked, |segment| segment.next(self.size)).skip(1).take(count)
    }

    fn is_before(&self, one: SegmentName, other: SegmentName) -> bool {
        one.number(self.size).ok() < other.number(self.size).ok()
    }

    /// Removes what was passed, and what recovery will not come to soon.
    fn remove_useless(&mut self) {
        let Some(asked) = self.asked else { return };
        let (most, size) = (self.depth.most(), self.size);
        let ahead = |segment: &SegmentName| {
            let number = segment.number(size).ok()?.checked_sub(asked.number(size).ok()?)?;
            (segment.timeline == asked.timeline).then_some(number)
        };
        self.held.retain(|segment, (content, _)| {
            let is_useful = ahead(segment).is_some_and(|number| number <= most);
            if !is_useful {
                self.tended.remove(*segment, *content);
            }
            is_useful
        });
    }

    /// What was asked for is taken out of the spool, which makes room.
    fn forget_taken(&mut self) {
        let Some(asked) = self.asked else { return };
        if self.held.get(&asked).is_some_and(|(content, _)| !self.tended.has(asked, *content)) {
            self.held.remove(&asked);
        }
    }

    fn has_room(&self) -> bool {
        let bytes = |segments: usize| self.size.bytes().saturating_mul(segments as u64);
        let Ok(free) = self.tended.free_bytes() else { return false };
        let (held, count) = (bytes(self.held.len()), self.held.len() + self.coming.len());
        bytes(count + 1) <= room(self.limits.spool, free, held)
    }

    fn list_before(&mut self, segment: SegmentName, now: Instant) {
        let is_ahead = !(self.held.is_empty() && self.coming.is_empty());
        let is_early = self.listed_at.is_some_and(|at| now.saturating_duration_since(at) < LIST_AGAIN);
        let Some(before) = segment.previous(self.size).filter(|_| self.may_list && !(is_ahead && is_early))
        else {
            return;
        };
        (self.may_list, self.is_listing, self.listed_at) = (false, true, Some(now));
        let (archive, at) = (self.archive.clone(), clock());
        self.work.spawn(async move {
            let segments = archive.segments_after(&before, LISTED).await;
            Landing::Listed(segments.map(|segments| Known { segments, at, began: now }))
        });
    }
}

#[expect(clippy::disallowed_methods, reason = "another process is to know how long ago it was")]
fn clock() -> SystemTime {
    SystemTime::now()
}

/// One segment on its way into the spool.
struct Fetching {
    archive: Archive,
    tended: Arc<Tended>,
    segment: SegmentName,
    variant: Variant,
    size: SegmentSize,
    listed_at: SystemTime,
}

impl Fetching {
    /// Whoever takes the file out of the spool makes sure of its content; here nobody does it as well.
    async fn fetch(self) -> Result<ContentHash, AheadError> {
        let incoming = self.tended.begin(self.segment, self.variant.content)?;
        let (file, limit) = (incoming.file().try_clone()?, self.size.bytes());
        let fetching = self.archive.fetch_segment_unproven(&self.variant, file, limit);
        let content = fetching.await?;
        incoming.finish(content, self.listed_at)?;
        Ok(content)
    }
}
