//! The cluster that a hook works for. A PostgreSQL later than this program must not lose its archiving for it,
//! so the hooks need no more of `pg_control` than every version has in the same place.

use crate::config::Settings;
use crate::data_directory::{self, CONTROL_FILE, DataDirectory, Found};
use crate::exit::Failure;
use std::path::{Path, PathBuf};
use walpoint_wal::{SegmentSize, SystemIdentifier};

/// A hook's cluster.
#[derive(Debug)]
pub struct HookCluster {
    /// Its data directory.
    pub path: PathBuf,
    /// Which one it is.
    pub system_identifier: SystemIdentifier,
    /// All of `pg_control`; none when PostgreSQL is later than this program.
    pub known: Option<DataDirectory>,
}

impl HookCluster {
    /// The cluster of a hook's `%p`: of the data directory that it belongs to, else of the configured one.
    ///
    /// # Errors
    /// Status 2 when neither holds a `pg_control`, or this is root and not the owner; status 1 or 5 when one is there and cannot be read.
    pub fn of(path: &Path, settings: &Settings) -> Result<Self, Failure> {
        let candidates = [data_directory::of_wal_path(path), settings.postgres.data_directory.clone()];
        for candidate in candidates.iter().flatten() {
            if let Some(found) = data_directory::look(candidate)? {
                data_directory::refuse_root(candidate)?;
                return Ok(Self::found(candidate, found));
            }
        }
        let seen: Vec<String> =
            candidates.iter().flatten().map(|path| format!("\"{}\"", path.display())).collect();
        Err(Failure::usage(format!(
            "could not tell which cluster \"{}\" belongs to: there is no {CONTROL_FILE} in {}",
            path.display(),
            if seen.is_empty() { "any known directory".to_owned() } else { seen.join(" or in ") }
        ))
        .with_hint("set data_directory in section [postgres], or run the command in the data directory"))
    }

    /// The cluster in a data directory.
    ///
    /// # Errors
    /// Status 1 when there is none or it cannot be read: it may be on its way. Status 5 when its `pg_control` is
    /// damaged.
    pub fn in_directory(path: &Path) -> Result<Self, Failure> {
        let found = data_directory::look(path)?
            .ok_or_else(|| Failure::failed(format!("there is no cluster in \"{}\" now", path.display())))?;
        Ok(Self::found(path, found))
    }

    pub(super) fn found(path: &Path, found: Found) -> Self {
        let (path, system_identifier) = (path.to_owned(), found.system_identifier());
        let known = match found {
            Found::Known(directory) => Some(*directory),
            Found::Later { why, .. } => {
                tracing::warn!("{why}; WAL is taken as it is");
                None
            }
        };
        Self { path, system_identifier, known }
    }

    /// Size of its segments, when `pg_control` can be read.
    pub fn segment_size(&self) -> Option<SegmentSize> {
        self.known.as_ref().map(|directory| directory.control.segment_size)
    }
}
