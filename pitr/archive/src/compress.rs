//! zstd, one frame for one content: with its checksum, and with the size of
//! the content where that is known beforehand.

use std::io::{self, BufRead, Read, Write};

use zstd::zstd_safe::{CParameter, DParameter};

/// The base 2 logarithm of the largest window (8 MiB) that a frame may ask of
/// its reader: what level 19 uses, and all levels allowed here stay below.
/// A frame that claims more is refused before memory is taken for it.
pub const WINDOW_LOG: u32 = 23;

/// How hard zstd tries: -7 (fastest) to 19. 0 means zstd's own default, 3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct CompressionLevel(i32);

/// A compression level out of range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("compression level {0} is not one of -7 to 19")]
pub struct CompressionLevelError(pub i32);

impl CompressionLevel {
    /// Checks the range.
    pub fn new(level: i32) -> Result<Self, CompressionLevelError> {
        if (-7..=19).contains(&level) { Ok(Self(level)) } else { Err(CompressionLevelError(level)) }
    }
}

impl Default for CompressionLevel {
    /// 1: the least work that still halves WAL.
    fn default() -> Self {
        Self(1)
    }
}

/// One frame of these bytes.
pub(crate) fn compress(plain: &[u8], level: CompressionLevel) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(level.0)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true))?;
    compressor.compress(plain)
}

/// Most bytes that [`compress`] makes of so many, whatever they are.
pub(crate) fn compressed_at_most(plain_size: usize) -> usize {
    zstd::zstd_safe::compress_bound(plain_size)
}

/// A writer whose input becomes one frame in `out`. `finish` must be called.
pub(crate) fn compressor<W: Write>(
    out: W,
    level: CompressionLevel,
    plain_size: Option<u64>,
) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    let mut encoder = zstd::stream::write::Encoder::new(out, level.0)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(plain_size.is_some())?;
    encoder.set_pledged_src_size(plain_size)?;
    Ok(encoder)
}

/// Exactly `plain_size` bytes out of frames that lie in memory.
pub(crate) fn decompress(frame: &[u8], plain_size: usize) -> io::Result<Vec<u8>> {
    let plain = zstd::bulk::Decompressor::new()?.decompress(frame, plain_size)?;
    if plain.len() == plain_size {
        Ok(plain)
    } else {
        let found = plain.len();
        Err(damaged(format!("holds {found} bytes where {plain_size} were expected")))
    }
}

/// A reader of the content of the one frame that `stored` consists of.
pub(crate) struct FrameReader<R: BufRead> {
    decoder: zstd::stream::read::Decoder<'static, R>,
}

impl<R: BufRead> FrameReader<R> {
    pub(crate) fn new(stored: R) -> io::Result<Self> {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(stored)?.single_frame();
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Self { decoder })
    }

    /// To be called when `read` has returned 0: that nothing follows the frame.
    /// It also makes the reader below see its own end, where age proves that
    /// its file was not cut.
    pub(crate) fn finish(self) -> io::Result<()> {
        let mut rest = self.decoder.finish();
        if rest.fill_buf()?.is_empty() {
            Ok(())
        } else {
            Err(damaged("more follows the zstd frame".to_owned()))
        }
    }
}

impl<R: BufRead> Read for FrameReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer)
    }
}

fn damaged(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut reader = FrameReader::new(stored)?;
        let mut plain = Vec::new();
        reader.read_to_end(&mut plain)?;
        reader.finish()?;
        Ok(plain)
    }

    /// Hard to compress.
    fn noise(size: usize) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"noise");
        let mut bytes = vec![0; size];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn levels_out_of_range_are_refused() {
        for level in [-8, 20, 22, i32::MAX, i32::MIN] {
            assert!(CompressionLevel::new(level).is_err(), "{level} was accepted");
        }
        for level in [-7, -1, 0, 1, 19] {
            assert!(CompressionLevel::new(level).is_ok(), "{level} was refused");
        }
    }

    #[test]
    fn the_window_of_every_level_is_one_that_readers_accept() {
        // More than the largest window.
        let plain = noise(9 << 20);
        for level in [-7, 19] {
            let level = CompressionLevel::new(level).unwrap();
            for size in [None, Some(plain.len() as u64)] {
                let mut encoder = compressor(Vec::new(), level, size).unwrap();
                encoder.write_all(&plain).unwrap();
                assert!(read_all(&encoder.finish().unwrap()).unwrap() == plain, "{level:?} {size:?}");
            }
        }
    }

    #[test]
    fn a_frame_that_asks_for_a_huge_window_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(b"small").unwrap();
        assert!(read_all(&encoder.finish().unwrap()).is_err());
    }

    #[test]
    fn what_follows_the_frame_is_damage_even_another_frame() {
        let frame = compress(b"content", CompressionLevel::default()).unwrap();
        let empty = compress(b"", CompressionLevel::default()).unwrap();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 7];
        assert_eq!(read_all(&frame).unwrap(), b"content");
        for rest in [&b"x"[..], &[0], &empty, &skippable] {
            assert!(read_all(&[&frame, rest].concat()).is_err(), "{rest:?} was accepted");
        }
    }

    #[test]
    fn nothing_is_not_a_frame() {
        assert!(read_all(b"").is_err());
        assert_eq!(read_all(&compress(b"", CompressionLevel::default()).unwrap()).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn content_comes_back(plain in any::<Vec<u8>>(), level in -7..=4) {
            let level = CompressionLevel::new(level).unwrap();
            let frame = compress(&plain, level).unwrap();
            prop_assert!(frame.len() <= compressed_at_most(plain.len()));
            prop_assert_eq!(&read_all(&frame).unwrap(), &plain);
            prop_assert_eq!(&decompress(&frame, plain.len()).unwrap(), &plain);
            prop_assert!(decompress(&frame, plain.len() + 1).is_err());
            if !plain.is_empty() {
                prop_assert!(decompress(&frame, plain.len() - 1).is_err());
            }
        }

        #[test]
        fn a_cut_frame_is_refused(plain in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let frame = compress(&plain, CompressionLevel::default()).unwrap();
            let cut = &frame[..at.index(frame.len())];
            prop_assert!(read_all(cut).is_err());
            prop_assert!(plain.is_empty() || decompress(cut, plain.len()).is_err());
        }
    }
}
