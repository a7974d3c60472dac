//! Makes a cluster that is there into what a backup has: removes what the backup does not have, keeps what is the
//! same, and leaves the rest to be fetched.
//!
//! What is the same is told by hashes: of a piece, or of a window ([`Windows`]), which is of the bytes as they were read
//! from the running server. The pieces that give a window may hold other copies of its pages, taken by older backups,
//! that differ in hint bits. Either is right: a window that is there as it was read is what a full backup in this one's
//! place would have stored, and recovery from the backup's start makes each page consistent by itself, from whichever of
//! the two it begins, whatever the page beside it begins from. A hash that was handed on from the parent is of what the
//! parent read, of pages which by their LSNs nothing but hints has changed since; this backup names the parent's pieces
//! for the same reason. A hash that fits nothing has the window fetched, and damages nothing.
//!
//! Nothing here asks whether the directory may be changed; that is decided, and `pg_control` taken away, before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use walpoint_archive::{ContentHash, Windows};

use super::error::RestoreError;
use super::inventory::Inventory;
use super::pieces::{PackPiece, PieceWork};
use super::site::{Site, on_disk};
use super::tablespaces::{Tablespace, link_of};
use super::tree::Tree;
use crate::data_dir::UNFINISHED_MARKER;

/// Removes all that the backup does not have, and that could not be written into: links, files with a second name
/// (it may be another cluster's), and what is of another kind. Returns the files that stay, by their number.
///
/// Of a tablespace's directory only what the server that was backed up has there is looked at: another version's
/// server may have its own beside it.
pub(super) fn clear(
    site: &Site,
    inventory: &Inventory,
    tablespaces: &[Tablespace],
) -> Result<BTreeSet<usize>, RestoreError> {
    let mut wanted: BTreeMap<(usize, &Path), Wanted> = BTreeMap::new();
    for directory in &inventory.directories {
        wanted.insert((directory.place.tree, &directory.place.path), Wanted::Directory);
    }
    for (number, file) in inventory.files.iter().enumerate() {
        // What is to hold zeros is made anew.
        if inventory.zeroed.contains(&number) {
            continue;
        }
        wanted.insert((file.place.tree, on_disk(&file.place)), Wanted::File(number));
    }
    let mut kept = BTreeSet::new();
    for tree in 0..=inventory.tablespaces.len() {
        let Some(root) = site.tree_number(tree) else { continue };
        let mut clearing = Clearing { root, tree, wanted: &wanted, tablespaces, kept: &mut kept };
        clearing.directory(Path::new(""))?;
    }
    Ok(kept)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Directory,
    File(usize),
}

struct Clearing<'a> {
    root: &'a Tree,
    tree: usize,
    wanted: &'a BTreeMap<(usize, &'a Path), Wanted>,
    tablespaces: &'a [Tablespace],
    kept: &'a mut BTreeSet<usize>,
}

impl Clearing<'_> {
    fn directory(&mut self, below: &Path) -> Result<(), RestoreError> {
        let path = self.root.path().join(below);
        let unreadable = |error| RestoreError::io(&path, "read directory", error);
        for entry in std::fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, metadata) = (below.join(entry.file_name()), entry.metadata().map_err(unreadable)?);
            let wanted = self.wanted.get(&(self.tree, path.as_path())).copied();
            if wanted.is_none() && self.is_left_alone(&path) {
                continue;
            }
            match wanted {
                Some(Wanted::Directory) if metadata.is_dir() => self.directory(&path)?,
                Some(Wanted::File(number)) if can_be_written_into(&metadata) => {
                    self.kept.insert(number);
                }
                _ if metadata.is_dir() => self.remove_directory(&path)?,
                _ => self.root.remove(&path)?,
            }
        }
        Ok(())
    }

    fn is_left_alone(&self, path: &Path) -> bool {
        let is_top = path.parent() == Some(Path::new(""));
        match self.tree {
            0 => {
                path == Path::new(UNFINISHED_MARKER)
                    || path == Path::new("lost+found")
                    || self.is_right_link(path)
            }
            _ => is_top,
        }
    }

    /// A tablespace's link to where the tablespace goes: whoever goes on with this knows by it whose directory that is.
    fn is_right_link(&self, path: &Path) -> bool {
        let of_path = self.tablespaces.iter().find(|tablespace| path == tablespace.link());
        of_path.is_some_and(|it| is_linked_from(self.root.path(), it.oid, &it.directory))
    }

    fn remove_directory(&mut self, below: &Path) -> Result<(), RestoreError> {
        let path = self.root.path().join(below);
        let unreadable = |error| RestoreError::io(&path, "read directory", error);
        for entry in std::fs::read_dir(&path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let path = below.join(entry.file_name());
            match entry.file_type().map_err(unreadable)?.is_dir() {
                true => self.remove_directory(&path)?,
                false => self.root.remove(&path)?,
            }
        }
        self.root.remove_directory(below)
    }
}

/// Whether a file can be read, changed and dressed by whoever runs this. Others are removed and made anew: the directory
/// that they are in is ours.
fn can_be_written_into(file: &Metadata) -> bool {
    let user = rustix::process::geteuid();
    let is_ours = user.is_root() || (file.uid() == user.as_raw() && file.mode() & 0o600 == 0o600);
    file.is_file() && file.nlink() == 1 && is_ours
}

/// A file that is there, and what the manifest says of it.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The file, by its number.
    pub(super) number: usize,
    /// In the file's order.
    pub(super) pieces: Vec<PackPiece>,
    pub(super) windows: Windows,
}

/// A file that is there. What cannot be read of it is fetched.
pub(super) struct OldFile<'a> {
    open: File,
    /// What it has in the backup, and by now here.
    size: u64,
    windows: &'a Windows,
    /// The window that was compared last: pieces come in order, so each is read once.
    last: Option<(usize, bool)>,
    buffer: &'a mut Vec<u8>,
}

impl<'a> OldFile<'a> {
    pub(super) fn new(open: File, size: u64, windows: &'a Windows, buffer: &'a mut Vec<u8>) -> OldFile<'a> {
        OldFile { open, size, windows, last: None, buffer }
    }

    /// Whether it has what this piece brings. Pieces are asked for in their order.
    pub(super) fn has(&mut self, piece: &PieceWork) -> bool {
        let length = u64::from(piece.place.length);
        let last = piece.offset.saturating_add(length.saturating_sub(1));
        let mut windows = Windows::number_at(piece.offset)..=Windows::number_at(last);
        windows.all(|number| self.has_window(number)) || self.has_whole(piece)
    }

    fn has_window(&mut self, number: usize) -> bool {
        let Some(hash) = self.windows.hash(number) else { return false };
        match self.last {
            Some((last, is_same)) if last == number => is_same,
            _ => {
                let window = Windows::range(number, self.size);
                let is_same = self.has_bytes(window, hash);
                self.last = Some((number, is_same));
                is_same
            }
        }
    }

    /// A piece that is a part of its frame has no hash of its own.
    fn has_whole(&mut self, piece: &PieceWork) -> bool {
        let end = piece.offset.saturating_add(piece.place.length.into());
        piece.place.part.is_none() && self.has_bytes(piece.offset..end, piece.place.hash)
    }

    fn has_bytes(&mut self, bytes: Range<u64>, hash: ContentHash) -> bool {
        self.buffer.resize(usize::try_from(bytes.end - bytes.start).unwrap_or_default(), 0);
        self.open.read_exact_at(self.buffer, bytes.start).is_ok() && ContentHash::of(self.buffer) == hash
    }
}

/// Whether a tablespace's directory is one of the cluster in this data directory.
pub(super) fn is_linked_from(data_directory: &Path, oid: u32, directory: &Path) -> bool {
    let link = data_directory.join(link_of(oid));
    std::fs::read_link(link).is_ok_and(|target: PathBuf| target == directory)
}
