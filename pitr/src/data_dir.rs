//! May a cluster be restored into this directory? Looks, and changes nothing.
//!
//! A restore writes only where nothing is: into a directory that is absent or
//! empty, so that it can never damage a cluster or mix with one.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

mod existing;
mod losses;
#[cfg(test)]
mod tests;

pub use existing::{Existing, examine_existing};
pub(crate) use existing::{HIDDEN_CONTROL_FILE, TAKEN_CONTROL_FILE, marker_text};
pub use losses::{is_unfinished, others_that_would_be_lost, wal_that_would_be_lost};

/// Says that a restore began here and did not end.
pub const UNFINISHED_MARKER: &str = "walpoint.restoring";

/// The file without which PostgreSQL does not start; a restore writes it last.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Why nothing may be written here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// What is wrong, with the path.
    pub why: String,
    /// What to do.
    pub hint: String,
}

impl Refusal {
    /// All of them as one; none when there are none.
    pub fn of_all(refusals: &[Refusal]) -> Option<Refusal> {
        let mut hints: Vec<&str> = Vec::new();
        for refusal in refusals {
            if !hints.contains(&refusal.hint.as_str()) {
                hints.push(&refusal.hint);
            }
        }
        let reasons: Vec<&str> = refusals.iter().map(|refusal| refusal.why.as_str()).collect();
        (!reasons.is_empty()).then(|| Refusal { why: reasons.join("; "), hint: hints.join("; ") })
    }
}

/// What a directory that may be written to is like now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landing {
    /// It is not there; the directory above it is.
    Absent,
    /// It is there and empty.
    Empty,
}

/// Decides about one directory: a data directory or that of a tablespace.
pub fn examine(directory: &Path) -> Result<Landing, Refusal> {
    if !directory.is_absolute() {
        return refuse(directory, "is not an absolute path", "give the whole path, from / on");
    }
    not_inside_a_data_directory(directory)?;
    match std::fs::symlink_metadata(directory) {
        Ok(metadata) => examine_present(directory, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => examine_parent(directory),
        Err(error) => unreadable(directory, &error),
    }
}

/// One place that will take this many bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceNeed {
    /// The directory; it or one above it exists.
    pub directory: PathBuf,
    /// Bytes, those lost to whole blocks included.
    pub bytes: u64,
    /// Files and directories to make.
    pub files: u64,
}

/// Where not all of them fit; directories on one file system share its space.
pub fn shortages(needs: &[SpaceNeed]) -> Vec<Refusal> {
    let mut by_device: BTreeMap<u64, SpaceNeed> = BTreeMap::new();
    let mut refusals = Vec::new();
    for need in needs {
        let existing = nearest_existing(&need.directory);
        let device = match std::fs::metadata(&existing) {
            Ok(metadata) => metadata.dev(),
            Err(error) => {
                refusals.push(unreadable_refusal(&existing, &error));
                continue;
            }
        };
        let entry = by_device.entry(device).or_insert(SpaceNeed { directory: existing, bytes: 0, files: 0 });
        entry.bytes = entry.bytes.saturating_add(need.bytes);
        entry.files = entry.files.saturating_add(need.files);
    }
    refusals.extend(by_device.values().filter_map(shortage));
    refusals
}

fn shortage(need: &SpaceNeed) -> Option<Refusal> {
    let free = match free_space(&need.directory) {
        Ok(free) => free,
        Err(error) => return Some(unreadable_refusal(&need.directory, &error)),
    };
    let (needed, there) = match free {
        Free { bytes, .. } if bytes < need.bytes => {
            (format!("{} bytes are needed there", need.bytes), format!("{bytes} are free"))
        }
        Free { files: Some(files), .. } if files < need.files => {
            (format!("{} files are to be made there", need.files), format!("there are inodes for {files}"))
        }
        _ => return None,
    };
    Some(Refusal {
        why: format!("could not restore below \"{}\": {needed} and {there}", need.directory.display()),
        hint: "make room, or restore to another file system".to_owned(),
    })
}

fn examine_present(directory: &Path, metadata: &Metadata) -> Result<Landing, Refusal> {
    is_our_directory(directory, metadata)?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).or_else(|error| unreadable(directory, &error))? {
        names.push(entry.or_else(|error| unreadable(directory, &error))?.file_name());
        if names.len() > 1 {
            break;
        }
    }
    match names.as_slice() {
        [] => writable(directory).map(|()| Landing::Empty),
        [only] if only == "lost+found" => refuse(
            directory,
            "is the mount point of a file system",
            "make a directory below it and restore there",
        ),
        _ => Err(occupied(directory)),
    }
}

fn is_our_directory(directory: &Path, metadata: &Metadata) -> Result<(), Refusal> {
    if metadata.is_symlink() {
        return refuse(directory, "is a symbolic link", "name the directory that it points to");
    }
    if !metadata.is_dir() {
        return refuse(directory, "is not a directory", "name a directory that is absent or empty");
    }
    let me = rustix::process::geteuid();
    if !me.is_root() && metadata.uid() != me.as_raw() {
        return refuse(
            directory,
            "belongs to another user",
            "run restore as the user who is to own the cluster",
        );
    }
    Ok(())
}

/// Says as exactly as can be told what is in the way.
pub(crate) fn occupied(directory: &Path) -> Refusal {
    let has = |name: &str| directory.join(name).symlink_metadata().is_ok();
    let (what, hint) = if has("postmaster.pid") {
        (
            "holds a cluster with a postmaster.pid: a server runs there, or did when it was killed",
            "restore to another directory",
        )
    } else if !has(CONTROL_FILE) && (has(UNFINISHED_MARKER) || has("PG_VERSION")) {
        (
            "looks like a restore that did not end: it has no global/pg_control, so no server can start on it",
            "when no other restore is at work there, go on with restore --delta, or remove the directory (and those of its tablespaces) and restore again",
        )
    } else if has("PG_VERSION") {
        (
            "holds a cluster",
            "restore to another directory, move that cluster away first, or make it what the backup has with restore --delta",
        )
    } else {
        ("is not empty", "name a directory that is absent or empty")
    };
    refusal(directory, what, hint)
}

/// Another restore holds the directory.
pub(crate) fn at_work(directory: &Path) -> Refusal {
    refusal(directory, "is being restored to by another run", "wait until that one is over")
}

fn examine_parent(directory: &Path) -> Result<Landing, Refusal> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    match std::fs::metadata(parent) {
        Ok(metadata) if metadata.is_dir() => writable(parent).map(|()| Landing::Absent),
        Ok(_) => refuse(parent, "is not a directory", "name a directory whose parent exists"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => refuse(
            directory,
            "cannot be made: the directory above it does not exist",
            "make that one first, owned by the user who is to own the cluster",
        ),
        Err(error) => unreadable(parent, &error),
    }
}

/// A cluster inside a cluster would end up in that one's backups, and a restore of
/// the outer one would take the inner one with it.
fn not_inside_a_data_directory(directory: &Path) -> Result<(), Refusal> {
    let existing = nearest_existing(directory.parent().unwrap_or(directory));
    let real = existing.canonicalize().or_else(|error| unreadable(&existing, &error))?;
    let cluster = |it: &&Path| it.join("PG_VERSION").exists() && it.join("global").exists();
    match real.ancestors().find(cluster) {
        Some(outer) => {
            let what = format!("lies inside the data directory \"{}\"", outer.display());
            refuse(directory, &what, "restore to a directory outside of it")
        }
        None => Ok(()),
    }
}

fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// What a file system can still take.
#[derive(Debug, Clone, Copy)]
struct Free {
    bytes: u64,
    /// None where files are not counted.
    files: Option<u64>,
}

fn free_space(directory: &Path) -> io::Result<Free> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(Free {
        bytes: space.f_bavail.saturating_mul(space.f_frsize),
        files: (space.f_files > 0).then_some(space.f_favail),
    })
}

/// The rights of a user are not all: a file system may be mounted read-only.
fn writable(directory: &Path) -> Result<(), Refusal> {
    match rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(error) => refuse(
            directory,
            &format!("cannot be written to: {}", io::Error::from(error)),
            "run restore as the user who is to own the cluster, and let that user write there",
        ),
    }
}

fn refusal(path: &Path, what: &str, hint: &str) -> Refusal {
    Refusal { why: format!("could not restore to \"{}\": it {what}", path.display()), hint: hint.to_owned() }
}

fn refuse<T>(path: &Path, what: &str, hint: &str) -> Result<T, Refusal> {
    Err(refusal(path, what, hint))
}

fn unreadable<T>(path: &Path, error: &io::Error) -> Result<T, Refusal> {
    Err(unreadable_refusal(path, error))
}

fn unreadable_refusal(path: &Path, error: &io::Error) -> Refusal {
    refusal(path, &format!("cannot be looked at: {error}"), "check the path and its permissions")
}
