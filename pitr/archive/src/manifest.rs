//! A backup's manifest: every file, where each of its pieces lies, and the
//! checksum of each piece. It is complete: an incremental lists every piece it
//! needs, those in older backups' packs too, so no chain is walked at restore.
//! There is no hash of a whole file: one assembled from two backups may differ
//! in hint bits, and its integrity is that of its pieces and its length.
//!
//! JSON lines: a header, the entries in the order of their paths' bytes, a
//! trailer with their number and the SHA-256 of all bytes before it. Both sides
//! keep memory bounded: a line has at most [`MAX_LINE_BYTES`], and a file with
//! more than [`PIECES_PER_LINE`] pieces goes on in further lines.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use walpoint_wal::SystemIdentifier;

use crate::backup_id::BackupId;
use crate::content::ContentHash;
use crate::pack::{MAX_PIECE_BYTES, MAX_STORED_PIECE_BYTES, PartOfFrame, PiecePlace};
use crate::relative_path::RelativePath;

mod columns;
mod line;
mod order;
mod read;
#[cfg(test)]
mod tests;
mod windows;
mod write;

pub use read::{ManifestContent, ManifestPart, ManifestReader};
pub use windows::Windows;
pub use write::ManifestWriter;

/// Most pieces on one line.
pub const PIECES_PER_LINE: usize = 4096;

/// Most windows on one line.
pub const WINDOWS_PER_LINE: usize = 2048;

/// Longest line in bytes, its end included: [`PIECES_PER_LINE`] pieces with
/// every number at its longest, [`WINDOWS_PER_LINE`] windows, and a path.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// Where configuration files from outside the data directory are put.
pub const CONFIG_FOLDER: &str = "walpoint-config";

/// Where links to tablespaces lie.
pub const TABLESPACE_FOLDER: &str = "pg_tblspc";

/// What a manifest is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestHeader {
    /// The backup.
    pub backup: BackupId,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
}

/// One thing in a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestEntry {
    /// Where it is put, below the data directory. A tablespace's files have the
    /// path through its link: `pg_tblspc/16385/PG_15_202209061/5/16400`.
    pub path: RelativePath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits; 0 for a tablespace.
    pub mode: u32,
    /// Size in bytes; 0 for what is not a file.
    pub size: u64,
    /// What it consists of, from its first byte to its last.
    pub pieces: Vec<Piece>,
    /// By what else it is told that a copy of it is the same.
    pub windows: Windows,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A file of the data directory or of a tablespace.
    File,
    /// A directory.
    Dir,
    /// `pg_tblspc/<oid>`: the link to a tablespace.
    Tablespace {
        /// The tablespace's OID.
        oid: u32,
        /// Where it lay on the server, absolute.
        target: PathBuf,
    },
    /// A configuration file from outside the data directory, put below
    /// [`CONFIG_FOLDER`]; the folders above it are made as needed.
    Config {
        /// Where it lay on the server, absolute.
        original: PathBuf,
    },
}

impl EntryKind {
    /// Whether it has content.
    pub fn is_file(&self) -> bool {
        matches!(self, Self::File | Self::Config { .. })
    }
}

/// A run of a file's bytes, and where it is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Its size in bytes, plain.
    pub length: u32,
    /// The backup whose pack it is in; `None` for the manifest's own.
    pub backup: Option<BackupId>,
    /// The pack's number in that backup.
    pub pack: u32,
    /// Where its frame begins in the pack's concatenated frames.
    pub pack_offset: u64,
    /// Size of its frame in bytes.
    pub stored_length: u32,
    /// BLAKE3 of the plain bytes of its frame.
    pub blake3: ContentHash,
    /// Which part of its frame it is; `None` when it is all of it.
    pub part: Option<PartOfFrame>,
}

impl Piece {
    /// A piece that was put into this backup's pack.
    pub fn new(file_offset: u64, pack: u32, place: PiecePlace) -> Self {
        Self {
            file_offset,
            length: place.length,
            backup: None,
            pack,
            pack_offset: place.offset,
            stored_length: place.stored_length,
            blake3: place.hash,
            part: place.part,
        }
    }

    /// Where it lies in its pack.
    pub fn place(&self) -> PiecePlace {
        PiecePlace {
            offset: self.pack_offset,
            stored_length: self.stored_length,
            length: self.length,
            hash: self.blake3,
            part: self.part,
        }
    }

    /// Its pack, as [`crate::summary::BackupSummary::packs_by_number`] names it.
    pub fn pack_of(&self, manifest: &BackupId) -> (BackupId, u32) {
        (self.backup.clone().unwrap_or_else(|| manifest.clone()), self.pack)
    }
}

/// What a manifest holds in all: its last line.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ManifestTotals {
    /// Number of entries.
    pub entries: u64,
    /// Number of those with content.
    pub files: u64,
    /// Size of their content in bytes.
    pub bytes: u64,
}

impl ManifestTotals {
    fn count(&mut self, entry: &ManifestEntry) {
        self.entries += 1;
        if entry.kind.is_file() {
            self.files += 1;
            self.bytes = self.bytes.saturating_add(entry.size);
        }
    }
}

/// What is wrong with a manifest, or with what should become one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a sound manifest.
    #[error("line {line} of the manifest is not sound: {what}")]
    Damaged {
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Made by a later version.
    #[error("the manifest has format {0}, which this program does not know")]
    UnknownFormat(u32),
    /// It could not be read or written.
    #[error("could not read or write the manifest: {0}")]
    Io(#[from] std::io::Error),
}

/// That an entry's pieces are what its size says, without a gap, an overlap or
/// a piece that could not be.
fn check_pieces(size: u64, pieces: &[Piece]) -> Result<(), String> {
    let mut check = PiecesCheck::new(size);
    pieces.iter().try_for_each(|piece| check.take(piece))?;
    check.finish()
}

/// The same, of pieces as they come.
#[derive(Debug)]
struct PiecesCheck {
    size: u64,
    end: u64,
}

impl PiecesCheck {
    fn new(size: u64) -> PiecesCheck {
        PiecesCheck { size, end: 0 }
    }

    fn take(&mut self, piece: &Piece) -> Result<(), String> {
        if piece.file_offset != self.end {
            return Err(format!("a piece begins at {}, expected was {}", piece.file_offset, self.end));
        }
        if piece.length == 0 || piece.length as usize > MAX_PIECE_BYTES {
            return Err(format!("a piece has {} bytes", piece.length));
        }
        if let Some(part) = piece.part
            && !is_part(part, piece.length)
        {
            return Err(format!("a piece is {} bytes of a frame of {}", piece.length, part.frame_length));
        }
        if piece.stored_length == 0 || piece.stored_length as usize > MAX_STORED_PIECE_BYTES {
            return Err(format!("a piece has {} stored bytes", piece.stored_length));
        }
        self.end = self.end.checked_add(piece.length.into()).ok_or("its pieces are too large")?;
        Ok(())
    }

    fn finish(&self) -> Result<(), String> {
        let PiecesCheck { size, end } = self;
        if end == size { Ok(()) } else { Err(format!("its pieces have {end} bytes, its size is {size}")) }
    }
}

/// What is all of a frame is written as such, and is no part.
fn is_part(part: PartOfFrame, length: u32) -> bool {
    let end = part.skip.checked_add(length);
    length < part.frame_length
        && part.frame_length as usize <= MAX_PIECE_BYTES
        && end.is_some_and(|end| end <= part.frame_length)
}
