//! From settings to the archive: the store with its patience, the keys, the cluster.

use crate::config::Settings;
use crate::data_directory;
use crate::exit::Failure;
use std::sync::{Arc, Once};
use std::time::Duration;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::{ArchiveUrl, EncryptionConfig, open_store};
use walpoint_archive::store::{ObjectStore, RetryPolicy};
use walpoint_archive::{Archive, KeyRing, Sealer};
use walpoint_wal::SystemIdentifier;

/// How long a person waits for an answer before the command says that there is none.
const QUESTION_PATIENCE: Duration = Duration::from_secs(20);
/// How long a command that changes something tries again.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// How long work of hours waits for the store to come back rather than be lost.
const WORK_PATIENCE: Duration = Duration::from_secs(600);
/// How long the agent tries a request again before it calls that an outage and says so.
const AGENT_PATIENCE: Duration = Duration::from_secs(3);

/// How long a request is tried again while the store is away.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// As long as a person waits for an answer.
    Question,
    /// As long as a short command may take.
    Command,
    /// As long as hours of work are worth.
    Work,
    /// This long.
    For(Duration),
    /// For a request of this length; one that fails sooner is left to whoever comes back to it.
    Agent {
        /// How long one request may take.
        request: Duration,
    },
}

impl Patience {
    fn policy(self) -> RetryPolicy {
        match self {
            Self::Question => RetryPolicy::for_at_most(QUESTION_PATIENCE),
            Self::Command => RetryPolicy::for_at_most(COMMAND_PATIENCE),
            Self::Work => RetryPolicy::for_at_most(WORK_PATIENCE),
            Self::For(time) => RetryPolicy::for_at_most(time),
            Self::Agent { request } => {
                RetryPolicy { try_again_for: AGENT_PATIENCE, ..RetryPolicy::for_at_most(request) }
            }
        }
    }
}

/// Opens the place where the archive is.
///
/// # Errors
/// Status 2 when none is configured, status 1 when it cannot be opened.
pub async fn store(settings: &Settings, patience: Patience) -> Result<Arc<dyn ObjectStore>, Failure> {
    let config = settings.archive()?;
    if let Some(warning) = config.plain_http_warning() {
        // Once per command, however often it opens the store.
        static SAID: Once = Once::new();
        SAID.call_once(|| tracing::warn!("{warning}"));
    }
    Ok(open_store(config, &patience.policy()).await?)
}

/// Opens the archive of one cluster, for reading and writing.
///
/// # Errors
/// As [`store`], and status 2 for keys that cannot be used.
pub async fn archive(
    settings: &Settings,
    cluster: SystemIdentifier,
    patience: Patience,
) -> Result<Archive, Failure> {
    let keys = KeyRing::from_config(&settings.encryption)?;
    let store = store(settings, patience).await?;
    within(settings, store, cluster, keys)
}

/// Opens the archive of one cluster for one who only writes.
///
/// # Errors
/// As [`archive_in_clear`], and status 2 for root where the archive is another user's.
pub async fn archive_to_write(
    settings: &Settings,
    cluster: SystemIdentifier,
    patience: Patience,
) -> Result<Archive, Failure> {
    let archive = archive_in_clear(settings, cluster, patience).await?;
    refuse_root(settings)?;
    Ok(archive)
}

/// Opens the archive of one cluster for one who reads nothing that is encrypted: the secret keys are not read,
/// and need not be readable.
///
/// # Errors
/// As [`archive`].
pub async fn archive_in_clear(
    settings: &Settings,
    cluster: SystemIdentifier,
    patience: Patience,
) -> Result<Archive, Failure> {
    archive_to_write_through(settings, cluster, patience, |store| store).await
}

/// The same with something between the archive and its store.
///
/// # Errors
/// As [`archive`].
pub async fn archive_to_write_through(
    settings: &Settings,
    cluster: SystemIdentifier,
    patience: Patience,
    between: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>,
) -> Result<Archive, Failure> {
    let keys = KeyRing::from_config(&public(settings))?;
    let store = between(store(settings, patience).await?);
    within(settings, store, cluster, keys)
}

/// Opens the archive of one cluster for one who writes, and reads what is encrypted where the secret keys are here. They
/// need not be.
///
/// # Errors
/// As [`archive_to_write`].
pub async fn archive_to_build_on(
    settings: &Settings,
    cluster: SystemIdentifier,
    patience: Patience,
) -> Result<Archive, Failure> {
    let with_secret_ones = KeyRing::from_config(&settings.encryption);
    let keys = with_secret_ones.or_else(|_| KeyRing::from_config(&public(settings)))?;
    let store = store(settings, patience).await?;
    refuse_root(settings)?;
    within(settings, store, cluster, keys)
}

/// Without the secret keys.
fn public(settings: &Settings) -> EncryptionConfig {
    EncryptionConfig { identity_file: None, ..settings.encryption.clone() }
}

/// Refuses to write as root into a directory of somebody else: every object belongs to whoever stored it, for
/// its owner only, and the server could not read it.
///
/// # Errors
/// Status 2.
pub fn refuse_root(settings: &Settings) -> Result<(), Failure> {
    match &settings.archive()?.url {
        ArchiveUrl::Dir(path) => data_directory::refuse_root(path),
        ArchiveUrl::S3 { .. } => Ok(()),
    }
}

/// The same archive with another patience and the keys that were read already.
///
/// # Errors
/// As [`store`].
pub async fn again(settings: &Settings, archive: &Archive, patience: Patience) -> Result<Archive, Failure> {
    let keys = archive.keys().as_ref().clone();
    within(settings, store(settings, patience).await?, archive.system_identifier(), keys)
}

/// The archive of one cluster in a store that is open already.
///
/// # Errors
/// Status 2 for a compression level that cannot be used.
pub fn within(
    settings: &Settings,
    store: Arc<dyn ObjectStore>,
    cluster: SystemIdentifier,
    keys: KeyRing,
) -> Result<Archive, Failure> {
    let level = CompressionLevel::new(settings.compression.level)
        .map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Archive::new(store, cluster, Sealer::new(level, Arc::new(keys))))
}
