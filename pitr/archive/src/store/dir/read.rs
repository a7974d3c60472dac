//! Reading an object from its files.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::failure::Attempt;
use super::{folder, meta, run_blocking};
use crate::object_key::ObjectKey;
use crate::store::{ByteStream, Metadata, Object, StoreError, StoreErrorKind};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1024 * 1024;

/// How often an object and its metadata are looked at again when they do not
/// fit: somebody may just be replacing both.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(25);

/// An object whose file and metadata fit.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) metadata: Metadata,
    pub(super) size: u64,
}

/// Opens an object's file and reads its metadata.
pub(super) fn open(root: &Path, key: &ObjectKey, attempt: &Attempt) -> Result<Opened, StoreError> {
    let mut look = 1;
    loop {
        let (opened, said) = open_once(root, key, attempt)?;
        if opened.size == said {
            return Ok(opened);
        }
        if look == LOOKS {
            let detail = format!("its file has {} bytes, {said} were stored", opened.size);
            return Err(attempt.error(StoreErrorKind::Damaged, detail));
        }
        look += 1;
        std::thread::sleep(BETWEEN_LOOKS);
    }
}

/// The object as its file is, and the size that its metadata says.
fn open_once(root: &Path, key: &ObjectKey, attempt: &Attempt) -> Result<(Opened, u64), StoreError> {
    let (folders, name) = folder::split(key);
    let folder = folder::open(root, &folders, attempt)?.ok_or_else(|| attempt.not_found())?;
    let file = meta::open_file(&folder, name, attempt)?.ok_or_else(|| attempt.not_found())?;
    let meta = meta::read(&folder, name, attempt)?.ok_or_else(|| attempt.not_found())?;
    let size = file.metadata().map_err(|error| attempt.io("look at its file", &error))?.len();
    Ok((Opened { file, metadata: meta.metadata, size }, meta.size))
}

/// The object with the bytes that were asked for.
pub(super) fn object(opened: Opened, range: Option<Range<u64>>, attempt: Attempt) -> Object {
    let Opened { file, metadata, size } = opened;
    let range = range.unwrap_or(0..size);
    let wanted = range.start.min(size)..range.end.min(size);
    Object { metadata, size, body: body(file, wanted, attempt) }
}

fn body(file: File, wanted: Range<u64>, attempt: Attempt) -> ByteStream {
    let file = Arc::new(file);
    futures::stream::try_unfold(wanted.start, move |at| {
        let (file, attempt) = (Arc::clone(&file), attempt.clone());
        let left = wanted.end.saturating_sub(at);
        async move {
            if left == 0 {
                return Ok(None);
            }
            let length = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let bytes = run_blocking(attempt, move |attempt| chunk(&file, at, length, attempt)).await?;
            let next = at + bytes.len() as u64;
            Ok(Some((bytes, next)))
        }
    })
    .boxed()
}

fn chunk(file: &File, at: u64, length: usize, attempt: &Attempt) -> Result<Bytes, StoreError> {
    let mut buffer = vec![0; length];
    match file.read_exact_at(&mut buffer, at) {
        Ok(()) => Ok(buffer.into()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(attempt.error(StoreErrorKind::Damaged, "its file became shorter while it was read"))
        }
        Err(error) => Err(attempt.io("read its file", &error)),
    }
}
