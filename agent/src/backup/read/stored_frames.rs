//! The frames that an interrupted backup stored of one file. The backup that goes on reads the file again, chooses anew
//! what of it is stored, and puts that into frames; one that was stored already is only named.
//!
//! Why that is right: a frame is found by the BLAKE3 of all that is in it, and in it is what was read just now. So the
//! manifest names what was read now, whoever stored it: a page that has changed since makes another frame. That holds
//! for whole windows as for frames of changed pages that an incremental backup gathers; which pages those are is asked
//! of the parent alone, never of what was stored.

use std::collections::{BTreeSet, HashMap};

use walpoint_archive::ContentHash;
use walpoint_archive::manifest::Piece;
use walpoint_archive::pack::PiecePlace;

use super::super::packs::PlacedPiece;

/// Frames of one file in packs that are sound.
#[derive(Debug, Default)]
pub struct StoredFrames {
    by_content: HashMap<ContentHash, PlacedPiece>,
    begins: BTreeSet<u64>,
}

impl StoredFrames {
    /// By pieces of the file, among them the one that each frame begins with.
    pub fn of(pieces: &[Piece]) -> StoredFrames {
        let begins = pieces.iter().filter(|piece| is_first(piece));
        let frame = |piece: &Piece| {
            let place = PiecePlace { length: piece.place().frame().length, part: None, ..piece.place() };
            (piece.blake3, PlacedPiece { pack: piece.pack, place })
        };
        StoredFrames {
            begins: begins.clone().map(|piece| piece.file_offset).collect(),
            by_content: begins.map(frame).collect(),
        }
    }

    /// Where these very bytes are a frame.
    pub fn find(&self, plain: &[u8]) -> Option<PlacedPiece> {
        match self.by_content.is_empty() {
            true => None,
            false => self.by_content.get(&ContentHash::of(plain)).copied(),
        }
    }

    /// Whether one begins with what is at this place of the file.
    pub fn begins_at(&self, offset: u64) -> bool {
        self.begins.contains(&offset)
    }

    /// Where the next one begins, behind this place.
    pub fn next_begin(&self, offset: u64) -> Option<u64> {
        self.begins.range(offset.saturating_add(1)..).next().copied()
    }
}

/// Whether its frame begins with this piece, and is this backup's own.
pub fn is_first(piece: &Piece) -> bool {
    piece.backup.is_none() && piece.part.is_none_or(|part| part.skip == 0)
}
