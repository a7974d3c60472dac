//! Where shipping begins or goes on: which segment, and behind which of the pieces that are there.

use super::Ground;
use super::open_segment::{Beginning, Completed, OpenSegment, read};
use super::shipment::PIECE_BYTES;
use crate::exit::{Failure, Status};
use crate::ship::before::{history_in, segment_before};
use crate::ship::examine::carry_out;
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use walpoint_archive::content::ContentHasher;
use walpoint_archive::tail::Mark;
use walpoint_archive::{ArchiveError, Chunk, SegmentState, Tail, Usable, WalFacts};
use walpoint_wal::{Carry, SegmentName, TimelineId};

/// What came of beginning with a segment.
#[derive(Debug)]
pub enum Begun {
    /// It is read as far as the archive has it.
    Open(Box<Opened>),
    /// The archive has all of it.
    Whole,
    /// The segment before is not in the archive yet: what comes behind it would be of no use.
    Behind(SegmentName),
    /// Its file is not there yet.
    Absent,
}

/// A segment to go on with.
#[derive(Debug)]
pub struct Opened {
    pub segment: OpenSegment,
    /// Pieces in the archive that are no beginning of what the server has.
    pub foreign: Vec<Chunk>,
}

impl Ground {
    /// Begins with a segment of which `flushed` bytes are durable. `known` is how the one before ended, when
    /// that was shipped from here.
    ///
    /// # Errors
    /// Status 1, and those of the archive.
    pub async fn begin(
        &self,
        name: SegmentName,
        flushed: u32,
        known: Option<&Completed>,
    ) -> Result<Begun, Failure> {
        let history = match name.timeline {
            TimelineId::FIRST => None,
            timeline => history_in(&self.pg_wal, timeline).map(|(history, _)| history),
        };
        let before = segment_before(name, self.size, history.as_ref());
        let (previous, carry) = match (known, before) {
            (Some(known), Some(before)) if known.name == before => {
                (Some(known.facts.clone()), known.carry.clone())
            }
            (_, Some(before)) => match self.stored_before(before).await? {
                Some(facts) => (facts, self.carry_of(before).await),
                None => return Ok(Begun::Behind(before)),
            },
            (_, None) => (None, Carry::Unknown),
        };
        let stored = self.archive.segment_state(&name).await?;
        match stored.usable() {
            Usable::Nothing => {}
            Usable::One(_) => return Ok(Begun::Whole),
            Usable::Ambiguous(variants) => {
                let what = format!(
                    "could not ship the tail behind \"{name}\": it is in the archive with {} contents",
                    variants.len()
                );
                let hint = format!("decide which one is right: walpoint resolve {name} --keep CONTENT_ID");
                return Err(Failure::new(Status::Conflict, what).with_hint(hint));
            }
        }
        let of = Beginning {
            name,
            size: self.size,
            system_identifier: self.archive.system_identifier(),
            writer: self.writer,
            carry,
            previous,
        };
        Ok(match self.go_on(of, &stored, flushed).await? {
            Some(opened) => Begun::Open(Box::new(opened)),
            None => Begun::Absent,
        })
    }

    /// Goes on behind the longest chain of pieces that holds what the server has; none when it has no file.
    async fn go_on(
        &self,
        of: Beginning,
        stored: &SegmentState,
        flushed: u32,
    ) -> Result<Option<Opened>, Failure> {
        let name = of.name;
        let mut ends = TrueEnds::of(&stored.chunks);
        if !self.each_piece(name, 0, flushed, |bytes| ends.pass(bytes)).await? {
            return Ok(None);
        }
        let (own, foreign): (Vec<Chunk>, Vec<Chunk>) =
            stored.chunks.iter().cloned().partition(|chunk| ends.found.contains(&chunk.name.end()));
        let end = Tail::of(&own).as_ref().map_or(0, Tail::end);
        let mut segment = OpenSegment::new(of);
        let is_there = self.each_piece(name, 0, end, |bytes| segment.pass(bytes)).await?;
        Ok(is_there.then_some(Opened { segment, foreign }))
    }

    /// What the archive says of the segment before, when it is there to its end or will never come; none
    /// when it is on its way.
    async fn stored_before(&self, before: SegmentName) -> Result<Option<Option<WalFacts>>, Failure> {
        let state = self.archive.segment_state(&before).await?;
        let variant = match state.available() {
            Usable::One(variant) if variant.reaches(self.size.bytes()) => variant,
            _ if is_offered(&self.pg_wal, before) => return Ok(None),
            // An agent that is no more shipped the beginning, and the rest is here.
            _ if !state.chunks.is_empty() && self.pg_wal.join(before.to_string()).exists() => {
                return Ok(None);
            }
            _ => return Ok(Some(None)),
        };
        match self.archive.wal_facts(variant).await {
            Ok(facts) => Ok(Some(Some(facts))),
            Err(error @ ArchiveError::Store(_)) if !error.is_not_found() && !error.is_damaged() => {
                Err(error.into())
            }
            Err(error) => {
                tracing::warn!("could not tell how \"{before}\" ends: {error}");
                Ok(Some(None))
            }
        }
    }

    async fn carry_of(&self, before: SegmentName) -> Carry {
        let (path, cluster) = (self.pg_wal.join(before.to_string()), self.archive.system_identifier());
        let read = tokio::task::spawn_blocking(move || carry_out(before, &path, cluster)).await;
        read.ok().flatten().map_or(Carry::Unknown, Carry::Known)
    }

    /// Hands over bytes of a segment that are durable, in pieces; says whether they were all there.
    ///
    /// # Errors
    /// Status 1.
    pub async fn each_piece(
        &self,
        name: SegmentName,
        from: u32,
        to: u32,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, Failure> {
        let mut at = from;
        while at < to {
            let end = to.min(at.saturating_add(PIECE_BYTES));
            let Some(bytes) = self.read(name, at, end).await? else { return Ok(false) };
            take(&bytes);
            at = end;
        }
        Ok(from < to || self.pg_wal.join(name.to_string()).exists())
    }

    /// Bytes of a segment that the server says are durable.
    ///
    /// # Errors
    /// Status 1.
    pub async fn read(&self, name: SegmentName, from: u32, to: u32) -> Result<Option<Vec<u8>>, Failure> {
        let pg_wal = self.pg_wal.clone();
        let reading = tokio::task::spawn_blocking(move || read(&pg_wal, name, from, to)).await;
        reading.unwrap_or_else(|error| Err(Failure::failed(format!("could not read \"{name}\": {error}"))))
    }
}

/// Whether somebody is going to archive the segment. One that was completed while archiving was off is not
/// waited for: no backup can need it.
fn is_offered(pg_wal: &Path, name: SegmentName) -> bool {
    pg_wal.join("archive_status").join(format!("{name}.ready")).exists()
        && pg_wal.join(name.to_string()).exists()
}

/// What is true of the server's bytes at the offsets where pieces end.
struct TrueEnds {
    /// Where pieces end, ascending.
    ends: VecDeque<u32>,
    hasher: ContentHasher,
    at: u32,
    found: BTreeSet<Mark>,
}

impl TrueEnds {
    fn of(chunks: &[Chunk]) -> TrueEnds {
        let ends: BTreeSet<u32> = chunks.iter().map(|chunk| chunk.name.to).collect();
        TrueEnds {
            ends: ends.into_iter().collect(),
            hasher: ContentHasher::new(),
            at: 0,
            found: BTreeSet::new(),
        }
    }

    fn pass(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = self.ends.front().copied() {
            let Some((now, later)) = rest.split_at_checked((end - self.at) as usize) else { break };
            self.hasher.update(now);
            (rest, self.at) = (later, end);
            self.found.insert(Mark { at: end, hash: self.hasher.finish().id() });
            self.ends.pop_front();
        }
        self.hasher.update(rest);
        self.at = self.at.saturating_add(u32::try_from(rest.len()).unwrap_or(u32::MAX));
    }
}
