//! The pieces to fetch, sorted by the packs they lie in. A manifest names them in the order of files, and a large
//! cluster has more of them than should stand in memory: they are sorted as many as fit at a time, kept on the disk
//! as sorted runs in files without names, and merged as they are asked for.
//!
//! Memory: 12 MiB, and 64 KiB for each of at most some dozen dozen runs while they are merged. Disk: [`room`]. A
//! manifest takes more for each piece, so its size bounds that, whatever it says; few pieces touch no disk.

use std::io;
use std::iter::Peekable;
use std::path::PathBuf;

use walpoint_archive::manifest::Piece;
use walpoint_archive::pack::PiecePlace;

mod merge;
mod run;
#[cfg(test)]
mod tests;

use merge::Merge;
use run::Run;

/// Pieces that are sorted at a time.
const IN_MEMORY: usize = if cfg!(test) { 4 } else { 128 * 1024 };

/// So many runs become one longer one, so that few files are open at once.
const MOST_RUNS: usize = if cfg!(test) { 3 } else { 64 };

/// Most pieces in one batch. Of a pack with more there are several.
const IN_BATCH: usize = if cfg!(test) { 32 } else { 64 * 1024 };

/// The most room on the disk that so many pieces take: while runs become one, twice.
pub(super) fn room(pieces: u64) -> u64 {
    if pieces < IN_MEMORY as u64 { 0 } else { pieces.saturating_mul(2 * run::ROOM) }
}

/// A piece and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PieceWork {
    /// Index of the file.
    pub(super) file: usize,
    /// Where in the file it begins.
    pub(super) offset: u64,
    /// Where in the pack it lies.
    pub(super) place: PiecePlace,
}

impl PieceWork {
    /// A piece of a file as its manifest has it.
    pub(super) fn new(file: usize, piece: &Piece) -> PieceWork {
        PieceWork { file, offset: piece.file_offset, place: piece.place() }
    }
}

/// A piece of a pack, by the pack's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackPiece {
    pub(super) pack: u32,
    pub(super) piece: PieceWork,
}

impl PackPiece {
    /// Pack after pack; pieces of a file follow each other, and of these the parts of one frame.
    fn order(&self) -> (u32, usize, u64, u64) {
        (self.pack, self.piece.file, self.piece.place.offset, self.piece.offset)
    }
}

/// Pieces as they come.
#[derive(Debug)]
pub(super) struct Pieces {
    directory: PathBuf,
    latest: Vec<PackPiece>,
    /// Runs of the n-th level are merged of runs of the one before it.
    levels: Vec<Vec<Run>>,
}

impl Pieces {
    /// None yet. They take their room in this directory.
    pub(super) fn new(directory: PathBuf) -> Pieces {
        Pieces { directory, latest: Vec::new(), levels: Vec::new() }
    }

    /// Adds one.
    pub(super) fn add(&mut self, piece: PackPiece) -> io::Result<()> {
        self.latest.push(piece);
        if self.latest.len() < IN_MEMORY {
            return Ok(());
        }
        self.latest.sort_unstable_by_key(PackPiece::order);
        let run = Run::write(&self.directory, self.latest.drain(..).map(Ok))?;
        self.keep(run)
    }

    fn keep(&mut self, run: Run) -> io::Result<()> {
        let mut run = run;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(runs) = self.levels.get_mut(level) else { break };
            runs.push(run);
            if runs.len() < MOST_RUNS {
                break;
            }
            run = Run::write(&self.directory, Merge::new(std::mem::take(runs), Vec::new())?)?;
        }
        Ok(())
    }

    /// All of them, pack after pack.
    pub(super) fn sorted(mut self) -> io::Result<Batches> {
        self.latest.sort_unstable_by_key(PackPiece::order);
        let runs = self.levels.into_iter().flatten().collect();
        Ok(Batches(Merge::new(runs, self.latest)?.peekable()))
    }
}

/// What one worker fetches: pieces of one pack.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) pack: u32,
    /// In order.
    pub(super) pieces: Vec<PieceWork>,
}

/// Batches in the order of their packs.
#[derive(Debug)]
pub(super) struct Batches(Peekable<Merge>);

impl Iterator for Batches {
    type Item = io::Result<Batch>;

    fn next(&mut self) -> Option<io::Result<Batch>> {
        let PackPiece { pack, piece } = match self.0.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let mut pieces = vec![piece];
        while pieces.len() < IN_BATCH {
            let is_of_pack = |next: &io::Result<PackPiece>| next.as_ref().is_ok_and(|it| it.pack == pack);
            match self.0.next_if(is_of_pack) {
                Some(Ok(next)) => pieces.push(next.piece),
                _ => break,
            }
        }
        Some(Ok(Batch { pack, pieces }))
    }
}
