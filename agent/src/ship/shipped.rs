//! What is remembered of a file that was shipped: enough to tell whether the file that has its name now is the
//! same. A name alone proves nothing, for after a re-init or a restore in place it is another file's.

use super::source::{Identity, Source};
use crate::exit::Failure;
use std::path::Path;

/// Bytes of the header that are remembered: a segment's long page header with address, timeline and system
/// identifier.
const HEADER: usize = 40;

/// One file, at one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    identity: Identity,
    header: [u8; HEADER],
}

impl Shipped {
    /// Of a file that is open.
    ///
    /// # Errors
    /// Status 1.
    pub fn of(source: &Source) -> Result<Self, Failure> {
        let length = HEADER.min(usize::try_from(source.size()).unwrap_or(HEADER));
        let mut header = [0; HEADER];
        for (to, from) in header.iter_mut().zip(source.read_at(0, length)?) {
            *to = from;
        }
        Ok(Self { identity: source.identity(), header })
    }

    /// Whether this path means the same file still.
    ///
    /// # Errors
    /// Status 1 or 2 when it cannot be read.
    pub fn is_at(&self, path: &Path) -> Result<bool, Failure> {
        let source = Source::open(path)?;
        Ok(source.identity() == self.identity && Self::of(&source)? == *self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, FileTimes};
    use std::time::{Duration, UNIX_EPOCH};

    fn write(path: &Path, content: &[u8]) {
        std::fs::write(path, content).unwrap();
        let time = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        File::options().write(true).open(path).unwrap().set_times(time).unwrap();
    }

    #[test]
    fn a_file_shorter_than_a_header_is_remembered_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("00000002.history");
        write(&path, b"1\t0/800098\tno reason\n");
        let shipped = Shipped::of(&Source::open(&path).unwrap()).unwrap();
        assert!(shipped.is_at(&path).unwrap());
        write(&path, b"1\t0/800099\tno reason\n");
        assert!(!shipped.is_at(&path).unwrap());
    }

    #[test]
    fn another_file_under_the_same_name_is_not_taken_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("000000010000000000000001");
        write(&path, &[1; 8192]);
        let shipped = Shipped::of(&Source::open(&path).unwrap()).unwrap();
        assert!(shipped.is_at(&path).unwrap());

        // In place, with its size and time: only the header tells.
        write(&path, &[2; 8192]);
        assert!(!shipped.is_at(&path).unwrap());
        write(&path, &[1; 8192]);
        assert!(shipped.is_at(&path).unwrap());

        // A copy with the same content, size and time.
        std::fs::hard_link(&path, directory.path().join("kept")).unwrap();
        std::fs::remove_file(&path).unwrap();
        write(&path, &[1; 8192]);
        assert!(!shipped.is_at(&path).unwrap());

        std::fs::remove_file(&path).unwrap();
        assert!(shipped.is_at(&path).is_err());
    }
}
