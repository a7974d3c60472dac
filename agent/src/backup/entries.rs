//! From what was listed and read to the lines of the manifest, in path order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walpoint_archive::RelativePath;
use walpoint_archive::manifest::{EntryKind, ManifestEntry, Piece, TABLESPACE_FOLDER};
use walpoint_archive::relative_path::RelativePathError;

use super::files::{self, Entry, Listing};
use super::read::ReadFile;

/// What a backup holds.
#[derive(Debug)]
pub struct Contents {
    pub listing: Arc<Listing>,
    /// What became of the listing's files; one that has vanished is not here.
    pub files: Vec<ReadFile>,
    pub late: Vec<ManifestEntry>,
    /// The tablespaces that there were when the backup started, by OID. One
    /// made later comes back by WAL replay, which makes its link itself.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

impl Contents {
    /// Hands every line of the manifest to `take`, in order. They are made one
    /// at a time: a large backup has more pieces than should stand in memory
    /// twice.
    pub fn each<E: From<RelativePathError>>(
        &self,
        mut take: impl FnMut(&ManifestEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut sources = self.sources();
        sources.sort_by(|a, b| a.0.cmp(&b.0));
        for (path, source) in sources {
            take(&self.entry(RelativePath::new(path)?, source))?;
        }
        Ok(())
    }

    /// Where each line comes from, with its path. Borrowed: there may be a million.
    fn sources(&self) -> Vec<(Cow<'_, [u8]>, Source<'_>)> {
        let mut read: Vec<Option<&ReadFile>> = vec![None; self.listing.entries.len()];
        for file in &self.files {
            if let Some(slot) = read.get_mut(file.index) {
                *slot = Some(file);
            }
        }
        let mut sources = Vec::new();
        for (entry, read) in self.listing.entries.iter().zip(read) {
            if let Some(source) = self.source_of(entry, read) {
                sources.push((Cow::Borrowed(entry.path.as_os_str().as_bytes()), source));
            }
        }
        for late in &self.late {
            sources.push((Cow::Borrowed(late.path.as_bytes()), Source::Late(late)));
        }
        // Dropped since the start: its link is needed until replay has come
        // to where it was dropped.
        for oid in self.tablespaces.keys() {
            let path = format!("{TABLESPACE_FOLDER}/{oid}").into_bytes();
            sources.push((Cow::Owned(path), Source::Tablespace(*oid)));
        }
        sources
    }

    fn source_of<'a>(&self, entry: &'a Entry, read: Option<&'a ReadFile>) -> Option<Source<'a>> {
        if tablespace_of(&entry.path, &self.listing).is_some_and(|oid| !self.tablespaces.contains_key(&oid)) {
            return None;
        }
        match &entry.kind {
            files::EntryKind::Directory => Some(Source::Directory(entry)),
            files::EntryKind::File { .. } => read.map(|read| Source::File(entry, read)),
            files::EntryKind::Tablespace { .. } => None,
        }
    }

    fn entry(&self, path: RelativePath, source: Source<'_>) -> ManifestEntry {
        let bare = |kind, mode| ManifestEntry { path: path.clone(), kind, mode, size: 0, pieces: Vec::new() };
        match source {
            Source::Directory(entry) => bare(EntryKind::Dir, entry.mode & 0o777),
            Source::Tablespace(oid) => {
                let target = self.tablespaces.get(&oid).cloned().unwrap_or_default();
                bare(EntryKind::Tablespace { oid, target }, 0)
            }
            Source::File(entry, read) => ManifestEntry {
                size: read.content.size,
                pieces: pieces(read),
                ..bare(EntryKind::File, entry.mode & 0o777)
            },
            Source::Late(entry) => entry.clone(),
        }
    }
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Directory(&'a Entry),
    File(&'a Entry, &'a ReadFile),
    Tablespace(u32),
    Late(&'a ManifestEntry),
}

fn pieces(read: &ReadFile) -> Vec<Piece> {
    let mut offset = 0;
    let piece = |placed: &super::packs::PlacedPiece| {
        let piece = Piece::new(offset, placed.pack, placed.place);
        offset += u64::from(placed.place.length);
        piece
    };
    read.pieces.iter().map(piece).collect()
}

/// The tablespace that lies behind a link and that the path belongs to. One
/// that lies in place, as a directory, is like any other directory.
fn tablespace_of(path: &Path, listing: &Listing) -> Option<u32> {
    let oid = files::tablespace_oid(path)?;
    listing.links.contains(&oid).then_some(oid)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::packs::PlacedPiece;
    use super::super::read::file::Content;
    use super::*;
    use walpoint_archive::ContentHash;
    use walpoint_archive::pack::PiecePlace;

    fn directory(path: &str) -> Entry {
        Entry { path: path.into(), kind: files::EntryKind::Directory, mode: 0o2700 }
    }

    fn file(path: &str) -> Entry {
        let kind = files::EntryKind::File { size: 7, relation: None };
        Entry { path: path.into(), kind, mode: 0o600 }
    }

    fn link(path: &str) -> Entry {
        let kind = files::EntryKind::Tablespace { oid: files::tablespace_oid(path.as_ref()).unwrap() };
        Entry { path: path.into(), kind, mode: 0o777 }
    }

    fn contents(entries: Vec<Entry>, gone: &[&str], tablespaces: &[(u32, &str)]) -> Contents {
        let hash = ContentHash::of(b"x");
        let place = PiecePlace { offset: 3, stored_length: 5, length: 7, hash, part: None };
        let listing = Listing::of(entries);
        let read = |(index, entry): (usize, &Entry)| ReadFile {
            index,
            content: Content { size: if entry.path.ends_with("two") { 14 } else { 7 }, bad_pages: vec![] },
            pieces: vec![PlacedPiece { pack: 1, place }; if entry.path.ends_with("two") { 2 } else { 1 }]
                .into(),
        };
        let is_there = |entry: &Entry| !gone.iter().any(|path| entry.path == Path::new(path));
        let files = listing.entries.iter().enumerate();
        let files = files.filter(|(_, entry)| is_there(entry)).map(read).collect();
        let tablespaces = tablespaces.iter().map(|(oid, path)| (*oid, path.into())).collect();
        Contents { listing: Arc::new(listing), files, late: Vec::new(), tablespaces }
    }

    fn lines(contents: &Contents) -> Vec<String> {
        let mut lines = Vec::new();
        let each = contents.each::<RelativePathError>(|entry| {
            lines.push(format!("{} {:o} {}", entry.path, entry.mode, entry.size));
            Ok(())
        });
        each.unwrap();
        lines
    }

    #[test]
    fn lines_come_in_path_order_and_what_vanished_has_none() {
        let entries = vec![file("a/gone"), file("a/one"), directory("a"), file("a-b")];
        assert_eq!(lines(&contents(entries, &["a/gone"], &[])), ["a 700 0", "a-b 600 7", "a/one 600 7"]);
    }

    #[test]
    fn a_files_pieces_lie_end_to_end() {
        let contents = contents(vec![file("two")], &[], &[]);
        let mut offsets = Vec::new();
        let each = contents.each::<RelativePathError>(|entry| {
            offsets.extend(entry.pieces.iter().map(|piece| (piece.file_offset, piece.length, piece.pack)));
            Ok(())
        });
        each.unwrap();
        assert_eq!(offsets, [(0, 7, 1), (7, 7, 1)]);
    }

    #[test]
    fn tablespaces_are_those_of_the_start() {
        let entries = vec![
            directory("pg_tblspc"),
            link("pg_tblspc/1"),
            file("pg_tblspc/1/f"),
            link("pg_tblspc/2"),
            file("pg_tblspc/2/f"),
            directory("pg_tblspc/4"),
            file("pg_tblspc/4/f"),
        ];
        // 2 was made after the start, 3 dropped, and 4 lies in place.
        let contents = contents(entries, &[], &[(1, "/srv/1"), (3, "/srv/3")]);
        assert_eq!(
            lines(&contents),
            [
                "pg_tblspc 700 0",
                "pg_tblspc/1 0 0",
                "pg_tblspc/1/f 600 7",
                "pg_tblspc/3 0 0",
                "pg_tblspc/4 700 0",
                "pg_tblspc/4/f 600 7"
            ]
        );
    }
}
