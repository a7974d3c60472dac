//! The configuration: read once, at the edge, into typed values.
//!
//! The file (`--config`, else `$WALPOINT_CONFIG`, else `/etc/walpoint/walpoint.toml`) is read first and the
//! environment over it; both by the one table of keys in [`keys`]. A file that was named must be there; the
//! default one may be absent, the environment alone is enough.

use crate::exit::Failure;
use raw::RawSettings;
use std::ffi::OsString;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;
use walpoint_archive::config::{ArchiveConfig, CompressionConfig, EncryptionConfig};

pub mod durations;
pub mod environment;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod keys;
mod raw;
mod read;
pub mod sizes;
pub mod template;

/// Where the configuration is looked for when nobody says where it is.
pub const DEFAULT_FILE: &str = "/etc/walpoint/walpoint.toml";

/// Everything that is configured, with defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file that was read, by absolute path; none when the environment alone was enough.
    pub source: Option<PathBuf>,
    /// `[postgres]`
    pub postgres: PostgresSettings,
    /// `[archive]`; none when no url is given.
    archive: Option<ArchiveConfig>,
    /// `[compression]`
    pub compression: CompressionConfig,
    /// `[encryption]`
    pub encryption: EncryptionConfig,
    /// `[archive_push]`
    pub archive_push: PushSettings,
    /// `[archive_get]`
    pub archive_get: GetSettings,
    /// `[backup]`
    pub backup: BackupSettings,
    /// `[check]`
    pub check: CheckSettings,
    /// `[agent]`
    pub agent: AgentSettings,
    /// `[retention]`
    pub retention: RetentionSettings,
}

/// `[postgres]`
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// The cluster's data directory.
    pub data_directory: Option<PathBuf>,
    /// libpq-style connection text.
    pub connection: Option<Connection>,
}

/// A connection text. It may hold a password, so it does not print.
#[derive(Clone)]
pub struct Connection(String);

impl Connection {
    /// The text itself, for the one who connects.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection(…)")
    }
}

/// `[archive_push]`
#[derive(Clone, Copy, Debug)]
pub struct PushSettings {
    /// How long a push may take, besides the time of the file's size at 1 MiB/s.
    pub deadline: Duration,
}

/// `[archive_get]`
#[derive(Clone, Copy, Debug)]
pub struct GetSettings {
    /// How long recovery waits for an archive that cannot be reached.
    pub retry_for: Duration,
    /// The same for a standby, which asks again by itself.
    pub standby_retry_for: Duration,
    /// What a standby is told when that time is over.
    pub standby_on_outage: StandbyOnOutage,
}

/// What a standby is told in an outage of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandbyOnOutage {
    /// Not available now (1): it asks again, and goes on serving.
    Retry,
    /// Stop (255): it goes down rather than stay behind or be promoted without WAL that exists.
    Stop,
}

/// `[backup]`
#[derive(Clone, Copy, Debug)]
pub struct BackupSettings {
    /// How long a backup waits for its WAL to arrive in the archive.
    pub wal_timeout: Duration,
    /// Whether `backup` without a flag makes an incremental one.
    pub incremental: bool,
    /// How old the last full backup may be before such a one is a full one again.
    pub full_every: Duration,
    /// Bytes of files that are read in a second at most.
    pub max_rate: Option<NonZeroU64>,
}

/// `[check]`
#[derive(Clone, Copy, Debug)]
pub struct CheckSettings {
    /// Age of the oldest WAL outside the archive from which on it is a warning.
    pub wal_lag_warning: Duration,
    /// … and critical.
    pub wal_lag_critical: Duration,
    /// Age of the last good backup from which on it is a warning.
    pub backup_age_warning: Duration,
    /// … and critical.
    pub backup_age_critical: Duration,
    /// From how many backups back WAL is listed; 1 is from the last one on.
    pub look_back: u32,
    /// A hole in the newest WAL younger than this is on its way.
    pub in_flight: Duration,
    /// How long `check --probe` waits for the segment to arrive.
    pub probe_timeout: Duration,
}

/// `[agent]`
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Where the agent's socket lies.
    pub socket_directory: Option<PathBuf>,
    /// Files handled at the same time.
    pub workers: NonZeroUsize,
    /// Whether the open segment's tail is shipped.
    pub live_tail: bool,
    /// How often.
    pub live_tail_interval: Duration,
    /// How much WAL may be fetched ahead of recovery, in bytes.
    pub spool: u64,
    /// Where it lies.
    pub spool_directory: PathBuf,
    /// How long the agent may finish its work when it is told to leave.
    pub drain: Duration,
}

/// `[retention]`: what is kept.
#[derive(Clone, Debug, Default)]
pub struct RetentionSettings {
    /// This many of the newest backups.
    pub last: Option<u32>,
    /// What is needed to reach every moment of this time back from now.
    pub window: Option<Duration>,
    /// One backup for each of this many days.
    pub daily: Option<u32>,
    /// … weeks.
    pub weekly: Option<u32>,
    /// … months.
    pub monthly: Option<u32>,
    /// … years.
    pub yearly: Option<u32>,
    /// WAL of this time back from now.
    pub wal: Option<Duration>,
    /// At least this many backups that were verified.
    pub min_verified: Option<u32>,
    /// The time zone whose days, weeks and months are meant.
    pub timezone: Option<String>,
    /// How long what is to go stays marked before it goes.
    pub grace: Option<Duration>,
}

impl Settings {
    /// Reads the configuration of this process.
    ///
    /// # Errors
    /// Status 2, naming the key or variable and the nearest known one.
    pub fn load(config: Option<&Path>) -> Result<Self, Failure> {
        let named = config.map(Path::to_owned).or_else(environment::config_file);
        Self::read(named.as_deref(), std::env::vars_os())
    }

    fn read(
        named: Option<&Path>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Failure> {
        let mut raw = RawSettings::default();
        let source = read_file(named, &mut raw)?;
        environment::read(variables, &mut raw)?;
        read::settings(source, &mut raw)
    }

    /// Reads the configuration from text that is about to become the file at `source`.
    ///
    /// # Errors
    /// Status 2, as for a file that is there.
    pub fn from_text(source: &Path, text: &str) -> Result<Self, Failure> {
        let mut raw = RawSettings::default();
        file::read(source, text, &mut raw)?;
        environment::read(std::env::vars_os(), &mut raw)?;
        read::settings(Some(source.to_owned()), &mut raw)
    }

    /// The archive's place.
    ///
    /// # Errors
    /// Status 2 when none is configured.
    pub fn archive(&self) -> Result<&ArchiveConfig, Failure> {
        self.archive.as_ref().ok_or_else(|| {
            Failure::usage("no archive is configured").with_hint(
                "set url in section [archive] of the configuration, or WALPOINT_ARCHIVE_URL, to \
                 \"s3://bucket/prefix\" or \"file:///directory\"; \"walpoint init\" writes a configuration",
            )
        })
    }

    /// The same with what the command line says of one backup.
    pub fn for_backup(&self, max_rate: Option<NonZeroU64>, workers: Option<NonZeroUsize>) -> Self {
        let mut settings = self.clone();
        settings.backup.max_rate = max_rate.or(settings.backup.max_rate);
        settings.agent.workers = workers.unwrap_or(settings.agent.workers);
        settings
    }

    /// Files handled at the same time.
    pub fn workers(&self) -> NonZeroUsize {
        self.agent.workers
    }
}

fn read_file(named: Option<&Path>, raw: &mut RawSettings) -> Result<Option<PathBuf>, Failure> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let hint = match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "run as the user who may read it, which is the data directory's owner, or let this user read it"
                }
                _ => "name it with --config or WALPOINT_CONFIG; \"walpoint init\" writes one",
            };
            return Err(Failure::usage(format!(
                "could not read the configuration file \"{}\": {error}",
                path.display()
            ))
            .with_hint(hint));
        }
    };
    file::read(path, &text, raw)?;
    // The working directory may go away or change its meaning: what is handed to PostgreSQL is absolute.
    std::path::absolute(path).map(Some).map_err(|error| {
        Failure::usage(format!("could not make \"{}\" an absolute path: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests;
