//! Merges sorted runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;

use super::PackPiece;
use super::run::{Run, RunReader};

/// Runs, and what is in memory, as one.
#[derive(Debug)]
pub(super) struct Merge {
    runs: Vec<RunReader>,
    memory: std::vec::IntoIter<PackPiece>,
    /// The next piece of each that has one, the first of all on top.
    next: BinaryHeap<Reverse<Next>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Next {
    piece: PackPiece,
    /// Which run; past the last it is what is in memory.
    from: usize,
}

impl Ord for Next {
    fn cmp(&self, other: &Next) -> std::cmp::Ordering {
        (self.piece.order(), self.from).cmp(&(other.piece.order(), other.from))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Next) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Merge {
    /// Of runs and of pieces in order.
    pub(super) fn new(runs: Vec<Run>, memory: Vec<PackPiece>) -> io::Result<Merge> {
        let runs: Vec<RunReader> = runs.into_iter().map(Run::read).collect::<io::Result<_>>()?;
        let mut merge = Merge { runs, memory: memory.into_iter(), next: BinaryHeap::new() };
        for from in 0..=merge.runs.len() {
            merge.look_at(from)?;
        }
        Ok(merge)
    }

    fn look_at(&mut self, from: usize) -> io::Result<()> {
        let next = match self.runs.get_mut(from) {
            Some(run) => run.next().transpose()?,
            None => self.memory.next(),
        };
        self.next.extend(next.map(|piece| Reverse(Next { piece, from })));
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = io::Result<PackPiece>;

    fn next(&mut self) -> Option<io::Result<PackPiece>> {
        let Reverse(Next { piece, from }) = self.next.pop()?;
        Some(self.look_at(from).map(|()| piece))
    }
}
