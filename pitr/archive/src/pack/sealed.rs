//! Pieces of an encrypted pack, without all of it. age encrypts in chunks of 64 KiB, each of which opens by itself when
//! the header has been read (C2SP age.md, "Payload": STREAM with ChaCha20-Poly1305). A chunk that lies in another place
//! does not open; that a piece is the one that was stored its own hash says.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use super::{OpenError, refused};
use crate::encrypt::{KeyRing, MAX_HEADER_BYTES, split_header};

/// Stored bytes at the beginning of an encrypted pack among which age's header is, however many recipients there are.
pub const HEAD_BYTES: u64 = MAX_HEADER_BYTES as u64;

/// What precedes the chunks, behind the header.
const NONCE: u64 = 16;

/// Plain bytes of each chunk but the last, and what age adds to them.
const CHUNK: u64 = 64 * 1024;
const TAG: u64 = 16;

/// The beginning of an encrypted pack.
#[derive(Debug, Clone)]
pub struct SealedHead {
    bytes: Vec<u8>,
    /// Where the chunks begin.
    chunks: u64,
}

impl SealedHead {
    /// Of the first [`HEAD_BYTES`] of a pack, or all of them.
    ///
    /// # Errors
    /// There is no header of age in them.
    pub fn new(bytes: Vec<u8>) -> Result<SealedHead, OpenError> {
        let (header, _) = split_header(bytes.as_slice()).map_err(refused)?;
        let chunks = header.len() as u64 + NONCE;
        Ok(SealedHead { bytes, chunks })
    }

    /// Where in a pack of `size` stored bytes the chunks lie that hold these bytes of its frames.
    pub fn stored(&self, frames: &Range<u64>, size: u64) -> Range<u64> {
        let chunk = |number: u64| self.chunks.saturating_add(number.saturating_mul(CHUNK + TAG)).min(size);
        chunk(frames.start / CHUNK)..chunk(frames.end.div_ceil(CHUNK))
    }

    /// The bytes of these ranges of the frames, by where they begin, out of what was fetched, by where that begins. The
    /// ranges are in order, and no two have bytes of one chunk.
    ///
    /// # Errors
    /// No key opens it, or something in it is not as it was stored.
    pub fn open(
        self,
        keys: &KeyRing,
        size: u64,
        fetched: BTreeMap<u64, Vec<u8>>,
        wanted: &[Range<u64>],
    ) -> Result<BTreeMap<u64, Vec<u8>>, OpenError> {
        let sealed = size.saturating_sub(self.chunks);
        let plain = sealed.saturating_sub(sealed.div_ceil(CHUNK + TAG).saturating_mul(TAG));
        if wanted.iter().any(|range| range.start >= range.end || range.end > plain) {
            return Err(OpenError::Damaged("a piece lies outside of its pack".to_owned()));
        }
        let stored = Fetched { head: self.bytes, parts: fetched, size, at: 0 };
        let mut frames = keys.seekable_decryptor(stored).map_err(refused)?;
        let mut opened = BTreeMap::new();
        for range in wanted {
            let bytes = read_at(&mut frames, range).map_err(|error| OpenError::Damaged(error.to_string()))?;
            opened.insert(range.start, bytes);
        }
        Ok(opened)
    }
}

fn read_at(frames: &mut (impl Read + Seek), range: &Range<u64>) -> io::Result<Vec<u8>> {
    // To the beginning of a chunk age goes by way of the pack's end, which is not here; within a chunk it does not.
    if range.start.is_multiple_of(CHUNK) {
        frames.seek(SeekFrom::Start(range.start.saturating_add(1)))?;
    }
    frames.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    frames.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == range.end.saturating_sub(range.start) {
        true => Ok(bytes),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A pack of which parts are here.
struct Fetched {
    head: Vec<u8>,
    parts: BTreeMap<u64, Vec<u8>>,
    size: u64,
    at: u64,
}

impl Fetched {
    /// What is here from the place on.
    fn here(&self) -> Option<&[u8]> {
        let parts = self.parts.range(..=self.at).rev().map(|(begin, part)| (*begin, part.as_slice()));
        let mut all = parts.chain([(0, self.head.as_slice())]);
        let from = |(begin, part): (u64, &'_ [u8])| {
            usize::try_from(self.at - begin).ok().map(|skip| (skip, part.len()))
        };
        let found = all.find(|it| from(*it).is_some_and(|(skip, length)| skip < length))?;
        found.1.get(from(found)?.0..)
    }
}

impl Read for Fetched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size {
            return Ok(0);
        }
        let mut here = self.here().ok_or_else(|| io::Error::other("a part of it was not fetched"))?;
        let read = here.read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Fetched {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::single_range_in_vec_init)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compress::CompressionLevel;
    use crate::content::ContentHash;
    use crate::encrypt::tests::key_pair;
    use crate::envelope::Sealer;

    /// An encrypted pack of these frames, and who opens it.
    fn pack(frames: &[u8]) -> (Vec<u8>, KeyRing) {
        let (seals, opens) = key_pair();
        let sealer = Sealer::new(CompressionLevel::new(1).unwrap(), seals.into());
        let sealed = sealer.seal_frames(frames.to_vec(), ContentHash::of(b""), 0).unwrap();
        (sealed.bytes.to_vec(), opens)
    }

    fn frames(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    /// Fetches the least that these ranges take.
    fn open(pack: &[u8], keys: &KeyRing, wanted: &[Range<u64>]) -> Result<BTreeMap<u64, Vec<u8>>, OpenError> {
        let size = pack.len() as u64;
        let head = SealedHead::new(pack[..pack.len().min(HEAD_BYTES as usize)].to_vec())?;
        let fetch = |range: &Range<u64>| {
            let stored = head.stored(range, size);
            (stored.start, pack[stored.start as usize..stored.end as usize].to_vec())
        };
        let fetched = wanted.iter().map(fetch).collect();
        head.open(keys, size, fetched, wanted)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_of_the_frames_come_out_of_their_chunks_alone(
            length in prop_oneof![1..400_000usize, (1..6usize).prop_map(|chunks| chunks * 65_536)],
            places in prop::collection::vec((any::<prop::sample::Index>(), 1..100_000usize), 1..5),
            on_chunk in any::<bool>(),
        ) {
            let frames = frames(length);
            let (pack, keys) = pack(&frames);
            let mut wanted: Vec<Range<u64>> = Vec::new();
            for (place, most) in places {
                let at = place.index(length);
                let at = if on_chunk { at / 65_536 * 65_536 } else { at };
                wanted.push(at as u64..(at + most).min(length) as u64);
            }
            wanted.sort_by_key(|range| range.start);
            let chunk = |at: u64| at / CHUNK;
            wanted.dedup_by(|next, one| chunk(next.start) <= chunk(one.end - 1));
            let opened = open(&pack, &keys, &wanted).unwrap();
            for range in wanted {
                prop_assert!(opened[&range.start] == frames[range.start as usize..range.end as usize]);
            }
        }
    }

    #[test]
    fn ranges_at_the_borders_of_chunks_need_no_other_chunk() {
        let frames = frames(400_000);
        let (pack, keys) = pack(&frames);
        for border in [CHUNK, 2 * CHUNK, 4 * CHUNK] {
            for start in [border - 2, border - 1, border, border + 1] {
                for range in [start..start + 1, start..start + 3, start..start + 70_000] {
                    let opened = open(&pack, &keys, std::slice::from_ref(&range)).unwrap();
                    assert!(opened[&start] == frames[start as usize..range.end as usize], "{range:?}");
                }
            }
        }
    }

    #[test]
    fn a_chunk_that_is_another_or_lies_elsewhere_does_not_open() {
        let frames = frames(300_000);
        let (sound, keys) = pack(&frames);
        let begin = sound.len() - (300_000 + 5 * 16);
        let wanted = [70_000..80_000];
        assert!(open(&sound, &keys, &wanted).is_ok());
        let mut flipped = sound.clone();
        flipped[begin + 70_000] ^= 1;
        let mut moved = sound.clone();
        let chunk = (CHUNK + TAG) as usize;
        moved[begin..begin + 2 * chunk].rotate_left(chunk);
        for damaged in [flipped, moved, sound[..begin + chunk + 10].to_vec()] {
            assert!(matches!(open(&damaged, &keys, &wanted), Err(OpenError::Damaged(_))));
        }
        // What was not asked for is not looked at.
        let mut elsewhere = sound.clone();
        elsewhere[begin + 5] ^= 1;
        assert!(open(&elsewhere, &keys, &wanted).is_ok());
    }

    #[test]
    fn what_is_wanted_beyond_the_end_or_was_not_fetched_is_an_error() {
        let (pack, keys) = pack(&frames(100_000));
        for wanted in [[99_990..100_001], [100_000..100_001], [u64::MAX - 5..u64::MAX]] {
            assert!(open(&pack, &keys, &wanted).is_err(), "{wanted:?}");
        }
        let head = SealedHead::new(pack[..1000].to_vec()).unwrap();
        assert!(head.open(&keys, pack.len() as u64, BTreeMap::new(), &[70_000..80_000]).is_err());
        assert!(matches!(SealedHead::new(vec![7; 20_000]), Err(OpenError::Damaged(_))));
    }

    #[test]
    fn without_the_key_it_is_said() {
        let (pack, _) = pack(&frames(100_000));
        let (seals, others) = key_pair();
        assert!(matches!(open(&pack, &seals, &[0..10]), Err(OpenError::NoKey)));
        assert!(matches!(open(&pack, &others, &[0..10]), Err(OpenError::WrongKey)));
    }
}
