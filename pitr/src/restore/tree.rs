//! The directories that a restore writes to.
//!
//! Paths come from a manifest, which somebody else may have written: every step of
//! a path is opened by itself, relative to the directory before it, and a symbolic
//! link is never followed. What is created must not have existed. So nothing can be
//! written outside, whatever the manifest says and whatever lies in the way.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use walpoint_archive::fault_point::step;

use super::error::RestoreError;

/// Whom the restored files belong to, when root restores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
}

/// An open directory and everything below it.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    path: PathBuf,
    owner: Option<Owner>,
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the directory, made first when it is absent. It is given the mode and
    /// the owner of a data directory.
    pub(super) fn claim(path: &Path, mode: u32, owner: Option<Owner>) -> Result<Tree, RestoreError> {
        let at = |verb| move |error: rustix::io::Errno| RestoreError::io(path, verb, error.into());
        match step("create directory", || rustix::fs::mkdir(path, Mode::from_raw_mode(mode))) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(at("create directory")(error)),
        }
        let root = rustix::fs::open(path, DIRECTORY, Mode::empty()).map_err(at("open directory"))?;
        let tree = Tree { root, path: path.to_owned(), owner };
        tree.dress(&tree.root, mode).map_err(at("set mode and owner of"))?;
        Ok(tree)
    }

    /// Where it is, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory; one that is there already stays, with this mode. Those above
    /// it must exist.
    pub(super) fn create_directory(&self, path: &Path, mode: u32) -> Result<(), RestoreError> {
        self.within(path, "create directory", |parent, name| {
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
            self.dress(&directory, mode)
        })
    }

    /// Makes a file that must not have existed.
    pub(super) fn create_file(&self, path: &Path, mode: u32) -> Result<File, RestoreError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.within(path, "create file", |parent, name| {
            let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode))?;
            self.dress(&file, mode)?;
            Ok(file.into())
        })
    }

    /// Opens a file that is there to become another one, in its place and with this mode.
    pub(super) fn adopt_file(&self, path: &Path, mode: u32) -> Result<File, RestoreError> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.within(path, "open file", |parent, name| {
            let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            self.dress(&file, mode)?;
            Ok(file.into())
        })
    }

    /// Makes a file with this content.
    pub(super) fn write_new(&self, path: &Path, mode: u32, content: &[u8]) -> Result<(), RestoreError> {
        let mut file = self.create_file(path, mode)?;
        step("write", || file.write_all(content)).map_err(|error| self.error(path, "write", error))
    }

    /// Gives a file new content in place of the old.
    pub(super) fn rewrite(&self, path: &Path, content: &[u8]) -> Result<(), RestoreError> {
        let mut file = self.open_file(path)?;
        step("write", || file.set_len(0).and_then(|()| file.write_all(content)))
            .map_err(|error| self.error(path, "write", error))
    }

    /// Opens a file to write at places of it.
    pub(super) fn open_file(&self, path: &Path) -> Result<File, RestoreError> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.within(path, "open file", |parent, name| {
            Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?.into())
        })
    }

    /// Opens a file or directory to read it or to make it durable.
    pub(super) fn open_to_read(&self, path: &Path) -> Result<File, RestoreError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.within(path, "open", |parent, name| {
            Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?.into())
        })
    }

    /// Whether a regular file has this name.
    pub(super) fn has_file(&self, path: &Path) -> Result<bool, RestoreError> {
        self.within(path, "look at", |parent, name| {
            match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => Ok(FileType::from_raw_mode(found.st_mode) == FileType::RegularFile),
                Err(rustix::io::Errno::NOENT) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Whether a directory, and no link to one, has this name.
    pub(super) fn has_directory(&self, path: &Path) -> Result<bool, RestoreError> {
        self.within(path, "look at", |parent, name| {
            match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory),
                Err(rustix::io::Errno::NOENT) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// Makes a symbolic link that must not have existed.
    pub(super) fn link(&self, path: &Path, target: &Path) -> Result<(), RestoreError> {
        self.within(path, "create symbolic link", |parent, name| {
            rustix::fs::symlinkat(target, parent, name)?;
            match self.owner {
                Some(owner) => rustix::fs::chownat(
                    parent,
                    name,
                    Some(Uid::from_raw(owner.user)),
                    Some(Gid::from_raw(owner.group)),
                    AtFlags::SYMLINK_NOFOLLOW,
                ),
                None => Ok(()),
            }
        })
    }

    /// Gives a file another name in the same directory.
    pub(super) fn rename(&self, path: &Path, new_name: &str) -> Result<(), RestoreError> {
        self.within(path, "rename", |parent, name| rustix::fs::renameat(parent, name, parent, new_name))
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Path) -> Result<(), RestoreError> {
        self.within(path, "remove", |parent, name| rustix::fs::unlinkat(parent, name, AtFlags::empty()))
    }

    /// Removes an empty directory.
    pub(super) fn remove_directory(&self, path: &Path) -> Result<(), RestoreError> {
        self.within(path, "remove directory", |parent, name| {
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
        })
    }

    /// Makes the directory's own entries durable.
    pub(super) fn sync_root(&self) -> Result<(), RestoreError> {
        step("fsync", || rustix::fs::fsync(&self.root))
            .map_err(|error| RestoreError::io(&self.path, "fsync", error.into()))
    }

    /// Does something to the last step of a path, in the directory that the others lead to.
    fn within<T>(
        &self,
        path: &Path,
        verb: &'static str,
        act: impl FnOnce(&OwnedFd, &Path) -> rustix::io::Result<T>,
    ) -> Result<T, RestoreError> {
        let mut steps = Vec::new();
        for component in path.components() {
            let Component::Normal(step) = component else {
                return Err(self.error(path, verb, io::Error::other("the path leads elsewhere")));
            };
            steps.push(Path::new(step));
        }
        let Some((name, parents)) = steps.split_last() else {
            return Err(self.error(path, verb, io::Error::other("the path is empty")));
        };
        let walk = || -> rustix::io::Result<T> {
            let mut held: Option<OwnedFd> = None;
            for step in parents {
                let from = held.as_ref().unwrap_or(&self.root);
                held = Some(rustix::fs::openat(from, *step, DIRECTORY, Mode::empty())?);
            }
            act(held.as_ref().unwrap_or(&self.root), name)
        };
        step(verb, walk).map_err(|error| self.error(path, verb, error.into()))
    }

    fn dress(&self, object: impl AsFd, mode: u32) -> rustix::io::Result<()> {
        // The umask may have taken bits away, and must not decide what a cluster is like.
        rustix::fs::fchmod(&object, Mode::from_raw_mode(mode))?;
        match self.owner {
            Some(owner) => {
                rustix::fs::fchown(&object, Some(Uid::from_raw(owner.user)), Some(Gid::from_raw(owner.group)))
            }
            None => Ok(()),
        }
    }

    fn error(&self, path: &Path, verb: &'static str, source: io::Error) -> RestoreError {
        RestoreError::io(&self.path.join(path), verb, source)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn tree(scratch: &tempfile::TempDir) -> Tree {
        Tree::claim(&scratch.path().join("data"), 0o700, None).unwrap()
    }

    #[test]
    fn files_are_made_with_their_mode_whatever_the_umask() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = tree(&scratch);
        tree.create_directory(Path::new("base"), 0o750).unwrap();
        tree.write_new(Path::new("base/1"), 0o640, b"abc").unwrap();
        let mode =
            |name: &str| std::fs::metadata(tree.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(""), mode("base"), mode("base/1")), (0o700, 0o750, 0o640));
        assert_eq!(std::fs::read(tree.path().join("base/1")).unwrap(), b"abc");
    }

    #[test]
    fn no_path_leads_outside() {
        let scratch = tempfile::tempdir().unwrap();
        let tree = tree(&scratch);
        for path in ["../x", "/tmp/x", "a/../../x", "", "."] {
            assert!(tree.create_file(Path::new(path), 0o600).is_err(), "{path}");
            assert!(tree.create_directory(Path::new(path), 0o700).is_err(), "{path}");
        }
        assert!(!scratch.path().join("x").exists());
    }

    #[test]
    fn links_are_not_followed_and_nothing_is_overwritten() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = scratch.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "old").unwrap();
        let tree = tree(&scratch);
        symlink(&outside, tree.path().join("link")).unwrap();
        symlink(outside.join("file"), tree.path().join("name")).unwrap();
        assert!(tree.create_file(Path::new("link/new"), 0o600).is_err());
        assert!(tree.create_directory(Path::new("link"), 0o700).is_err());
        assert!(tree.create_file(Path::new("name"), 0o600).is_err());
        assert!(tree.open_file(Path::new("name")).is_err());
        assert!(tree.rewrite(Path::new("link/file"), b"new").is_err());
        assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "old");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        tree.write_new(Path::new("twice"), 0o600, b"1").unwrap();
        assert!(tree.write_new(Path::new("twice"), 0o600, b"2").is_err());
    }
}
