//! Why a restore did not come about.

use std::io;
use std::path::{Path, PathBuf};

use walpoint_archive::ArchiveError;

use crate::data_dir::Refusal;
use crate::postgresql_conf::UnwritableValue;

/// What went wrong, as far as somebody decides by it.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing was written, since it would not be safe to.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A tablespace was mapped that the backup does not have, or that cannot be mapped so.
    #[error("could not map the tablespace \"{from}\": {why}")]
    TablespaceMapping {
        /// What was asked for: the path or the object identifier.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// A database was named that the backup does not have.
    #[error(
        "could not restore the database \"{name}\": the backup has no files of one with this name or OID"
    )]
    Database {
        /// What was asked for.
        name: String,
        /// What it has, in words.
        there: String,
    },
    /// A setting cannot be written.
    #[error(transparent)]
    Setting(#[from] UnwritableValue),
    /// The archive could not give what is needed.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// What the archive holds is not what was backed up.
    #[error("could not restore from \"{object}\": {what}")]
    Damaged {
        /// The object, by its key.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// The file system refused.
    #[error("could not {verb} \"{}\": {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was to be done with it.
        verb: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A part of the work ended without an answer.
    #[error("could not restore: {0}")]
    Interrupted(String),
}

impl RestoreError {
    pub(super) fn io(path: &Path, verb: &'static str, source: io::Error) -> RestoreError {
        RestoreError::Io { path: path.to_owned(), verb, source }
    }

    pub(super) fn damaged(object: impl ToString, what: impl Into<String>) -> RestoreError {
        RestoreError::Damaged { object: object.to_string(), what: what.into() }
    }

    /// What to do next, when that can be said here.
    pub fn hint(&self) -> Option<String> {
        match self {
            RestoreError::Refused(refusal) => Some(refusal.hint.clone()),
            RestoreError::TablespaceMapping { .. } => Some(
                "--tablespace takes OLD=NEW, OLD being the path in the backup or the object identifier"
                    .to_owned(),
            ),
            RestoreError::Database { there, .. } => Some(there.clone()),
            RestoreError::Damaged { .. } => Some("restore from another backup with --backup".to_owned()),
            RestoreError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("remove what was restored, make room, and restore again".to_owned())
            }
            RestoreError::Io { .. } | RestoreError::Interrupted(_) => Some(
                "what was restored so far cannot start: go on with --delta, or remove it and restore again"
                    .to_owned(),
            ),
            RestoreError::Setting(_) => {
                Some("choose paths and values without line breaks, then restore again".to_owned())
            }
            RestoreError::Archive(error) => error.hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_archive_advises_is_passed_on() {
        let archive = ArchiveError::NoKey { key: "x".to_owned() };
        let advice = archive.hint();
        assert!(advice.is_some());
        assert_eq!(RestoreError::from(archive).hint(), advice);
        let setting = UnwritableValue { name: "restore_command".to_owned() };
        assert!(RestoreError::from(setting).hint().is_some());
    }
}
