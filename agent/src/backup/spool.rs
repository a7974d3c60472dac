//! Where what files consist of waits until the manifest is written: their pieces, and the hashes of their windows. A
//! large cluster has more of them than should stand in memory: they lie in a file without a name, and in memory while
//! they are few.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{SpooledTempFile, spooled_tempfile_in};
use walpoint_archive::manifest::{Piece, Windows};
use walpoint_archive::pack::PartOfFrame;
use walpoint_archive::{BackupId, ContentHash};

use super::parent::manifest::IN_MEMORY;
use super::read::assembly::Assembled;

/// Records shorter than this are not worth compressing.
const WORTH_COMPRESSING: usize = 4096;
const LEVEL: i32 = 1;
/// Bytes of a record before its content: the length it has when it is opened, and that it has here.
const HEAD: usize = 8;

/// Records, one behind the other.
#[derive(Debug)]
pub struct Spool(Mutex<SpooledTempFile>);

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolPlace(u64);

impl Spool {
    /// An empty one, which takes its room in this directory.
    pub fn new(directory: &Path) -> Spool {
        Spool(Mutex::new(spooled_tempfile_in(IN_MEMORY, directory)))
    }

    /// Keeps what a file consists of.
    pub fn put(&self, assembled: &Assembled) -> io::Result<SpoolPlace> {
        let Assembled { pieces, windows } = assembled;
        let mut plain = Vec::with_capacity(4 + windows.as_slice().len() * 33 + pieces.len() * 80);
        encode_windows(windows, &mut plain)?;
        pieces.iter().for_each(|piece| encode(piece, &mut plain));
        let kept = match plain.len() {
            ..WORTH_COMPRESSING => None,
            _ => Some(zstd::bulk::compress(&plain, LEVEL)?),
        };
        // One that is as long as before is not compressed: that is how it is told.
        let kept = kept.as_deref().filter(|kept| kept.len() < plain.len()).unwrap_or(&plain);
        let mut record = Vec::with_capacity(HEAD + kept.len());
        record.extend_from_slice(&length(plain.len())?.to_le_bytes());
        record.extend_from_slice(&length(kept.len())?.to_le_bytes());
        record.extend_from_slice(kept);
        let mut file = self.lock();
        let place = SpoolPlace(file.seek(SeekFrom::End(0))?);
        file.write_all(&record)?;
        Ok(place)
    }

    /// What was kept there.
    pub fn get(&self, place: SpoolPlace) -> io::Result<Assembled> {
        let (plain_length, kept) = self.read(place)?;
        let plain = match kept.len() == plain_length {
            true => kept,
            false => zstd::bulk::decompress(&kept, plain_length)?,
        };
        decode_assembled(&plain).ok_or_else(torn)
    }

    fn read(&self, place: SpoolPlace) -> io::Result<(usize, Vec<u8>)> {
        let mut file = self.lock();
        file.seek(SeekFrom::Start(place.0))?;
        let (mut plain, mut kept) = ([0; 4], [0; 4]);
        file.read_exact(&mut plain)?;
        file.read_exact(&mut kept)?;
        let size = |bytes| u32::from_le_bytes(bytes) as usize;
        let mut record = vec![0; size(kept)];
        file.read_exact(&mut record)?;
        Ok((size(plain), record))
    }

    fn lock(&self) -> MutexGuard<'_, SpooledTempFile> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn length(bytes: usize) -> io::Result<u32> {
    u32::try_from(bytes).map_err(|_| io::Error::other("a file has too many pieces"))
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what was kept of a file's pieces is not what is there")
}

/// Appends a piece as it is kept.
pub fn encode(piece: &Piece, out: &mut Vec<u8>) {
    let Piece { file_offset, length, ref backup, pack, pack_offset, stored_length, blake3, part } = *piece;
    let backup = backup.as_ref().map_or("", BackupId::as_str);
    let PartOfFrame { skip, frame_length } = part.unwrap_or(PartOfFrame { skip: 0, frame_length: 0 });
    out.push(u8::try_from(backup.len()).unwrap_or_default());
    out.extend_from_slice(backup.as_bytes());
    for long in [file_offset, pack_offset] {
        out.extend_from_slice(&long.to_le_bytes());
    }
    for short in [length, pack, stored_length, skip, frame_length] {
        out.extend_from_slice(&short.to_le_bytes());
    }
    out.extend_from_slice(blake3.as_bytes());
}

/// The pieces that were [encoded](encode), one behind the other.
pub fn decode_all(mut bytes: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        pieces.push(decode(&mut bytes)?);
    }
    Some(pieces)
}

/// Their number, and each with a byte before it that says whether it has a hash.
fn encode_windows(windows: &Windows, out: &mut Vec<u8>) -> io::Result<()> {
    let windows = windows.as_slice();
    out.extend_from_slice(&length(windows.len())?.to_le_bytes());
    for window in windows {
        out.push(u8::from(window.is_some()));
        out.extend_from_slice(window.as_ref().map_or(&[], |hash| hash.as_bytes().as_slice()));
    }
    Ok(())
}

fn decode_assembled(mut bytes: &[u8]) -> Option<Assembled> {
    let from = &mut bytes;
    let window = |from: &mut &[u8]| match take(from, 1)? {
        [0] => Some(None),
        _ => hash(from).map(Some),
    };
    let windows = (0..short(from)?).map(|_| window(from)).collect::<Option<_>>()?;
    Some(Assembled { windows: Windows::new(windows), pieces: decode_all(from)? })
}

fn decode(from: &mut &[u8]) -> Option<Piece> {
    let name_length = usize::from(*take(from, 1)?.first()?);
    let backup = match std::str::from_utf8(take(from, name_length)?).ok()? {
        "" => None,
        name => Some(name.parse().ok()?),
    };
    let (file_offset, pack_offset) = (long(from)?, long(from)?);
    let (length, pack, stored_length) = (short(from)?, short(from)?, short(from)?);
    let (skip, frame_length) = (short(from)?, short(from)?);
    let blake3 = hash(from)?;
    let part = (frame_length > 0).then_some(PartOfFrame { skip, frame_length });
    Some(Piece { file_offset, length, backup, pack, pack_offset, stored_length, blake3, part })
}

fn take<'b>(from: &mut &'b [u8], bytes: usize) -> Option<&'b [u8]> {
    let (taken, rest) = from.split_at_checked(bytes)?;
    *from = rest;
    Some(taken)
}

fn hash(from: &mut &[u8]) -> Option<ContentHash> {
    take(from, 32)?.first_chunk().map(|bytes| ContentHash::from_bytes(*bytes))
}

fn long(from: &mut &[u8]) -> Option<u64> {
    take(from, 8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn short(from: &mut &[u8]) -> Option<u32> {
    take(from, 4)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn piece() -> impl Strategy<Value = Piece> {
        let part = proptest::option::of((any::<u32>(), 1..=u32::MAX));
        let numbers = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>());
        (numbers, any::<bool>(), any::<[u8; 32]>(), part).prop_map(|(numbers, is_own, hash, part)| {
            let (file_offset, length, pack, pack_offset, stored_length) = numbers;
            Piece {
                file_offset,
                length,
                backup: (!is_own).then(|| "20261120T214500Z-full-3fa9c1".parse().unwrap()),
                pack,
                pack_offset,
                stored_length,
                blake3: ContentHash::from_bytes(hash),
                part: part.map(|(skip, frame_length)| PartOfFrame { skip, frame_length }),
            }
        })
    }

    fn assembled() -> impl Strategy<Value = Assembled> {
        let window = proptest::option::of(any::<[u8; 32]>().prop_map(ContentHash::from_bytes));
        let windows = proptest::collection::vec(window, 0..60).prop_map(Windows::new);
        let pieces = proptest::collection::vec(piece(), 0..150);
        (pieces, windows).prop_map(|(pieces, windows)| Assembled { pieces, windows })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_kept_comes_back_in_any_order(
            files in proptest::collection::vec(assembled(), 1..8),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let spool = Spool::new(directory.path());
            let places: Vec<_> = files.iter().map(|file| spool.put(file).unwrap()).collect();
            for (file, place) in files.iter().zip(&places).rev() {
                prop_assert_eq!(&spool.get(*place).unwrap(), file);
            }
        }
    }

    #[test]
    fn a_spool_leaves_no_file_behind() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path());
        for _ in 0..2 {
            spool.0.lock().unwrap().write_all(&vec![7; IN_MEMORY]).unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
