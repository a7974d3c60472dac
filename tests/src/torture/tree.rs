//! What is in a directory, to tell whether two are the same or one has changed.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// Everything below a directory, by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    root: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory { mode: u32 },
    Link(PathBuf),
    File { mode: u32, length: u64, inode: u64, changed: (i64, i64) },
}

impl Tree {
    /// Looks at a directory; one that is not there is empty.
    pub fn of(root: &Path) -> Result<Tree> {
        let mut entries = BTreeMap::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let path = root.join(&below);
            if !path.exists() {
                continue;
            }
            for entry in std::fs::read_dir(&path).with_context(|| format!("list {}", path.display()))? {
                let path = below.join(entry?.file_name());
                let entry = look(&root.join(&path))?;
                if matches!(entry, Entry::Directory { .. }) {
                    pending.push(path.clone());
                }
                entries.insert(path, entry);
            }
        }
        Ok(Tree { root: root.to_owned(), entries })
    }

    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    /// Fails unless nothing was made, removed or changed since, but for what `may_change`.
    pub fn unchanged(&self, may_change: impl Fn(&Path) -> bool) -> Result<()> {
        let now = Tree::of(&self.root)?;
        let differs = |path: &&PathBuf| self.entries.get(*path) != now.entries.get(*path);
        let paths = self.entries.keys().chain(now.entries.keys());
        let changed: Vec<&PathBuf> = paths.filter(differs).filter(|path| !may_change(path)).collect();
        ensure!(changed.is_empty(), "{} has changed: {changed:?}", self.root.display());
        Ok(())
    }

    /// Fails unless another directory has the same entries, with the same modes and
    /// the same content, but for what `may_differ`.
    pub fn same_as(&self, other: &Path, may_differ: impl Fn(&Path) -> bool) -> Result<()> {
        let found = Tree::of(other)?;
        let (ours, theirs): (Vec<_>, Vec<_>) = (self.paths().collect(), found.paths().collect());
        ensure!(ours == theirs, "{} has other entries: {}", other.display(), difference(&ours, &theirs));
        for (path, entry) in &self.entries {
            if may_differ(path) {
                continue;
            }
            let same = match (entry, found.entries.get(path)) {
                (
                    Entry::File { mode, length, .. },
                    Some(Entry::File { mode: its_mode, length: its_length, .. }),
                ) => mode == its_mode && length == its_length && self.same_content(path, other)?,
                (ours, theirs) => Some(ours) == theirs,
            };
            ensure!(same, "{} is not what it should be", other.join(path).display());
        }
        Ok(())
    }

    fn same_content(&self, path: &Path, other: &Path) -> Result<bool> {
        Ok(std::fs::read(self.root.join(path))? == std::fs::read(other.join(path))?)
    }
}

fn difference(ours: &[&Path], theirs: &[&Path]) -> String {
    let missing: Vec<_> = ours.iter().filter(|path| !theirs.contains(path)).collect();
    let more: Vec<_> = theirs.iter().filter(|path| !ours.contains(path)).collect();
    format!("missing {missing:?}, more {more:?}")
}

fn look(path: &Path) -> Result<Entry> {
    let meta = std::fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(if meta.is_dir() {
        Entry::Directory { mode: meta.mode() }
    } else if meta.is_symlink() {
        Entry::Link(std::fs::read_link(path)?)
    } else {
        let changed = (meta.mtime(), meta.mtime_nsec());
        Entry::File { mode: meta.mode(), length: meta.len(), inode: meta.ino(), changed }
    })
}
