//! Which chunks continue which. Pure: it sees names, not content.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chunk, Mark, Tail};

/// How a mark is come to from a segment's beginning.
#[derive(Clone, Copy)]
struct Way {
    /// Chunks on it.
    steps: usize,
    /// The last of them; none at the beginning.
    by: Option<usize>,
}

impl Tail {
    /// The longest of the chains that begin with a segment's first byte; of several ways to its
    /// end the one in the fewest chunks. `None` when no chunk begins there.
    pub fn of(chunks: &[Chunk]) -> Option<Tail> {
        let ways = ways(chunks);
        let (end, _) = ways.iter().next_back().filter(|(end, _)| **end != Mark::beginning())?;
        let path = path_to(*end, &ways, chunks);
        let on_path: BTreeSet<Mark> = path.iter().map(|chunk| chunk.name.end()).collect();
        let ends: BTreeSet<Mark> = chunks.iter().map(|chunk| chunk.name.end()).collect();
        let lost_to = ends.iter().map(|mark| mark.at).max().filter(|at| *at > end.at);
        let others = ends.into_iter().filter(|mark| mark.at <= end.at && !on_path.contains(mark)).collect();
        Some(Tail { chunks: path, others, lost_to })
    }
}

/// Every mark that can be come to from the beginning.
fn ways(chunks: &[Chunk]) -> BTreeMap<Mark, Way> {
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    // What leads to a mark begins before it, so its way is known when a chunk goes on from there.
    order.sort_by_key(|at| chunks.get(*at).map(|chunk| (chunk.name, chunk.encrypted)));
    let mut ways = BTreeMap::from([(Mark::beginning(), Way { steps: 0, by: None })]);
    for at in order {
        let Some(chunk) = chunks.get(at) else { continue };
        let Some(way) = ways.get(&chunk.name.begin()).copied() else { continue };
        let longer = Way { steps: way.steps + 1, by: Some(at) };
        let known = ways.entry(chunk.name.end()).or_insert(longer);
        if known.steps > longer.steps {
            *known = longer;
        }
    }
    ways
}

fn path_to(end: Mark, ways: &BTreeMap<Mark, Way>, chunks: &[Chunk]) -> Vec<Chunk> {
    let mut path = Vec::new();
    let mut at = end;
    while let Some(chunk) = ways.get(&at).and_then(|way| way.by).and_then(|by| chunks.get(by)) {
        path.push(chunk.clone());
        at = chunk.name.begin();
    }
    path.reverse();
    path
}
