//! A WAL file on this host, as `archive-push` was given it: read whole when it is small, in passes when it is a
//! segment, and proven to be the same file from the first byte to the last.

use crate::exit::Failure;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at a time: they stay in the processor's cache.
const STEP: usize = 128 << 10;

/// Most bytes that are set aside at once for a file that is read whole.
const WHOLE_AT_ONCE: u64 = 1 << 20;

/// A regular file that is open.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: Arc<File>,
    identity: Identity,
}

/// What tells one file, at one state, from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i64,
}

impl Identity {
    /// Of what a path means now.
    pub fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|metadata| Self::of(&metadata))
    }

    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec()),
        }
    }
}

impl Source {
    /// Opens a file.
    ///
    /// # Errors
    /// Status 1 when it cannot be opened, status 2 when it is no regular file.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| unreadable(path, &error))?;
        let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
        if !metadata.is_file() {
            return Err(Failure::usage(format!("could not read \"{}\": not a regular file", path.display()))
                .with_hint("archive-push takes finished WAL files from pg_wal, as %p in archive_command"));
        }
        Ok(Self { path: path.to_owned(), file: Arc::new(file), identity: Identity::of(&metadata) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Its size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        self.identity.size
    }

    /// What it was when it was opened.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Reads the whole file, and proves that it did not change meanwhile.
    ///
    /// # Errors
    /// Status 1.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.size().min(WHOLE_AT_ONCE)).unwrap_or(0));
        self.pieces(|piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Hands the whole file over piece by piece, and proves that it did not change meanwhile.
    ///
    /// # Errors
    /// Status 1.
    pub fn pieces(&self, mut take: impl FnMut(&[u8])) -> Result<(), Failure> {
        // A descriptor of its own, so that every pass begins at the first byte.
        let file = File::open(&self.path).map_err(|error| unreadable(&self.path, &error))?;
        let mut left = self.size();
        let mut limited = (&file).take(left);
        let mut piece = vec![0; STEP];
        while left > 0 {
            let count = match limited.read(&mut piece) {
                Ok(0) => return Err(self.changed()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(&self.path, &error)),
            };
            take(piece.get(..count).unwrap_or_default());
            left = left.saturating_sub(count as u64);
        }
        self.same(&file)
    }

    /// Bytes at a place of the file, all of them.
    ///
    /// # Errors
    /// Status 1.
    pub fn read_at(&self, offset: u64, length: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| unreadable(&self.path, &error))?;
        Ok(bytes)
    }

    /// Fails unless the name still means the file that was opened, in the state it had then.
    ///
    /// # Errors
    /// Status 1.
    pub fn unchanged(&self) -> Result<(), Failure> {
        self.same(&self.file)?;
        let named = std::fs::metadata(&self.path).map_err(|error| unreadable(&self.path, &error))?;
        if Identity::of(&named) == self.identity { Ok(()) } else { Err(self.changed()) }
    }

    fn same(&self, file: &File) -> Result<(), Failure> {
        let now = file.metadata().map_err(|error| unreadable(&self.path, &error))?;
        if Identity::of(&now) == self.identity { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> Failure {
        Failure::failed(format!(
            "could not read \"{}\": it was changed, or replaced by another file, meanwhile",
            self.path.display()
        ))
        .with_hint("PostgreSQL offers it again by itself; called by hand, name a file that is finished")
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("could not read \"{}\": {error}", path.display())).with_hint(
        "archive-push takes the path that PostgreSQL puts for %p, and runs as the user that owns the data directory",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_whole_and_in_pieces_alike() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..3 * STEP + 5).map(|index| (index % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let source = Source::open(&path).unwrap();
        let mut pieces = Vec::new();
        source.pieces(|piece| pieces.extend_from_slice(piece)).unwrap();
        assert!(source.read().unwrap() == content && pieces == content);
        source.unchanged().unwrap();
    }

    #[test]
    fn a_file_that_changed_is_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [1; 100]).unwrap();
        let source = Source::open(&path).unwrap();
        std::fs::write(&path, [1; 101]).unwrap();
        assert!(source.unchanged().is_err() && source.read().is_err());
        let source = Source::open(&path).unwrap();
        std::fs::hard_link(&path, directory.path().join("kept")).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [1; 101]).unwrap();
        assert!(source.unchanged().is_err(), "recycled under the same name");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Source::open(directory.path()).unwrap_err().status, crate::exit::Status::Usage);
    }
}
