//! Getting objects from the store and opening them.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Archive;
use super::pieces_of_body::{ChannelReader, ChannelWriter};
use super::send::panicked;
use crate::content::{ContentHash, ContentHasher};
use crate::envelope::{Expected, OpenError, Opened, open_unproven};
use crate::error::ArchiveError;
use crate::fault_point::{panic_for_a_test, step};
use crate::object_key::ObjectKey;
use crate::store::{ByteStream, StoreError};

/// Plain bytes that go from the opener to the writer at a time.
const PLAIN_PIECE: usize = 256 * 1024;

impl Archive {
    /// Opens the body of an object and writes its content to `out`, in bounded
    /// memory. What was written counts only when this returns `Ok`.
    pub(super) async fn open_body(
        &self,
        key: &ObjectKey,
        body: ByteStream,
        encrypted: bool,
        expected: Expected,
        out: &mut (impl Write + Send),
    ) -> Result<Opened, ArchiveError> {
        let (stored_sender, stored) = mpsc::channel(4);
        let (plain_sender, mut plain) = mpsc::channel(2);
        let feeding = tokio::spawn(feed(body, stored_sender));
        let keys = Arc::clone(self.keys());
        let opening = tokio::task::spawn_blocking(move || {
            panic_for_a_test("opening");
            let mut out = ChannelWriter::new(plain_sender, PLAIN_PIECE);
            let opened =
                open_unproven(&keys, ChannelReader::new(stored), encrypted, expected.limit, &mut out)?;
            out.finish().map(|()| opened).map_err(OpenError::Io)
        });
        let (mut hasher, mut unwritten) = (ContentHasher::new(), None);
        while let Some(piece) = plain.recv().await {
            hasher.update(&piece);
            if let Err(error) = step("write", || out.write_all(&piece)) {
                unwritten = Some(error);
                break;
            }
        }
        drop(plain);
        let plain_size = outcome(key, feeding, opening, unwritten).await?;
        let content = hasher.finish();
        expected.check(content).map_err(|error| ArchiveError::from_open(key, error))?;
        Ok(Opened { content, plain_size })
    }

    /// The same without proof, for one who hashes the content himself before he uses it: it is written
    /// where it is decompressed, on the way of least work.
    pub(super) async fn open_body_unproven(
        &self,
        key: &ObjectKey,
        body: ByteStream,
        encrypted: bool,
        limit: u64,
        mut out: impl Write + Send + 'static,
    ) -> Result<u64, ArchiveError> {
        let (stored_sender, stored) = mpsc::channel(4);
        let feeding = tokio::spawn(feed(body, stored_sender));
        let keys = Arc::clone(self.keys());
        let opening = tokio::task::spawn_blocking(move || {
            open_unproven(&keys, ChannelReader::new(stored), encrypted, limit, &mut out)
        });
        outcome(key, feeding, opening, None).await
    }

    /// The same for an object that is stored as it is: a history file.
    pub(super) async fn copy_body(
        &self,
        key: &ObjectKey,
        mut body: ByteStream,
        limit: u64,
        out: &mut (impl Write + Send),
    ) -> Result<ContentHash, ArchiveError> {
        let (mut hasher, mut size) = (crate::content::ContentHasher::new(), 0);
        while let Some(piece) = body.next().await {
            let piece: Bytes = piece?;
            size += piece.len() as u64;
            if size > limit {
                return Err(ArchiveError::damaged(key, format!("it holds more than {limit} bytes")));
            }
            hasher.update(&piece);
            step("write", || out.write_all(&piece)).map_err(|source| unwritable(key, source))?;
        }
        Ok(hasher.finish())
    }
}

/// Of three sides that can fail, the one that failed first names the cause: the
/// others only see their channel break.
async fn outcome(
    key: &ObjectKey,
    feeding: JoinHandle<Result<(), StoreError>>,
    opening: JoinHandle<Result<u64, OpenError>>,
    unwritten: Option<io::Error>,
) -> Result<u64, ArchiveError> {
    let opened = opening.await.map_err(|error| unreadable(key, panicked(error)));
    // The opener is done with the body, also when it did not want all of it.
    let fed = feeding.await.map_err(|error| unreadable(key, panicked(error)));
    if let Some(source) = unwritten {
        return Err(unwritable(key, source));
    }
    fed??;
    opened?.map_err(|error| ArchiveError::from_open(key, error))
}

/// Hands the body on. That nobody wants the rest of it is no failure here.
async fn feed(mut body: ByteStream, stored: mpsc::Sender<Option<Bytes>>) -> Result<(), StoreError> {
    while let Some(piece) = body.next().await {
        if stored.send(Some(piece?)).await.is_err() {
            return Ok(());
        }
    }
    let _ = stored.send(None).await;
    Ok(())
}

fn unwritable(key: &ObjectKey, source: io::Error) -> ArchiveError {
    ArchiveError::Io { verb: "write", what: format!("the content of \"{key}\""), source }
}

fn unreadable(key: &ObjectKey, source: io::Error) -> ArchiveError {
    ArchiveError::Io { verb: "read", what: format!("the content of \"{key}\""), source }
}
