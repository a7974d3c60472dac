//! Sealing content and putting it into the store.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::Archive;
use super::pieces_of_body::ChannelWriter;
use crate::content::ContentHash;
use crate::envelope::{Seal, Sealed, SealedContent};
use crate::error::ArchiveError;
use crate::fault_point::panic_for_a_test;
use crate::object_key::ObjectKey;
use crate::store::{Metadata, PART_BYTES, PutMode, PutOutcome, Upload};

/// Content up to this size is sealed in memory; larger content on the way, in
/// parts. Twice this, and some, is held at most.
pub const SEALED_IN_MEMORY: u64 = 32 * 1024 * 1024;

/// Where the plain content comes from.
#[derive(Clone, Debug)]
pub enum PutSource {
    /// Memory.
    Bytes(Bytes),
    /// A file that is open; it is read from its beginning whatever its position is.
    File(Arc<File>),
    /// It was sealed while somebody looked at it, by this archive's sealer.
    Sealed(SealedContent),
}

impl PutSource {
    fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            Self::File(file) => Ok(Box::new(FileReader { file: Arc::clone(file), position: 0 })),
            Self::Sealed(_) => Err(io::Error::other("it is sealed, and is not opened again")),
        }
    }

    /// All of it, when it is as large as it is said to be.
    pub(super) fn read(&self, size: u64) -> io::Result<Bytes> {
        if let Self::Bytes(bytes) = self {
            return Ok(bytes.clone());
        }
        let mut plain = Vec::with_capacity(usize::try_from(size).unwrap_or_default() + 1);
        self.reader()?.take(size + 1).read_to_end(&mut plain)?;
        Ok(plain.into())
    }
}

/// Reads a file by position: others may hold it too.
struct FileReader {
    file: Arc<File>,
    position: u64,
}

impl Read for FileReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// What content must turn out to be while it is sealed.
pub(super) struct Content {
    pub hash: ContentHash,
    pub size: u64,
}

/// What became of sending content.
pub(super) enum Sent {
    /// The object is there.
    Put(PutOutcome),
    /// The source gave other content than was announced, and nothing was put.
    Changed,
}

impl Archive {
    /// Seals content and puts it.
    pub(super) async fn seal_and_put(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        content: Content,
        source: &PutSource,
    ) -> Result<Sent, ArchiveError> {
        if let PutSource::Sealed(sealed) = source {
            let (encrypted, is_whole) = (self.sealer.encrypts(), sealed.plain_size == content.size);
            return match sealed.content == content.hash && is_whole && sealed.encrypted == encrypted {
                true => self.put_bytes(key, sealed.bytes.clone(), metadata).await.map(Sent::Put),
                false => Ok(Sent::Changed),
            };
        }
        if content.size > SEALED_IN_MEMORY {
            return self.seal_and_upload(key, metadata, content, source).await;
        }
        let (sealer, source) = (self.sealer.clone(), source.clone());
        let seal = move || {
            panic_for_a_test("sealing");
            sealer.seal_unhashed(&source.read(content.size)?)
        };
        let sealed = tokio::task::spawn_blocking(seal).await;
        let (hash, bytes) =
            sealed.map_err(panicked).and_then(|sealed| sealed).map_err(|error| unsealed(key, error))?;
        if hash != content.hash {
            return Ok(Sent::Changed);
        }
        self.put_bytes(key, bytes, metadata).await.map(Sent::Put)
    }

    /// Seals content that lies in memory.
    pub(super) async fn seal(&self, key: &str, plain: Bytes) -> Result<Sealed, ArchiveError> {
        let sealer = self.sealer.clone();
        let sealed = tokio::task::spawn_blocking(move || sealer.seal_bytes(&plain)).await;
        sealed.map_err(panicked).and_then(|sealed| sealed).map_err(|error| unsealed(key, error))
    }

    /// Puts stored bytes: in one request as far as one takes them.
    pub(super) async fn put_bytes(
        &self,
        key: &ObjectKey,
        mut bytes: Bytes,
        metadata: &Metadata,
    ) -> Result<PutOutcome, ArchiveError> {
        if bytes.len() <= PART_BYTES {
            return Ok(self.store.put(key, bytes, metadata, PutMode::CreateOnly).await?);
        }
        let mut upload = self.store.begin_upload(key, metadata, PutMode::CreateOnly).await?;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(PART_BYTES));
            if let Err(error) = upload.part(part).await {
                give_up(upload).await;
                return Err(error.into());
            }
        }
        Ok(upload.finish().await?)
    }

    /// Puts so many stored bytes, a part at a time.
    pub(super) async fn put_read<R: Read + Send + 'static>(
        &self,
        key: &ObjectKey,
        size: u64,
        stored: R,
        metadata: &Metadata,
    ) -> Result<PutOutcome, ArchiveError> {
        let (first, mut stored) = read_part(key, stored).await?;
        if size <= PART_BYTES as u64 {
            return self.put_bytes(key, first, metadata).await;
        }
        let mut upload = self.store.begin_upload(key, metadata, PutMode::CreateOnly).await?;
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = upload.part(part).await {
                give_up(upload).await;
                return Err(error.into());
            }
            match read_part(key, stored).await {
                Ok((next, rest)) => (part, stored) = (next, rest),
                Err(error) => {
                    give_up(upload).await;
                    return Err(error);
                }
            }
        }
        Ok(upload.finish().await?)
    }

    async fn seal_and_upload(
        &self,
        key: &ObjectKey,
        metadata: &Metadata,
        content: Content,
        source: &PutSource,
    ) -> Result<Sent, ArchiveError> {
        let (sender, mut parts) = mpsc::channel(1);
        let reader = source.reader().map_err(|error| unsealed(key, error))?;
        let sealer = self.sealer.clone();
        let sealing = tokio::task::spawn_blocking(move || {
            panic_for_a_test("sealing");
            let mut out = ChannelWriter::new(sender, PART_BYTES);
            let seal = sealer.seal_into(reader, Some(content.size), &mut out)?;
            out.finish().map(|()| seal)
        });
        // What compresses well may fit in one put after all.
        let first = parts.recv().await.unwrap_or_default();
        let Some(second) = parts.recv().await else {
            return match sealed(key, sealing.await)? {
                seal if seal.content == content.hash => {
                    self.put_bytes(key, first, metadata).await.map(Sent::Put)
                }
                _ => Ok(Sent::Changed),
            };
        };
        let mut upload = self.store.begin_upload(key, metadata, PutMode::CreateOnly).await?;
        let sent = send_parts(upload.as_mut(), [first, second], &mut parts).await;
        // A sealer that nobody listens to any more ends.
        drop(parts);
        let sealed = sealed(key, sealing.await);
        // Until it is known that all of it was what it should be, nothing may appear.
        match sent.and(sealed) {
            Ok(seal) if seal.content == content.hash => Ok(Sent::Put(upload.finish().await?)),
            Ok(_) => {
                give_up(upload).await;
                Ok(Sent::Changed)
            }
            Err(error) => {
                give_up(upload).await;
                Err(error)
            }
        }
    }
}

/// The next part, or what is left, and the reader of the rest.
async fn read_part<R: Read + Send + 'static>(
    key: &ObjectKey,
    mut from: R,
) -> Result<(Bytes, R), ArchiveError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut part = Vec::with_capacity(PART_BYTES);
        from.by_ref().take(PART_BYTES as u64).read_to_end(&mut part)?;
        Ok((part.into(), from))
    });
    read.await.map_err(panicked).and_then(|read| read).map_err(|error| unsealed(key, error))
}

async fn send_parts(
    upload: &mut dyn Upload,
    first: [Bytes; 2],
    rest: &mut mpsc::Receiver<Bytes>,
) -> Result<(), ArchiveError> {
    for part in first {
        upload.part(part).await?;
    }
    while let Some(part) = rest.recv().await {
        upload.part(part).await?;
    }
    Ok(())
}

/// What was sent is of no use; that it could not be removed changes nothing.
async fn give_up(mut upload: Box<dyn Upload>) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%error, "parts of an upload that failed may remain in the store");
    }
}

fn sealed(key: &ObjectKey, sealing: Result<io::Result<Seal>, JoinError>) -> Result<Seal, ArchiveError> {
    sealing.map_err(panicked).and_then(|sealed| sealed).map_err(|error| unsealed(key, error))
}

fn unsealed(key: impl ToString, source: io::Error) -> ArchiveError {
    ArchiveError::Io { verb: "read", what: format!("the content for \"{}\"", key.to_string()), source }
}

/// A panic in a task is a failure of what was asked for, never a success.
pub(super) fn panicked(error: JoinError) -> io::Error {
    io::Error::other(error)
}
