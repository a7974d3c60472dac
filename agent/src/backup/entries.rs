//! From what was listed and read to the lines of the manifest, in path order.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walpoint_archive::RelativePath;
use walpoint_archive::manifest::{EntryKind, ManifestEntry, TABLESPACE_FOLDER, Windows};
use walpoint_archive::relative_path::RelativePathError;

use super::files::{self, Entry, Listing};
use super::read::ReadFiles;
use super::read::assembly::Assembled;
use super::spool::{Spool, SpoolPlace};

/// What a backup holds.
#[derive(Debug)]
pub struct Contents {
    pub listing: Arc<Listing>,
    /// What became of the listing's files.
    pub files: ReadFiles,
    /// Where their pieces are.
    pub spool: Arc<Spool>,
    pub late: Vec<ManifestEntry>,
    /// The tablespaces that there were when the backup started, by OID. One
    /// made later comes back by WAL replay, which makes its link itself.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

impl Contents {
    /// Hands every line of the manifest to `take`, in order. They are made one
    /// at a time: a large backup has more pieces than should stand in memory
    /// twice.
    pub fn each<E: From<RelativePathError> + From<io::Error>>(
        &self,
        mut take: impl FnMut(&ManifestEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut others = self.others().into_iter().peekable();
        for (index, entry) in self.listing.entries.iter().enumerate() {
            let path = entry.path.as_os_str().as_bytes();
            while let Some((path, source)) = others.next_if(|(other, _)| other.as_slice() < path) {
                take(&self.entry(RelativePath::new(path)?, source)?)?;
            }
            if let Some(source) = self.source_of(entry, index) {
                take(&self.entry(RelativePath::new(path)?, source)?)?;
            }
        }
        for (path, source) in others {
            take(&self.entry(RelativePath::new(path)?, source)?)?;
        }
        Ok(())
    }

    /// What is not in the listing, in path order.
    fn others(&self) -> Vec<(Vec<u8>, Source<'_>)> {
        let late = self.late.iter().map(|late| (late.path.as_bytes().to_vec(), Source::Late(late)));
        // Dropped since the start: its link is needed until replay has come
        // to where it was dropped.
        let path = |oid: &u32| format!("{TABLESPACE_FOLDER}/{oid}").into_bytes();
        let tablespaces = self.tablespaces.keys().map(|oid| (path(oid), Source::Tablespace(*oid)));
        let mut others: Vec<_> = late.chain(tablespaces).collect();
        others.sort_by(|one, other| one.0.cmp(&other.0));
        others
    }

    fn source_of<'a>(&self, entry: &'a Entry, index: usize) -> Option<Source<'a>> {
        if tablespace_of(&entry.path, &self.listing).is_some_and(|oid| !self.tablespaces.contains_key(&oid)) {
            return None;
        }
        match &entry.kind {
            files::EntryKind::Directory => Some(Source::Directory(entry)),
            files::EntryKind::File { .. } => self.files.place(index).map(|place| Source::File(entry, place)),
            files::EntryKind::Tablespace { .. } => None,
        }
    }

    fn entry(&self, path: RelativePath, source: Source<'_>) -> io::Result<ManifestEntry> {
        let bare = |kind, mode| ManifestEntry {
            path: path.clone(),
            kind,
            mode,
            size: 0,
            pieces: Vec::new(),
            windows: Windows::default(),
        };
        Ok(match source {
            Source::Directory(entry) => bare(EntryKind::Dir, entry.mode & 0o777),
            Source::Tablespace(oid) => {
                let target = self.tablespaces.get(&oid).cloned().unwrap_or_default();
                bare(EntryKind::Tablespace { oid, target }, 0)
            }
            Source::File(entry, place) => {
                let Assembled { pieces, windows } = self.spool.get(place)?;
                let size = pieces.last().map_or(0, |last| last.file_offset + u64::from(last.length));
                ManifestEntry { size, pieces, windows, ..bare(EntryKind::File, entry.mode & 0o777) }
            }
            Source::Late(entry) => entry.clone(),
        })
    }
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Directory(&'a Entry),
    File(&'a Entry, SpoolPlace),
    Tablespace(u32),
    Late(&'a ManifestEntry),
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

    use super::*;
    use walpoint_archive::ContentHash;
    use walpoint_archive::manifest::Piece;
    use walpoint_archive::pack::PiecePlace;

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    enum Unwritten {
        Path(#[from] RelativePathError),
        Io(#[from] io::Error),
    }

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
        let spool = Spool::new(&std::env::temp_dir());
        let mut files = ReadFiles::default();
        let mut read = |(index, entry): (usize, &Entry)| {
            let count: u64 = if entry.path.ends_with("two") { 2 } else { 1 };
            let pieces: Vec<_> = (0..count).map(|number| Piece::new(7 * number, 1, place)).collect();
            let assembled = Assembled { pieces, windows: Windows::default() };
            files.take(index, spool.put(&assembled).unwrap(), Vec::new());
        };
        let is_there = |entry: &Entry| !gone.iter().any(|path| entry.path == Path::new(path));
        listing.entries.iter().enumerate().filter(|(_, entry)| is_there(entry)).for_each(&mut read);
        let tablespaces = tablespaces.iter().map(|(oid, path)| (*oid, path.into())).collect();
        let spool = Arc::new(spool);
        Contents { listing: Arc::new(listing), files, spool, late: Vec::new(), tablespaces }
    }

    fn lines(contents: &Contents) -> Vec<String> {
        let mut lines = Vec::new();
        let each = contents.each::<Unwritten>(|entry| {
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
        let each = contents.each::<Unwritten>(|entry| {
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
