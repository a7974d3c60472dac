//! The restored cluster while it is being built: the data directory, the directories
//! of its tablespaces, and the order in which it comes into being. `pg_control`
//! appears last, so that PostgreSQL cannot start on anything less than the whole.
//!
//! Everything here blocks.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use walpoint_archive::fault_point::step;
use walpoint_wal::SystemIdentifier;

use super::delta::is_linked_from;
use super::error::RestoreError;
use super::inventory::BACKUP_LABEL;
use super::sync;
use super::tablespaces::Tablespace;
use super::tree::{Owner, Tree};
use crate::data_dir::{
    self, CONTROL_FILE, HIDDEN_CONTROL_FILE, TAKEN_CONTROL_FILE, UNFINISHED_MARKER, marker_text,
};

/// Without the one no server starts, and without the other it starts from the wrong place.
const NEEDED_TO_START: [&str; 2] = ["PG_VERSION", BACKUP_LABEL];

/// A path in one of the site's trees: 0 is the data directory, the tablespaces follow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) tree: usize,
    pub(super) path: PathBuf,
}

impl Place {
    /// A path in the data directory.
    pub(super) fn in_data_directory(path: impl Into<PathBuf>) -> Place {
        Place { tree: 0, path: path.into() }
    }
}

/// A directory to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewDirectory {
    pub(super) place: Place,
    pub(super) mode: u32,
}

/// A file to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewFile {
    pub(super) place: Place,
    pub(super) mode: u32,
    pub(super) size: u64,
}

/// The trees that a cluster is restored into.
#[derive(Debug)]
pub(super) struct Site {
    data: Tree,
    tablespaces: Vec<Tree>,
    /// Bits that directories and files may have beyond the owner's.
    group: GroupAccess,
    /// Locked as long as the restore is at work.
    _marker: File,
}

/// Whether the group may read the cluster (`initdb --allow-group-access`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupAccess {
    /// 0700 and 0600.
    Denied,
    /// Up to 0750 and 0640.
    Allowed,
}

impl GroupAccess {
    /// The mode of a directory. Nothing else of a recorded mode is taken over: set-id
    /// bits and others' rights have no place in a cluster.
    pub(super) fn directory_mode(self, recorded: u32) -> u32 {
        0o700 | if self == GroupAccess::Allowed { recorded & 0o050 } else { 0 }
    }

    /// The mode of a file.
    pub(super) fn file_mode(self, recorded: u32) -> u32 {
        0o600 | if self == GroupAccess::Allowed { recorded & 0o040 } else { 0 }
    }
}

/// Of what a restore takes possession.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) data_directory: &'a Path,
    pub(super) tablespaces: &'a [PathBuf],
    pub(super) group: GroupAccess,
    pub(super) owner: Option<Owner>,
    pub(super) cluster: SystemIdentifier,
}

impl Claim<'_> {
    fn tree(&self, directory: &Path) -> Result<Tree, RestoreError> {
        Tree::claim(directory, self.group.directory_mode(0o750), self.owner)
    }
}

impl Site {
    /// Takes possession of the directories, which are absent or empty.
    pub(super) fn claim(claim: &Claim<'_>) -> Result<Site, RestoreError> {
        let data = claim.tree(claim.data_directory)?;
        // Create-only: of two restores that found the directory empty, one stops here.
        let text = marker_text(claim.cluster);
        data.write_new(Path::new(UNFINISHED_MARKER), 0o600, text.as_bytes()).map_err(
            |error| match error {
                RestoreError::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                    data_dir::occupied(claim.data_directory).into()
                }
                error => error,
            },
        )?;
        Site::of(claim, data)
    }

    /// Takes possession of a cluster's directories, on which no server can start from here on.
    pub(super) fn claim_existing(claim: &Claim<'_>) -> Result<Site, RestoreError> {
        let data = claim.tree(claim.data_directory)?;
        let (marker, text) = (Path::new(UNFINISHED_MARKER), marker_text(claim.cluster));
        if !data.has_file(marker)? {
            data.write_new(marker, 0o600, text.as_bytes())?;
        }
        let site = Site::of(claim, data)?;
        site.take_control_file_away(claim.data_directory)?;
        Ok(site)
    }

    fn of(claim: &Claim<'_>, data: Tree) -> Result<Site, RestoreError> {
        let marker = data.open_to_read(Path::new(UNFINISHED_MARKER))?;
        // The lock goes with the process that holds it.
        if rustix::fs::flock(&marker, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(data_dir::at_work(claim.data_directory).into());
        }
        data.sync_root()?;
        let tablespaces = claim.tablespaces.iter().map(|directory| claim.tree(directory));
        let tablespaces = tablespaces.collect::<Result<_, _>>()?;
        Ok(Site { data, tablespaces, group: claim.group, _marker: marker })
    }

    /// A server makes its `postmaster.pid` before it reads `pg_control`: where none is there afterwards, none can
    /// have read it.
    fn take_control_file_away(&self, data_directory: &Path) -> Result<(), RestoreError> {
        let (data, control_file) = (&self.data, Path::new(CONTROL_FILE));
        if !data.has_directory(Path::new("global"))? || !data.has_file(control_file)? {
            return Ok(());
        }
        let (name, taken) = ("pg_control", ".walpoint.pg_control.taken");
        data.rename(control_file, taken)?;
        sync::directory(data, Path::new("global"))?;
        if data.has_file(Path::new("postmaster.pid"))? {
            data.rename(Path::new(TAKEN_CONTROL_FILE), name)?;
            sync::directory(data, Path::new("global"))?;
            data.remove(Path::new(UNFINISHED_MARKER))?;
            return Err(data_dir::occupied(data_directory).into());
        }
        Ok(())
    }

    /// The tree of that number: 0 is the data directory.
    pub(super) fn tree_number(&self, number: usize) -> Option<&Tree> {
        match number.checked_sub(1) {
            None => Some(&self.data),
            Some(tablespace) => self.tablespaces.get(tablespace),
        }
    }

    /// As [`Site::build`], where files of these numbers are there already: they keep their content.
    ///
    /// The links of tablespaces come before anything is in these: they say whose they are, should this end half-way.
    pub(super) fn build_over(
        &self,
        directories: &[NewDirectory],
        tablespaces: &[Tablespace],
        files: &[NewFile],
        kept: &BTreeSet<usize>,
    ) -> Result<(), RestoreError> {
        let (own, theirs): (Vec<_>, Vec<_>) = directories.iter().partition(|it| it.place.tree == 0);
        self.build_directories(&own)?;
        for tablespace in tablespaces {
            if !is_linked_from(self.data.path(), tablespace.oid, &tablespace.directory) {
                self.data.link(&tablespace.link(), &tablespace.directory)?;
            }
        }
        self.build_directories(&theirs)?;
        for (number, file) in files.iter().enumerate() {
            self.build_file(file, kept.contains(&number))?;
        }
        Ok(())
    }

    /// The data directory.
    pub(super) fn data(&self) -> &Tree {
        &self.data
    }

    /// Who may read.
    pub(super) fn group(&self) -> GroupAccess {
        self.group
    }

    /// Makes all directories, those above others first, and all files at their length.
    #[cfg(test)]
    pub(super) fn build(&self, directories: &[NewDirectory], files: &[NewFile]) -> Result<(), RestoreError> {
        self.build_over(directories, &[], files, &BTreeSet::new())
    }

    fn build_directories(&self, directories: &[&NewDirectory]) -> Result<(), RestoreError> {
        for directory in directories {
            let mode = self.group.directory_mode(directory.mode);
            self.tree(&directory.place)?.create_directory(&directory.place.path, mode)?;
        }
        Ok(())
    }

    fn build_file(&self, file: &NewFile, is_there: bool) -> Result<(), RestoreError> {
        let (tree, path) = (self.tree(&file.place)?, on_disk(&file.place));
        let mode = self.group.file_mode(file.mode);
        let made = if is_there { tree.adopt_file(path, mode)? } else { tree.create_file(path, mode)? };
        step("set length", || made.set_len(file.size))
            .map_err(|error| self.error(&file.place, "set length of", error))
    }

    /// Opens a file to write pieces of it.
    pub(super) fn open(&self, place: &Place) -> Result<File, RestoreError> {
        self.tree(place)?.open_file(on_disk(place))
    }

    /// Opens a file to read it.
    pub(super) fn open_to_read(&self, place: &Place) -> Result<File, RestoreError> {
        self.tree(place)?.open_to_read(on_disk(place))
    }

    /// Writes a piece at its place.
    pub(super) fn write(
        &self,
        place: &Place,
        file: &File,
        offset: u64,
        piece: &[u8],
    ) -> Result<(), RestoreError> {
        step("write", || file.write_all_at(piece, offset)).map_err(|error| self.error(place, "write", error))
    }

    /// Makes the bytes durable that were written to a file.
    pub(super) fn sync_data(&self, place: &Place, file: &File) -> Result<(), RestoreError> {
        step("fsync", || file.sync_data()).map_err(|error| self.error(place, "fsync", error))
    }

    /// The first bytes of a file in the data directory, at most `limit`; `None` when
    /// there is none.
    pub(super) fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, RestoreError> {
        let place = Place::in_data_directory(path);
        if !self.data().has_file(on_disk(&place))? {
            return Ok(None);
        }
        let file = self.data().open_to_read(on_disk(&place))?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, limit), &mut content)
            .map_err(|error| self.error(&place, "read", error))?;
        Ok(Some(content))
    }

    /// Makes everything durable and then lets the cluster be one.
    pub(super) fn finish(&self) -> Result<(), RestoreError> {
        for tree in self.tablespaces.iter().chain([&self.data]) {
            sync::everything(tree)?;
        }
        let data = &self.data;
        data.remove(Path::new(UNFINISHED_MARKER))?;
        data.sync_root()?;
        self.must_be_whole()?;
        data.rename(Path::new(HIDDEN_CONTROL_FILE), "pg_control")?;
        match self.must_be_whole() {
            Ok(()) => {}
            Err(removed @ RestoreError::Interrupted(_)) => {
                data.remove(Path::new(CONTROL_FILE))?;
                return Err(removed);
            }
            Err(unseen) => {
                // By it whoever goes on knows whose directory this is.
                data.rename(Path::new(CONTROL_FILE), ".walpoint.pg_control")?;
                return Err(unseen);
            }
        }
        sync::directory(data, Path::new("global"))
    }

    /// Somebody may be removing the directory meanwhile, and has not come to the new name of
    /// `pg_control`, which then is all that stays. Who removes later than this finds a
    /// restored cluster, and leaves of it what they leave.
    fn must_be_whole(&self) -> Result<(), RestoreError> {
        for name in NEEDED_TO_START {
            if !self.data.has_file(Path::new(name))? {
                let root = self.data.path().display();
                let what = format!("\"{name}\" was removed from \"{root}\" meanwhile");
                return Err(RestoreError::Interrupted(what));
            }
        }
        Ok(())
    }

    fn tree(&self, place: &Place) -> Result<&Tree, RestoreError> {
        self.tree_number(place.tree)
            .ok_or_else(|| RestoreError::Interrupted("a tablespace has no directory".to_owned()))
    }

    fn error(&self, place: &Place, verb: &'static str, source: std::io::Error) -> RestoreError {
        let root = self.tree(place).map(Tree::path).unwrap_or(Path::new(""));
        RestoreError::io(&root.join(&place.path), verb, source)
    }
}

/// The name that a file has while the cluster is being built.
pub(super) fn on_disk(place: &Place) -> &Path {
    let control_file = place.tree == 0 && place.path == Path::new(CONTROL_FILE);
    if control_file { Path::new(HIDDEN_CONTROL_FILE) } else { &place.path }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn claim(root: &Path) -> Result<Site, RestoreError> {
        let (tablespaces, group, owner) = (&[][..], GroupAccess::Denied, None);
        let cluster = SystemIdentifier(7);
        Site::claim(&Claim { data_directory: root, tablespaces, group, owner, cluster })
    }

    fn file(path: &str, size: u64) -> NewFile {
        NewFile { place: Place::in_data_directory(path), mode: 0o666, size }
    }

    fn directory(path: &str) -> NewDirectory {
        NewDirectory { place: Place::in_data_directory(path), mode: 0o777 }
    }

    #[test]
    fn the_control_file_appears_only_at_the_end() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("data");
        let site = claim(&root).unwrap();
        assert!(root.join(UNFINISHED_MARKER).exists());
        let control = file(CONTROL_FILE, 4);
        let files = [control.clone(), file("PG_VERSION", 0), file(BACKUP_LABEL, 0)];
        site.build(&[directory("global")], &files).unwrap();
        let open = site.open(&control.place).unwrap();
        site.write(&control.place, &open, 0, b"1234").unwrap();
        assert!(!root.join(CONTROL_FILE).exists());
        assert_eq!(site.read(Path::new(CONTROL_FILE), 100).unwrap().unwrap(), b"1234");
        site.finish().unwrap();
        assert_eq!(std::fs::read(root.join(CONTROL_FILE)).unwrap(), b"1234");
        assert!(!root.join(UNFINISHED_MARKER).exists());
        assert!(!root.join(HIDDEN_CONTROL_FILE).exists());
    }

    #[test]
    fn of_a_directory_that_is_being_removed_no_control_file_stays() {
        for removed in [UNFINISHED_MARKER, "PG_VERSION", BACKUP_LABEL] {
            let scratch = tempfile::tempdir().unwrap();
            let root = scratch.path().join("data");
            let site = claim(&root).unwrap();
            let files = [file(CONTROL_FILE, 4), file("PG_VERSION", 0), file(BACKUP_LABEL, 0)];
            site.build(&[directory("global")], &files).unwrap();
            std::fs::remove_file(root.join(removed)).unwrap();
            assert!(site.finish().is_err(), "{removed}");
            assert!(!root.join(CONTROL_FILE).exists(), "{removed}");
        }
    }

    #[test]
    fn only_one_restore_takes_a_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let _first = claim(scratch.path()).unwrap();
        let second = claim(scratch.path());
        let refused = |error: &RestoreError| matches!(error, RestoreError::Refused(refusal) if refusal.why.contains("a restore"));
        assert!(second.as_ref().is_err_and(refused), "{second:?}");
    }

    #[test]
    fn a_recorded_mode_gives_no_more_than_a_cluster_may_have() {
        let (denied, allowed) = (GroupAccess::Denied, GroupAccess::Allowed);
        assert_eq!((denied.directory_mode(0o7777), denied.file_mode(0o7777)), (0o700, 0o600));
        assert_eq!((allowed.directory_mode(0o7777), allowed.file_mode(0o7777)), (0o750, 0o640));
        assert_eq!((allowed.directory_mode(0o700), allowed.file_mode(0o600)), (0o700, 0o600));
    }
}
