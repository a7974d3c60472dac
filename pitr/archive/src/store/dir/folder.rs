//! Ways to the folder that holds an object, one component at a time and never
//! through a symbolic link.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::failure::Attempt;
use crate::durable::{self, DIR_MODE};
use crate::fault_point::step;
use crate::object_key::ObjectKey;
use crate::store::{StoreError, StoreErrorKind};

/// How long a writer waits for its turn in a folder. Turns last as long as one
/// fsync of a directory.
const TURN_PATIENCE: Duration = Duration::from_secs(10);

/// Opens the archive's directory itself.
pub(super) fn open_root(root: &Path, attempt: &Attempt) -> Result<OwnedFd, StoreError> {
    durable::open_dir(root).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR) => attempt
            .error(StoreErrorKind::NoArchive, missing(root, &attempt.key))
            .with_hint("is its disk mounted? a new archive is made by: walpoint init"),
        _ => attempt.io(&format!("open the archive's directory {}", root.display()), &error),
    })
}

/// Names the directory unless it is what could not be opened and named already.
fn missing(root: &Path, named: &str) -> String {
    let root = root.display().to_string();
    let which = if root == named { String::new() } else { format!(" {root}") };
    format!("the archive's directory{which} is missing")
}

/// The name of an object's file and the components of the folder above it.
pub(super) fn split(key: &ObjectKey) -> (Vec<&str>, &str) {
    let mut folders: Vec<&str> = key.components().collect();
    let name = folders.pop().unwrap_or_default();
    (folders, name)
}

/// Opens the folder with these components; none when there is none.
pub(super) fn open(
    root: &Path,
    components: &[&str],
    attempt: &Attempt,
) -> Result<Option<OwnedFd>, StoreError> {
    let mut folder = open_root(root, attempt)?;
    for name in components {
        match enter(&folder, name, attempt)? {
            Some(next) => folder = next,
            None => return Ok(None),
        }
    }
    Ok(Some(folder))
}

/// Opens one folder inside another; none when there is no folder of that name.
pub(super) fn enter(folder: &OwnedFd, name: &str, attempt: &Attempt) -> Result<Option<OwnedFd>, StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(next) => Ok(Some(next)),
        Err(Errno::NOENT) => Ok(None),
        // A link answers like a file.
        Err(Errno::NOTDIR | Errno::LOOP) if is_symbolic_link(folder, name) => {
            Err(attempt.symbolic_link(name))
        }
        Err(Errno::NOTDIR) => Ok(None),
        Err(error) => Err(attempt.io(&format!("open the folder {name:?}"), &error.into())),
    }
}

pub(super) fn is_symbolic_link(folder: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// The folders from the root to the one that takes an object.
#[derive(Debug)]
pub(super) struct FolderChain {
    /// Root first; never empty.
    above: Vec<OwnedFd>,
    last: OwnedFd,
}

impl FolderChain {
    /// Opens them, making those that are missing.
    pub(super) fn make(root: &Path, components: &[&str], attempt: &Attempt) -> Result<Self, StoreError> {
        let mut chain = Self { above: Vec::new(), last: open_root(root, attempt)? };
        for name in components {
            let next = match enter(&chain.last, name, attempt)? {
                Some(next) => next,
                None => make(&chain.last, name, attempt)?,
            };
            chain.above.push(std::mem::replace(&mut chain.last, next));
        }
        Ok(chain)
    }

    /// Opens them as far as they are all there.
    pub(super) fn find(
        root: &Path,
        components: &[&str],
        attempt: &Attempt,
    ) -> Result<Option<Self>, StoreError> {
        let mut chain = Self { above: Vec::new(), last: open_root(root, attempt)? };
        for name in components {
            let Some(next) = enter(&chain.last, name, attempt)? else { return Ok(None) };
            chain.above.push(std::mem::replace(&mut chain.last, next));
        }
        Ok(Some(chain))
    }

    /// The folder that takes the object.
    pub(super) fn last(&self) -> &OwnedFd {
        &self.last
    }

    /// Makes every entry on the way durable. Also the folders that were there:
    /// another process may have made them a moment ago and not be done yet.
    pub(super) fn sync(&self, attempt: &Attempt) -> Result<(), StoreError> {
        for folder in std::iter::once(&self.last).chain(self.above.iter().rev()) {
            sync(folder, attempt)?;
        }
        Ok(())
    }

    /// Removes the folders that have become empty, from the last one up, as
    /// far as that goes. The root stays.
    pub(super) fn remove_empty(&self, components: &[&str]) {
        for (folder, name) in self.above.iter().zip(components).rev() {
            if rustix::fs::unlinkat(folder, *name, AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
    }
}

fn make(folder: &OwnedFd, name: &str, attempt: &Attempt) -> Result<OwnedFd, StoreError> {
    let doing = || format!("make the folder {name:?}");
    let mode = Mode::from_raw_mode(DIR_MODE);
    match step("make a directory", || rustix::fs::mkdirat(folder, name, mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(attempt.io(&doing(), &error.into())),
    }
    match enter(folder, name, attempt)? {
        Some(made) => {
            rustix::fs::fchmod(&made, mode).map_err(|error| attempt.io(&doing(), &error.into()))?;
            Ok(made)
        }
        None => {
            let taken = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
            let detail = format!("the folder {name:?} went away, or a file has its name");
            let kind = if taken { StoreErrorKind::Other } else { StoreErrorKind::Transient };
            Err(attempt.error(kind, detail))
        }
    }
}

/// Makes the entries of one folder durable.
pub(super) fn sync(folder: &OwnedFd, attempt: &Attempt) -> Result<(), StoreError> {
    durable::fsync_dir(folder).map_err(|error| attempt.io("make a folder durable", &error))
}

/// A writer's turn in a folder; over when dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(Option<&'a OwnedFd>);

impl<'a> Turn<'a> {
    /// Waits for the turn, not for ever: a writer that was stopped while it
    /// had its turn must not stop all others.
    pub(super) fn wait(folder: &'a OwnedFd, attempt: &Attempt) -> Result<Self, StoreError> {
        let since = Instant::now();
        loop {
            match rustix::fs::flock(folder.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(Some(folder))),
                Err(Errno::WOULDBLOCK | Errno::INTR) if since.elapsed() < TURN_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    let detail = "another process has been writing into the same folder for 10 s";
                    return Err(attempt.error(StoreErrorKind::Transient, detail));
                }
                // Not every file system can lock, and not every one a folder.
                Err(
                    Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::IO,
                ) => {
                    return Ok(Self(None));
                }
                Err(error) => return Err(attempt.io("lock a folder", &io::Error::from(error))),
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(folder) = self.0 {
            // Closing the folder would end the lock as well.
            let _ = rustix::fs::flock(folder.as_fd(), FlockOperation::Unlock);
        }
    }
}
