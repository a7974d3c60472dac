//! Names of objects in an archive.
//!
//! The alphabet is the part of S3's "safe characters" that is also a safe file
//! name everywhere, so that one key means the same in a bucket and in a
//! directory, needs no escaping in a URL, and can never leave its root.

use std::fmt;

/// Longest key in bytes. S3 allows 1024, of which the bucket's prefix needs a part.
pub const MAX_KEY_BYTES: usize = 512;

/// Longest component in bytes: a file name of 255 bytes, less what a directory
/// store puts around it.
pub const MAX_COMPONENT_BYTES: usize = 240;

/// Ends the name of the file that holds an object's metadata in a directory
/// store, and therefore ends no component of a key.
pub(crate) const META_SUFFIX: &str = ".meta";

/// The key of one object, relative to the archive's root: components of
/// `[A-Za-z0-9._-]` joined by `/`. No component is empty, begins with a dot or
/// ends with `.meta`. Ordered bytewise, as S3 lists.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectKey(String);

/// Text that is not a key or a prefix.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} cannot be used as an object key: {reason}")]
pub struct ObjectKeyError {
    /// The text refused, shortened when it was long.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ObjectKeyError {
    fn new(text: &str, reason: &'static str) -> Self {
        let text = text.chars().take(MAX_KEY_BYTES).collect();
        Self { text, reason }
    }
}

impl ObjectKey {
    /// Checks the text against the rules above.
    pub fn new(text: &str) -> Result<Self, ObjectKeyError> {
        check_key(text).map_err(|reason| ObjectKeyError::new(text, reason))?;
        Ok(Self(text.to_owned()))
    }

    /// The same of a text that nobody else needs.
    pub(crate) fn of(text: String) -> Result<Self, ObjectKeyError> {
        match check_key(&text) {
            Ok(()) => Ok(Self(text)),
            Err(reason) => Err(ObjectKeyError::new(&text, reason)),
        }
    }

    /// Whether a text is one component of a key.
    pub(crate) fn is_component(text: &str) -> bool {
        check_component(text).is_ok() && !text.contains('/')
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, from the root.
    pub(crate) fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ObjectKey {
    type Err = ObjectKeyError;

    fn from_str(text: &str) -> Result<Self, ObjectKeyError> {
        Self::new(text)
    }
}

/// What the keys of a listing begin with: any leading part of a key, so it may
/// be empty, end with `/` or end inside a component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix(String);

impl Prefix {
    /// The prefix of every key.
    pub fn all() -> Self {
        Self(String::new())
    }

    /// Checks the text: the rules of a key, but the last component may be
    /// empty or incomplete.
    pub fn new(text: &str) -> Result<Self, ObjectKeyError> {
        let refused = |reason| ObjectKeyError::new(text, reason);
        if text.len() > MAX_KEY_BYTES {
            return Err(refused("longer than 512 bytes"));
        }
        let (folder, rest) = match text.rsplit_once('/') {
            Some((folder, rest)) => (Some(folder), rest),
            None => (None, text),
        };
        for component in folder.into_iter().flat_map(|folder| folder.split('/')) {
            check_component(component).map_err(refused)?;
        }
        if !rest.is_empty() {
            check_start_of_component(rest).map_err(refused)?;
        }
        Ok(Self(text.to_owned()))
    }

    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part up to and with the last `/`: the folder that holds what the
    /// prefix names. Empty for the root.
    pub(crate) fn folder(&self) -> &str {
        self.0.rfind('/').map_or("", |at| self.0.split_at(at + 1).0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check_key(text: &str) -> Result<(), &'static str> {
    if text.len() > MAX_KEY_BYTES {
        return Err("longer than 512 bytes");
    }
    text.split('/').try_for_each(check_component)
}

/// Which bytes a component may have: a listing of millions asks for each.
const SAFE: [bool; 256] = safe_bytes();

#[expect(clippy::indexing_slicing, reason = "a byte is an index of 256")]
const fn safe_bytes() -> [bool; 256] {
    let mut safe = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        safe[byte as usize] = byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        byte += 1;
    }
    safe
}

fn check_component(component: &str) -> Result<(), &'static str> {
    if component.is_empty() {
        return Err("it has an empty component");
    }
    check_start_of_component(component)?;
    if component.ends_with(META_SUFFIX) {
        return Err("a component ends with .meta");
    }
    Ok(())
}

fn check_start_of_component(start: &str) -> Result<(), &'static str> {
    if start.starts_with('.') {
        return Err("a component begins with a dot");
    }
    if start.len() > MAX_COMPONENT_BYTES {
        return Err("a component is longer than 240 bytes");
    }
    if !start.bytes().all(|byte| SAFE.get(usize::from(byte)).copied().unwrap_or(false)) {
        return Err("it has a character outside A-Z a-z 0-9 . _ - and /");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_that_could_leave_the_root_or_hide_is_refused() {
        for text in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/.", ".hidden", "a/.tmp-1", "a.meta",
            "a.meta/b", "a b", "a\0b", "a\nb", "ä", "a\\b", "a%2fb", "a:b", "~",
        ] {
            assert!(ObjectKey::new(text).is_err(), "{text:?} was accepted");
        }
        assert!(ObjectKey::new(&"a".repeat(MAX_COMPONENT_BYTES + 1)).is_err());
        assert!(ObjectKey::new(&"a/".repeat(MAX_KEY_BYTES)).is_err());
    }

    #[test]
    fn the_keys_of_an_archive_are_accepted() {
        for text in [
            "7567890123456789012/cluster.json",
            "1/wal/0000000100000000/000000010000000000000001-0123456789abcdef.zst.age",
            "1/wal/0000000100000000/000000010000000000000001.live/0-8192-0123456789abcdef.zst",
            "1/backup/20261120T214500Z-full-00ff00/pack-000001-0123456789abcdef.zst",
        ] {
            assert_eq!(ObjectKey::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere_in_a_key() {
        for text in ["", "a", "a/", "a/b", "1/wal/0000", "a.met", "a.meta"] {
            assert_eq!(Prefix::new(text).unwrap().as_str(), text);
        }
        for text in ["/", "//", "a//", "../", "a/../", ".", "a/.", "a b"] {
            assert!(Prefix::new(text).is_err(), "{text:?} was accepted");
        }
        assert_eq!(Prefix::new("a/b/c").unwrap().folder(), "a/b/");
        assert_eq!(Prefix::new("a/b/").unwrap().folder(), "a/b/");
        assert_eq!(Prefix::new("a").unwrap().folder(), "");
    }

    proptest! {
        #[test]
        fn every_start_of_a_key_is_a_prefix(text in "[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,9}(/[a-z0-9-][a-z0-9.]{0,4}){0,4}") {
            prop_assume!(ObjectKey::new(&text).is_ok());
            for end in 0..=text.len() {
                prop_assert!(Prefix::new(&text[..end]).is_ok());
            }
        }

        #[test]
        fn any_text_is_a_key_or_an_error(text in ".{0,600}") {
            if let Ok(key) = ObjectKey::new(&text) {
                prop_assert!(key.components().all(|part| !part.is_empty() && part != ".." && part != "."));
            }
        }
    }
}
