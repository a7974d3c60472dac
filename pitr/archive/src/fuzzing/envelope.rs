//! Stored objects: zstd, and age around it.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::compress::CompressionLevel;
use crate::content::ContentHash;
use crate::encrypt::KeyRing;
use crate::envelope::{Expected, OpenError, Opened, Sealer, open_bytes, open_to};
use crate::pack::{MAX_PIECE_BYTES, PiecePlace, SealedHead, open_pack, read_piece};

/// The key that the encrypted seeds are sealed for.
const IDENTITY: &str = include_str!("../../../../tests/golden/v1/identity");

/// Any object opens to what its limit allows or not at all, the same at one go and in
/// small pieces; nothing but the content that was expected is handed out.
///
/// The first byte says how the rest is stored, the second how large the content may be.
pub fn envelope(data: &[u8]) {
    let [how, limit, stored @ ..] = data else { return };
    let keys = keys();
    // Sealed here, what lies within an age file can be anything.
    let sealed;
    let (stored, encrypted) = match how % 3 {
        0 => (stored, false),
        1 => (stored, true),
        _ => match sealer(keys).seal_frames(stored.to_vec(), ContentHash::of(stored), 0) {
            Ok(whole) => {
                sealed = whole.bytes;
                (sealed.as_ref(), true)
            }
            Err(_) => return,
        },
    };
    let limit = (1u64 << (limit % 22)) - 1;
    open(keys, stored, encrypted, limit);
    open_piece(keys, stored, encrypted, data);
}

fn open(keys: &KeyRing, stored: &[u8], encrypted: bool, limit: u64) {
    let expected = Expected { id: None, content: None, limit };
    let (whole, plain) = open_and_keep(keys, stored, encrypted, &expected);
    let (in_pieces, plain_in_pieces) = open_and_keep(keys, InPieces(stored), encrypted, &expected);
    assert_eq!(whole.as_ref().ok(), in_pieces.as_ref().ok());
    assert!(plain.len() as u64 <= limit.saturating_add(1), "{} bytes, the limit is {limit}", plain.len());
    let Ok(Opened { content, plain_size }) = whole else { return };
    assert_eq!(plain, plain_in_pieces);
    assert_eq!((content, plain_size), (ContentHash::of(&plain), plain.len() as u64));
    let other = ContentHash::from_bytes([7; 32]);
    let refused = open_bytes(keys, stored, encrypted, &Expected::content(other, limit));
    assert!(matches!(refused, Err(OpenError::Damaged(_))));
    assert_eq!(
        open_bytes(keys, stored, encrypted, &Expected::content(content, plain_size)).ok(),
        Some(plain)
    );
    if let Some(limit) = plain_size.checked_sub(1) {
        let refused = open_bytes(keys, stored, encrypted, &Expected::content(content, limit));
        assert!(matches!(refused, Err(OpenError::TooLarge { .. })));
    }
}

fn open_and_keep(
    keys: &KeyRing,
    stored: impl Read,
    encrypted: bool,
    expected: &Expected,
) -> (Result<Opened, OpenError>, Vec<u8>) {
    let mut plain = Vec::new();
    let opened = open_to(keys, stored, encrypted, expected, &mut plain);
    (opened, plain)
}

/// The same bytes as a pack, with a piece of it anywhere.
fn open_piece(keys: &KeyRing, stored: &[u8], encrypted: bool, data: &[u8]) {
    let Ok(frames) = open_pack(keys, stored.to_vec(), encrypted) else { return };
    let number = |at: usize| data.get(at).copied().map_or(0, u32::from);
    let (offset, length) = (number(2), number(3) << (number(4) % 24));
    let hash = ContentHash::from_bytes([7; 32]);
    let place = PiecePlace { offset: offset.into(), stored_length: number(5), length, hash, part: None };
    assert!(read_piece(&frames, &place).is_err());
    let length = u32::try_from(MAX_PIECE_BYTES).unwrap_or(u32::MAX);
    assert!(read_piece(&frames, &PiecePlace { length, ..place }).is_err());
    // A short one, or it would lie behind the end of any that is tried.
    open_chunks(keys, stored, u64::from(offset)..u64::from(offset + number(5)));
}

/// The same bytes as an encrypted pack, of which a range is opened: as all of it is, or not at all.
fn open_chunks(keys: &KeyRing, stored: &[u8], wanted: Range<u64>) {
    let Ok(head) = SealedHead::new(stored.to_vec()) else { return };
    let size = stored.len() as u64;
    let chunks = head.stored(&wanted, size);
    let part = stored.get(chunks.start as usize..chunks.end as usize).unwrap_or_default();
    let fetched = [(chunks.start, part.to_vec())].into();
    let opened = head.open(keys, size, fetched, std::slice::from_ref(&wanted));
    let (Ok(opened), Ok(frames)) = (opened, open_pack(keys, stored.to_vec(), true)) else { return };
    assert_eq!(
        opened.values().next().map(Vec::as_slice),
        frames.get(wanted.start as usize..wanted.end as usize)
    );
}

fn keys() -> &'static KeyRing {
    static KEYS: OnceLock<KeyRing> = OnceLock::new();
    KEYS.get_or_init(|| KeyRing::of_identities(IDENTITY).unwrap_or_default())
}

fn sealer(keys: &KeyRing) -> Sealer {
    Sealer::new(CompressionLevel::default(), Arc::new(keys.clone()))
}

/// Gives few bytes at a time, like a line that is slow.
struct InPieces<'a>(&'a [u8]);

impl Read for InPieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.by_ref().take(997).read(buffer)
    }
}
