//! Whose the restored files are.

use crate::exit::Failure;
use rustix::process::geteuid;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use walpoint_pitr::restore::Owner;

/// User and group of the restored files; none when they are those of whoever restores.
///
/// Root gives them to the owner of the directory above (or of the empty directory itself; a cluster that is there keeps
/// its own): PostgreSQL refuses
/// to run as root, so files of root would be a restore that does not start.
///
/// # Errors
/// Status 2 when that owner is root too.
pub fn of_restored(data_directory: &Path) -> Result<Option<Owner>, Failure> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let owners = whose(data_directory).map(|path| std::fs::metadata(path).map(|it| (it.uid(), it.gid())));
    let found = owners.into_iter().filter_map(Result::ok).find(|(user, _)| *user != 0);
    found.map(|(user, group)| Some(Owner { user, group })).ok_or_else(|| {
        Failure::usage(format!(
            "could not restore to \"{}\" as root: the directory above it belongs to root, and PostgreSQL does not run as root",
            data_directory.display()
        ))
        .with_hint("run restore as the user who is to own the cluster, or give the directory above it to that user")
    })
}

/// The directories whose owner counts, in turn.
fn whose(data_directory: &Path) -> [&Path; 2] {
    let above = data_directory.parent().unwrap_or(Path::new("/"));
    let has_cluster = data_directory.join("PG_VERSION").symlink_metadata().is_ok();
    if has_cluster { [data_directory, above] } else { [above, data_directory] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_is_there_keeps_its_owner() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        assert_eq!(whose(&data), [scratch.path(), &data]);
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(whose(&data), [&data, scratch.path()]);
    }
}
