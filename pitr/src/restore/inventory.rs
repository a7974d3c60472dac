//! What a backup's manifest asks for, read whole and checked before anything is
//! written. Pure.
//!
//! The manifest's own rules (plain relative paths in order, none twice, each below a
//! directory of the manifest, pieces without gaps) are the reader's; here come the
//! rules of a data directory. Memory: some 100 bytes for each file, 64 for each
//! piece of at most 1 MiB, and 33 for each hash of a window.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use walpoint_archive::manifest::{EntryKind, ManifestEntry, ManifestError, ManifestReader, Windows};
use walpoint_archive::pack::MAX_PACK_BYTES;
use walpoint_archive::summary::{BackupSummary, StoredObject};
use walpoint_archive::{ArchiveError, BackupId, Entry, Layout, RelativePath};

use super::configuration;
use super::error::RestoreError;
use super::packs::{PackWork, PieceWork};
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

/// All that is to be made and fetched.
#[derive(Debug)]
pub(super) struct Inventory {
    pub(super) directories: Vec<NewDirectory>,
    pub(super) files: Vec<NewFile>,
    pub(super) packs: Vec<PackWork>,
    /// Hashes of windows, of files that have some, by their number.
    pub(super) windows: BTreeMap<usize, Windows>,
    /// Object identifier and old path of each tablespace; the n-th is tree n + 1.
    pub(super) tablespaces: Vec<(u32, PathBuf)>,
    /// Configuration from outside: where it goes, and where it was.
    pub(super) configuration: Vec<(PathBuf, PathBuf)>,
    /// Files of the backup that are not restored.
    pub(super) left_out: Vec<String>,
    /// Files that are made and hold only zeros, by their number.
    pub(super) zeroed: BTreeSet<usize>,
    pub(super) group: GroupAccess,
    /// Bytes of content.
    pub(super) bytes: u64,
}

/// Reads a manifest to its end.
pub(super) fn read(
    manifest: impl BufRead,
    summary: &BackupSummary,
    layout: &Layout,
) -> Result<Inventory, RestoreError> {
    let mut manifest = ManifestReader::new(manifest).map_err(|error| unreadable(summary, error))?;
    let header = manifest.header();
    if header.backup != summary.id || header.system_identifier != summary.system_identifier {
        let what = format!("it is of backup {} of cluster {}", header.backup, header.system_identifier);
        return Err(RestoreError::damaged(&summary.manifest.key, what));
    }
    let mut reading = Reading::new(summary, layout)?;
    loop {
        match manifest.next_entry().map_err(|error| unreadable(summary, error))? {
            Some(entry) => {
                let taken = reading.take(&entry);
                taken.map_err(|what| {
                    RestoreError::damaged(&summary.manifest.key, format!("\"{}\": {what}", entry.path))
                })?;
            }
            None => return reading.finish(),
        }
    }
}

fn unreadable(summary: &BackupSummary, error: ManifestError) -> RestoreError {
    let key = summary.manifest.key.to_string();
    match error {
        ManifestError::UnknownFormat(version) => ArchiveError::UnknownFormat { key, version }.into(),
        ManifestError::Damaged { .. } | ManifestError::Io(_) => RestoreError::damaged(key, error.to_string()),
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

/// What has been read so far.
struct Reading<'a> {
    summary: &'a BackupSummary,
    packs: BTreeMap<(BackupId, u32), PackWork>,
    rules: Rules,
    made: BTreeSet<Place>,
    /// Index and old path of each configuration file from outside.
    configuration: Vec<(usize, PathBuf)>,
    inventory: Inventory,
}

impl<'a> Reading<'a> {
    fn new(summary: &'a BackupSummary, layout: &Layout) -> Result<Reading<'a>, RestoreError> {
        let mut packs = BTreeMap::new();
        for (number, object) in summary.packs_by_number(layout) {
            packs.insert(number, new_pack(object, layout)?);
        }
        let inventory = Inventory {
            directories: Vec::new(),
            files: Vec::new(),
            packs: Vec::new(),
            windows: BTreeMap::new(),
            tablespaces: Vec::new(),
            configuration: Vec::new(),
            left_out: Vec::new(),
            zeroed: BTreeSet::new(),
            group: GroupAccess::Denied,
            bytes: 0,
        };
        let (rules, made, configuration) = (Rules::default(), BTreeSet::new(), Vec::new());
        Ok(Reading { summary, packs, rules, made, configuration, inventory })
    }

    fn take(&mut self, entry: &ManifestEntry) -> Result<(), String> {
        self.rules.check(entry)?;
        match &entry.kind {
            EntryKind::Tablespace { oid, target } => {
                self.inventory.tablespaces.push((*oid, target.clone()));
                Ok(())
            }
            EntryKind::Dir => {
                if entry.path.as_str() == Some("global") && entry.mode & 0o050 != 0 {
                    self.inventory.group = GroupAccess::Allowed;
                }
                let place = self.rules.place(&entry.path)?;
                self.add_directory(place, entry.mode);
                Ok(())
            }
            EntryKind::File if is_left_out(entry) => {
                self.inventory.left_out.extend(entry.path.as_str().map(str::to_owned));
                Ok(())
            }
            EntryKind::File => self.add_file(entry),
            EntryKind::Config { original } => {
                self.configuration.push((self.inventory.files.len(), original.clone()));
                self.add_file(entry)
            }
        }
    }

    fn add_file(&mut self, entry: &ManifestEntry) -> Result<(), String> {
        let place = self.rules.place(&entry.path)?;
        let file = self.inventory.files.len();
        for piece in &entry.pieces {
            let number = piece.pack_of(&self.summary.id);
            let pack = self.packs.get_mut(&number).ok_or_else(|| {
                format!("it names pack {} of {}, which the summary does not", number.1, number.0)
            })?;
            let end = piece.pack_offset.checked_add(piece.stored_length.into());
            if end.is_none_or(|end| end > pack.object.size) {
                return Err(format!("a piece lies outside of \"{}\"", pack.object.key));
            }
            pack.pieces.push(PieceWork { file, offset: piece.file_offset, place: piece.place() });
        }
        if !entry.windows.is_empty() {
            self.inventory.windows.insert(file, entry.windows.clone());
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

    fn finish(mut self) -> Result<Inventory, RestoreError> {
        self.place_configuration();
        // PostgreSQL starts with an empty pg_wal, but not without one.
        for directory in ["pg_wal", "pg_wal/archive_status"] {
            self.add_directory(Place::in_data_directory(directory), 0o750);
        }
        let (summary, mut inventory) = (self.summary, self.inventory);
        inventory.bytes = self.rules.bytes;
        for Required { name, sizes } in REQUIRED {
            let place = Place::in_data_directory(name);
            if !inventory.files.iter().any(|file| file.place == place && sizes.contains(&file.size)) {
                let what = format!("it has no \"{name}\" as a backup must");
                return Err(RestoreError::damaged(&summary.manifest.key, what));
            }
        }
        inventory.packs = self.packs.into_values().filter(|pack| !pack.pieces.is_empty()).collect();
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

fn new_pack(object: &StoredObject, layout: &Layout) -> Result<PackWork, RestoreError> {
    if object.size > MAX_PACK_BYTES as u64 {
        return Err(RestoreError::damaged(
            &object.key,
            format!("a pack of {} bytes is too large", object.size),
        ));
    }
    match layout.parse(&object.key) {
        Some(Entry::Pack { encrypted, .. }) => {
            Ok(PackWork { object: object.clone(), encrypted, pieces: Vec::new() })
        }
        _ => Err(RestoreError::damaged(&object.key, "it is not a pack")),
    }
}
