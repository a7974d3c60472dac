//! Where the files of one recovery lie: a directory that no other recovery has, not even an earlier one of the
//! same cluster in the same place.

use crate::config::Settings;
use crate::exit::Failure;
use crate::ship::cluster::HookCluster;
use crate::ship::protocol::archive_mark;
use crate::writer_id;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use walpoint_archive::ContentHash;
use walpoint_pitr::recovery_settings::{RECOVERY_SIGNAL, STANDBY_SIGNAL};
use walpoint_pitr::spool::Spool;

/// The spool of the recovery in a data directory, out of this configuration's archive.
///
/// # Errors
/// Status 1 when the directory cannot be looked at, status 2 when no archive is configured.
pub fn spool_of(settings: &Settings, cluster: &HookCluster) -> Result<Spool, Failure> {
    let metadata = std::fs::metadata(&cluster.path).map_err(|error| {
        Failure::failed(format!("could not look at \"{}\": {error}", cluster.path.display()))
    })?;
    let of_what = [
        format!("{}:{}", metadata.dev(), metadata.ino()),
        // Every restore writes another one.
        std::fs::read_to_string(cluster.path.join(writer_id::FILE))
            .ok()
            .and_then(|text| text.lines().next().map(str::to_owned))
            .unwrap_or_default(),
        archive_mark(settings)?,
    ];
    let digits = ContentHash::of(of_what.join("\n").as_bytes()).id();
    let name = format!("{}-{digits}", cluster.system_identifier);
    Ok(Spool::at(&settings.agent.spool_directory, &name))
}

/// Whether the cluster is to recover, or to stand by: else nothing will be asked for but by people.
pub fn is_in_recovery(data_directory: &Path) -> bool {
    [RECOVERY_SIGNAL, STANDBY_SIGNAL].iter().any(|signal| data_directory.join(signal).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_wal::SystemIdentifier;

    fn settings(url: &str) -> Settings {
        let text = format!("[archive]\nurl = \"{url}\"\n[agent]\nspool_directory = \"/spools\"");
        Settings::from_text(Path::new("/x.toml"), &text).unwrap()
    }

    fn cluster(path: &Path, system_identifier: u64) -> HookCluster {
        let system_identifier = SystemIdentifier(system_identifier);
        HookCluster { path: path.to_owned(), system_identifier, known: None }
    }

    #[test]
    fn no_two_recoveries_share_a_spool() {
        let place = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| place.path().join(name));
        for directory in [&one, &other] {
            std::fs::create_dir(directory).unwrap();
            std::fs::write(directory.join(writer_id::FILE), "0123456789abcdef\n").unwrap();
        }
        let here = settings("file:///archive");
        let elsewhere = settings("file:///elsewhere");
        let spool = |settings, cluster| spool_of(settings, &cluster).unwrap();
        let own = spool(&here, cluster(&one, 7));
        assert!(own.directory().starts_with("/spools"));
        assert_eq!(own, spool(&here, cluster(&one, 7)));
        assert_ne!(own, spool(&here, cluster(&other, 7)), "beside it");
        assert_ne!(own, spool(&here, cluster(&one, 8)), "another cluster's");
        assert_ne!(own, spool(&elsewhere, cluster(&one, 7)), "of another archive");
        std::fs::write(one.join(writer_id::FILE), "fedcba9876543210\n7 7 7\n").unwrap();
        assert_ne!(own, spool(&here, cluster(&one, 7)), "in the same place, later");
    }
}
