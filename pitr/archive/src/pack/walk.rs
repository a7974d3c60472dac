//! Reads a pack from its first frame to its last, as somebody does who wants to know whether all of it is what was
//! stored: also the frames that nobody asks for.

use std::fmt;
use std::io;

use zstd::bulk::Decompressor;
use zstd::zstd_safe;

use super::MAX_PIECE_BYTES;
use crate::content::{ContentHash, ContentHasher};
use crate::envelope::OpenError;

/// One frame of a pack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Frame {
    /// Where it begins in the concatenated frames.
    pub offset: u64,
    /// Its size in bytes.
    pub stored_length: u32,
    /// Size of what it holds, in bytes.
    pub length: u32,
    /// BLAKE3 of what it holds.
    pub hash: ContentHash,
}

/// What a whole pack turned out to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkedPack {
    /// BLAKE3 of the plain content of all frames, one behind the other.
    pub content: ContentHash,
    /// Number of frames.
    pub frames: u64,
    /// Their plain size in bytes.
    pub plain_size: u64,
}

/// Goes from frame to frame. Memory is that of one piece, whatever the frames claim.
pub struct FrameWalk<'a> {
    frames: &'a [u8],
    decompressor: Decompressor<'static>,
    /// What the frame at hand holds; it never grows.
    plain: Vec<u8>,
    at: usize,
    hasher: ContentHasher,
    walked: u64,
    plain_size: u64,
}

impl<'a> FrameWalk<'a> {
    /// Begins at the first of a pack's frames ([`super::open_pack`]).
    pub fn new(frames: &'a [u8]) -> io::Result<Self> {
        let (decompressor, plain) = (Decompressor::new()?, Vec::with_capacity(MAX_PIECE_BYTES));
        Ok(Self {
            frames,
            decompressor,
            plain,
            at: 0,
            hasher: ContentHasher::new(),
            walked: 0,
            plain_size: 0,
        })
    }

    /// The next frame; `None` behind the last one.
    ///
    /// # Errors
    /// What lies there is no frame of a piece.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, OpenError> {
        let rest = self.frames.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let damaged = |what: String| OpenError::Damaged(format!("at byte {} of its frames {what}", self.at));
        let stored_length = zstd_safe::find_frame_compressed_size(rest)
            .map_err(|code| damaged(format!("is no frame: {}", zstd_safe::get_error_name(code))))?;
        let frame = rest.get(..stored_length).ok_or_else(|| damaged("a frame is cut".to_owned()))?;
        // A frame that holds more than a piece is refused before memory is taken for more.
        self.plain.clear();
        self.decompressor
            .decompress_to_buffer(frame, &mut self.plain)
            .map_err(|error| damaged(format!("a frame cannot be read: {error}")))?;
        let plain = self.plain.as_slice();
        let found = Frame {
            offset: self.at as u64,
            stored_length: u32::try_from(stored_length).unwrap_or(u32::MAX),
            length: u32::try_from(plain.len()).unwrap_or(u32::MAX),
            hash: ContentHash::of(plain),
        };
        self.hasher.update(plain);
        self.at += stored_length;
        self.walked += 1;
        self.plain_size += plain.len() as u64;
        Ok(Some(found))
    }

    /// What was found, once there is no next frame.
    pub fn finish(self) -> WalkedPack {
        WalkedPack { content: self.hasher.finish(), frames: self.walked, plain_size: self.plain_size }
    }
}

impl fmt::Debug for FrameWalk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWalk")
            .field("at", &self.at)
            .field("walked", &self.walked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::PackWriter;
    use super::*;
    use crate::compress::CompressionLevel;
    use crate::encrypt::KeyRing;
    use crate::envelope::Sealer;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn walked(frames: &[u8]) -> Result<(Vec<Frame>, WalkedPack), OpenError> {
        let mut walk = FrameWalk::new(frames).unwrap();
        let mut found = Vec::new();
        while let Some(frame) = walk.next_frame()? {
            found.push(frame);
        }
        Ok((found, walk.finish()))
    }

    proptest! {
        #[test]
        fn a_pack_is_what_was_put_into_it_and_no_byte_of_it_can_change_unseen(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..2000), 1..6),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut pack = PackWriter::new(CompressionLevel::default());
            let places: Vec<Frame> = pieces.iter().map(|it| pack.append(it).unwrap().frame()).collect();
            let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
            let sealed = pack.finish(&sealer).unwrap();
            let (found, whole) = walked(&sealed.bytes).unwrap();
            prop_assert_eq!(&found, &places);
            let expected =
                WalkedPack { content: sealed.content, frames: places.len() as u64, plain_size: sealed.plain_size };
            prop_assert_eq!(whole, expected);
            let mut bytes = sealed.bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok((found, whole)) = walked(&bytes) {
                // A bit that zstd has no use for: the stored bytes' own hash shows it.
                prop_assert_eq!((found, whole.content), (places, sealed.content));
            }
        }

        #[test]
        fn any_bytes_end_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = walked(&bytes);
        }
    }

    #[test]
    fn a_frame_of_more_than_a_piece_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_PIECE_BYTES + 1], 1).unwrap();
        assert!(bomb.len() < 1000 && walked(&bomb).is_err());
        let most = zstd::bulk::compress(&vec![0; MAX_PIECE_BYTES], 1).unwrap();
        assert_eq!(walked(&most).unwrap().0.len(), 1);
        // A stream does not say beforehand how much it holds.
        let stream = zstd::stream::encode_all(&vec![0; 64 * MAX_PIECE_BYTES][..], 1).unwrap();
        assert!(walked(&stream).is_err());
    }
}
