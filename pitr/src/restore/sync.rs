//! Makes a restored tree durable.
//!
//! File by file, not by `syncfs`: that would also write out what a database on the
//! same file system has in memory, and before Linux 5.8 it reports no errors. Many
//! at once, since each one waits for the disk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use walpoint_archive::fault_point::step;

use super::error::RestoreError;
use super::stopped;
use super::tree::Tree;

/// How many wait for the disk at once.
const WAITING: usize = 16;

/// Makes every file and directory of the tree durable, and its entry in the
/// directory above.
pub(super) fn everything(tree: &Tree) -> Result<(), RestoreError> {
    let paths = walk(tree.path())?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), RestoreError> {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            directory(tree, path)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WAITING.min(paths.len())).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(stopped())))
    })?;
    tree.sync_root()?;
    sync_above(tree.path())
}

/// Makes one file, or a directory's entries, durable.
pub(super) fn directory(tree: &Tree, path: &Path) -> Result<(), RestoreError> {
    let open = tree.open_to_read(path)?;
    step("fsync", || open.sync_all())
        .map_err(|error| RestoreError::io(&tree.path().join(path), "fsync", error))
}

/// Paths of all files and directories below, links left out: they are their directory's entries.
fn walk(root: &Path) -> Result<Vec<PathBuf>, RestoreError> {
    let mut found = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(below) = pending.pop() {
        let path = root.join(&below);
        let unreadable = |error| RestoreError::io(&path, "read directory", error);
        for entry in std::fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            let entry = below.join(entry.file_name());
            if kind.is_dir() {
                pending.push(entry.clone());
            }
            if kind.is_dir() || kind.is_file() {
                found.push(entry);
            }
        }
    }
    Ok(found)
}

/// The tree's own name is an entry of the directory above it. Whoever may write there
/// but not read it has to do without.
fn sync_above(root: &Path) -> Result<(), RestoreError> {
    let above = root.parent().unwrap_or(Path::new("/"));
    match std::fs::File::open(above) {
        Ok(directory) => {
            step("fsync", || directory.sync_all()).map_err(|error| RestoreError::io(above, "fsync", error))
        }
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_file_and_directory_is_reached_and_no_link_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("x"), "").unwrap();
        let root = scratch.path().join("data");
        std::fs::create_dir_all(root.join("base/1")).unwrap();
        std::fs::write(root.join("base/1/16384"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
        let mut found = walk(&root).unwrap();
        found.sort();
        assert_eq!(found, ["base", "base/1", "base/1/16384"].map(PathBuf::from));
        let tree = Tree::claim(&root, 0o700, None).unwrap();
        everything(&tree).unwrap();
    }
}
