//! What a backup's manifest asks for, read whole and checked before anything is
//! written. Pure.
//!
//! The manifest's own rules (plain relative paths in order, none twice, each below a
//! directory of the manifest, pieces without gaps) are the reader's; here come the
//! rules of a data directory. Memory: some 100 bytes for each file that is kept
//! ([`Keep`]). Of what files consist of only that of a few small ones stays, which may
//! be configuration; a restore reads the manifest again for the rest
//! ([`super::to_fetch`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walpoint_archive::RelativePath;
use walpoint_archive::manifest::{EntryKind, ManifestEntry, ManifestPart, Piece};

use super::configuration;
use super::databases::database_of;
use super::error::RestoreError;
use super::holes::Holes;
use super::manifest_of::ManifestOf;
use super::pack_table::PackTable;
use super::pieces::{PackPiece, PieceWork};
use super::site::{GroupAccess, NewDirectory, NewFile, Place};
use crate::contract::CONTRACT_FILE;
use crate::data_dir::{CONTROL_FILE, UNFINISHED_MARKER};
use crate::recovery_settings::{RECOVERY_SIGNAL, STANDBY_SIGNAL};

#[cfg(test)]
mod tests;

/// Where the writer id is kept, within the data directory. A copy gets a new one.
pub(super) const WRITER_FILE: &str = "walpoint.writer";

/// From which PostgreSQL makes the links to tablespaces at start. Written anew, since
/// the one in the backup names the old directories.
pub(super) const TABLESPACE_MAP: &str = "tablespace_map";

/// The file that makes PostgreSQL begin where the backup began.
pub(super) const BACKUP_LABEL: &str = "backup_label";

/// Files of the cluster's former life: they would make the copy something else than
/// what is asked for.
const LEFT_OUT: [&str; 8] = [
    "postmaster.pid",
    "postmaster.opts",
    STANDBY_SIGNAL,
    RECOVERY_SIGNAL,
    UNFINISHED_MARKER,
    CONTRACT_FILE,
    WRITER_FILE,
    TABLESPACE_MAP,
];

/// Bytes of `global/pg_control` on every version (`PG_CONTROL_FILE_SIZE`).
const CONTROL_FILE_BYTES: u64 = 8192;

/// A `backup_label` is a few lines.
const LABEL_BYTES: u64 = 64 * 1024;

/// Pieces of files as small as this may be kept.
const SMALL: u64 = 64 * 1024;

/// As many pieces are kept of small files.
const MOST_PIECES: usize = if cfg!(test) { 64 } else { 16 * 1024 };

/// Of which files is kept what they are called and how large they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Of all: they are to be made.
    All,
    /// Of those that are in no database: the others are only counted.
    OutsideDatabases,
}

/// All that is to be made.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) keep: Keep,
    pub(super) directories: Vec<NewDirectory>,
    pub(super) files: Vec<NewFile>,
    /// Files that are not among these, by tree and database.
    pub(super) counted: BTreeMap<(usize, u32), Counted>,
    pub(super) table: Arc<PackTable>,
    /// How many pieces all files have.
    pub(super) piece_count: u64,
    /// The pieces of small files, as far as they are kept, by the file's number.
    pub(super) pieces: BTreeMap<usize, Vec<PackPiece>>,
    /// Object identifier and old path of each tablespace; the n-th is tree n + 1.
    pub(super) tablespaces: Vec<(u32, PathBuf)>,
    /// Configuration from outside: where it goes, and where it was.
    pub(super) configuration: Vec<(PathBuf, PathBuf)>,
    /// Files of the backup that are not restored.
    pub(super) left_out: Vec<String>,
    /// Bytes that are not written, of files that have such, by the file's number.
    pub(super) holes: BTreeMap<usize, u64>,
    /// Files that are made and hold only zeros, by their number.
    pub(super) zeroed: BTreeSet<usize>,
    pub(super) group: GroupAccess,
    /// Bytes of content.
    pub(super) bytes: u64,
}

/// Files of a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Of these, those that are not written.
    pub(super) holes: u64,
}

impl Inventory {
    /// The bytes that are written of a file of this number when it is new.
    pub(super) fn written(&self, number: usize, file: &NewFile) -> u64 {
        match self.zeroed.contains(&number) {
            true => 0,
            false => file.size.saturating_sub(self.holes.get(&number).copied().unwrap_or(0)),
        }
    }

    /// Whether the backup has a file or directory there, as far as is known: of files that are only counted it is
    /// taken for granted.
    pub(super) fn has(&self, place: &Place) -> bool {
        let is_counted =
            || database_of(place).is_some_and(|oid| self.counted.contains_key(&(place.tree, oid)));
        self.files.iter().any(|file| file.place == *place)
            || self.directories.iter().any(|directory| directory.place == *place)
            || is_counted()
    }
}

/// What an entry may be, whoever reads the manifest: a restore, or `verify` beforehand.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// The tablespaces so far: the n-th is tree n.
    trees: BTreeMap<u32, usize>,
    bytes: u64,
}

impl Rules {
    /// Checks the next entry.
    pub(crate) fn check(&mut self, entry: &ManifestEntry) -> Result<(), String> {
        match &entry.kind {
            EntryKind::Tablespace { oid, .. } => {
                self.trees.insert(*oid, self.trees.len() + 1);
                return Ok(());
            }
            EntryKind::Dir => return self.place(&entry.path).map(drop),
            EntryKind::File if entry.path.as_path().starts_with("pg_wal") => {
                return Err("a backup holds no WAL of its own".to_owned());
            }
            EntryKind::File if is_left_out(entry) => return Ok(()),
            EntryKind::File | EntryKind::Config { .. } => {}
        }
        self.place(&entry.path)?;
        self.bytes = self.bytes.checked_add(entry.size).ok_or("the files are too large together")?;
        Ok(())
    }

    /// Which tree a path lies in: what is below the link of a tablespace goes to the
    /// tablespace's own directory.
    fn place(&self, path: &RelativePath) -> Result<Place, String> {
        let path = path.as_path();
        let mut steps = path.components();
        let (above, name) = (steps.next(), steps.next());
        let oid = name.and_then(|name| name.as_os_str().to_str()).and_then(|name| name.parse().ok());
        let tablespace = above.is_some_and(|above| above.as_os_str() == "pg_tblspc");
        let tree = oid.filter(|_| tablespace).and_then(|oid: u32| self.trees.get(&oid));
        let Some(tree) = tree else {
            return Ok(Place::in_data_directory(path));
        };
        let below = steps.as_path();
        // The server's own directory in a tablespace. Nothing else there is the cluster's,
        // and the old path is somebody's word for where to write.
        match below.components().next().and_then(|step| step.as_os_str().to_str()) {
            Some(first) if first.starts_with("PG_") => Ok(Place { tree: *tree, path: below.to_owned() }),
            _ => Err("a tablespace holds only directories that begin with PG_".to_owned()),
        }
    }
}

fn is_left_out(entry: &ManifestEntry) -> bool {
    entry.path.as_str().is_some_and(|name| LEFT_OUT.contains(&name))
}

/// Numbers the files of a manifest, the same each time that it is read.
#[derive(Debug)]
pub(super) struct Numbering {
    rules: Rules,
    keep: Keep,
    next: usize,
}

/// What an entry is to a restore.
#[derive(Debug)]
pub(super) enum Numbered {
    /// A file to make, by its number.
    File(usize, Place),
    /// A file of a database, which is only counted.
    Counted(usize, u32),
    /// No file, or one that is not restored.
    Other,
}

impl Numbering {
    pub(super) fn new(keep: Keep) -> Numbering {
        Numbering { rules: Rules::default(), keep, next: 0 }
    }

    /// Checks the next entry.
    pub(super) fn take(&mut self, entry: &ManifestEntry) -> Result<Numbered, String> {
        self.rules.check(entry)?;
        if !entry.kind.is_file() || (entry.kind == EntryKind::File && is_left_out(entry)) {
            return Ok(Numbered::Other);
        }
        let place = self.rules.place(&entry.path)?;
        match database_of(&place) {
            Some(oid) if self.keep == Keep::OutsideDatabases => Ok(Numbered::Counted(place.tree, oid)),
            _ => {
                self.next += 1;
                Ok(Numbered::File(self.next - 1, place))
            }
        }
    }
}

/// Reads a manifest to its end.
pub(super) fn read(
    manifest: impl BufRead,
    of: &ManifestOf,
    table: Arc<PackTable>,
    keep: Keep,
) -> Result<Inventory, RestoreError> {
    let mut reading = Reading::new(table, keep);
    of.each_part(manifest, |part| match part {
        ManifestPart::Entry(entry) => reading.take(&entry),
        ManifestPart::Content(content) => reading.take_pieces(&content.pieces),
    })?;
    reading.finish(of)
}

/// The file that pieces are of.
#[derive(Debug, Clone, Copy)]
enum Current {
    /// One that is not restored.
    Nobody,
    /// One to make, by its number, whose pieces are kept.
    Small(usize),
    Large(usize),
    /// One that is counted, by its tree and database.
    Counted(usize, u32),
}

/// What has been read so far.
struct Reading {
    numbering: Numbering,
    made: BTreeSet<Place>,
    current: Current,
    is_hole: Holes,
    /// How many pieces were kept.
    pieces: usize,
    /// Index and old path of each configuration file from outside.
    configuration: Vec<(usize, PathBuf)>,
    inventory: Inventory,
}

impl Reading {
    fn new(table: Arc<PackTable>, keep: Keep) -> Reading {
        let inventory = Inventory {
            keep,
            directories: Vec::new(),
            files: Vec::new(),
            counted: BTreeMap::new(),
            table,
            piece_count: 0,
            pieces: BTreeMap::new(),
            tablespaces: Vec::new(),
            configuration: Vec::new(),
            left_out: Vec::new(),
            holes: BTreeMap::new(),
            zeroed: BTreeSet::new(),
            group: GroupAccess::Denied,
            bytes: 0,
        };
        let (made, configuration) = (BTreeSet::new(), Vec::new());
        let (numbering, is_hole) = (Numbering::new(keep), Holes::new());
        Reading { numbering, made, current: Current::Nobody, is_hole, pieces: 0, configuration, inventory }
    }

    fn take(&mut self, entry: &ManifestEntry) -> Result<(), String> {
        self.current = Current::Nobody;
        let (tree, oid) = match (self.numbering.take(entry)?, &entry.kind) {
            (Numbered::File(number, place), _) => return self.add_file(entry, number, place),
            (Numbered::Counted(tree, oid), _) => (tree, oid),
            (Numbered::Other, EntryKind::Tablespace { oid, target }) => {
                self.inventory.tablespaces.push((*oid, target.clone()));
                return Ok(());
            }
            (Numbered::Other, EntryKind::Dir) => return self.add_listed_directory(entry),
            (Numbered::Other, _) => {
                self.inventory.left_out.extend(entry.path.as_str().map(str::to_owned));
                return Ok(());
            }
        };
        let counted = self.inventory.counted.entry((tree, oid)).or_default();
        counted.files += 1;
        counted.bytes = counted.bytes.saturating_add(entry.size);
        self.current = Current::Counted(tree, oid);
        Ok(())
    }

    fn add_listed_directory(&mut self, entry: &ManifestEntry) -> Result<(), String> {
        if entry.path.as_str() == Some("global") && entry.mode & 0o050 != 0 {
            self.inventory.group = GroupAccess::Allowed;
        }
        let place = self.numbering.rules.place(&entry.path)?;
        self.add_directory(place, entry.mode);
        Ok(())
    }

    /// Takes pieces of the last file.
    fn take_pieces(&mut self, pieces: &[Piece]) -> Result<(), String> {
        self.inventory.piece_count += pieces.len() as u64;
        for piece in pieces {
            let pack = self.inventory.table.pack_of(piece)?;
            if let Current::Small(number) = self.current {
                let piece = PieceWork::new(number, piece);
                self.inventory.pieces.entry(number).or_default().push(PackPiece { pack, piece });
                self.pieces += 1;
            }
        }
        // Which files have all of theirs must be known: when there are too many, none has any.
        if self.pieces > MOST_PIECES {
            self.inventory.pieces.clear();
        }
        self.count_holes(self.is_hole.bytes(pieces));
        Ok(())
    }

    fn count_holes(&mut self, bytes: u64) {
        let holes = match self.current {
            Current::Large(number) if bytes > 0 => self.inventory.holes.entry(number).or_default(),
            Current::Counted(tree, oid) => &mut self.inventory.counted.entry((tree, oid)).or_default().holes,
            _ => return,
        };
        *holes = holes.saturating_add(bytes);
    }

    fn add_file(&mut self, entry: &ManifestEntry, number: usize, place: Place) -> Result<(), String> {
        let may_be_read = entry.size <= SMALL && database_of(&place).is_none();
        self.current = if may_be_read { Current::Small(number) } else { Current::Large(number) };
        if let EntryKind::Config { original } = &entry.kind {
            self.configuration.push((number, original.clone()));
        }
        self.inventory.files.push(NewFile { place, mode: entry.mode, size: entry.size });
        Ok(())
    }

    fn add_directory(&mut self, place: Place, mode: u32) {
        if self.made.insert(place.clone()) {
            self.inventory.directories.push(NewDirectory { place, mode });
        }
    }

    /// Files from outside get the places that they had among each other. Where the data
    /// directory has a file of its own there, they keep the paths of the manifest.
    fn place_configuration(&mut self) {
        let originals: Vec<PathBuf> =
            self.configuration.iter().map(|(_, original)| original.clone()).collect();
        let places = configuration::place(&originals);
        let taken = |path: &PathBuf| {
            let place = Place::in_data_directory(path);
            self.made.contains(&place) || self.inventory.files.iter().any(|file| file.place == place)
        };
        let as_in_manifest = places.iter().any(taken);
        for ((index, original), place) in std::mem::take(&mut self.configuration).into_iter().zip(places) {
            let Some(file) = self.inventory.files.get_mut(index) else { continue };
            if !as_in_manifest {
                file.place = Place::in_data_directory(place);
            }
            let path = file.place.path.clone();
            self.add_directories_above(&path);
            self.inventory.configuration.push((path, original));
        }
    }

    fn add_directories_above(&mut self, path: &Path) {
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|it| *it != Path::new("")).collect();
        above.reverse();
        for directory in above {
            self.add_directory(Place::in_data_directory(directory), 0o750);
        }
    }

    /// What was read, when that is a backup.
    fn finish(mut self, of: &ManifestOf) -> Result<Inventory, RestoreError> {
        self.place_configuration();
        // PostgreSQL starts with an empty pg_wal, but not without one.
        for directory in ["pg_wal", "pg_wal/archive_status"] {
            self.add_directory(Place::in_data_directory(directory), 0o750);
        }
        let mut inventory = self.inventory;
        inventory.bytes = self.numbering.rules.bytes;
        for Required { name, sizes } in REQUIRED {
            let place = Place::in_data_directory(name);
            if !inventory.files.iter().any(|file| file.place == place && sizes.contains(&file.size)) {
                let what = format!("it has no \"{name}\" as a backup must");
                return Err(RestoreError::damaged(&of.key, what));
            }
        }
        inventory.files.shrink_to_fit();
        Ok(inventory)
    }
}

/// A file without which a restored cluster does not start, or starts from the wrong
/// place without a word, and the sizes that it can have.
pub(crate) struct Required {
    pub(crate) name: &'static str,
    pub(crate) sizes: RangeInclusive<u64>,
}

pub(crate) const REQUIRED: [Required; 3] = [
    Required { name: "PG_VERSION", sizes: 1..=64 },
    Required { name: BACKUP_LABEL, sizes: 1..=LABEL_BYTES },
    Required { name: CONTROL_FILE, sizes: CONTROL_FILE_BYTES..=CONTROL_FILE_BYTES },
];
