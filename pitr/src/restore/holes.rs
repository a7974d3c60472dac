//! Pieces that are not written: whole ones, all zero, of a new file, which was made at its full size and is zero there
//! already. They take no room, as they took none on the server: PostgreSQL leaves holes where it extends a relation
//! without writing, and a copy that filled them could need a disk many times as large.

use walpoint_archive::ContentHash;
use walpoint_archive::manifest::Piece;
use walpoint_archive::pack::MAX_PIECE_BYTES;

/// Whether a piece need not be written into a new file.
pub(super) fn is_hole(plain: &[u8]) -> bool {
    plain.len() >= MAX_PIECE_BYTES && plain.iter().all(|byte| *byte == 0)
}

/// Tells the same by a manifest.
#[derive(Debug)]
pub(super) struct Holes(ContentHash);

impl Holes {
    pub(super) fn new() -> Holes {
        Holes(ContentHash::of(&vec![0; MAX_PIECE_BYTES]))
    }

    /// The bytes of these pieces that will not be written.
    pub(super) fn bytes(&self, pieces: &[Piece]) -> u64 {
        let is_hole = |it: &&Piece| it.length as usize == MAX_PIECE_BYTES && it.blake3 == self.0;
        pieces.iter().filter(is_hole).map(|it| u64::from(it.length)).sum()
    }
}
