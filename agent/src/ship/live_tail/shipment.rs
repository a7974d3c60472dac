//! Ships what became durable: piece after piece, segment after segment, each only when the one before it is
//! in the archive.

use super::Ground;
use super::begin::{Begun, Opened};
use super::merge::Pieces;
use super::open_segment::{Completed, OpenSegment, Piece};
use super::sweep::Sweep;
use crate::exit::Failure;
use crate::session::Flushed;
use crate::ship::histories;
use std::time::Instant;
use walpoint_archive::Usable;
use walpoint_archive::content::ContentHasher;
use walpoint_wal::{Lsn, PAGE_SIZE, PageHeader, SegmentName, TimelineId, WalFileName};

/// Most bytes of one piece.
pub const PIECE_BYTES: u32 = 4 << 20;

/// How far shipping goes back when the segments before are not in the archive yet. Where there are more of
/// them, it waits until they were pushed.
const SEGMENTS_BACK: u64 = 4;

/// What is being shipped.
#[derive(Debug)]
pub struct Shipment {
    ground: Ground,
    timeline: Option<TimelineId>,
    open: Option<OpenSegment>,
    /// A piece whose put may have failed: it is put again as it is, so that no other with the same bytes
    /// stands beside it.
    pending: Option<Piece>,
    /// The segment that was shipped to its end last.
    last: Option<Completed>,
    pieces: Pieces,
    sweep: Sweep,
    shipped: Option<Lsn>,
    /// Something that was durable is not what it was.
    alarm: Option<String>,
}

/// Whether there is more to ship at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum More {
    Yes,
    No,
}

impl Shipment {
    pub fn new(ground: Ground) -> Shipment {
        Shipment {
            ground,
            timeline: None,
            open: None,
            pending: None,
            last: None,
            pieces: Pieces::default(),
            sweep: Sweep::default(),
            shipped: None,
            alarm: None,
        }
    }

    /// Everything before it is in the archive.
    pub fn shipped(&self) -> Option<Lsn> {
        self.shipped
    }

    /// What must be looked into.
    pub fn alarm(&self) -> Option<&str> {
        self.alarm.as_deref()
    }

    /// Begins anew: with what the archive has, at the segment that is being written then.
    pub fn forget(&mut self) {
        (self.open, self.pending, self.last, self.shipped) = (None, None, None, None);
        self.pieces = Pieces::default();
    }

    /// Ships one piece of what is durable, or begins with the next segment.
    ///
    /// # Errors
    /// Those of the archive; status 1 when what is durable cannot be read. The next call tries the same again.
    pub async fn advance(&mut self, now: Flushed) -> Result<More, Failure> {
        if self.timeline != Some(now.timeline) || self.is_ahead_of(now.flush) {
            self.enter_timeline(now).await?;
        }
        if let Some(piece) = &self.pending {
            let chunk = self.ground.archive.put_chunk(&piece.put).await?;
            self.pieces.add(chunk, &piece.put);
            let end = piece.end;
            self.pending = None;
            self.reached(end);
        }
        let Some(open) = &self.open else {
            return if self.shipped == Some(now.flush) { Ok(More::No) } else { self.begin(now).await };
        };
        let (name, from, to) = (open.name(), open.read_to(), self.durable_in(open.name(), now.flush));
        if from == self.size() {
            return self.complete().await;
        }
        if to <= from {
            self.pieces.merge(&self.ground).await?;
            return Ok(More::No);
        }
        if to == self.size() && to - from > self.size() / 4 && self.is_pushed(name).await? {
            return self.pass_over(name, from).await;
        }
        let end = piece_end(from, to);
        let Some(bytes) = self.ground.read(name, from, end).await? else { return Ok(More::No) };
        self.pending = self.make_piece(bytes, now.flush)?;
        Ok(More::Yes)
    }

    /// Takes pieces away whose segments are in the archive whole.
    ///
    /// # Errors
    /// Those of the archive.
    pub async fn sweep(&mut self, now: Instant) -> Result<(), Failure> {
        let open = self.open.as_ref().map(OpenSegment::name);
        if let Some(alarm) = self.sweep.once(&self.ground, open, now).await? {
            self.raise(alarm);
        }
        Ok(())
    }

    fn make_piece(&mut self, bytes: Vec<u8>, flush: Lsn) -> Result<Option<Piece>, Failure> {
        let made = self.open.as_mut().map(|open| open.piece(bytes, flush)).transpose();
        if made.is_err() {
            self.forget();
        }
        made
    }

    /// A new timeline's WAL is of no use to one who does not know where it comes from.
    async fn enter_timeline(&mut self, now: Flushed) -> Result<(), Failure> {
        let Ground { archive, pg_wal, writer, cluster, .. } = &self.ground;
        archive.ensure_cluster(cluster).await?;
        if now.timeline != TimelineId::FIRST {
            histories::ensure_there(archive, pg_wal, now.timeline, *writer).await?;
        }
        self.forget();
        self.timeline = Some(now.timeline);
        Ok(())
    }

    async fn begin(&mut self, now: Flushed) -> Result<More, Failure> {
        let newest = Lsn(now.flush.0.saturating_sub(1)).segment_number(self.ground.size);
        let next = self.last.as_ref().and_then(|last| last.name.number(self.ground.size).ok());
        let first = next.map_or(newest, |last| last + 1);
        if first > newest {
            return Ok(More::No);
        }
        let mut number = first;
        loop {
            let Some(name) = SegmentName::from_number(now.timeline, number, self.ground.size) else {
                return Ok(More::No);
            };
            let durable = self.durable_in(name, now.flush);
            match self.ground.begin(name, durable, self.last.as_ref()).await? {
                Begun::Open(opened) => {
                    self.enter(*opened);
                    return Ok(More::Yes);
                }
                Begun::Whole if number < newest => number += 1,
                // The server stands at its end.
                Begun::Whole if durable == self.size() => {
                    self.shipped = Some(now.flush);
                    return Ok(More::No);
                }
                Begun::Whole => {
                    return Err(Failure::failed(format!(
                        "could not ship the tail of \"{name}\": the archive has content under this name, and \
                         the server is still writing it"
                    ))
                    .with_hint("is another server archiving with the same system identifier?"));
                }
                Begun::Behind(before)
                    if before.timeline == now.timeline && number + SEGMENTS_BACK > newest =>
                {
                    number -= 1;
                    tracing::debug!("\"{before}\" is shipped first");
                }
                Begun::Behind(before) => {
                    return Err(Failure::failed(format!(
                        "could not ship the tail of \"{name}\" yet: \"{before}\" is not in the archive"
                    )));
                }
                Begun::Absent => return Ok(More::No),
            }
        }
    }

    fn enter(&mut self, opened: Opened) {
        let Opened { segment, foreign } = opened;
        if let Some(first) = foreign.first() {
            self.raise(format!(
                "what was shipped of \"{}\" is not what pg_wal has (\"{}\"): a disk or a snapshot took back \
                 WAL that was durable, or another server ships this timeline",
                segment.name(),
                first.key
            ));
        }
        self.pieces = Pieces::default();
        let read = segment.read_to();
        self.open = Some(segment);
        self.reached(read);
    }

    /// The end of a segment: its bytes must still be those that were shipped.
    async fn complete(&mut self) -> Result<More, Failure> {
        let Some(open) = &self.open else { return Ok(More::No) };
        let completed = open.complete()?;
        let name = completed.name;
        if self.is_changed(&completed).await? {
            self.raise(format!(
                "\"{name}\" is not what was shipped of it while it was being written: a disk or a snapshot took \
                 back WAL that was durable"
            ));
        }
        self.open = None;
        self.sweep.add(name);
        self.last = Some(completed);
        Ok(More::Yes)
    }

    /// Whether a segment's file has other bytes by now. One that was archived and is used again has another
    /// segment's address in its first page, and is no news.
    async fn is_changed(&self, completed: &Completed) -> Result<bool, Failure> {
        let name = completed.name;
        let (mut hasher, mut address) = (ContentHasher::new(), None);
        let take = |bytes: &[u8]| {
            address = address.or_else(|| PageHeader::parse(bytes).ok().map(|header| header.address));
            hasher.update(bytes);
        };
        let is_there = self.ground.each_piece(name, 0, self.size(), take).await?;
        Ok(is_there && hasher.finish() != completed.content && address == Some(self.start_of(name)))
    }

    /// Whether a push was faster.
    async fn is_pushed(&self, name: SegmentName) -> Result<bool, Failure> {
        let state = self.ground.archive.wal_variants(&WalFileName::Segment(name)).await?;
        Ok(matches!(state.usable(), Usable::One(_)))
    }

    /// Reads the rest of a segment that is in the archive without shipping it.
    async fn pass_over(&mut self, name: SegmentName, from: u32) -> Result<More, Failure> {
        let (size, Some(open)) = (self.size(), &mut self.open) else { return Ok(More::Yes) };
        let is_there = self.ground.each_piece(name, from, size, |bytes| open.pass(bytes)).await?;
        if is_there {
            self.reached(size)
        } else {
            self.forget()
        }
        Ok(More::Yes)
    }

    fn raise(&mut self, alarm: String) {
        tracing::error!("{alarm}");
        self.alarm = Some(alarm);
    }

    fn reached(&mut self, end: u32) {
        let start = self.open.as_ref().map(|open| self.start_of(open.name()));
        self.shipped = start.map(|start| Lsn(start.0.saturating_add(u64::from(end))));
    }

    /// The server's WAL does not reach to where it was shipped: it is not the WAL that it was.
    fn is_ahead_of(&self, flush: Lsn) -> bool {
        self.shipped.is_some_and(|shipped| shipped > flush)
    }

    fn start_of(&self, name: SegmentName) -> Lsn {
        name.start(self.ground.size).unwrap_or_default()
    }

    fn size(&self) -> u32 {
        u32::try_from(self.ground.size.bytes()).unwrap_or(u32::MAX)
    }

    /// How many bytes of a segment are durable.
    fn durable_in(&self, name: SegmentName, flush: Lsn) -> u32 {
        let durable = flush.0.saturating_sub(self.start_of(name).0).min(self.ground.size.bytes());
        u32::try_from(durable).unwrap_or(u32::MAX)
    }
}

/// Where a piece ends: with what is durable, or with a page.
fn piece_end(from: u32, to: u32) -> u32 {
    let most = from.saturating_add(PIECE_BYTES);
    let page = u32::try_from(PAGE_SIZE).unwrap_or(1);
    if to <= most { to } else { most / page * page }
}
