//! The spool as whoever fills it has it: alone, by a lock that ends with the process.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use walpoint_archive::{ContentHash, ContentId, own_directory};
use walpoint_wal::SegmentName;

use super::{ASKED, LOCK, Named, PREFIX, Spool, new_file, open_file};

/// Who only looks whether the lock is held has it for a moment.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A spool whose lock is held.
#[derive(Debug)]
pub struct Tended {
    spool: Spool,
    _lock: File,
}

impl Tended {
    /// Takes the spool over, making its directory where it is missing, and removes what is in it. None when
    /// somebody else has it.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn take_over(spool: Spool) -> io::Result<Option<Self>> {
        for attempt in 0..TRIES {
            if attempt > 0 {
                std::thread::sleep(BETWEEN_TRIES);
            }
            spool.make_own()?;
            if let Some(lock) = lock(&spool.directory)? {
                remove_files(&spool.directory);
                return Ok(Some(Self { spool, _lock: lock }));
            }
        }
        Ok(None)
    }

    /// What `archive-get` sees of it.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Begins the file of this segment with this content.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn begin(&self, segment: SegmentName, content: ContentId) -> io::Result<Incoming> {
        let path = self.spool.path(Named::Coming(segment, content));
        let _ = std::fs::remove_file(&path);
        let file = new_file(&path, false)?;
        Ok(Incoming { spool: self.spool.clone(), segment, path: Some(path), file })
    }

    /// Whether the file of this segment with this content is there.
    pub fn has(&self, segment: SegmentName, content: ContentHash) -> bool {
        self.spool.path(Named::Whole(segment, content)).exists()
    }

    /// Removes the file of this segment with this content, when it is there.
    pub fn remove(&self, segment: SegmentName, content: ContentHash) {
        let _ = std::fs::remove_file(self.spool.path(Named::Whole(segment, content)));
    }

    /// Bytes that are free on its disk.
    ///
    /// # Errors
    /// When the file system does not say.
    pub fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.spool.directory)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Removes it, and all that is in it.
    pub fn clear(self) {
        remove(&self.spool.directory);
    }
}

/// A file on its way into the spool. Dropped before it is finished, it is removed.
#[derive(Debug)]
pub struct Incoming {
    spool: Spool,
    segment: SegmentName,
    path: Option<PathBuf>,
    file: File,
}

impl Incoming {
    /// The file, to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it the name of its content, which the archive was seen to have at this time: from now on it may be
    /// taken.
    ///
    /// # Errors
    /// When it cannot be renamed.
    #[expect(clippy::disallowed_methods, reason = "nothing here has to survive a crash")]
    pub fn finish(mut self, content: ContentHash, listed_at: SystemTime) -> io::Result<()> {
        self.file.set_modified(listed_at)?;
        if let Some(path) = &self.path {
            std::fs::rename(path, self.spool.path(Named::Whole(self.segment, content)))?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes the spools of this user in a directory that nobody tends, but for one: what killed processes left of
/// recoveries that may be over.
pub fn remove_abandoned(place: &Path, but: &Spool) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_spool = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_spool || path == but.directory || own_directory::check(&path).is_err() {
            continue;
        }
        // Held until it is gone, so that nobody begins to fill what is being removed.
        if let Ok(Some(_lock)) = lock(&path) {
            remove(&path);
        }
    }
}

/// The lock of the spool in this directory; none when somebody holds it.
fn lock(directory: &Path) -> io::Result<Option<File>> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = open_file(&path, &mut options)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Whoever had it before may have removed it with the spool: then it is not the one that others look at.
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let is_there = std::fs::metadata(&path).map(identity).ok() == Some(identity(file.metadata()?));
    Ok(is_there.then_some(file))
}

fn remove(directory: &Path) {
    remove_files(directory);
    for name in [ASKED, LOCK] {
        let _ = std::fs::remove_file(directory.join(name));
    }
    let _ = std::fs::remove_dir(directory);
}

/// Removes what was fetched, and what `archive-get` left that was killed while it wrote down what it was asked
/// for. What cannot be removed stays for the next one; nobody takes it for anything.
fn remove_files(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_made_here) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Names that are given here, and to nothing of PostgreSQL's: whatever directory this should ever be.
fn is_made_here(name: &str) -> bool {
    let is_note = name.strip_prefix(ASKED).is_some_and(|process| process.starts_with('.'));
    is_note || Named::parse(name).is_some()
}
