//! One stored object, both ways: plain content → BLAKE3 → zstd → age (when
//! there are recipients) → SHA-256 → stored bytes, and back. Content that does
//! not match its hash is never handed out as sound.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;

use crate::buffers::Buffers;
use crate::compress::{self, CompressionLevel};
use crate::content::{ContentHash, ContentHasher, StoredHash, StoredHasher};
use crate::encrypt::KeyRing;

mod open;
mod sealing;

pub(crate) use open::open_unproven;
pub use open::{Expected, OpenError, Opened, open_bytes, open_to};
pub use sealing::{SealedContent, Sealing};

/// Bytes that are read, hashed and compressed at a time.
const STEP: usize = 128 * 1024;

/// Turns plain content into stored bytes.
#[derive(Clone, Debug)]
pub struct Sealer {
    level: CompressionLevel,
    keys: Arc<KeyRing>,
    buffers: Arc<Buffers>,
}

/// Stored bytes, in memory, and what they hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    /// What is to be stored.
    pub bytes: Bytes,
    /// BLAKE3 of the plain content.
    pub content: ContentHash,
    /// Size of the plain content in bytes.
    pub plain_size: u64,
    /// SHA-256 of `bytes`.
    pub stored: StoredHash,
    /// Whether they are encrypted.
    pub encrypted: bool,
}

/// The same for content that was sealed in passing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seal {
    /// BLAKE3 of the plain content.
    pub content: ContentHash,
    /// Size of the plain content in bytes.
    pub plain_size: u64,
    /// SHA-256 of the stored bytes.
    pub stored: StoredHash,
    /// Number of stored bytes.
    pub stored_size: u64,
    /// Whether they are encrypted.
    pub encrypted: bool,
}

impl Sealer {
    /// Seals with this level, for the ring's recipients if it has any.
    pub fn new(level: CompressionLevel, keys: Arc<KeyRing>) -> Self {
        Self { level, keys, buffers: Arc::default() }
    }

    /// Whether what it seals is encrypted.
    pub fn encrypts(&self) -> bool {
        self.keys.encrypts()
    }

    /// The compression level.
    pub fn level(&self) -> CompressionLevel {
        self.level
    }

    /// The ring, for opening.
    pub fn keys(&self) -> &Arc<KeyRing> {
        &self.keys
    }

    /// Seals content that lies in memory. Fails when the random source or the
    /// compressor does.
    pub fn seal_bytes(&self, plain: &[u8]) -> io::Result<Sealed> {
        let frame = compress::compress(plain, self.level)?;
        self.seal_frames(frame, ContentHash::of(plain), plain.len() as u64)
    }

    /// Seals frames that are compressed already: a pack's.
    pub(crate) fn seal_frames(
        &self,
        frames: Vec<u8>,
        content: ContentHash,
        plain_size: u64,
    ) -> io::Result<Sealed> {
        let bytes = self.sealed(frames)?;
        let (stored, encrypted) = (StoredHash::of(&bytes), self.encrypts());
        Ok(Sealed { bytes, content, plain_size, stored, encrypted })
    }

    /// Seals content whose stored hash nobody needs but the store, which makes its own.
    pub(crate) fn seal_unhashed(&self, plain: &[u8]) -> io::Result<(ContentHash, Bytes)> {
        let frame = compress::compress(plain, self.level)?;
        Ok((ContentHash::of(plain), self.sealed(frame)?))
    }

    fn sealed(&self, frames: Vec<u8>) -> io::Result<Bytes> {
        if self.encrypts() { self.encrypt(&frames) } else { Ok(frames.into()) }
    }

    fn encrypt(&self, frames: &[u8]) -> io::Result<Bytes> {
        let mut writer = self.keys.encryptor(Vec::with_capacity(frames.len() + STEP))?;
        writer.write_all(frames)?;
        writer.finish().map(Bytes::from)
    }

    /// Seals what `plain` gives into `out`, in bounded memory. `plain_size` is
    /// its size when it is known; other content than that many bytes is an error.
    pub fn seal_into(&self, plain: impl Read, plain_size: Option<u64>, out: impl Write) -> io::Result<Seal> {
        let mut out = HashingWriter { out, hasher: StoredHasher::new(), size: 0 };
        let encrypted = self.encrypts();
        let (content, plain_size) = if encrypted {
            let mut age = self.keys.encryptor(&mut out)?;
            let sealed = compress_into(plain, plain_size, self.level, &mut age)?;
            age.finish()?;
            sealed
        } else {
            compress_into(plain, plain_size, self.level, &mut out)?
        };
        out.flush()?;
        Ok(Seal { content, plain_size, stored: out.hasher.finish(), stored_size: out.size, encrypted })
    }
}

fn compress_into(
    mut plain: impl Read,
    plain_size: Option<u64>,
    level: CompressionLevel,
    out: impl Write,
) -> io::Result<(ContentHash, u64)> {
    let mut compressor = compress::compressor(out, level, plain_size)?;
    let mut hasher = ContentHasher::new();
    let size = copy(&mut plain, |bytes| {
        hasher.update(bytes);
        compressor.write_all(bytes)
    })?;
    compressor.finish()?;
    Ok((hasher.finish(), size))
}

/// Reads to the end, handing on every piece.
fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<u64> {
    let mut buffer = vec![0; STEP];
    let mut size = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(read) => {
                to(buffer.get(..read).unwrap_or_default())?;
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

struct HashingWriter<W> {
    out: W,
    hasher: StoredHasher,
    size: u64,
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
#[path = "envelope/tests.rs"]
mod tests;
