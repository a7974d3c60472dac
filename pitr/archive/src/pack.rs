//! Packs: many pieces of files in one object. Each piece is a zstd frame of its
//! own, so it can be read without the others; the frames lie one behind the
//! other, and the whole is one age file when encrypted. `age -d | zstd -d`
//! prints the plain pieces one after the other.

use std::io;

use serde::{Deserialize, Serialize};

use crate::compress::{self, CompressionLevel};
use crate::content::{ContentHash, ContentHasher};
use crate::encrypt::{DecryptFailure, KeyRing};
use crate::envelope::{OpenError, Sealed, Sealer};

mod sealed;
mod walk;

pub use sealed::{HEAD_BYTES, SealedHead};
pub use walk::{Frame, FrameWalk, WalkedPack};

/// Most bytes of a file in one piece. Small enough to be held, fetched and
/// verified by many workers at once; large enough that the line it takes in the
/// manifest is 0.01 % of it.
pub const MAX_PIECE_BYTES: usize = 1024 * 1024;

/// Most stored bytes of a pack: what one put takes, so that a pack needs no
/// multipart upload and can be sealed and sent again from memory.
pub const MAX_PACK_BYTES: usize = crate::store::PART_BYTES;

/// Most bytes of frames in a pack: [`MAX_PACK_BYTES`] less what age adds, 16
/// bytes for each 64 KiB and a header that grows with the recipients.
const MAX_FRAME_BYTES: usize = MAX_PACK_BYTES - 32 * 1024;

/// Most stored bytes of one piece: what zstd makes of a piece that does not compress.
pub const MAX_STORED_PIECE_BYTES: usize = MAX_PIECE_BYTES + 64 * 1024;

/// Where a piece lies in its pack, and what it must turn out to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PiecePlace {
    /// Where its frame begins in the concatenated frames (after `age -d`).
    pub offset: u64,
    /// Size of its frame in bytes.
    pub stored_length: u32,
    /// Size of the plain piece in bytes.
    pub length: u32,
    /// BLAKE3 of what its frame holds.
    pub hash: ContentHash,
    /// Which part of its frame it is; `None` when it is all of it.
    pub part: Option<PartOfFrame>,
}

/// Of a frame, the pages that are still as they were when an older backup stored
/// them, while others of the same frame have changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartOfFrame {
    /// Plain bytes of the frame before the part.
    pub skip: u32,
    /// Plain bytes of the whole frame.
    pub frame_length: u32,
}

impl PiecePlace {
    /// Plain bytes of its frame.
    fn frame_length(&self) -> u32 {
        self.part.map_or(self.length, |part| part.frame_length)
    }

    /// The frame that it is in, or a part of.
    pub fn frame(&self) -> Frame {
        Frame {
            offset: self.offset,
            stored_length: self.stored_length,
            length: self.frame_length(),
            hash: self.hash,
        }
    }

    /// What of its frame's plain bytes, opened by [`open_frame`], the piece is.
    pub fn cut<'p>(&self, plain: &'p [u8]) -> Result<&'p [u8], OpenError> {
        let skip = self.part.map_or(0, |part| part.skip) as usize;
        let piece = skip.checked_add(self.length as usize).and_then(|end| plain.get(skip..end));
        piece.ok_or_else(|| OpenError::Damaged("a piece lies outside of its frame".to_owned()))
    }
}

/// Collects pieces until a pack is full.
#[derive(Debug)]
pub struct PackWriter {
    level: CompressionLevel,
    frames: Vec<u8>,
    hasher: ContentHasher,
    plain_size: u64,
}

/// Why a piece cannot go into a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Empty, or larger than [`MAX_PIECE_BYTES`].
    #[error("a piece of {0} bytes is not one of 1 to {MAX_PIECE_BYTES}")]
    PieceSize(usize),
    /// The compressor failed.
    #[error("could not compress a piece: {0}")]
    Compress(#[from] io::Error),
    /// The pack has no room for it.
    #[error("the pack is full")]
    Full,
}

impl PackWriter {
    /// An empty pack whose pieces are compressed at this level.
    pub fn new(level: CompressionLevel) -> Self {
        Self { level, frames: Vec::new(), hasher: ContentHasher::new(), plain_size: 0 }
    }

    /// Whether a piece of that size has room, however badly it compresses.
    pub fn has_room_for(&self, plain_size: usize) -> bool {
        self.frames.len() + compress::compressed_at_most(plain_size) <= MAX_FRAME_BYTES
    }

    /// True when nothing was put into it.
    pub fn is_empty(&self) -> bool {
        self.plain_size == 0
    }

    /// Adds one piece. Ask [`PackWriter::has_room_for`] first.
    pub fn append(&mut self, plain: &[u8]) -> Result<PiecePlace, PackError> {
        if plain.is_empty() || plain.len() > MAX_PIECE_BYTES {
            return Err(PackError::PieceSize(plain.len()));
        }
        if !self.has_room_for(plain.len()) {
            return Err(PackError::Full);
        }
        let frame = compress::compress(plain, self.level)?;
        let place = PiecePlace {
            offset: self.frames.len() as u64,
            stored_length: u32::try_from(frame.len()).map_err(|_| PackError::Full)?,
            length: u32::try_from(plain.len()).map_err(|_| PackError::PieceSize(plain.len()))?,
            hash: ContentHash::of(plain),
            part: None,
        };
        self.frames.extend_from_slice(&frame);
        self.hasher.update(plain);
        self.plain_size += plain.len() as u64;
        Ok(place)
    }

    /// Seals the pack.
    pub fn finish(self, sealer: &Sealer) -> io::Result<Sealed> {
        sealer.seal_frames(self.frames, self.hasher.finish(), self.plain_size)
    }
}

/// The frames of a pack out of its stored bytes. Nothing of them is verified
/// yet but what age verifies: that is done piece by piece.
pub fn open_pack(keys: &KeyRing, stored: Vec<u8>, encrypted: bool) -> Result<Vec<u8>, OpenError> {
    if !encrypted {
        return Ok(stored);
    }
    let mut decrypted = keys.decryptor(stored.as_slice()).map_err(refused)?;
    let mut frames = Vec::with_capacity(stored.len());
    io::Read::read_to_end(&mut decrypted, &mut frames)
        .map_err(|error| OpenError::Damaged(error.to_string()))?;
    Ok(frames)
}

/// Of bytes that lie in memory.
fn refused(failure: DecryptFailure) -> OpenError {
    match failure {
        DecryptFailure::NoKey => OpenError::NoKey,
        DecryptFailure::WrongKey => OpenError::WrongKey,
        DecryptFailure::Damaged(what) => OpenError::Damaged(what),
        DecryptFailure::Io(error) => OpenError::Damaged(error.to_string()),
    }
}

/// The plain bytes of a piece out of its pack's frames, verified.
pub fn read_piece(frames: &[u8], place: &PiecePlace) -> Result<Vec<u8>, OpenError> {
    cut_out(place, open_frame(frames, place)?)
}

/// The plain bytes of all of a piece's frame, verified: what [`PiecePlace::cut`] cuts pieces out of.
pub fn open_frame(frames: &[u8], place: &PiecePlace) -> Result<Vec<u8>, OpenError> {
    let outside = || OpenError::Damaged("a piece lies outside of its pack".to_owned());
    let begin = usize::try_from(place.offset).map_err(|_| outside())?;
    let end = begin.checked_add(place.stored_length as usize).ok_or_else(outside)?;
    open_single(frames.get(begin..end).ok_or_else(outside)?, place)
}

/// Most pieces are all of their frame: then nothing is copied.
fn cut_out(place: &PiecePlace, plain: Vec<u8>) -> Result<Vec<u8>, OpenError> {
    match place.part {
        None => Ok(plain),
        Some(_) => place.cut(&plain).map(<[u8]>::to_vec),
    }
}

fn open_single(frame: &[u8], place: &PiecePlace) -> Result<Vec<u8>, OpenError> {
    let length = place.frame_length() as usize;
    if length > MAX_PIECE_BYTES {
        return Err(OpenError::TooLarge { limit: MAX_PIECE_BYTES as u64 });
    }
    let plain = compress::decompress(frame, length).map_err(|error| OpenError::Damaged(error.to_string()))?;
    match ContentHash::of(&plain) {
        hash if hash == place.hash => Ok(plain),
        hash => {
            Err(OpenError::Damaged(format!("a piece has the content {hash}, expected was {}", place.hash)))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::encrypt::tests::key_pair;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn sealer(keys: KeyRing) -> Sealer {
        Sealer::new(CompressionLevel::default(), Arc::new(keys))
    }

    fn noise(size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn pack_of(pieces: &[Vec<u8>], keys: KeyRing) -> (Vec<PiecePlace>, Sealed) {
        let mut pack = PackWriter::new(CompressionLevel::default());
        let places = pieces.iter().map(|piece| pack.append(piece).unwrap()).collect();
        (places, pack.finish(&sealer(keys)).unwrap())
    }

    #[test]
    fn every_piece_comes_back_from_a_plain_and_from_an_encrypted_pack() {
        let pieces = [b"a".to_vec(), noise(MAX_PIECE_BYTES), vec![0; 300_000]];
        let (seals, opens) = key_pair();
        for (seals, opens) in [(KeyRing::default(), KeyRing::default()), (seals, opens)] {
            let (places, sealed) = pack_of(&pieces, seals);
            assert_eq!(sealed.content, ContentHash::of(&pieces.concat()));
            assert_eq!(sealed.plain_size, pieces.concat().len() as u64);
            let frames = open_pack(&opens, sealed.bytes.to_vec(), sealed.encrypted).unwrap();
            for (piece, place) in pieces.iter().zip(&places) {
                assert!(&read_piece(&frames, place).unwrap() == piece);
            }
            // What stock zstd makes of the frames, one behind the other.
            assert!(zstd::stream::decode_all(frames.as_slice()).unwrap() == pieces.concat());
        }
    }

    #[test]
    fn a_full_pack_of_what_does_not_compress_fits_in_one_put() {
        let identity = age::x25519::Identity::generate().to_public().to_string();
        let config = crate::config::EncryptionConfig {
            recipients: vec![identity; crate::encrypt::MAX_RECIPIENTS],
            identity_file: None,
        };
        let keys = KeyRing::from_config(&config).unwrap();
        let (piece, mut pack) = (noise(MAX_PIECE_BYTES), PackWriter::new(CompressionLevel::default()));
        assert!(pack.is_empty());
        let mut count = 0;
        while pack.has_room_for(piece.len()) {
            let place = pack.append(&piece).unwrap();
            assert!(place.stored_length as usize <= MAX_STORED_PIECE_BYTES);
            count += 1;
        }
        assert!(matches!(pack.append(&piece), Err(PackError::Full)));
        while pack.has_room_for(1) {
            pack.append(b"x").unwrap();
        }
        assert!(count >= 15 && pack.finish(&sealer(keys)).unwrap().bytes.len() <= MAX_PACK_BYTES);
    }

    #[test]
    fn pieces_of_no_or_too_many_bytes_are_refused() {
        let mut pack = PackWriter::new(CompressionLevel::default());
        assert!(matches!(pack.append(b""), Err(PackError::PieceSize(0))));
        assert!(matches!(pack.append(&noise(MAX_PIECE_BYTES + 1)), Err(PackError::PieceSize(_))));
        assert!(pack.is_empty());
    }

    #[test]
    fn a_part_of_a_frame_is_cut_out_of_it_and_never_from_beside_it() {
        let piece = noise(3 * 8192);
        let (places, sealed) = pack_of(std::slice::from_ref(&piece), KeyRing::default());
        let part = |skip, length, frame_length| {
            let part = Some(PartOfFrame { skip, frame_length });
            read_piece(&sealed.bytes, &PiecePlace { length, part, ..places[0] })
        };
        assert!(part(8192, 8192, 3 * 8192).unwrap() == piece[8192..2 * 8192]);
        assert!(part(0, 8192, 3 * 8192).unwrap() == piece[..8192]);
        assert!(part(2 * 8192, 8192, 3 * 8192).unwrap() == piece[2 * 8192..]);
        for (skip, length, frame_length) in
            [(2 * 8192, 8193, 3 * 8192), (u32::MAX, 1, 3 * 8192), (0, u32::MAX, 3 * 8192), (0, 8192, 8192)]
        {
            assert!(matches!(part(skip, length, frame_length), Err(OpenError::Damaged(_))));
        }
        assert!(matches!(part(0, 1, u32::MAX), Err(OpenError::TooLarge { .. })));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let piece = b"some page, some page, some page".to_vec();
        let (places, sealed) = pack_of(std::slice::from_ref(&piece), KeyRing::default());
        for byte in 0..sealed.bytes.len() {
            for bit in 0..8 {
                let mut frames = sealed.bytes.to_vec();
                frames[byte] ^= 1 << bit;
                if let Ok(plain) = read_piece(&frames, &places[0]) {
                    assert_eq!(plain, piece, "byte {byte} bit {bit}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_place_in_any_bytes_gives_an_error(
            frames in proptest::collection::vec(any::<u8>(), 0..100),
            offset: u64, stored_length: u32, length: u32, near in 0u64..120,
        ) {
            let hash = ContentHash::of(b"expected");
            for offset in [offset, near] {
                for (stored_length, length) in [(stored_length, length), (stored_length % 100, length % 4096)] {
                    let place = PiecePlace { offset, stored_length, length, hash, part: None };
                    prop_assert!(read_piece(&frames, &place).is_err());
                }
            }
        }
    }
}
