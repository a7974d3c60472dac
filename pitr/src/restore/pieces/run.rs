//! Sorted pieces in a file without a name. What comes back is what was written, or it is an error: by these numbers
//! content goes to its place.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use walpoint_archive::ContentHash;
use walpoint_archive::content::ContentHasher;
use walpoint_archive::fault_point::step;
use walpoint_archive::pack::{PartOfFrame, PiecePlace};

use super::{PackPiece, PieceWork};

const RECORD: usize = 68;
const BUFFER: usize = 64 * 1024;

/// A run that was written.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    records: u64,
    hash: ContentHash,
}

impl Run {
    /// Writes pieces that come in order.
    pub(super) fn write(
        directory: &Path,
        pieces: impl Iterator<Item = io::Result<PackPiece>>,
    ) -> io::Result<Run> {
        let file = step("make a file without a name", || tempfile::tempfile_in(directory))?;
        let mut out = BufWriter::with_capacity(BUFFER, Hashed::new(file));
        let mut records = 0;
        for piece in pieces {
            out.write_all(&encode(&piece?)?)?;
            records += 1;
        }
        let Hashed { file, hasher } =
            step("write", || out.into_inner().map_err(io::IntoInnerError::into_error))?;
        Ok(Run { file, records, hash: hasher.finish() })
    }

    #[cfg(test)]
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// From its beginning.
    pub(super) fn read(mut self) -> io::Result<RunReader> {
        self.file.seek(SeekFrom::Start(0))?;
        let stored = BufReader::with_capacity(BUFFER, Hashed::new(self.file));
        Ok(RunReader { stored, left: self.records, hash: Some(self.hash) })
    }
}

/// A run as it is read.
#[derive(Debug)]
pub(super) struct RunReader {
    stored: BufReader<Hashed>,
    left: u64,
    /// What was written, until that is compared.
    hash: Option<ContentHash>,
}

impl Iterator for RunReader {
    type Item = io::Result<PackPiece>;

    fn next(&mut self) -> Option<io::Result<PackPiece>> {
        if self.left == 0 {
            let hash = self.hash.take()?;
            let read = self.stored.get_ref().hasher.finish();
            return (read != hash).then(|| Err(torn()));
        }
        self.left -= 1;
        let mut record = [0; RECORD];
        let read = self.stored.read_exact(&mut record);
        Some(read.and_then(|()| decode(&record).ok_or_else(torn)))
    }
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what was kept is not what is there")
}

/// A file, and the hash of what went through.
#[derive(Debug)]
struct Hashed {
    file: File,
    hasher: ContentHasher,
}

impl Hashed {
    fn new(file: File) -> Hashed {
        Hashed { file, hasher: ContentHasher::new() }
    }

    fn through(&mut self, bytes: &[u8], count: usize) -> usize {
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        count
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        Ok(self.through(bytes, written))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for Hashed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(bytes)?;
        Ok(self.through(bytes, read))
    }
}

fn encode(piece: &PackPiece) -> io::Result<[u8; RECORD]> {
    let PackPiece { pack, piece: PieceWork { file, offset, place } } = *piece;
    let PiecePlace { offset: pack_offset, stored_length, length, hash, part } = place;
    let PartOfFrame { skip, frame_length } = part.unwrap_or(PartOfFrame { skip: 0, frame_length: 0 });
    let too_large = |_| io::Error::other("there are too many files");
    let file = u32::try_from(file).map_err(too_large)?;
    // Packs are smaller.
    let pack_offset = u32::try_from(pack_offset).map_err(too_large)?;
    let mut record = [0; RECORD];
    let mut out = record.as_mut_slice();
    out.write_all(&offset.to_le_bytes())?;
    for short in [pack, file, pack_offset, stored_length, length, skip, frame_length] {
        out.write_all(&short.to_le_bytes())?;
    }
    out.write_all(hash.as_bytes())?;
    Ok(record)
}

fn decode(record: &[u8; RECORD]) -> Option<PackPiece> {
    let (offset, rest) = record.split_first_chunk()?;
    let (shorts, hash) = rest.split_at_checked(7 * 4)?;
    let mut shorts = shorts.chunks_exact(4).filter_map(|bytes| bytes.first_chunk().copied());
    let mut short = || shorts.next().map(u32::from_le_bytes);
    let (pack, file, pack_offset) = (short()?, short()?, short()?);
    let (stored_length, length, skip, frame_length) = (short()?, short()?, short()?, short()?);
    let part = (frame_length > 0).then_some(PartOfFrame { skip, frame_length });
    let hash = ContentHash::from_bytes(*hash.first_chunk()?);
    let place = PiecePlace { offset: pack_offset.into(), stored_length, length, hash, part };
    let piece = PieceWork { file: file as usize, offset: u64::from_le_bytes(*offset), place };
    Some(PackPiece { pack, piece })
}
