//! The one way in which a file is written so that it survives a crash: a
//! temporary file in the same directory, its bytes made durable, then placed
//! under its name in one step, then the directory made durable.
//!
//! Everything here blocks.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::fault_point::step;

/// Begins the name of every temporary file; a killed run may leave one.
pub const TEMP_PREFIX: &str = ".tmp-";

/// Owner only, as PostgreSQL keeps its own files.
pub const FILE_MODE: u32 = 0o600;

/// Owner only.
pub const DIR_MODE: u32 = 0o700;

/// What to do when the name is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placement {
    /// Leave what is there.
    CreateOnly,
    /// Replace it.
    Replace,
}

/// What placing a file did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Placed {
    /// The name now holds the new file.
    Created,
    /// The name was taken and nothing was changed.
    Exists,
}

/// Writes a whole file durably: when this returns, the file and its name
/// survive a crash. The directory must exist. `mode` holds whatever the umask.
pub fn write_file(path: &Path, bytes: &[u8], mode: u32, placement: Placement) -> io::Result<Placed> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let dir = open_dir(parent.unwrap_or(Path::new(".")))?;
    let mut temp = TempFile::create(&dir, mode)?;
    temp.write_all(bytes)?;
    temp.sync()?;
    let placed = temp.place(name, placement)?;
    fsync_dir(&dir)?;
    Ok(placed)
}

/// Makes the bytes of a file durable.
pub fn fsync_file(path: &Path) -> io::Result<()> {
    step("fsync a file", || File::open(path)?.sync_all())
}

/// Makes the entries of a directory durable.
pub fn fsync_dir(dir: impl AsFd) -> io::Result<()> {
    step("fsync a directory", || Ok(rustix::fs::fsync(dir)?))
}

/// Opens a directory for [`fsync_dir`] and [`TempFile::create`].
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Makes a directory and those above it that are missing, durable, each with
/// exactly this mode. Those that exist are left as they are.
pub fn create_dirs(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dirs(parent, mode)?;
    let mode = Mode::from_raw_mode(mode);
    match step("make a directory", || rustix::fs::mkdir(path, mode)) {
        Ok(()) => rustix::fs::chmod(path, mode)?,
        Err(Errno::EXIST) if path.is_dir() => {}
        Err(error) => return Err(error.into()),
    }
    fsync_dir(open_dir(parent)?)
}

/// A file without a name of its own yet. Dropped before it is placed, it is
/// removed.
#[derive(Debug)]
pub struct TempFile {
    dir: OwnedFd,
    file: File,
    /// None once the temporary name is gone.
    name: Option<String>,
}

impl TempFile {
    /// Creates an empty file in `dir`, with exactly this mode.
    pub fn create(dir: &OwnedFd, mode: u32) -> io::Result<Self> {
        let name = format!("{TEMP_PREFIX}{:016x}", rand::random::<u64>());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = step("create a file", || rustix::fs::openat(dir, name.as_str(), flags, mode))?;
        let temp = Self { dir: dir.try_clone()?, file: file.into(), name: Some(name) };
        // The umask may have taken bits away.
        rustix::fs::fchmod(&temp.file, mode)?;
        Ok(temp)
    }

    /// The file, to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Appends bytes.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        step("write", || self.file.write_all(bytes))
    }

    /// Makes the bytes written so far durable.
    pub fn sync(&self) -> io::Result<()> {
        step("fsync a file", || self.file.sync_all())
    }

    /// Gives the file its name in its directory; after an error it may be called
    /// again. The caller makes the directory durable.
    pub fn place(&mut self, name: &str, placement: Placement) -> io::Result<Placed> {
        let Some(temp) = self.name.as_deref() else {
            return Err(io::Error::other("the file was placed before"));
        };
        let dir = self.dir.as_fd();
        let placed = match placement {
            Placement::Replace => rename(dir, temp, name)?,
            Placement::CreateOnly => rename_if_free(dir, temp, name)?,
        };
        if placed == Placed::Created {
            self.name = None;
        }
        Ok(placed)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Nothing can be done about a failure here; leftovers are harmless.
            let _ = rustix::fs::unlinkat(&self.dir, name.as_str(), AtFlags::empty());
        }
    }
}

fn rename(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<Placed> {
    step("rename", || rustix::fs::renameat(dir, from, dir, to))?;
    Ok(Placed::Created)
}

fn rename_if_free(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<Placed> {
    match step("rename", || rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE)) {
        Ok(()) => Ok(Placed::Created),
        Err(Errno::EXIST) => Ok(Placed::Exists),
        // The kernel or the file system (NFS, say) does not know the flag.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => link_if_free(dir, from, to),
        Err(error) => Err(error.into()),
    }
}

fn link_if_free(dir: BorrowedFd<'_>, from: &str, to: &str) -> io::Result<Placed> {
    match step("link", || rustix::fs::linkat(dir, from, dir, to, AtFlags::empty())) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(Placed::Exists),
        Err(error) => return Err(error.into()),
    }
    step("unlink", || rustix::fs::unlinkat(dir, from, AtFlags::empty()))?;
    Ok(Placed::Created)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn create_only_leaves_what_is_there_and_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert_eq!(write_file(&path, b"one", 0o600, Placement::CreateOnly).unwrap(), Placed::Created);
        assert_eq!(write_file(&path, b"two", 0o600, Placement::CreateOnly).unwrap(), Placed::Exists);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(write_file(&path, b"two", 0o600, Placement::Replace).unwrap(), Placed::Created);
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn linking_is_create_only_too() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        std::fs::write(dir.path().join("b"), "b").unwrap();
        assert_eq!(link_if_free(fd.as_fd(), "a", "b").unwrap(), Placed::Exists);
        assert_eq!(link_if_free(fd.as_fd(), "a", "c").unwrap(), Placed::Created);
        let mut left = names(dir.path());
        left.sort();
        assert_eq!(left, ["b", "c"]);
    }

    #[test]
    fn the_mode_is_exactly_the_one_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // Wider than any umask lets through by itself.
        let _ = write_file(&path, b"", 0o666, Placement::CreateOnly).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o666);
    }

    #[test]
    fn missing_directories_are_made_with_the_mode_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        create_dirs(&deep, 0o700).unwrap();
        create_dirs(&deep, 0o700).unwrap();
        assert_eq!(std::fs::metadata(&deep).unwrap().permissions().mode() & 0o7777, 0o700);
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(create_dirs(&dir.path().join("file/below"), 0o700).is_err());
    }

    #[test]
    fn a_file_that_was_never_placed_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let fd = open_dir(dir.path()).unwrap();
        drop(TempFile::create(&fd, FILE_MODE).unwrap());
        assert!(names(dir.path()).is_empty());
    }
}
