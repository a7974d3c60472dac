//! What a push finds on this host: the file, the cluster it is of, and who writes.

use super::cluster::HookCluster;
use super::source::Source;
use crate::config::Settings;
use crate::exit::Failure;
use crate::writer_id;
use std::path::{Path, PathBuf};
use walpoint_archive::WriterId;
use walpoint_wal::WalFileName;

/// Where PostgreSQL keeps its WAL, within the data directory.
pub const PG_WAL: &str = "pg_wal";

/// All that is read before the archive is asked.
#[derive(Debug)]
pub struct Ground {
    /// The file.
    pub source: Source,
    /// Its cluster.
    pub cluster: HookCluster,
    /// The directory that it lies in.
    pub pg_wal: PathBuf,
    /// Who the archive will say put it.
    pub writer: WriterId,
}

impl Ground {
    /// Of the file that a hook was given.
    ///
    /// # Errors
    /// Status 1 or 2.
    pub async fn of_path(settings: &Settings, path: &Path) -> Result<Self, Failure> {
        let (settings, path) = (settings.clone(), path.to_owned());
        aside(move || {
            let source = Source::open(&path)?;
            let cluster = HookCluster::of(&path, &settings)?;
            Ok(Self::standing_on(source, cluster, path.parent().unwrap_or(Path::new("")).to_owned()))
        })
        .await
    }

    /// Of a file of this data directory, by its name.
    ///
    /// # Errors
    /// As [`Ground::of_path`].
    pub async fn of_name(data_directory: &Path, name: WalFileName) -> Result<Self, Failure> {
        let data_directory = data_directory.to_owned();
        aside(move || {
            let pg_wal = data_directory.join(PG_WAL);
            let source = Source::open(&pg_wal.join(name.to_string()))?;
            let cluster = HookCluster::in_directory(&data_directory)?;
            Ok(Self::standing_on(source, cluster, pg_wal))
        })
        .await
    }

    fn standing_on(source: Source, cluster: HookCluster, pg_wal: PathBuf) -> Self {
        let writer = writer_id::of(&cluster.path);
        Self { source, cluster, pg_wal, writer }
    }
}

/// On a thread of its own: a disk that hangs must not outlast a deadline.
///
/// # Errors
/// Of what is looked at.
pub async fn aside<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let looked = tokio::task::spawn_blocking(look).await;
    looked.unwrap_or_else(|error| Err(Failure::failed(format!("could not look at the file: {error}"))))
}
