//! Sorted pieces in a file without a name. What comes back is what was written, or it is an error: by these numbers
//! content goes to its place. So they come in blocks, each behind its hash, and none is used before its block is whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use walpoint_archive::ContentHash;
use walpoint_archive::fault_point::step;
use walpoint_archive::pack::{PartOfFrame, PiecePlace};

use super::{PackPiece, PieceWork};

/// Bytes of a piece.
const RECORD: usize = 68;

/// Bytes that a piece takes with its part of a hash, at most.
pub(super) const ROOM: u64 = RECORD as u64 + 1;

/// Pieces of a block: 64 KiB of them. Only the last has fewer.
const IN_BLOCK: usize = if cfg!(test) { 4 } else { 960 };

/// Bytes of a hash.
const HASH: usize = 32;

/// A run that was written.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    records: usize,
}

impl Run {
    /// Writes pieces that come in order.
    pub(super) fn write(
        directory: &Path,
        mut pieces: impl Iterator<Item = io::Result<PackPiece>>,
    ) -> io::Result<Run> {
        let mut file = step("make a file without a name", || tempfile::tempfile_in(directory))?;
        let (mut records, mut block) = (0, Vec::with_capacity(IN_BLOCK * RECORD));
        loop {
            block.clear();
            for piece in pieces.by_ref().take(IN_BLOCK) {
                block.extend_from_slice(&encode(&piece?)?);
                records += 1;
            }
            if block.is_empty() {
                return Ok(Run { file, records });
            }
            let hash = ContentHash::of(&block);
            step("write", || file.write_all(hash.as_bytes()).and_then(|()| file.write_all(&block)))?;
        }
    }

    #[cfg(test)]
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// From its beginning.
    pub(super) fn read(mut self) -> io::Result<RunReader> {
        self.file.seek(SeekFrom::Start(0))?;
        Ok(RunReader { stored: self.file, left: self.records, block: Vec::new(), taken: 0 })
    }
}

/// A run as it is read.
#[derive(Debug)]
pub(super) struct RunReader {
    stored: File,
    /// Pieces behind the block.
    left: usize,
    block: Vec<u8>,
    /// Bytes that were taken of it.
    taken: usize,
}

impl RunReader {
    fn read_block(&mut self) -> io::Result<()> {
        let records = self.left.min(IN_BLOCK);
        let mut hash = [0; HASH];
        self.stored.read_exact(&mut hash)?;
        self.block.resize(records * RECORD, 0);
        self.stored.read_exact(&mut self.block)?;
        if ContentHash::of(&self.block) != ContentHash::from_bytes(hash) {
            return Err(torn());
        }
        (self.left, self.taken) = (self.left - records, 0);
        Ok(())
    }

    fn take(&mut self) -> Option<PackPiece> {
        let record = self.block.get(self.taken..)?.first_chunk()?;
        self.taken += RECORD;
        decode(record)
    }
}

impl Iterator for RunReader {
    type Item = io::Result<PackPiece>;

    fn next(&mut self) -> Option<io::Result<PackPiece>> {
        if self.taken == self.block.len() {
            if self.left == 0 {
                return None;
            }
            if let Err(error) = self.read_block() {
                // Nothing comes after it.
                (self.left, self.taken) = (0, self.block.len());
                return Some(Err(error));
            }
        }
        Some(self.take().ok_or_else(torn))
    }
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what was kept is not what is there")
}

fn encode(piece: &PackPiece) -> io::Result<[u8; RECORD]> {
    let PackPiece { pack, piece: PieceWork { file, offset, place } } = *piece;
    let PiecePlace { offset: pack_offset, stored_length, length, hash, part } = place;
    let PartOfFrame { skip, frame_length } = part.unwrap_or(PartOfFrame { skip: 0, frame_length: 0 });
    let too_large = |_| io::Error::other("a file's number or a place in a pack is too large");
    let file = u32::try_from(file).map_err(too_large)?;
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
