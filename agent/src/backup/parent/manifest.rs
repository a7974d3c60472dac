//! The parent's manifest on this host, read as a stream beside the files. It comes out of the archive; where that is
//! encrypted, out of a copy that the last backup left in the data directory, for most hosts have only public keys. What it
//! says is what the data directory itself shows.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tempfile::{SpooledTempFile, spooled_tempfile_in};
use walpoint_archive::content::ContentHasher;
use walpoint_archive::durable::{self, Placement, TempFile};
use walpoint_archive::manifest::{EntryKind, ManifestEntry, ManifestError, ManifestReader, Piece, Windows};
use walpoint_archive::{Archive, ArchiveError, BackupHead, BackupId, ContentHash};

use super::NoParent;
use crate::exit::Failure;

/// The copy, in the data directory. No backup holds it: its name begins as all our names there.
const COPY: &str = "walpoint.manifest.zst";
/// Up to this size nothing is written to the disk.
pub const IN_MEMORY: usize = 4 << 20;
/// The compression of what is soon thrown away.
const LEVEL: i32 = 1;

/// A manifest that was verified whole, compressed, in a file without a name or in memory.
#[derive(Debug)]
pub struct LocalManifest(SpooledTempFile);

impl LocalManifest {
    /// The manifest of a backup, when it can be read here.
    ///
    /// # Errors
    /// When the archive does not answer, or the disk does not.
    pub async fn of(
        archive: &Archive,
        summary: &BackupHead,
        copy: &mut LastCopy,
        data_directory: &Path,
    ) -> Result<Result<LocalManifest, NoParent>, Failure> {
        if !archive.sealer().encrypts() {
            return of_archive(archive, summary, data_directory).await;
        }
        match copy.of(summary, data_directory) {
            Ok(manifest) => Ok(Ok(manifest)),
            Err(_) if archive.keys().can_open() => of_archive(archive, summary, data_directory).await,
            Err(error) => Ok(Err(no_copy(summary, &error))),
        }
    }

    fn into_reader(mut self) -> Result<ManifestReader<impl io::BufRead>, ManifestError> {
        self.0.seek(SeekFrom::Start(0))?;
        ManifestReader::new(BufReader::new(zstd::Decoder::new(self.0)?))
    }
}

async fn of_archive(
    archive: &Archive,
    summary: &BackupHead,
    data_directory: &Path,
) -> Result<Result<LocalManifest, NoParent>, Failure> {
    let unkept = |error: io::Error| {
        Failure::failed(format!(
            "could not keep the manifest of {} while files are read: {error}",
            summary.id
        ))
    };
    let file = spooled_tempfile_in(IN_MEMORY, data_directory);
    let mut out = zstd::Encoder::new(file, LEVEL).map_err(unkept)?;
    match archive.fetch_manifest(summary, &mut out).await {
        Ok(()) => out.finish().map(|file| Ok(LocalManifest(file))).map_err(unkept),
        // With a full backup there is a good one again.
        Err(error) if error.is_damaged() => {
            Ok(Err(NoParent(format!("the manifest of {} is damaged: {error}", summary.id))))
        }
        Err(ArchiveError::NoKey { key } | ArchiveError::WrongKey { key }) => {
            Ok(Err(NoParent(format!("no key that is here opens \"{key}\""))))
        }
        Err(error) if error.is_not_found() => {
            Ok(Err(NoParent(format!("the manifest of {} is not in the archive", summary.id))))
        }
        Err(error) => Err(error.into()),
    }
}

fn no_copy(summary: &BackupHead, error: &io::Error) -> NoParent {
    let of = &summary.id;
    // What the system refuses has a number; what is no copy of this manifest has none.
    match error.raw_os_error() {
        Some(_) if error.kind() != io::ErrorKind::NotFound => NoParent(format!(
            "the archive is encrypted, and this host could not read its copy of the manifest of {of}: {error}"
        )),
        _ => NoParent(format!(
            "the archive is encrypted, and this host has neither its key nor a copy of the manifest of {of}: the last backup was not taken here"
        )),
    }
}

/// What the copy that is here is of, once that was looked at: of one backup at most, however many are asked for.
#[derive(Debug, Default)]
pub struct LastCopy(Option<ContentHash>);

impl LastCopy {
    /// The copy, when it is that of this backup and whole.
    fn of(&mut self, summary: &BackupHead, data_directory: &Path) -> io::Result<LocalManifest> {
        let is_of = |content: ContentHash| content == summary.manifest.content;
        if self.0.is_some_and(|content| !is_of(content)) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (manifest, content) = copy(data_directory)?;
        self.0 = Some(content);
        if is_of(content) { Ok(manifest) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// The copy, and which content it has.
fn copy(data_directory: &Path) -> io::Result<(LocalManifest, ContentHash)> {
    let mut file = spooled_tempfile_in(IN_MEMORY, data_directory);
    io::copy(&mut File::open(data_directory.join(COPY))?, &mut file)?;
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = ContentHasher::new();
    let mut plain = zstd::Decoder::new(file)?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        match plain.read(&mut buffer)? {
            0 => break,
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
    Ok((LocalManifest(plain.finish().into_inner()), hasher.finish()))
}

/// The copy that the next backup will read, as it is written.
pub struct NewCopy {
    out: zstd::Encoder<'static, File>,
    temporary: TempFile,
}

impl std::fmt::Debug for NewCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewCopy").field("temporary", &self.temporary).finish_non_exhaustive()
    }
}

impl NewCopy {
    /// Begins one.
    pub fn begin(data_directory: &Path) -> io::Result<NewCopy> {
        let mut temporary = TempFile::create(&durable::open_dir(data_directory)?, durable::FILE_MODE)?;
        let file = temporary.file().try_clone()?;
        Ok(NewCopy { out: zstd::Encoder::new(file, LEVEL)?, temporary })
    }

    /// Puts it in the place of the last one. It is verified when it is read, so nothing waits for the disk.
    pub fn keep(mut self) -> io::Result<()> {
        self.out.finish()?;
        self.temporary.place(COPY, Placement::Replace).map(drop)
    }
}

impl Write for NewCopy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What the parent has of one file.
#[derive(Debug, Default)]
pub struct ParentFile {
    pub size: u64,
    /// End to end, each with the backup whose pack holds it.
    pub pieces: Vec<Piece>,
    pub windows: Windows,
}

impl ParentFile {
    /// The hash of the window that begins there, when it has this length in the parent, too.
    pub fn window_hash(&self, offset: u64, length: usize) -> Option<ContentHash> {
        let number = Windows::number_at(offset);
        let is_alike = Windows::range(number, self.size) == (offset..offset + length as u64);
        is_alike.then(|| self.windows.hash(number)).flatten()
    }
}

/// The parent's files, asked for in path order.
pub struct ParentFiles {
    parent: BackupId,
    next: Box<dyn FnMut() -> Result<Option<ManifestEntry>, ManifestError> + Send>,
    ahead: Option<ManifestEntry>,
}

impl std::fmt::Debug for ParentFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParentFiles").field("parent", &self.parent).finish_non_exhaustive()
    }
}

impl ParentFiles {
    pub fn new(manifest: LocalManifest, parent: BackupId) -> Result<ParentFiles, ManifestError> {
        let mut reader = manifest.into_reader()?;
        let mut next: Box<dyn FnMut() -> Result<Option<ManifestEntry>, ManifestError> + Send> =
            Box::new(move || reader.next_entry());
        let ahead = next()?;
        Ok(ParentFiles { parent, next, ahead })
    }

    /// What the parent has under this path, which lies behind every one that was asked for before.
    pub fn file(&mut self, path: &Path) -> Result<Option<ParentFile>, ManifestError> {
        let path = path.as_os_str().as_bytes();
        while let Some(entry) = self.ahead.take() {
            match entry.path.as_bytes().cmp(path) {
                std::cmp::Ordering::Less => self.ahead = (self.next)()?,
                std::cmp::Ordering::Greater => {
                    self.ahead = Some(entry);
                    return Ok(None);
                }
                std::cmp::Ordering::Equal => {
                    self.ahead = (self.next)()?;
                    return Ok((entry.kind == EntryKind::File).then(|| self.known(entry)));
                }
            }
        }
        Ok(None)
    }

    fn known(&self, entry: ManifestEntry) -> ParentFile {
        let mut pieces = entry.pieces;
        for piece in &mut pieces {
            piece.backup.get_or_insert_with(|| self.parent.clone());
        }
        ParentFile { size: entry.size, pieces, windows: entry.windows }
    }
}
