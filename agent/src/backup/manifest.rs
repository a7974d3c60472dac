//! Writes a backup's manifest: a stream from what was kept of the files that were read to sealed bytes in a file
//! without a name, so that no cluster is too large for it.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, PipeReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::{SpooledTempFile, spooled_tempfile_in};
use walpoint_archive::BackupId;
use walpoint_archive::envelope::{Seal, Sealer};
use walpoint_archive::manifest::{ManifestError, ManifestHeader, ManifestTotals, ManifestWriter, Piece};
use walpoint_archive::relative_path::RelativePathError;

use super::entries::Contents;
use super::parent::manifest::{IN_MEMORY, NewCopy};

/// The packs that a manifest names.
#[derive(Debug, Default)]
pub struct NamedPacks {
    /// This backup's own, by number.
    pub own: BTreeSet<u32>,
    /// Those of older backups, by backup and number.
    pub older: BTreeSet<(BackupId, u32)>,
}

impl NamedPacks {
    fn take(&mut self, pieces: &[Piece]) {
        let mut last = None;
        for piece in pieces {
            // Most name the same one, one after the other.
            let named = (piece.backup.as_ref(), piece.pack);
            if last.replace(named) == Some(named) {
                continue;
            }
            match &piece.backup {
                None => drop(self.own.insert(piece.pack)),
                Some(backup) => drop(self.older.insert((backup.clone(), piece.pack))),
            }
        }
    }
}

/// A manifest that is ready to be stored.
#[derive(Debug)]
pub struct Written {
    pub seal: Seal,
    /// The sealed bytes, from their beginning.
    pub stored: SpooledTempFile,
    pub totals: ManifestTotals,
    pub packs: NamedPacks,
    /// What the next backup will read where the archive is encrypted.
    pub copy: Option<NewCopy>,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    #[error(transparent)]
    Path(#[from] RelativePathError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("a thread ended early")]
    Thread,
}

/// Writes and seals the manifest of these contents. Blocks.
pub fn write(
    contents: &Contents,
    header: &ManifestHeader,
    sealer: &Sealer,
    directory: &Path,
) -> Result<Written, Unwritable> {
    let (plain, lines) = io::pipe()?;
    let copy = if sealer.encrypts() { begin_copy(directory) } else { None };
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| seal(plain, sealer, directory));
        let written = write_lines(contents, header, lines, copy);
        let sealed = sealing.join().map_err(|_| Unwritable::Thread)?;
        // Where sealing failed the lines only met a pipe that nobody reads.
        match (written, sealed) {
            (Err(error), Ok(_)) => Err(error),
            (_, Err(error)) => Err(error.into()),
            (Ok((totals, packs, copy)), Ok((seal, stored))) => {
                Ok(Written { seal, stored, totals, packs, copy })
            }
        }
    })
}

fn seal(plain: PipeReader, sealer: &Sealer, directory: &Path) -> io::Result<(Seal, SpooledTempFile)> {
    let mut stored = spooled_tempfile_in(IN_MEMORY, directory);
    let seal = sealer.seal_into(plain.take(u64::MAX), None, &mut stored)?;
    stored.seek(SeekFrom::Start(0))?;
    Ok((seal, stored))
}

fn write_lines(
    contents: &Contents,
    header: &ManifestHeader,
    lines: impl Write,
    copy: Option<NewCopy>,
) -> Result<(ManifestTotals, NamedPacks, Option<NewCopy>), Unwritable> {
    let mut packs = NamedPacks::default();
    let mut writer = ManifestWriter::new(Both { lines: BufWriter::new(lines), copy }, header)?;
    contents.each::<Unwritable>(|entry| {
        packs.take(&entry.pieces);
        Ok(writer.entry(entry)?)
    })?;
    let (both, totals) = writer.finish()?;
    Ok((totals, packs, both.copy))
}

fn begin_copy(directory: &Path) -> Option<NewCopy> {
    NewCopy::begin(directory)
        .inspect_err(|error| {
            tracing::warn!("could not keep a copy of the manifest for the next incremental backup: {error}");
        })
        .ok()
}

/// The pipe, and the copy as long as it can be written.
struct Both<W> {
    lines: W,
    copy: Option<NewCopy>,
}

impl<W: Write> Write for Both<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.write_all(bytes)?;
        if let Some(error) = self.copy.as_mut().and_then(|copy| copy.write_all(bytes).err()) {
            tracing::warn!("could not keep a copy of the manifest for the next incremental backup: {error}");
            self.copy = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.flush()
    }
}
