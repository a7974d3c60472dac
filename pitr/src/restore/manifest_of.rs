//! A backup's manifest, part by part: no file's pieces stand in memory because they are many.

use std::io::BufRead;

use walpoint_archive::manifest::{ManifestError, ManifestPart, ManifestReader};
use walpoint_archive::{ArchiveError, BackupId, BackupSummary, ObjectKey, RelativePath};
use walpoint_wal::SystemIdentifier;

use super::error::RestoreError;

/// Why a part was not taken.
#[derive(Debug)]
pub(super) enum NotTaken {
    /// The manifest is damaged: what is wrong with this entry.
    Unsound(String),
    /// Something else failed.
    Failed(RestoreError),
}

impl From<String> for NotTaken {
    fn from(what: String) -> NotTaken {
        NotTaken::Unsound(what)
    }
}

impl From<RestoreError> for NotTaken {
    fn from(error: RestoreError) -> NotTaken {
        NotTaken::Failed(error)
    }
}

/// What a manifest must be of.
#[derive(Debug, Clone)]
pub(super) struct ManifestOf {
    backup: BackupId,
    system_identifier: SystemIdentifier,
    pub(super) key: ObjectKey,
}

impl ManifestOf {
    pub(super) fn new(summary: &BackupSummary) -> ManifestOf {
        ManifestOf {
            backup: summary.id.clone(),
            system_identifier: summary.system_identifier,
            key: summary.manifest.key.clone(),
        }
    }

    /// Reads it to its end.
    pub(super) fn each_part<E: Into<NotTaken>>(
        &self,
        manifest: impl BufRead,
        mut take: impl FnMut(ManifestPart) -> Result<(), E>,
    ) -> Result<(), RestoreError> {
        let mut manifest = ManifestReader::new(manifest).map_err(|error| self.unreadable(error))?;
        let header = manifest.header();
        if header.backup != self.backup || header.system_identifier != self.system_identifier {
            let what = format!("it is of backup {} of cluster {}", header.backup, header.system_identifier);
            return Err(RestoreError::damaged(&self.key, what));
        }
        let mut path = None::<RelativePath>;
        while let Some(part) = manifest.next_part().map_err(|error| self.unreadable(error))? {
            if let ManifestPart::Entry(entry) = &part {
                path = Some(entry.path.clone());
            }
            take(part).map_err(|error| match (error.into(), &path) {
                (NotTaken::Unsound(what), Some(path)) => {
                    RestoreError::damaged(&self.key, format!("\"{path}\": {what}"))
                }
                (NotTaken::Unsound(what), None) => RestoreError::damaged(&self.key, what),
                (NotTaken::Failed(error), _) => error,
            })?;
        }
        Ok(())
    }

    fn unreadable(&self, error: ManifestError) -> RestoreError {
        let key = self.key.to_string();
        match error {
            ManifestError::UnknownFormat(version) => ArchiveError::UnknownFormat { key, version }.into(),
            ManifestError::Damaged { .. } | ManifestError::Io(_) => {
                RestoreError::damaged(key, error.to_string())
            }
        }
    }
}
