//! Hashes of a file's windows: of its bytes from one multiple of [`MAX_PIECE_BYTES`] to the next, or to its end, as
//! the backup read them. Where a window is assembled of several pieces these are parts of frames, which have no hash of
//! their own: by the window's it can be told whether a copy of the file has these bytes already.
//!
//! A window that is a copy of what was read from the running server is as good as one assembled of the pieces, though
//! hint bits may differ: either is what the server had on its disk between the backup's start and its stop, and recovery
//! from the start makes it consistent. So a hash here serves to leave alone what is there. It says nothing of the
//! pieces, and one that fits nothing is no damage.

use std::ops::Range;

use crate::content::ContentHash;
use crate::pack::MAX_PIECE_BYTES;

/// Bytes of a window; the last of a file may have fewer.
const WINDOW: u64 = MAX_PIECE_BYTES as u64;

/// The hashes of a file's windows, by their number. Most have none: a window that is one whole piece has that piece's.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Windows(Vec<Option<ContentHash>>);

impl Windows {
    /// The windows from the first on; those at the end that have no hash count for nothing.
    pub fn new(mut hashes: Vec<Option<ContentHash>>) -> Windows {
        let with_hash = hashes.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        hashes.truncate(with_hash);
        Windows(hashes)
    }

    /// The number of the window that this offset of the file lies in.
    pub fn number_at(offset: u64) -> usize {
        usize::try_from(offset / WINDOW).unwrap_or(usize::MAX)
    }

    /// Where a window lies in a file of this size; nowhere when it lies behind its end.
    pub fn range(number: usize, size: u64) -> Range<u64> {
        let begin = (number as u64).saturating_mul(WINDOW).min(size);
        begin..begin.saturating_add(WINDOW).min(size)
    }

    /// The hash of the window that begins there.
    pub fn set(&mut self, offset: u64, hash: ContentHash) {
        let number = Self::number_at(offset);
        if self.0.len() <= number {
            self.0.resize(number + 1, None);
        }
        if let Some(window) = self.0.get_mut(number) {
            *window = Some(hash);
        }
    }

    /// The hash of a window, when it has one.
    pub fn hash(&self, number: usize) -> Option<ContentHash> {
        self.0.get(number).copied().flatten()
    }

    /// Whether no window has a hash.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to the last that has a hash, in order.
    pub fn as_slice(&self) -> &[Option<ContentHash>] {
        &self.0
    }
}

/// That a file of this size has so many windows.
pub(super) fn check_windows(size: u64, windows: &Windows) -> Result<(), String> {
    let mut check = WindowsCheck::new(size);
    windows.0.iter().try_for_each(|_| check.take())
}

/// The same, of windows as they come.
#[derive(Debug)]
pub(super) struct WindowsCheck {
    most: u64,
    found: u64,
}

impl WindowsCheck {
    /// Of a file of this size.
    pub(super) fn new(size: u64) -> WindowsCheck {
        WindowsCheck { most: size.div_ceil(WINDOW), found: 0 }
    }

    /// The next one.
    pub(super) fn take(&mut self) -> Result<(), String> {
        self.found = self.found.saturating_add(1);
        if self.found <= self.most {
            return Ok(());
        }
        Err(format!("it has {} windows, its size makes {}", self.found, self.most))
    }
}
