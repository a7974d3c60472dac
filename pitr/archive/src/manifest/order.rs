//! That entries come in the order of their paths, none twice, and each below a
//! directory that came before it.

use std::collections::HashSet;

use super::{EntryKind, ManifestEntry};
use crate::relative_path::RelativePath;

/// What has come so far: the last path, and all directories.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: Option<RelativePath>,
    folders: HashSet<RelativePath>,
}

impl Order {
    /// Takes the next entry.
    pub(super) fn take(&mut self, entry: &ManifestEntry) -> Result<(), String> {
        if let Some(last) = &self.last
            && entry.path <= *last
        {
            return Err(format!("\"{}\" comes after \"{last}\"", entry.path));
        }
        // Folders of configuration files are the restorer's own.
        let parent = entry.path.parent().filter(|_| !matches!(entry.kind, EntryKind::Config { .. }));
        if let Some(parent) = parent
            && !self.folders.contains(&parent)
        {
            return Err(format!("\"{}\" lies in no directory of the manifest", entry.path));
        }
        if matches!(entry.kind, EntryKind::Dir | EntryKind::Tablespace { .. }) {
            self.folders.insert(entry.path.clone());
        }
        self.last = Some(entry.path.clone());
        Ok(())
    }
}
