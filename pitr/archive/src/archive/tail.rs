//! The pieces of a segment that is still being written: storing one, reading them as the
//! beginning of the segment, and taking them away when the whole segment is there.

use std::io::Write;

use bytes::Bytes;
use futures::{StreamExt, stream};
use walpoint_wal::{SegmentName, WalFileName};

use super::send::{Content, Sent};
use super::{Archive, PutSource};
use crate::catalog::{SegmentState, Usable, Variant};
use crate::content::{ContentHash, ContentHasher};
use crate::envelope::Expected;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::fault_point::step;
use crate::object_key::ObjectKey;
use crate::tail::{Chunk, Mark, Tail, TailFacts};
use crate::wal_facts::WalFacts;

/// Pieces that are fetched at once; each is in memory whole.
const PIECES_AT_ONCE: usize = 4;

/// Memory taken at once for a piece whose size is only claimed.
const TRUSTED_CAPACITY: u32 = 4 * 1024 * 1024;

/// Zeros written at a time behind a tail's end.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// A piece of a segment to be stored.
#[derive(Clone, Debug)]
pub struct PutChunk {
    /// The segment.
    pub segment: SegmentName,
    /// Where it lies in it, and what comes before it.
    pub tail: TailFacts,
    /// The segment's facts as if it ended with this piece, with the piece's own content and size.
    pub facts: WalFacts,
    /// Its content.
    pub bytes: Bytes,
}

/// What became of the pieces of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TailRemoval {
    /// They are gone: so many.
    Removed(usize),
    /// There is no whole segment that stands in for them.
    Needed,
    /// The whole segment is other than what they say, so they stay.
    Contradicted {
        /// The bytes up to the end of the pieces.
        shipped: Mark,
    },
}

impl Archive {
    /// Stores a piece. Durable when it returns; the same piece may be stored again.
    pub async fn put_chunk(&self, put: &PutChunk) -> Result<Chunk, ArchiveError> {
        let common = put.facts.common;
        let name = put.tail.name(common.content, common.plain_size);
        let (name, encrypted) = (name.ok_or_else(|| no_chunk(put))?, self.sealer.encrypts());
        let key = self.layout.chunk(&put.segment, name, encrypted);
        if common.system_identifier != self.system_identifier() {
            let what = format!("the piece is of the cluster {}", common.system_identifier);
            return Err(ArchiveError::WrongCluster { system_identifier: self.system_identifier(), what });
        }
        let metadata = put.tail.to_metadata(&put.facts);
        let metadata = metadata.map_err(|error| ArchiveError::from_metadata(&key, error))?;
        let content = Content { hash: common.content, size: common.plain_size };
        let source = PutSource::Bytes(put.bytes.clone());
        match self.seal_and_put(&key, &metadata, content, &source).await? {
            Sent::Put(_) => {}
            Sent::Changed => return Err(no_chunk(put)),
        }
        let (stored_size, stored_at) = (0, None);
        Ok(Chunk { segment: put.segment, name, key, stored_size, stored_at, encrypted })
    }

    /// All that is stored of a segment, its pieces included.
    pub async fn segment_state(&self, segment: &SegmentName) -> Result<SegmentState, ArchiveError> {
        let name = WalFileName::Segment(*segment);
        // The pieces first: they go when the whole is there, which is seen then.
        let mut listed = self.store.list(&self.layout.tail_prefix(segment), None, None).await?;
        listed.extend(self.store.list(&self.layout.variants_prefix(&name), None, None).await?);
        Ok(SegmentState::from_listing(&self.layout, &listed))
    }

    /// Takes the pieces of a segment away, when the whole segment stands in for them.
    pub async fn remove_tail(&self, segment: &SegmentName) -> Result<TailRemoval, ArchiveError> {
        let state = self.segment_state(segment).await?;
        let Usable::One(whole) = state.usable() else { return Ok(TailRemoval::Needed) };
        let size = self.common(&whole.key()).await?.plain_size;
        let tail = state.tail.as_ref().and_then(|variant| variant.tail.as_ref());
        let ends = tail.map(|tail| tail.marks()).unwrap_or_default();
        let differs = |end: &&Mark| u64::from(end.at) == size && end.hash != whole.content;
        if let Some(shipped) = ends.iter().find(differs).copied() {
            return Ok(TailRemoval::Contradicted { shipped });
        }
        self.store.settle(&whole.key()).await?;
        // From the end, so that what is left at any moment is a chain.
        for chunk in state.chunks.iter().rev() {
            self.store.delete(&chunk.key).await?;
        }
        Ok(TailRemoval::Removed(state.chunks.len()))
    }

    /// Takes pieces away in whose place another piece is stored.
    pub async fn remove_chunks(&self, chunks: &[Chunk]) -> Result<(), ArchiveError> {
        for chunk in chunks.iter().rev() {
            self.store.delete(&chunk.key).await?;
        }
        Ok(())
    }

    /// The folders of WAL, each by the name of the first segment that can be in it, oldest first.
    pub async fn wal_folders(&self) -> Result<Vec<SegmentName>, ArchiveError> {
        let folders = self.store.list_folders(&self.layout.wal_prefix()).await?;
        Ok(folders.iter().filter_map(|name| format!("{name}00000000").parse().ok()).collect())
    }

    /// The segments of a folder of WAL that have pieces.
    pub async fn tails_in(&self, folder: &SegmentName) -> Result<Vec<SegmentName>, ArchiveError> {
        let folders = self.store.list_folders(&self.layout.wal_dir(folder)).await?;
        Ok(folders.iter().filter_map(|name| name.strip_suffix(".live")?.parse().ok()).collect())
    }

    /// Reads a tail as a segment of `size` bytes: its pieces, then zeros. Each piece is verified,
    /// and that it continues those before it, and all that other pieces say of the same bytes.
    pub(super) async fn fetch_tail(
        &self,
        variant: &Variant,
        tail: &Tail,
        out: &mut (impl Write + Send),
        size: u64,
    ) -> Result<Common, ArchiveError> {
        if u64::from(tail.end()) > size {
            return Err(ArchiveError::damaged(
                variant.key(),
                format!("it lies behind the first {size} bytes"),
            ));
        }
        let mut proof = Proof::new(variant, tail);
        let pieces: Vec<_> = tail.chunks.iter().map(|chunk| self.fetch_chunk(chunk)).collect();
        let mut pieces = stream::iter(pieces).buffered(PIECES_AT_ONCE);
        let mut last = None;
        while let Some(piece) = pieces.next().await {
            let (common, facts, bytes) = piece?;
            proof.take(&bytes)?;
            step("write", || out.write_all(&bytes)).map_err(|source| unwritable(&variant.key(), source))?;
            last = Some((common, facts));
        }
        let Some((common, facts)) = last else {
            return Err(ArchiveError::damaged(variant.key(), "it is a tail without a piece"));
        };
        let mut hasher = proof.finish(facts.after)?;
        let mut missing = size - u64::from(tail.end());
        while missing > 0 {
            let zeros = ZEROS.get(..usize::try_from(missing).unwrap_or(usize::MAX).min(ZEROS.len()));
            let zeros = zeros.unwrap_or_default();
            hasher.update(zeros);
            step("write", || out.write_all(zeros)).map_err(|source| unwritable(&variant.key(), source))?;
            missing -= zeros.len() as u64;
        }
        Ok(Common { content: hasher.finish(), plain_size: size, ..common })
    }

    async fn fetch_chunk(&self, chunk: &Chunk) -> Result<(Common, TailFacts, Vec<u8>), ArchiveError> {
        let key = &chunk.key;
        let object = self.store.get(key, None).await?;
        let wrong = |error| ArchiveError::from_facts(key, error);
        let common = Common::from_metadata(&object.metadata).map_err(wrong)?;
        let facts = TailFacts::from_metadata(&object.metadata).map_err(wrong)?;
        self.check_chunk(chunk, &common, &facts)?;
        let expected = Expected::content(common.content, common.plain_size);
        let mut bytes = Vec::with_capacity(
            usize::try_from(chunk.name.length().min(TRUSTED_CAPACITY)).unwrap_or_default(),
        );
        let opened = self.open_body(key, object.body, chunk.encrypted, expected, &mut bytes).await?;
        if opened.plain_size != common.plain_size {
            let what =
                format!("it holds {} bytes, its metadata says {}", opened.plain_size, common.plain_size);
            return Err(ArchiveError::damaged(key, what));
        }
        Ok((common, facts, bytes))
    }

    /// That a piece's metadata speak of the piece that its key names.
    pub(super) fn check_chunk(
        &self,
        chunk: &Chunk,
        common: &Common,
        facts: &TailFacts,
    ) -> Result<(), ArchiveError> {
        if facts.name(common.content, common.plain_size) != Some(chunk.name) {
            return Err(ArchiveError::damaged(&chunk.key, "its metadata speaks of another piece"));
        }
        if common.system_identifier != self.system_identifier() {
            let what = format!("its metadata speaks of the cluster {}", common.system_identifier);
            return Err(ArchiveError::damaged(&chunk.key, what));
        }
        Ok(())
    }
}

/// Checks, while the bytes of a tail pass by, all that names of pieces say of them.
struct Proof<'a> {
    variant: &'a Variant,
    tail: &'a Tail,
    marks: std::iter::Peekable<std::vec::IntoIter<Mark>>,
    hasher: ContentHasher,
    at: u32,
}

impl<'a> Proof<'a> {
    fn new(variant: &'a Variant, tail: &'a Tail) -> Self {
        let marks = tail.marks().into_iter().peekable();
        Self { variant, tail, marks, hasher: ContentHasher::new(), at: 0 }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let end = self.at.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        let mut rest = bytes;
        while let Some(mark) = self.marks.next_if(|mark| mark.at <= end) {
            let (now, later) = rest.split_at_checked((mark.at - self.at) as usize).unwrap_or((rest, &[]));
            self.hasher.update(now);
            (rest, self.at) = (later, mark.at);
            self.check(mark)?;
        }
        self.hasher.update(rest);
        self.at = end;
        Ok(())
    }

    fn check(&self, mark: Mark) -> Result<(), ArchiveError> {
        let found = self.hasher.finish();
        if found.id() == mark.hash {
            return Ok(());
        }
        match self.tail.chunks.iter().find(|chunk| chunk.name.end() == mark) {
            Some(chunk) => {
                let what =
                    format!("with what comes before it the content is {found}, other than its key says");
                Err(ArchiveError::damaged(&chunk.key, what))
            }
            None => {
                let contents = vec![self.variant.content, mark.hash];
                Err(ArchiveError::Ambiguous { name: self.variant.name, contents })
            }
        }
    }

    fn finish(self, after: ContentHash) -> Result<ContentHasher, ArchiveError> {
        match self.hasher.finish() {
            found if found == after => Ok(self.hasher),
            found => {
                let what = format!("the content up to its end is {found}, expected was {after}");
                Err(ArchiveError::damaged(self.variant.key(), what))
            }
        }
    }
}

fn no_chunk(put: &PutChunk) -> ArchiveError {
    let what = "its bytes are not what is said of them".to_owned();
    ArchiveError::Undescribable { key: format!("{}.live/", put.segment), what }
}

fn unwritable(key: &ObjectKey, source: std::io::Error) -> ArchiveError {
    ArchiveError::Io { verb: "write", what: format!("the content of \"{key}\""), source }
}
