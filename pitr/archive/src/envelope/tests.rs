#![allow(clippy::unwrap_used)]

use super::*;
use crate::encrypt::tests::key_pair;
use proptest::prelude::*;

fn plainly() -> (Sealer, KeyRing) {
    (Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default())), KeyRing::default())
}

fn encrypting() -> (Sealer, KeyRing) {
    let (seals, opens) = key_pair();
    (Sealer::new(CompressionLevel::default(), Arc::new(seals)), opens)
}

fn any_limit() -> Expected {
    Expected { id: None, content: None, limit: 1 << 20 }
}

fn open(keys: &KeyRing, sealed: &Sealed) -> Result<Vec<u8>, OpenError> {
    open_bytes(keys, &sealed.bytes, sealed.encrypted, &Expected::content(sealed.content, sealed.plain_size))
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn content_comes_back_in_one_and_in_many_steps() {
    for (sealer, keys) in [plainly(), encrypting()] {
        for size in [0, 1, 65_535, 65_536, 65_537, 200_000, 3 << 20] {
            let plain = noise(size);
            let sealed = sealer.seal_bytes(&plain).unwrap();
            assert_eq!(open(&keys, &sealed).unwrap(), plain);
            for known in [None, Some(size as u64)] {
                let mut stored = Vec::new();
                let seal = sealer.seal_into(plain.as_slice(), known, &mut stored).unwrap();
                assert_eq!((seal.content, seal.plain_size), (ContentHash::of(&plain), size as u64));
                assert_eq!((seal.stored, seal.stored_size), (StoredHash::of(&stored), stored.len() as u64));
                let expected = Expected::content(seal.content, seal.plain_size);
                assert_eq!(open_bytes(&keys, &stored, seal.encrypted, &expected).unwrap(), plain);
            }
        }
    }
}

fn seal_in_pieces(sealer: &Sealer, plain: &[u8], plain_size: u64, threads: u32) -> io::Result<SealedContent> {
    let mut sealing = sealer.begin(plain_size, threads)?;
    for piece in plain.chunks(STEP) {
        sealing.take(piece)?;
    }
    sealing.finish()
}

#[test]
fn content_that_is_sealed_in_pieces_comes_back() {
    for (sealer, keys) in [plainly(), encrypting()] {
        for size in [0, 1, 131_071, 131_072, 131_073, 900_000, 9 << 20] {
            let plain = noise(size);
            for threads in [0, 1, 2] {
                let sealed = seal_in_pieces(&sealer, &plain, size as u64, threads).unwrap();
                assert_eq!((sealed.content, sealed.plain_size), (ContentHash::of(&plain), size as u64));
                let expected = Expected::content(sealed.content, sealed.plain_size);
                assert_eq!(open_bytes(&keys, &sealed.bytes, sealed.encrypted, &expected).unwrap(), plain);
            }
        }
    }
}

#[test]
fn content_of_another_size_than_said_is_not_sealed() {
    for (size, said) in [(4, 3), (4, 5), (2 << 20, 1 << 20), (1 << 20, 2 << 20)] {
        for threads in [0, 2] {
            let sealed = seal_in_pieces(&plainly().0, &noise(size), said, threads);
            assert!(sealed.is_err(), "{size} as {said}, {threads} threads");
        }
    }
    let (sealer, _) = plainly();
    assert!(sealer.seal_into(&b"four"[..], Some(3), Vec::new()).is_err());
    assert!(sealer.seal_into(&b"four"[..], Some(5), Vec::new()).is_err());
}

#[test]
fn no_key_wrong_key_and_damage_are_told_apart() {
    let (sealer, keys) = encrypting();
    let (_, other_keys) = key_pair();
    let sealed = sealer.seal_bytes(b"content").unwrap();
    assert!(sealed.encrypted);
    assert!(matches!(open(&KeyRing::default(), &sealed), Err(OpenError::NoKey)));
    assert!(matches!(open(&other_keys, &sealed), Err(OpenError::WrongKey)));
    let mut flipped = sealed.bytes.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let damaged = Sealed { bytes: flipped.into(), ..sealed.clone() };
    assert!(matches!(open(&keys, &damaged), Err(OpenError::Damaged(_))));
    assert_eq!(open(&keys, &sealed).unwrap(), b"content");
}

#[test]
fn every_flipped_bit_is_noticed() {
    for (sealer, keys) in [plainly(), encrypting()] {
        let sealed = sealer.seal_bytes(b"some content, some content, some content").unwrap();
        for byte in 0..sealed.bytes.len() {
            for bit in 0..8 {
                let mut flipped = sealed.bytes.to_vec();
                flipped[byte] ^= 1 << bit;
                let damaged = Sealed { bytes: flipped.into(), ..sealed.clone() };
                match open(&keys, &damaged) {
                    // A flip that leaves the same content is harmless: it is in a field no one reads.
                    Ok(plain) => assert_eq!(plain, b"some content, some content, some content"),
                    Err(error) => assert!(
                        matches!(
                            error,
                            OpenError::Damaged(_) | OpenError::WrongKey | OpenError::TooLarge { .. }
                        ),
                        "byte {byte} bit {bit}: {error:?}"
                    ),
                }
            }
        }
    }
}

#[test]
fn every_truncation_and_anything_appended_is_noticed() {
    for (sealer, keys) in [plainly(), encrypting()] {
        let sealed = sealer.seal_bytes(&noise(70_000)).unwrap();
        let whole = sealed.bytes.clone();
        for end in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
            let cut = Sealed { bytes: whole.slice(..end), ..sealed.clone() };
            assert!(matches!(open(&keys, &cut), Err(OpenError::Damaged(_))), "cut at {end}");
        }
        for rest in [&b"\0"[..], b"x", &whole] {
            let longer = Sealed { bytes: [&whole, rest].concat().into(), ..sealed.clone() };
            assert!(matches!(open(&keys, &longer), Err(OpenError::Damaged(_))));
        }
    }
}

#[test]
fn other_content_under_a_key_is_damage() {
    let (sealer, keys) = plainly();
    let sealed = sealer.seal_bytes(b"content").unwrap();
    let other = ContentHash::of(b"other");
    for expected in [
        Expected { id: Some(other.id()), ..any_limit() },
        Expected { content: Some(other), ..any_limit() },
        Expected { id: Some(sealed.content.id()), content: Some(other), limit: 100 },
    ] {
        let opened = open_bytes(&keys, &sealed.bytes, false, &expected);
        assert!(matches!(opened, Err(OpenError::Damaged(_))));
    }
}

#[test]
fn a_bomb_is_refused_without_taking_its_memory() {
    // 1 GiB of zeros in some 100 KiB; the limit stops it after one byte too many.
    let zeros = 1 << 30;
    for (sealer, keys) in [plainly(), encrypting()] {
        let mut stored = Vec::new();
        sealer.seal_into(io::repeat(0).take(zeros), Some(zeros), &mut stored).unwrap();
        let mut out = CountingWriter(0);
        let opened = open_to(&keys, stored.as_slice(), sealer.encrypts(), &any_limit(), &mut out);
        assert!(matches!(opened, Err(OpenError::TooLarge { limit: 1_048_576 })));
        assert!(out.0 <= (1 << 20) + 1);
        assert!(open_bytes(&keys, &stored, sealer.encrypts(), &any_limit()).is_err());
    }
}

struct CountingWriter(usize);

impl Write for CountingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the line broke")),
            read => Ok(read),
        }
    }
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::from(io::ErrorKind::StorageFull))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_broken_line_and_a_full_disk_are_not_damage() {
    for (sealer, keys) in [plainly(), encrypting()] {
        let sealed = sealer.seal_bytes(&noise(100_000)).unwrap();
        for end in [0, 10, 300, 50_000, 99_999] {
            let broken = Failing(&sealed.bytes[..end]);
            let opened = open_to(&keys, broken, sealed.encrypted, &any_limit(), &mut Vec::new());
            let Err(OpenError::Io(error)) = opened else { panic!("{opened:?}") };
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        let opened = open_to(&keys, &sealed.bytes[..], sealed.encrypted, &any_limit(), &mut Full);
        assert!(matches!(opened, Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::StorageFull));
    }
}

#[test]
fn a_reader_that_fails_is_an_error_of_sealing() {
    let (sealer, _) = plainly();
    assert!(sealer.seal_into(Failing(b"some"), None, Vec::new()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_open_to_an_error(stored in any::<Vec<u8>>(), encrypted: bool) {
        let (_, keys) = key_pair();
        prop_assert!(open_bytes(&keys, &stored, encrypted, &any_limit()).is_err());
    }

    #[test]
    fn any_frame_like_bytes_never_give_other_content(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
        let stored = [&[0x28, 0xb5, 0x2f, 0xfd][..], &rest].concat();
        let expected = Expected::content(ContentHash::of(b"expected"), 1 << 20);
        prop_assert!(open_bytes(&KeyRing::default(), &stored, false, &expected).is_err());
    }
}
