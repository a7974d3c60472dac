//! The writer: a random id that the data directory keeps, so that two servers which archive under one name
//! can be told apart. A restore gives its copy another one.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use walpoint_archive::durable::{self, Placement};
use walpoint_archive::writer_id::WriterId;

/// The file that holds the id, within the data directory.
pub const FILE: &str = "walpoint.writer";

/// The data directory's id, made now if it has none.
///
/// Where it can be neither read nor written, a new id is given for this run: the id tells people who is
/// who and decides nothing, so it is no reason to leave WAL unarchived.
pub fn of(data_directory: &Path) -> WriterId {
    let path = data_directory.join(FILE);
    if let Some(id) = read(&path) {
        return id;
    }
    let id = WriterId::random();
    if !is_ours(data_directory) {
        return id;
    }
    // Create-only: when two processes come at once, both go on with the id of the first.
    match durable::write_file(&path, format!("{id}\n").as_bytes(), durable::FILE_MODE, Placement::CreateOnly)
    {
        Ok(_) => read(&path).unwrap_or(id),
        Err(error) => {
            tracing::warn!("could not keep the writer's id in \"{}\": {error}", path.display());
            id
        }
    }
}

/// Whether we are the directory's owner: a file of another user, root's say, would be unreadable to the
/// server's own hooks for ever after.
fn is_ours(data_directory: &Path) -> bool {
    let owner = std::fs::metadata(data_directory).map(|metadata| metadata.uid());
    owner.is_ok_and(|owner| owner == rustix::process::geteuid().as_raw())
}

fn read(path: &Path) -> Option<WriterId> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays() {
        let directory = tempfile::tempdir().unwrap();
        let first = of(directory.path());
        assert_eq!(of(directory.path()), first);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_no_failure() {
        let nowhere = Path::new("/nowhere/at/all");
        assert_ne!(of(nowhere), of(nowhere));
    }
}
