//! Unbroken WAL: segments by name can follow each other and their records not.
//!
//! What a segment's metadata says of its *run* (unbroken WAL as far as whoever archived it
//! could see) spares reading: one look at a run's last segment proves the whole run. Where
//! two runs meet the records decide, and the answer joins them to one chain or not. The
//! same on both sides of a segment that had a rival: its neighbours may speak of that one.

use std::sync::Arc;

use walpoint_archive::{ArchiveError, RunFacts, WalEnding, WalFacts};
use walpoint_wal::{Event, Lsn, SegmentName};

use super::scan::{Advance, EventAt, PathWal, Scan, Spot};

/// Bytes of a segment's first page header (`SizeOfXLogLongPHD`, access/xlog_internal.h).
const FIRST_PAGE_HEADER: u64 = 40;

/// Unbroken WAL, as long as it gets.
#[derive(Debug)]
pub(crate) struct Chain {
    /// In order of address, each going on where the one before it ends. Never empty.
    pub runs: Vec<Run>,
    /// Why it does not go on.
    pub ends: ChainEnd,
}

/// Segments of which each one's metadata continues that of the one before.
#[derive(Debug)]
pub(crate) struct Run {
    /// Number of its first segment on the path.
    pub first: u64,
    /// Number of its last one.
    pub last: u64,
    /// What the metadata of the last segment says.
    pub facts: Arc<WalFacts>,
    /// What that says of the run.
    pub totals: RunFacts,
    /// The totals count WAL from before `first`, which is not on the path any more, or not
    /// with the content that was counted.
    pub began_before: bool,
    /// One segment that counts only up to a fork inside it: its metadata say too much.
    pub is_cut: bool,
    /// The record that spans into `first`, where the metadata know nothing of it.
    pub spanning: Option<EventAt>,
}

/// Why a chain does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChainEnd {
    /// The next segment is missing or ambiguous, or there is none.
    Names,
    /// A segment is damaged here.
    Damaged { name: SegmentName, at: Lsn },
    /// A segment stops here without a switch.
    Open { name: SegmentName, at: Lsn },
    /// This segment does not continue the one before it.
    Unlinked { name: SegmentName, reason: String },
    /// This segment is of a PostgreSQL version that is not known.
    UnknownVersion { name: SegmentName },
    /// Whether this segment continues the one before it shows only in its content, which
    /// was not to be read.
    Sealed { name: SegmentName },
}

/// Whether the content of segments may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Where the metadata do not say enough.
    Read,
    /// Never: it is encrypted, and there is no key.
    Sealed,
}

impl Chain {
    /// Number of its first segment.
    pub fn first(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.first)
    }

    /// Number of its last segment.
    pub fn last(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.last)
    }

    /// The run that holds a segment.
    pub fn run_of(&self, number: u64) -> Option<&Run> {
        self.runs.iter().find(|run| (run.first..=run.last).contains(&number))
    }

    /// Whether it holds this segment.
    pub fn contains(&self, number: u64) -> bool {
        (self.first()..=self.last()).contains(&number)
    }
}

impl ChainEnd {
    /// The segment that is in the way.
    pub fn segment(&self) -> Option<SegmentName> {
        match self {
            ChainEnd::Names => None,
            ChainEnd::Damaged { name, .. }
            | ChainEnd::Open { name, .. }
            | ChainEnd::Unlinked { name, .. }
            | ChainEnd::Sealed { name }
            | ChainEnd::UnknownVersion { name } => Some(*name),
        }
    }
}

enum Piece {
    Run(Box<Run>),
    Unknown(SegmentName),
}

enum Edge {
    Joined(Option<EventAt>),
    Broken(ChainEnd),
}

/// All chains of a path, in order of address.
pub(crate) async fn chains(wal: &PathWal<'_>, content: Content) -> Result<Vec<Chain>, ArchiveError> {
    let mut chains = Vec::new();
    for stretch in &wal.coverage.stretches {
        let mut pieces = Vec::new();
        let mut last = stretch.last();
        loop {
            let (piece, first) = piece_ending_with(wal, stretch.first(), last).await?;
            pieces.push(piece);
            if first <= stretch.first() {
                break;
            }
            last = first - 1;
        }
        pieces.reverse();
        join(wal, content, pieces, &mut chains).await?;
    }
    Ok(chains)
}

async fn piece_ending_with(wal: &PathWal<'_>, lowest: u64, last: u64) -> Result<(Piece, u64), ArchiveError> {
    let facts = wal.facts(last).await?;
    let link = wal.link(last).ok_or_else(|| wal.contradiction(last, "it is not on the path"))?;
    let (true, Some(totals)) = (facts.validated, facts.run) else {
        return Ok((Piece::Unknown(link.name), last));
    };
    let begins = totals.run_start.segment_number(wal.size());
    if begins > last {
        let what = format!("its metadata says that its run begins behind it, at {}", totals.run_start);
        return Err(wal.contradiction(last, what));
    }
    let is_cut = link.cut.is_some();
    let first = if is_cut { last } else { wal.uncontested_since(begins.max(lowest), last) };
    let began_before = begins < first;
    let run = Run { first, last, facts, totals, began_before, is_cut, spanning: None };
    Ok((Piece::Run(Box::new(run)), first))
}

async fn join(
    wal: &PathWal<'_>,
    content: Content,
    pieces: Vec<Piece>,
    chains: &mut Vec<Chain>,
) -> Result<(), ArchiveError> {
    let mut open: Option<Chain> = None;
    for piece in pieces {
        let mut run = match piece {
            Piece::Run(run) => *run,
            Piece::Unknown(name) => {
                chains.extend(
                    open.take().map(|chain| Chain { ends: ChainEnd::UnknownVersion { name }, ..chain }),
                );
                continue;
            }
        };
        let edge = match open.as_ref() {
            Some(chain) => Some(edge(wal, content, chain, &run).await?),
            None => None,
        };
        match (open.as_mut(), edge) {
            (Some(chain), Some(Edge::Joined(spanning))) => {
                run.spanning = spanning;
                chain.runs.push(run);
            }
            (_, edge) => {
                let ends = match edge {
                    Some(Edge::Broken(ends)) => ends,
                    _ => ChainEnd::Names,
                };
                chains.extend(open.take().map(|chain| Chain { ends, ..chain }));
                open = Some(Chain { runs: vec![run], ends: ChainEnd::Names });
            }
        }
    }
    if let Some(mut chain) = open {
        let at_end = chain.runs.last().and_then(|run| stops_inside(wal, run));
        chain.ends = at_end.unwrap_or(ChainEnd::Names);
        chains.push(chain);
    }
    Ok(())
}

/// Why nothing can follow a run, when its own last segment shows it.
fn stops_inside(wal: &PathWal<'_>, run: &Run) -> Option<ChainEnd> {
    let link = wal.link(run.last)?;
    let inside = |at: Lsn| link.cut.is_none_or(|cut| at < cut);
    match run.facts.ending {
        WalEnding::Damaged { at } if inside(at) => Some(ChainEnd::Damaged { name: link.name, at }),
        // A switch that spans in, and that whoever archived the segment could not see.
        WalEnding::Open { .. } if run.spanning.as_ref().is_some_and(is_switch) => None,
        WalEnding::Open { at } if inside(at) => Some(ChainEnd::Open { name: link.name, at }),
        WalEnding::Unknown => Some(ChainEnd::UnknownVersion { name: link.name }),
        _ => None,
    }
}

fn is_switch(event: &EventAt) -> bool {
    event.event == Event::Switch
}

/// Whether `run` continues `chain`.
async fn edge(wal: &PathWal<'_>, content: Content, chain: &Chain, run: &Run) -> Result<Edge, ArchiveError> {
    let before = chain.runs.last();
    if let Some(ends) = before.and_then(|before| stops_inside(wal, before)) {
        return Ok(Edge::Broken(ends));
    }
    let is_contested = wal.is_contested_at(run.first);
    // A cut segment is a run of its own only here: its metadata continue the one before.
    if run.began_before && !is_contested {
        return Ok(Edge::Joined(None));
    }
    let first = wal.facts(run.first).await?;
    let last_start = before.and_then(|before| before.totals.last_start);
    let is_linked = first.edge_checked && first.first_prev.is_some() && first.first_prev == last_start;
    // What spans in was checked with the beginning that the rival has.
    if is_linked && (!is_contested || !spans_in(&first)) {
        return Ok(Edge::Joined(None));
    }
    let first = wal.link(run.first).filter(|_| content == Content::Sealed);
    if let Some(ends) = first.map(|link| ChainEnd::Sealed { name: link.name }) {
        return Ok(Edge::Broken(ends));
    }
    match last_record_start(chain) {
        Some(lsn) => read_edge(wal, lsn, run).await,
        None => Ok(unlinked(wal, run, "no record is known to start before it".to_owned())),
    }
}

/// Whether a segment may begin with the rest of a record.
fn spans_in(facts: &WalFacts) -> bool {
    facts.first_record != facts.start.checked_add(FIRST_PAGE_HEADER)
}

impl PathWal<'_> {
    /// The first segment from `lowest` on that the metadata of segment `last`, of the same
    /// run, vouch for: none in between had a rival, and `last` itself stands alone if it had.
    fn uncontested_since(&self, lowest: u64, last: u64) -> u64 {
        match self.coverage.last_contested(lowest, last) {
            Some(contested) => last.min(contested.saturating_add(1)),
            None => lowest,
        }
    }

    /// Whether this segment or the one before it had a rival, so that what the metadata of
    /// one say of the other may be said of the rival.
    fn is_contested_at(&self, number: u64) -> bool {
        let beside = [number.checked_sub(1), Some(number)].into_iter().flatten();
        beside.filter_map(|number| self.link(number)).any(|link| link.is_contested)
    }
}

/// Start of the last record that starts in a chain, whole or not.
fn last_record_start(chain: &Chain) -> Option<Lsn> {
    chain.runs.iter().rev().find_map(|run| run.totals.last_start)
}

/// Reads from the last record before the edge to the first that starts behind it.
async fn read_edge(wal: &PathWal<'_>, from: Lsn, run: &Run) -> Result<Edge, ArchiveError> {
    let edge = wal.start_of(run.first);
    let mut scan = Scan::at_record(wal, from, run.last);
    loop {
        match scan.advance().await? {
            Advance::Record(record) if record.lsn >= edge => return Ok(Edge::Joined(None)),
            Advance::Record(record) if record.end > edge => {
                let spot = Spot { lsn: record.lsn, end: record.end, prev: record.prev };
                // It is whole on both sides: what comes behind it decides nothing here.
                let event = scan.event(&record)?;
                return Ok(Edge::Joined(event.map(|event| EventAt { spot, event })));
            }
            Advance::Record(_) => {}
            Advance::Invalid(_) if is_rest_of_a_record(wal, run) => return Ok(Edge::Joined(None)),
            Advance::Invalid(error) => return Ok(unlinked(wal, run, error.reason)),
            // The record goes on behind the run: then the next edge decides.
            Advance::End => return Ok(Edge::Joined(None)),
        }
    }
}

/// Whether a run ends with a tail, and in the record that goes on at its beginning. Then nothing of it counts, and
/// the zeros behind the tail do not speak against it.
fn is_rest_of_a_record(wal: &PathWal<'_>, run: &Run) -> bool {
    let is_open = wal.link(run.last).is_some_and(|link| link.is_open);
    is_open && run.totals.last_start.is_none_or(|start| start < wal.start_of(run.first))
}

fn unlinked(wal: &PathWal<'_>, run: &Run, reason: String) -> Edge {
    match wal.link(run.first) {
        Some(link) => Edge::Broken(ChainEnd::Unlinked { name: link.name, reason }),
        None => Edge::Broken(ChainEnd::Names),
    }
}
