//! Many small pieces become one: a segment that is written to for a day must not be read in tens of
//! thousands of requests, nor listed in as many lines.

use super::Ground;
use super::shipment::PIECE_BYTES;
use crate::exit::Failure;
use bytes::Bytes;
use walpoint_archive::{Chunk, Common, ContentHash, PutChunk, TailFacts, WalFacts};

/// So many pieces of one rank become one of the next.
const MERGED: usize = 32;

/// The pieces of the open segment that were shipped from here, in order.
#[derive(Debug, Default)]
pub struct Pieces {
    shipped: Vec<Shipped>,
    /// Those that another stands in for. They go with the next ones that do: whoever lists them, page by page, while
    /// the other is put, finds the one or the others.
    replaced: Vec<Chunk>,
}

#[derive(Debug, Clone)]
struct Shipped {
    chunk: Chunk,
    tail: TailFacts,
    facts: WalFacts,
    /// How often it was put together.
    rank: u32,
}

impl Pieces {
    pub fn add(&mut self, chunk: Chunk, put: &PutChunk) {
        self.shipped.push(Shipped { chunk, tail: put.tail, facts: put.facts.clone(), rank: 0 });
    }

    /// Puts the newest pieces together when there are many of a kind. The one is in the archive long before the
    /// many go.
    ///
    /// # Errors
    /// Those of the archive; status 1 when what is durable cannot be read.
    pub async fn merge(&mut self, ground: &Ground) -> Result<(), Failure> {
        let Some(many) = self.due() else { return Ok(()) };
        let Some((put, rank)) = joined(ground, many).await? else { return Ok(()) };
        let chunk = ground.archive.put_chunk(&put).await?;
        let at = self.shipped.len().saturating_sub(MERGED);
        let many = self.shipped.split_off(at).into_iter().map(|piece| piece.chunk).collect();
        self.shipped.push(Shipped { chunk, tail: put.tail, facts: put.facts, rank });
        let gone = std::mem::replace(&mut self.replaced, many);
        Ok(ground.archive.remove_chunks(&gone).await?)
    }

    /// The newest pieces, when so many of them have one rank and are small together.
    fn due(&self) -> Option<&[Shipped]> {
        let many = self.shipped.get(self.shipped.len().checked_sub(MERGED)?..)?;
        let (first, last) = (many.first()?, many.last()?);
        let is_of_a_kind = many.iter().all(|piece| piece.rank == last.rank);
        let bytes = last.chunk.name.to.saturating_sub(first.chunk.name.from);
        (is_of_a_kind && bytes <= PIECE_BYTES).then_some(many)
    }
}

/// One piece that holds what these hold; none when pg_wal does not have just that any more.
async fn joined(ground: &Ground, many: &[Shipped]) -> Result<Option<(PutChunk, u32)>, Failure> {
    let (Some(first), Some(last)) = (many.first(), many.last()) else { return Ok(None) };
    let (segment, from, to) = (last.chunk.segment, first.chunk.name.from, last.chunk.name.to);
    let Some(bytes) = ground.read(segment, from, to).await? else { return Ok(None) };
    let is_same = |piece: &Shipped| {
        let own = (piece.chunk.name.from - from) as usize..(piece.chunk.name.to - from) as usize;
        bytes.get(own).is_some_and(|own| ContentHash::of(own).id() == piece.chunk.name.content)
    };
    if !many.iter().all(is_same) {
        return Ok(None);
    }
    let common =
        Common { content: ContentHash::of(&bytes), plain_size: bytes.len() as u64, ..last.facts.common };
    let facts = WalFacts { common, ..last.facts.clone() };
    let tail = TailFacts { from, before: first.tail.before, after: last.tail.after };
    Ok(Some((PutChunk { segment, tail, facts, bytes: Bytes::from(bytes) }, last.rank + 1)))
}
