//! A backup's manifest, part by part: no file's pieces stand in memory because they are many.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

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
    /// Where on this host it is read from, after the archive's was found sound.
    copy_in: Option<PathBuf>,
}

impl ManifestOf {
    pub(super) fn new(summary: &BackupSummary) -> ManifestOf {
        ManifestOf {
            backup: summary.id.clone(),
            system_identifier: summary.system_identifier,
            key: summary.manifest.key.clone(),
            copy_in: None,
        }
    }

    /// The same, read from a copy of it whose room is in this directory. What is wrong with that is the fault of this
    /// host's disk.
    pub(super) fn copy_in(self, directory: &Path) -> ManifestOf {
        ManifestOf { copy_in: Some(directory.to_owned()), ..self }
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
            return Err(self.damaged(what));
        }
        let mut path = None::<RelativePath>;
        while let Some(part) = manifest.next_part().map_err(|error| self.unreadable(error))? {
            if let ManifestPart::Entry(entry) = &part {
                path = Some(entry.path.clone());
            }
            take(part).map_err(|error| match (error.into(), &path) {
                (NotTaken::Unsound(what), Some(path)) => self.damaged(format!("\"{path}\": {what}")),
                (NotTaken::Unsound(what), None) => self.damaged(what),
                (NotTaken::Failed(error), _) => error,
            })?;
        }
        Ok(())
    }

    fn unreadable(&self, error: ManifestError) -> RestoreError {
        match error {
            ManifestError::UnknownFormat(version) => {
                ArchiveError::UnknownFormat { key: self.key.to_string(), version }.into()
            }
            ManifestError::Damaged { .. } | ManifestError::Io(_) => self.damaged(error.to_string()),
        }
    }

    fn damaged(&self, what: String) -> RestoreError {
        match &self.copy_in {
            None => RestoreError::damaged(&self.key, what),
            Some(directory) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, what);
                RestoreError::io(directory, "read the manifest kept in", source)
            }
        }
    }
}
