//! Sealing content while its owner looks at it: one pass over a file for everything that is to be known of it, in
//! pieces that stay in the processor's cache.

use std::io::{self, Write};

use bytes::Bytes;

use super::Sealer;
use crate::compress;
use crate::content::{ContentHash, ContentHasher};
use crate::fault_point::panic_for_a_test;

/// Content on its way: see the module's text.
pub struct Sealing {
    sealer: Sealer,
    hasher: ContentHasher,
    size: u64,
    compressor: zstd::stream::write::Encoder<'static, Vec<u8>>,
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing").field("size", &self.size).finish_non_exhaustive()
    }
}

/// Stored bytes, in memory, with the content that they hold: only [`Sealing`] makes them, from the same bytes.
#[derive(Clone, Debug)]
pub struct SealedContent {
    pub(crate) bytes: Bytes,
    pub(crate) content: ContentHash,
    pub(crate) plain_size: u64,
    pub(crate) encrypted: bool,
}

impl SealedContent {
    /// BLAKE3 of the plain content.
    pub fn content(&self) -> ContentHash {
        self.content
    }
}

impl Sealer {
    /// Begins to seal content of so many bytes. It is held in memory once it is compressed. So many `threads`
    /// compress it beside the one that brings it; with none, or where none can be started, that one does it.
    ///
    /// # Errors
    /// When the compressor cannot be set up.
    pub fn begin(&self, plain_size: u64, threads: u32) -> io::Result<Sealing> {
        panic_for_a_test("sealing");
        let mut compressor = compress::compressor(self.buffers.take(), self.level(), Some(plain_size))?;
        compressor.multithread(startable(threads))?;
        Ok(Sealing { sealer: self.clone(), hasher: ContentHasher::new(), size: 0, compressor })
    }
}

/// So many threads, if the host lets them be started; else none. The compressor starts its own only when it is given
/// something, and fails then: an archiver must not stand still because the host is short of tasks.
fn startable(threads: u32) -> u32 {
    let tried: Vec<_> =
        (0..threads).map(|_| std::thread::Builder::new().spawn(std::thread::yield_now)).collect();
    let all = tried.iter().all(Result::is_ok);
    tried.into_iter().flatten().for_each(|thread| drop(thread.join()));
    if all { threads } else { 0 }
}

impl Sealing {
    /// Takes the next bytes of the content.
    ///
    /// # Errors
    /// When the compressor fails, or these are more bytes than were announced.
    pub fn take(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hasher.update(piece);
        self.size += piece.len() as u64;
        self.compressor.write_all(piece)
    }

    /// That was all.
    ///
    /// # Errors
    /// When the compressor or the random source failed, or these were other than the announced number of bytes.
    pub fn finish(self) -> io::Result<SealedContent> {
        let Self { sealer, hasher, size, compressor } = self;
        let frame = sealer.buffers.lend(compressor.finish()?);
        let bytes = if sealer.encrypts() { sealer.encrypt(&frame)? } else { frame };
        Ok(SealedContent { bytes, content: hasher.finish(), plain_size: size, encrypted: sealer.encrypts() })
    }
}
