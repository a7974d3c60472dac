//! Where the agent listens. The hook and the agent derive the place alike, and neither trusts a directory that
//! somebody else could have put there.

use crate::config::Settings;
use crate::exit::Failure;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use walpoint_archive::{ContentHash, own_directory};
use walpoint_wal::SystemIdentifier;

/// Where a service manager makes a directory for the agent.
const RUN: &str = "/run/walpoint";

/// Digits that tell one data directory from another.
const DIRECTORY_DIGITS: usize = 8;

/// The place of one agent's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The directory that it lies in.
    pub directory: PathBuf,
    name: String,
}

impl Socket {
    /// For the cluster in a data directory.
    ///
    /// # Errors
    /// When the data directory cannot be looked at.
    pub fn of(settings: &Settings, cluster: SystemIdentifier, data_directory: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(data_directory)?;
        let which = format!("{}:{}", metadata.dev(), metadata.ino());
        let digits = ContentHash::of(which.as_bytes()).to_string();
        let digits = digits.get(..DIRECTORY_DIGITS).unwrap_or_default();
        Ok(Self { directory: directory(settings), name: format!("{cluster}-{digits}.sock") })
    }

    /// The socket itself.
    pub fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    /// The file that one agent holds a lock on.
    pub fn lock_path(&self) -> PathBuf {
        self.directory.join(format!("{}.lock", self.name))
    }

    /// Makes the directory when it is missing.
    ///
    /// # Errors
    /// Status 1 when it cannot be made, status 2 when it is not ours alone.
    pub fn make_directory(&self) -> Result<(), Failure> {
        let path = &self.directory;
        own_directory::make(path).map_err(|error| {
            Failure::failed(format!("could not make \"{}\": {error}", path.display()))
                .with_hint("set socket_directory in section [agent] to a directory that can be made")
        })?;
        self.check_directory().map_err(|why| {
            Failure::usage(format!("could not use the directory for the socket: {why}"))
                .with_hint("it must be a directory of this user with the mode 0700: remove it, or set socket_directory in section [agent]")
        })
    }

    /// Whether the directory is ours alone, so that what listens there was put there by us.
    ///
    /// # Errors
    /// Why not.
    pub fn check_directory(&self) -> Result<(), String> {
        own_directory::check(&self.directory)
    }
}

fn directory(settings: &Settings) -> PathBuf {
    if let Some(configured) = &settings.agent.socket_directory {
        return configured.clone();
    }
    let run = Path::new(RUN);
    if own_directory::check(run).is_ok() {
        return run.to_owned();
    }
    PathBuf::from(format!("/tmp/walpoint-{}", rustix::process::geteuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn socket(directory: &Path) -> Socket {
        Socket { directory: directory.to_owned(), name: "7-00000000.sock".into() }
    }

    #[test]
    fn a_directory_that_is_missing_is_made_and_is_ours_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("sockets");
        let socket = socket(&directory);
        assert!(socket.check_directory().is_err());
        socket.make_directory().unwrap();
        socket.make_directory().unwrap();
        assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_that_others_can_reach_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().join("real");
        let link = place.path().join("link");
        std::fs::create_dir(&real).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(socket(&link).make_directory().is_err(), "a symbolic link");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(socket(&real).make_directory().is_err(), "a group can reach it");
        std::fs::write(place.path().join("file"), "").unwrap();
        assert!(socket(&place.path().join("file")).make_directory().is_err(), "a file");
    }

    #[test]
    fn one_data_directory_has_one_socket() {
        let place = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| place.path().join(name));
        for directory in [&one, &other] {
            std::fs::create_dir(directory).unwrap();
        }
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let settings =
            Settings::from_text(Path::new("/x.toml"), "[agent]\nsocket_directory = \"/s\"").unwrap();
        let path = |cluster, directory: &Path| {
            Socket::of(&settings, SystemIdentifier(cluster), directory).unwrap().path()
        };
        assert_eq!(path(7, &one), path(7, &link));
        assert_ne!(path(7, &one), path(7, &other));
        assert_ne!(path(7, &one), path(8, &one));
        let name = path(7, &one).file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("7-") && name.ends_with(".sock") && name.len() == "7-00000000.sock".len());
    }
}
