//! What identifies content: the BLAKE3 of the plain bytes (which names them in
//! every key, whatever compression or encryption did), and the SHA-256 of the
//! stored bytes (which a store verifies on arrival and anyone can check later
//! without a key).

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use crate::hex;

/// Text that is not the hash or the id it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct HashError {
    /// The text refused, shortened when it was long.
    pub text: String,
    /// What was expected.
    pub expected: &'static str,
}

impl HashError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self { text: text.chars().take(80).collect(), expected }
    }
}

/// BLAKE3 (256 bits) of plain content. Printed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(plain: &[u8]) -> Self {
        Self(*blake3::hash(plain).as_bytes())
    }

    /// A hash computed elsewhere.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The part of it that stands in object keys.
    pub fn id(&self) -> ContentId {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        ContentId([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl FromStr for ContentHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        hex::decode_array(text)
            .map(Self)
            .ok_or_else(|| HashError::new(text, "a BLAKE3 hash of 64 lower-case hexadecimal digits"))
    }
}

impl TryFrom<String> for ContentHash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<ContentHash> for String {
    fn from(hash: ContentHash) -> Self {
        hash.to_string()
    }
}

/// [`ContentHash`] of bytes that come in pieces.
#[derive(Clone, Debug, Default)]
pub struct ContentHasher(blake3::Hasher);

impl ContentHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes.
    pub fn update(&mut self, plain: &[u8]) {
        self.0.update(plain);
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> ContentHash {
        ContentHash(*self.0.finalize().as_bytes())
    }
}

/// The first 64 bits of a [`ContentHash`], printed as 16 hexadecimal digits in
/// object keys: enough to tell the variants of one file apart. Where it decides
/// anything the full hash is compared too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentId([u8; 8]);

impl ContentId {
    /// Number of digits it is printed with.
    pub const DIGITS: usize = 16;

    /// The one that sorts before all others.
    pub(crate) const LEAST: Self = Self([0; 8]);
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(&self.0, f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

impl FromStr for ContentId {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        hex::decode_array(text)
            .map(Self)
            .ok_or_else(|| HashError::new(text, "a content id of 16 lower-case hexadecimal digits"))
    }
}

impl TryFrom<String> for ContentId {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<ContentId> for String {
    fn from(id: ContentId) -> Self {
        id.to_string()
    }
}

/// SHA-256 of stored bytes. Printed as 64 hexadecimal digits; S3 headers take
/// the same bytes in base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StoredHash([u8; 32]);

impl StoredHash {
    /// The hash of these bytes.
    pub fn of(stored: &[u8]) -> Self {
        Self(sha2::Sha256::digest(stored).into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From what [`StoredHash::base64`] gives; none when it is not the base64 of a SHA-256.
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// As `x-amz-checksum-sha256` wants it.
    pub fn base64(&self) -> String {
        base64::engine::general_purpose::STANDARD.encode(self.0)
    }
}

impl fmt::Display for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredHash({self})")
    }
}

impl FromStr for StoredHash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        hex::decode_array(text)
            .map(Self)
            .ok_or_else(|| HashError::new(text, "a SHA-256 hash of 64 lower-case hexadecimal digits"))
    }
}

impl TryFrom<String> for StoredHash {
    type Error = HashError;

    fn try_from(text: String) -> Result<Self, HashError> {
        text.parse()
    }
}

impl From<StoredHash> for String {
    fn from(hash: StoredHash) -> Self {
        hash.to_string()
    }
}

/// [`StoredHash`] of bytes that come in pieces.
#[derive(Clone, Debug, Default)]
pub struct StoredHasher(sha2::Sha256);

impl StoredHasher {
    /// Nothing hashed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes.
    pub fn update(&mut self, stored: &[u8]) {
        self.0.update(stored);
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> StoredHash {
        StoredHash(self.0.clone().finalize().into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // The empty input's values as the two specifications publish them.
    const BLAKE3_OF_NOTHING: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_hashes_are_blake3_and_sha256() {
        assert_eq!(ContentHash::of(b"").to_string(), BLAKE3_OF_NOTHING);
        assert_eq!(ContentHash::of(b"").id().to_string(), "af1349b9f5f9a1a6");
        assert_eq!(StoredHash::of(b"").to_string(), SHA256_OF_NOTHING);
        assert_eq!(StoredHash::of(b"").base64(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(StoredHash::from_base64(&StoredHash::of(b"x").base64()), Some(StoredHash::of(b"x")));
        // As a composite checksum is written.
        for text in ["", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=-2", "47DEQpj8"] {
            assert_eq!(StoredHash::from_base64(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_hash_prints_and_parses_to_itself(bytes in any::<[u8; 32]>(), plain in any::<Vec<u8>>()) {
            let hash = ContentHash::from_bytes(bytes);
            prop_assert_eq!(hash.to_string().parse::<ContentHash>().unwrap(), hash);
            prop_assert_eq!(hash.id().to_string().parse::<ContentId>().unwrap(), hash.id());
            let stored = StoredHash::of(&plain);
            prop_assert_eq!(stored.to_string().parse::<StoredHash>().unwrap(), stored);
        }

        #[test]
        fn bytes_in_pieces_hash_like_the_whole(plain in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let (head, tail) = plain.split_at(at.index(plain.len() + 1));
            let (mut content, mut stored) = (ContentHasher::new(), StoredHasher::new());
            for part in [head, tail] {
                content.update(part);
                stored.update(part);
            }
            prop_assert_eq!(content.finish(), ContentHash::of(&plain));
            prop_assert_eq!(stored.finish(), StoredHash::of(&plain));
        }
    }
}
