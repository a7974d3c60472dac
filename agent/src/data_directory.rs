//! The data directory, as a file system sees it: which one a path belongs to, and its `pg_control`.

use crate::config::Settings;
use crate::exit::{Failure, Status};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use walpoint_archive::Cluster;
use walpoint_wal::{ControlFile, ControlFileError, SystemIdentifier};

/// Where PostgreSQL keeps its control file, within the data directory.
pub const CONTROL_FILE: &str = "global/pg_control";
/// The control file is this long on every version (`PG_CONTROL_FILE_SIZE`, catalog/pg_control.h).
const CONTROL_FILE_BYTES: usize = 8192;
/// The server may be writing it: a torn read is repeated this often.
const TRIES: u32 = 10;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// A data directory with its control file.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// What its `pg_control` says.
    pub control: ControlFile,
}

impl DataDirectory {
    /// What the archive knows a cluster by.
    ///
    /// # Errors
    /// Status 2 when neither `pg_control` nor `PG_VERSION` says the version.
    pub fn as_cluster(&self) -> Result<Cluster, Failure> {
        let major = match self.control.major {
            Some(major) => major.number(),
            // A version later than this program: initdb writes its number here too.
            None => std::fs::read_to_string(self.path.join("PG_VERSION"))
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .ok_or_else(|| {
                    let path = self.path.display();
                    Failure::usage(format!("could not tell the PostgreSQL version of \"{path}\""))
                        .with_hint("does it have its file PG_VERSION, and can this user read it?")
                })?,
        };
        Ok(Cluster {
            system_identifier: self.control.system_identifier,
            segment_size: self.control.segment_size,
            block_size: self.control.block_size,
            wal_block_size: self.control.wal_block_size,
            major,
        })
    }
}

/// Bytes that PostgreSQL can still write to the file system of `path`.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The data directory that a hook's `%p` belongs to: for a relative path the working directory (that is
/// where PostgreSQL starts its commands), for an absolute one the directory above its `pg_wal`.
pub fn of_wal_path(path: &Path) -> Option<PathBuf> {
    if path.is_relative() {
        return std::env::current_dir().ok();
    }
    let mut above = path.to_owned();
    while above.pop() {
        if above.components().next_back() == Some(Component::Normal("pg_wal".as_ref())) {
            return above.parent().map(Path::to_owned);
        }
    }
    None
}

/// Refuses to write for a cluster as root when this, its data directory or its archive, is another user's:
/// what root leaves there, the server could not read.
///
/// # Errors
/// Status 2.
pub fn refuse_root(path: &Path) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(path).map_or(0, |metadata| metadata.uid());
    if owner == 0 {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "could not work on \"{}\" as root: it belongs to uid {owner}",
        path.display()
    ))
    .with_hint(AS_OWNER))
}

/// The same for one who makes what the server is to use: without a cluster it would be root's.
///
/// # Errors
/// Status 2.
pub fn refuse_root_without(path: Option<&Path>) -> Result<(), Failure> {
    match path {
        Some(path) if path.exists() => refuse_root(path),
        _ if rustix::process::geteuid().is_root() => Err(Failure::usage(
            "could not set up an archive as root: no data directory says whose it is to be, and PostgreSQL does not run as root",
        )
        .with_hint(AS_OWNER)),
        _ => Ok(()),
    }
}

const AS_OWNER: &str =
    "run walpoint as the user that owns the data directory, as in \"sudo -u postgres walpoint …\"";

/// The configured data directory, which must be there, of one who will write for it.
///
/// # Errors
/// Status 2 when it is not configured, holds no cluster, or is another user's and this is root; status 1 when
/// it cannot be read.
pub fn configured(settings: &Settings) -> Result<DataDirectory, Failure> {
    let path = settings.postgres.data_directory.as_deref().ok_or_else(not_configured)?;
    refuse_root(path)?;
    open(path)?.ok_or_else(|| {
        Failure::usage(format!(
            "\"{}\" is not a PostgreSQL data directory: it has no {CONTROL_FILE}",
            path.display()
        ))
        .with_hint("does data_directory in section [postgres] name the directory that \"show data_directory\" prints?")
    })
}

/// That nobody said where the cluster is.
pub fn not_configured() -> Failure {
    Failure::usage("the data directory is not configured")
        .with_hint("set data_directory in section [postgres], or WALPOINT_POSTGRES_DATA_DIRECTORY")
}

/// Opens a data directory; none when there is no cluster in it.
///
/// # Errors
/// Status 1 when it cannot be read, status 2 when its PostgreSQL is later than this program, status 5 when its
/// `pg_control` is damaged.
pub fn open(path: &Path) -> Result<Option<DataDirectory>, Failure> {
    match look(path)? {
        None => Ok(None),
        Some(Found::Known(directory)) => Ok(Some(*directory)),
        Some(Found::Later { why, .. }) => {
            let file = path.join(CONTROL_FILE);
            Err(Failure::usage(format!("could not use \"{}\": {why}", file.display())).with_hint(
                "this PostgreSQL is later than this walpoint, which archives its WAL as it is and does nothing \
                 else with it: install a walpoint that knows it",
            ))
        }
    }
}

/// A cluster that was found, as far as this program can read of it.
#[derive(Debug)]
pub enum Found {
    /// All of its `pg_control`.
    Known(Box<DataDirectory>),
    /// Of a version later than this program.
    Later {
        /// Which cluster it is.
        system_identifier: SystemIdentifier,
        /// Why no more can be said.
        why: ControlFileError,
    },
}

impl Found {
    /// Which cluster it is.
    pub fn system_identifier(&self) -> SystemIdentifier {
        match self {
            Self::Known(directory) => directory.control.system_identifier,
            Self::Later { system_identifier, .. } => *system_identifier,
        }
    }
}

/// Looks for a cluster, of this or a later version of PostgreSQL; none when there is none.
///
/// # Errors
/// Status 1 when it cannot be read, status 5 when its `pg_control` is damaged.
pub fn look(path: &Path) -> Result<Option<Found>, Failure> {
    let file = path.join(CONTROL_FILE);
    look_at(path, || control_bytes(&file))
}

/// Reads again what does not agree with its checksum.
fn look_at(
    path: &Path,
    mut read: impl FnMut() -> Result<Option<Vec<u8>>, Failure>,
) -> Result<Option<Found>, Failure> {
    let mut last = None;
    for attempt in 0..TRIES {
        if attempt > 0 {
            std::thread::sleep(BETWEEN_TRIES);
        }
        let Some(bytes) = read()? else { return Ok(None) };
        let why = match ControlFile::parse(&bytes) {
            Ok(control) => {
                return Ok(Some(Found::Known(Box::new(DataDirectory { path: path.to_owned(), control }))));
            }
            Err(why) => why,
        };
        if let Some(system_identifier) = ControlFile::identity_of_later_version(&bytes) {
            return Ok(Some(Found::Later { system_identifier, why }));
        }
        last = Some(why);
    }
    Err(unreadable(&path.join(CONTROL_FILE), last))
}

fn control_bytes(file: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match std::fs::File::open(file).and_then(|file| read_at_most(file, CONTROL_FILE_BYTES)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(Failure::failed(format!("could not read \"{}\": {error}", file.display()))
            .with_hint("run walpoint as the user that owns the data directory")),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(file: &Path, why: Option<ControlFileError>) -> Failure {
    let why = why.map_or_else(|| "it changes with every look".to_owned(), |error| error.to_string());
    Failure::new(Status::Damaged, format!("could not use \"{}\": {why}", file.display())).with_hint(
        "if PostgreSQL runs with it, try again; if it does not start either, restore the cluster: walpoint restore",
    )
}

fn read_at_most(file: std::fs::File, limit: usize) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut bytes = Vec::with_capacity(limit);
    file.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_names_its_data_directory() {
        for (path, directory) in [
            ("/data/pg_wal/000000010000000000000001", Some("/data")),
            ("/data/pg_wal/RECOVERYXLOG", Some("/data")),
            ("/srv/pg_wal/old/pg_wal/x", Some("/srv/pg_wal/old")),
            ("/backup/000000010000000000000001", None),
            ("/data/pg_wal", None),
        ] {
            assert_eq!(of_wal_path(Path::new(path)), directory.map(PathBuf::from), "{path}");
        }
    }

    #[test]
    fn a_relative_path_means_the_working_directory() {
        assert_eq!(of_wal_path(Path::new("pg_wal/x")), std::env::current_dir().ok());
    }

    #[test]
    fn a_directory_without_a_control_file_is_no_cluster_and_a_bad_one_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        assert!(open(directory.path()).unwrap().is_none());
        std::fs::create_dir(directory.path().join("global")).unwrap();
        std::fs::write(directory.path().join(CONTROL_FILE), [0; 100]).unwrap();
        assert_eq!(open(directory.path()).unwrap_err().status, Status::Damaged);
    }

    #[test]
    fn a_control_file_that_is_being_written_is_read_again() {
        let sound = zstd::decode_all(&include_bytes!("../tests/fixtures/pg_control.zst")[..]).unwrap();
        let mut torn = sound.clone();
        torn[48] ^= 1;
        let directory = Path::new("/data");
        let mut reads = [torn.clone(), torn.clone(), sound].into_iter();
        let found = look_at(directory, || Ok(reads.next())).unwrap();
        assert!(matches!(found, Some(Found::Known(_))), "{found:?}");
        assert_eq!(reads.next(), None, "it was not read again");
        // For ever torn is no tear.
        let damaged = look_at(directory, || Ok(Some(torn.clone()))).unwrap_err();
        assert_eq!(damaged.status, Status::Damaged);
    }

    #[test]
    fn a_later_version_is_wrong_usage_and_no_damage() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("global")).unwrap();
        let mut bytes = [7; 8192];
        bytes[8..12].copy_from_slice(&1900u32.to_le_bytes());
        std::fs::write(directory.path().join(CONTROL_FILE), bytes).unwrap();
        assert_eq!(open(directory.path()).unwrap_err().status, Status::Usage);
        assert!(matches!(look(directory.path()).unwrap(), Some(Found::Later { .. })));
    }
}
