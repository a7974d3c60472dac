//! May a cluster be restored into this directory? Looks, and changes nothing.
//!
//! A restore writes only where nothing is: into a directory that is absent or
//! empty, so that it can never damage a cluster or mix with one.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

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
}

/// Decides whether all of them fit; directories on one file system share its space.
pub fn enough_space(needs: &[SpaceNeed]) -> Result<(), Refusal> {
    let mut by_device: BTreeMap<u64, (PathBuf, u64)> = BTreeMap::new();
    for need in needs {
        let existing = nearest_existing(&need.directory);
        let device = std::fs::metadata(&existing).or_else(|error| unreadable(&existing, &error))?.dev();
        let entry = by_device.entry(device).or_insert((existing, 0));
        entry.1 = entry.1.saturating_add(need.bytes);
    }
    for (directory, bytes) in by_device.into_values() {
        let free = free_bytes(&directory).or_else(|error| unreadable(&directory, &error))?;
        if free < bytes {
            let why = format!(
                "could not restore below \"{}\": {bytes} bytes are needed there and {free} are free",
                directory.display()
            );
            return Err(Refusal { why, hint: "make room, or restore to another file system".to_owned() });
        }
    }
    Ok(())
}

fn examine_present(directory: &Path, metadata: &Metadata) -> Result<Landing, Refusal> {
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
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).or_else(|error| unreadable(directory, &error))? {
        names.push(entry.or_else(|error| unreadable(directory, &error))?.file_name());
        if names.len() > 1 {
            break;
        }
    }
    match names.as_slice() {
        [] => Ok(Landing::Empty),
        [only] if only == "lost+found" => refuse(
            directory,
            "is the mount point of a file system",
            "make a directory below it and restore there",
        ),
        _ => Err(occupied(directory)),
    }
}

/// Says as exactly as can be told what is in the way.
fn occupied(directory: &Path) -> Refusal {
    let has = |name: &str| directory.join(name).symlink_metadata().is_ok();
    let (what, hint) = if has("postmaster.pid") {
        (
            "holds a cluster with a postmaster.pid: a server runs there, or did when it was killed",
            "restore to another directory",
        )
    } else if !has(CONTROL_FILE) && (has(UNFINISHED_MARKER) || has("PG_VERSION")) {
        (
            "looks like a restore that did not end: it has no global/pg_control, so no server can start on it",
            "when no other restore is at work there, remove the directory (and those of its tablespaces) and restore again",
        )
    } else if has("PG_VERSION") {
        ("holds a cluster", "restore to another directory, or move that cluster away first")
    } else {
        ("is not empty", "name a directory that is absent or empty")
    };
    refusal(directory, what, hint)
}

fn examine_parent(directory: &Path) -> Result<Landing, Refusal> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    match std::fs::metadata(parent) {
        Ok(metadata) if metadata.is_dir() => Ok(Landing::Absent),
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

fn free_bytes(directory: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(directory)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

fn refusal(path: &Path, what: &str, hint: &str) -> Refusal {
    Refusal { why: format!("could not restore to \"{}\": it {what}", path.display()), hint: hint.to_owned() }
}

fn refuse<T>(path: &Path, what: &str, hint: &str) -> Result<T, Refusal> {
    Err(refusal(path, what, hint))
}

fn unreadable<T>(path: &Path, error: &io::Error) -> Result<T, Refusal> {
    refuse(path, &format!("cannot be looked at: {error}"), "check the path and its permissions")
}
