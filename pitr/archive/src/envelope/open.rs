//! Opening: stored bytes back to plain content, which is verified.

use std::io::{self, BufReader, Read, Write};

use super::{STEP, copy};
use crate::compress::FrameReader;
use crate::content::{ContentHash, ContentHasher, ContentId};
use crate::encrypt::{DecryptFailure, KeyRing};

/// Memory taken at once for content whose size is only claimed.
const TRUSTED_CAPACITY: u64 = 16 * 1024 * 1024;

/// What stored bytes must turn out to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// The id in the object's key.
    pub id: Option<ContentId>,
    /// The full hash, from metadata or a summary.
    pub content: Option<ContentHash>,
    /// Most bytes that the content may have.
    pub limit: u64,
}

impl Expected {
    /// Content with this hash and at most `limit` bytes.
    pub fn content(content: ContentHash, limit: u64) -> Self {
        Self { id: Some(content.id()), content: Some(content), limit }
    }

    pub(crate) fn check(&self, found: ContentHash) -> Result<(), OpenError> {
        if self.id.is_some_and(|id| id != found.id()) {
            return Err(OpenError::Damaged(format!("its content is {found}, other than its key says")));
        }
        match self.content {
            Some(expected) if expected != found => {
                Err(OpenError::Damaged(format!("its content is {found}, expected was {expected}")))
            }
            _ => Ok(()),
        }
    }
}

/// Why stored bytes could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// They are not what was stored.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// They are encrypted to other keys (or the header that says so is damaged).
    #[error("it is encrypted, and none of the identities opens it")]
    WrongKey,
    /// They are encrypted and there is no key to try.
    #[error("it is encrypted, and no identity file is configured")]
    NoKey,
    /// They hold more than they should.
    #[error("it holds more than {limit} bytes")]
    TooLarge {
        /// The most that was expected.
        limit: u64,
    },
    /// They could not be read, or the content not be written.
    #[error("{0}")]
    Io(io::Error),
}

/// What was found in stored bytes, verified against what was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// BLAKE3 of the plain content.
    pub content: ContentHash,
    /// Its size in bytes.
    pub plain_size: u64,
}

/// Opens bytes in memory.
pub fn open_bytes(
    keys: &KeyRing,
    stored: &[u8],
    encrypted: bool,
    expected: &Expected,
) -> Result<Vec<u8>, OpenError> {
    let capacity = expected.limit.min(TRUSTED_CAPACITY).min(stored.len() as u64 * 16);
    let mut plain = Vec::with_capacity(usize::try_from(capacity).unwrap_or_default());
    open_to(keys, stored, encrypted, expected, &mut plain)?;
    Ok(plain)
}

/// Opens what `stored` gives and writes the content to `out`, in bounded
/// memory. What was written may be used only when this returns `Ok`.
pub fn open_to(
    keys: &KeyRing,
    stored: impl Read,
    encrypted: bool,
    expected: &Expected,
    out: &mut impl Write,
) -> Result<Opened, OpenError> {
    let mut hashing = Hashing { out, hasher: ContentHasher::new() };
    let plain_size = open_unproven(keys, stored, encrypted, expected.limit, &mut hashing)?;
    let content = hashing.hasher.finish();
    expected.check(content)?;
    Ok(Opened { content, plain_size })
}

struct Hashing<'a, W> {
    out: &'a mut W,
    hasher: ContentHasher,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The same for one who hashes what comes out and compares it with what was expected.
pub(crate) fn open_unproven(
    keys: &KeyRing,
    stored: impl Read,
    encrypted: bool,
    limit: u64,
    out: &mut impl Write,
) -> Result<u64, OpenError> {
    let mut source = Source { stored, failure: None };
    let opened = open_source(keys, BufReader::with_capacity(STEP, &mut source), encrypted, limit, out);
    // A source that could not be read says nothing about the object.
    match source.failure.take() {
        Some(failure) => Err(OpenError::Io(failure)),
        None => opened,
    }
}

fn open_source(
    keys: &KeyRing,
    stored: impl io::BufRead,
    encrypted: bool,
    limit: u64,
    out: &mut impl Write,
) -> Result<u64, OpenError> {
    if !encrypted {
        return decompress_to(stored, limit, out);
    }
    let decrypted = keys.decryptor(stored).map_err(|failure| match failure {
        DecryptFailure::NoKey => OpenError::NoKey,
        DecryptFailure::WrongKey => OpenError::WrongKey,
        DecryptFailure::Damaged(what) => OpenError::Damaged(what),
        DecryptFailure::Io(error) => OpenError::Damaged(error.to_string()),
    })?;
    decompress_to(BufReader::with_capacity(STEP, decrypted), limit, out)
}

fn decompress_to(stored: impl io::BufRead, limit: u64, out: &mut impl Write) -> Result<u64, OpenError> {
    let mut frame = FrameReader::new(stored).map_err(damaged)?;
    let mut writing: Option<io::Error> = None;
    // One byte more than allowed tells "too large" from "ends here".
    let size = copy(&mut frame.by_ref().take(limit.saturating_add(1)), |bytes| {
        out.write_all(bytes).map_err(|error| {
            let kind = error.kind();
            writing = Some(error);
            kind.into()
        })
    });
    if let Some(error) = writing {
        return Err(OpenError::Io(error));
    }
    let plain_size = size.map_err(damaged)?;
    if plain_size > limit {
        return Err(OpenError::TooLarge { limit });
    }
    frame.finish().map_err(damaged)?;
    Ok(plain_size)
}

fn damaged(error: io::Error) -> OpenError {
    OpenError::Damaged(error.to_string())
}

/// Remembers that the source itself failed, which decoders report like damage.
struct Source<R> {
    stored: R,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stored.read(buffer).map_err(|error| {
            if error.kind() == io::ErrorKind::Interrupted {
                return error;
            }
            let kind = error.kind();
            self.failure = Some(error);
            kind.into()
        })
    }
}
