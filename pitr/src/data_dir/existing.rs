//! May the cluster in this directory be made into what a backup of it was? Only when it is that cluster, and no
//! server runs on it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use walpoint_wal::SystemIdentifier;

use super::{
    CONTROL_FILE, Landing, Refusal, UNFINISHED_MARKER, examine, is_our_directory,
    not_inside_a_data_directory, refuse, unreadable, writable,
};

/// Where a restore keeps `pg_control` until everything else is durable.
pub(crate) const HIDDEN_CONTROL_FILE: &str = "global/.walpoint.pg_control";

/// Where the old one is put while a directory is being changed.
pub(crate) const TAKEN_CONTROL_FILE: &str = "global/.walpoint.pg_control.taken";

/// Comes before the identifier in the marker.
const OF_CLUSTER: &str = "system identifier: ";

/// What stands in a directory that may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing: it is absent or empty.
    Nothing(Landing),
    /// This cluster, as it was or as a restore left it that did not end.
    Cluster,
}

/// What the marker says to whoever finds it.
pub(crate) fn marker_text(cluster: SystemIdentifier) -> String {
    format!(
        "walpoint is restoring a cluster to this directory, or was when it was stopped.\n\
         {OF_CLUSTER}{cluster}\n\
         Without global/pg_control no server can start here. Go on with restore --delta, or remove the directory \
         and restore again.\n"
    )
}

/// Decides about a data directory that is to become what a backup of `cluster` was.
pub fn examine_existing(directory: &Path, cluster: SystemIdentifier) -> Result<Existing, Refusal> {
    let metadata = match std::fs::symlink_metadata(directory) {
        Ok(metadata) => metadata,
        Err(_) => return examine(directory).map(Existing::Nothing),
    };
    if !directory.is_absolute() {
        return examine(directory).map(Existing::Nothing);
    }
    is_our_directory(directory, &metadata)?;
    let mut entries = std::fs::read_dir(directory).or_else(|error| unreadable(directory, &error))?;
    if entries.next().is_none() {
        return examine(directory).map(Existing::Nothing);
    }
    not_inside_a_data_directory(directory)?;
    writable(directory)?;
    if directory.join("postmaster.pid").symlink_metadata().is_ok() {
        return refuse(
            directory,
            "holds a cluster with a postmaster.pid: a server runs there, or did when it was killed",
            "stop the server; only when no process of it is left, not one that serves a client either, remove \
             postmaster.pid, then restore again",
        );
    }
    if directory.join("pg_wal").symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        let hint = "put a directory in the place of the link, or restore to another directory";
        return refuse(directory, "holds a cluster whose pg_wal is a symbolic link", hint);
    }
    for name in ["global", CONTROL_FILE] {
        if directory.join(name).symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
            let hint = "put what it points to in the place of the link, or restore to another directory";
            return refuse(directory, &format!("holds a cluster whose {name} is a symbolic link"), hint);
        }
    }
    match cluster_in(directory).or_else(|error| unreadable(directory, &error))? {
        Some(found) if found == cluster => Ok(Existing::Cluster),
        Some(found) => refuse(
            directory,
            &format!("holds another cluster: its system identifier is {found}, the backup's is {cluster}"),
            "name the directory of the cluster that was backed up, or an empty one",
        ),
        None => refuse(
            directory,
            "is not empty, and nothing in it says that it is this cluster",
            "name the directory of the cluster that was backed up, or an empty one",
        ),
    }
}

/// Whose cluster a directory holds, also where a restore took its `pg_control` away.
fn cluster_in(directory: &Path) -> io::Result<Option<SystemIdentifier>> {
    for name in [CONTROL_FILE, TAKEN_CONTROL_FILE] {
        if let Some(found) = identifier_in(&directory.join(name))? {
            return Ok(Some(found));
        }
    }
    if let Some(found) = marked(directory)? {
        return Ok(Some(found));
    }
    // The marker goes when all is written, just before this gets its name.
    identifier_in(&directory.join(HIDDEN_CONTROL_FILE))
}

/// The identifier that a control file begins with, on every version.
fn identifier_in(path: &Path) -> io::Result<Option<SystemIdentifier>> {
    let mut identifier = [0; 8];
    match File::open(path) {
        Ok(mut file) => match file.read_exact(&mut identifier) {
            Ok(()) => Ok(Some(SystemIdentifier(u64::from_le_bytes(identifier)))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn marked(directory: &Path) -> io::Result<Option<SystemIdentifier>> {
    let mut marker = String::new();
    match File::open(directory.join(UNFINISHED_MARKER)) {
        Ok(file) => file.take(4096).read_to_string(&mut marker)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let line = marker.lines().find_map(|line| line.strip_prefix(OF_CLUSTER));
    Ok(line.and_then(|identifier| identifier.parse().ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OURS: SystemIdentifier = SystemIdentifier(7);

    fn cluster(identifier: u64, control_file: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("global")).unwrap();
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        std::fs::write(directory.path().join(control_file), identifier.to_le_bytes()).unwrap();
        directory
    }

    fn refused(directory: &Path) -> String {
        examine_existing(directory, OURS).unwrap_err().why
    }

    #[test]
    fn only_the_cluster_itself_is_changed() {
        for name in [CONTROL_FILE, TAKEN_CONTROL_FILE, HIDDEN_CONTROL_FILE] {
            let ours = cluster(7, name);
            assert_eq!(examine_existing(ours.path(), OURS), Ok(Existing::Cluster));
            assert!(refused(cluster(8, name).path()).contains("another cluster"), "{name}");
        }
        let nobody = cluster(7, "global/1262");
        assert!(refused(nobody.path()).contains("nothing in it says"));
        std::fs::write(nobody.path().join(UNFINISHED_MARKER), marker_text(OURS)).unwrap();
        assert_eq!(examine_existing(nobody.path(), OURS), Ok(Existing::Cluster));
        std::fs::write(nobody.path().join(UNFINISHED_MARKER), marker_text(SystemIdentifier(8))).unwrap();
        assert!(refused(nobody.path()).contains("another cluster"));
    }

    #[test]
    fn where_a_server_runs_or_its_wal_lies_elsewhere_nothing_is_changed() {
        let running = cluster(7, CONTROL_FILE);
        std::fs::write(running.path().join("postmaster.pid"), "1\n").unwrap();
        assert!(refused(running.path()).contains("postmaster.pid"));
        let elsewhere = cluster(7, CONTROL_FILE);
        std::os::unix::fs::symlink("/tmp", elsewhere.path().join("pg_wal")).unwrap();
        assert!(refused(elsewhere.path()).contains("pg_wal"));
        let linked = cluster(7, "aside");
        let (control, aside) = (linked.path().join(CONTROL_FILE), linked.path().join("aside"));
        std::os::unix::fs::symlink(&aside, &control).unwrap();
        assert!(refused(linked.path()).contains("symbolic link"));
    }

    #[test]
    fn where_nothing_is_a_cluster_may_come() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(examine_existing(empty.path(), OURS), Ok(Existing::Nothing(Landing::Empty)));
        let absent = empty.path().join("x");
        assert_eq!(examine_existing(&absent, OURS), Ok(Existing::Nothing(Landing::Absent)));
    }
}
