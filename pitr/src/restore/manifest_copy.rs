//! A backup's manifest on this host: verified whole before anything is done by it, and read as slowly as the work on
//! it goes, which no connection to the store would wait for.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tempfile::{SpooledTempFile, spooled_tempfile_in};
use walpoint_archive::{Archive, ArchiveError, BackupSummary};

use super::error::RestoreError;

/// Up to this size nothing is written to the disk.
const IN_MEMORY: usize = if cfg!(test) { 256 } else { 4 << 20 };

/// The compression of what is soon thrown away.
const LEVEL: i32 = 1;

/// The most room on the disk that a copy of a manifest of this size can take.
pub(super) fn room(manifest: u64) -> u64 {
    if manifest > IN_MEMORY as u64 { manifest } else { 0 }
}

/// Compressed, in a file without a name or in memory. It has no more bytes than the summary says of the manifest.
#[derive(Debug)]
pub(super) struct ManifestCopy {
    file: SpooledTempFile,
    directory: PathBuf,
}

impl ManifestCopy {
    /// Fetches the manifest; it takes its room in this directory.
    ///
    /// # Errors
    /// The archive cannot give it, or it is not the one that the summary names; the disk does not take it.
    pub(super) async fn fetch(
        archive: &Archive,
        summary: &BackupSummary,
        directory: &Path,
    ) -> Result<ManifestCopy, RestoreError> {
        let unkept = |source| RestoreError::io(directory, "keep the manifest in", source);
        let file = spooled_tempfile_in(IN_MEMORY, directory);
        let mut out = zstd::Encoder::new(file, LEVEL).map_err(unkept)?;
        archive.fetch_manifest(summary, &mut out).await.map_err(|error| match error {
            ArchiveError::Io { verb: "write", source, .. } => unkept(source),
            error => error.into(),
        })?;
        Ok(ManifestCopy { file: out.finish().map_err(unkept)?, directory: directory.to_owned() })
    }

    /// From its beginning.
    pub(super) fn read(mut self) -> Result<impl BufRead, RestoreError> {
        let unread = |source| RestoreError::io(&self.directory, "read the manifest kept in", source);
        self.file.seek(SeekFrom::Start(0)).map_err(unread)?;
        Ok(BufReader::new(zstd::Decoder::new(self.file).map_err(unread)?))
    }
}
