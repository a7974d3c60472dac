//! Directories that are this user's alone, so that what lies in them was put there by us.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::durable::DIR_MODE;

/// Whether the directory is ours alone.
///
/// # Errors
/// Why not.
pub fn check(path: &Path) -> Result<(), String> {
    // A symbolic link is whose who made it, wherever it leads.
    let metadata =
        std::fs::symlink_metadata(path).map_err(|error| format!("\"{}\": {error}", path.display()))?;
    let why = if !metadata.is_dir() {
        "is no directory"
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        "belongs to another user"
    } else if metadata.mode() & 0o077 != 0 {
        "is open to other users"
    } else {
        return Ok(());
    };
    Err(format!("\"{}\" {why}", path.display()))
}

/// Whether the directory that this one lies in lets nobody else exchange it for another.
///
/// # Errors
/// Why not.
pub fn check_place(path: &Path) -> Result<(), String> {
    let place = path.parent().unwrap_or(path);
    let metadata = std::fs::metadata(place).map_err(|error| format!("\"{}\": {error}", place.display()))?;
    let (is_sticky, is_shared) = (metadata.mode() & 0o1000 != 0, metadata.mode() & 0o022 != 0);
    let is_trusted = [0, rustix::process::geteuid().as_raw()].contains(&metadata.uid());
    match is_trusted && (is_sticky || !is_shared) {
        true => Ok(()),
        false => Err(format!("others can exchange what lies in \"{}\"", place.display())),
    }
}

/// Makes the directory when it is missing. Whether one that is there is ours, [`check`] tells.
///
/// # Errors
/// When it cannot be made.
pub fn make(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
