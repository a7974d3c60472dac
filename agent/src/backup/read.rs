//! Reads the files of a backup in parallel: workers take files from one queue, and cut them into
//! pieces that go into packs, or are found to be a parent's. The largest come first; in an
//! incremental backup they come in path order, as the parent's manifest does beside them.

pub mod assembly;
pub mod file;
pub mod pace;
pub mod pages;
mod source;
mod stored_frames;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walpoint_archive::manifest::{ManifestError, Piece};
use walpoint_pitr::progress::Progress;
use walpoint_wal::control_file::ControlFile;

use super::files::rules::{Fork, RelationFile};
use super::files::{EntryKind, Listing};
use super::packs::{PackError, Packer};
use super::parent::comparison::Comparison;
use super::parent::manifest::ParentFiles;
use super::spool::{Spool, SpoolPlace};
use super::unfinished::{Left, Notes};
use assembly::{Assembly, Known};
use file::Content;
use pace::Pace;
use pages::{BadPage, PageCheck};
use stored_frames::StoredFrames;

/// So many pieces of a file are noted at once: about a pack of them.
const NOTED_AT_ONCE: usize = 16;

/// One file to read. `index` is its place in the listing.
#[derive(Debug)]
struct Wanted {
    index: usize,
    size: u64,
    relation: Option<RelationFile>,
}

/// What became of the listing's files. There may be a million of them: each takes a few bytes.
#[derive(Debug, Default)]
pub struct ReadFiles {
    /// Where the pieces of each are kept; none of one that has vanished.
    places: Vec<Option<SpoolPlace>>,
    /// Pages whose checksum is wrong, with their file's place in the listing.
    pub bad_pages: Vec<(usize, BadPage)>,
}

impl ReadFiles {
    /// Where the pieces of a file of the listing are kept.
    pub fn place(&self, index: usize) -> Option<SpoolPlace> {
        self.places.get(index).copied().flatten()
    }

    /// A file was read.
    pub fn take(&mut self, index: usize, place: SpoolPlace, bad_pages: Vec<BadPage>) {
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        if let Some(slot) = self.places.get_mut(index) {
            *slot = Some(place);
        }
        self.bad_pages.extend(bad_pages.into_iter().map(|page| (index, page)));
    }
}

/// Why the reading of files ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("could not read \"{}\": {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("could not read files: a worker ended early: {0}")]
    Worker(String),
    #[error("could not keep what a file consists of: {0}")]
    Spool(std::io::Error),
    #[error("could not read the parent's manifest: {0}")]
    Parent(#[from] ManifestError),
    /// Somebody else failed or the operator asked to stop.
    #[error("could not go on reading files: the backup was given up")]
    GivenUp,
}

/// The files that are still to be read, shared by the workers.
#[derive(Debug)]
pub struct Queue {
    listing: Arc<Listing>,
    data_directory: PathBuf,
    pages: Pages,
    comparison: Option<Comparison>,
    waiting: Mutex<Waiting>,
    spool: Arc<Spool>,
    files: Mutex<ReadFiles>,
    notes: Option<Arc<Notes>>,
    left: Option<Arc<Left>>,
    pace: Pace,
    is_given_up: AtomicBool,
}

/// Taken from the end.
#[derive(Debug)]
struct Waiting {
    files: Vec<Wanted>,
    parent: Option<ParentFiles>,
}

/// What `pg_control` says of data pages.
#[derive(Debug, Clone, Copy)]
struct Pages {
    size: usize,
    /// In one file of a large relation.
    in_file: u32,
    have_checksums: bool,
}

/// What an incremental backup compares with.
#[derive(Debug)]
pub struct Compared {
    pub parent: ParentFiles,
    pub comparison: Comparison,
}

/// What files are read with.
#[derive(Debug)]
pub struct Means {
    pub compared: Option<Compared>,
    pub spool: Arc<Spool>,
    /// Where it is written down what was read.
    pub notes: Option<Arc<Notes>>,
    /// What an interrupted backup has stored.
    pub left: Option<Arc<Left>>,
    pub pace: Pace,
}

impl Queue {
    /// Queues the regular files of the listing. Pages are verified where
    /// `control` says that they have checksums.
    pub fn new(listing: &Arc<Listing>, data_directory: &Path, control: &ControlFile, means: Means) -> Queue {
        let Means { compared, spool, notes, left, pace } = means;
        let wanted = |(index, entry): (usize, &super::files::Entry)| match entry.kind {
            EntryKind::File { size, relation } => Some(Wanted { index, size, relation }),
            EntryKind::Directory | EntryKind::Tablespace { .. } => None,
        };
        let mut files: Vec<Wanted> = listing.entries.iter().enumerate().filter_map(wanted).collect();
        match compared {
            Some(_) => files.reverse(),
            None => files.sort_by_key(|file| file.size),
        }
        let (comparison, parent) = match compared {
            Some(Compared { parent, comparison }) => (Some(comparison), Some(parent)),
            None => (None, None),
        };
        Queue {
            listing: Arc::clone(listing),
            data_directory: data_directory.to_owned(),
            pages: Pages {
                size: usize::try_from(control.block_size).unwrap_or_default(),
                in_file: control.relation_segment_size,
                have_checksums: control.data_checksum_version != 0,
            },
            comparison,
            waiting: Mutex::new(Waiting { files, parent }),
            spool,
            files: Mutex::new(ReadFiles::default()),
            notes,
            left,
            pace,
            is_given_up: AtomicBool::new(false),
        }
    }

    /// Makes every worker stop at its next piece.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    /// Notes the pieces of a file from `noted` on, when there are so many or a pack has ended among them, and says how
    /// many are noted then. Only where frames begin that this backup has: nothing else is looked for by one that goes on.
    fn note(&self, file: &Wanted, pieces: &[Piece], noted: usize, at_least: usize) -> usize {
        let (Some(notes), Some(entry)) = (&self.notes, self.listing.entries.get(file.index)) else {
            return noted;
        };
        let unnoted = pieces.get(noted..).unwrap_or_default();
        let mut frames = unnoted.iter().filter(|piece| stored_frames::is_first(piece));
        // Who is killed right after a pack was stored is to find in it all that is in it.
        let has_ended = |first: &Piece| frames.clone().any(|frame| frame.pack != first.pack);
        if unnoted.len() < at_least && !frames.clone().next().is_some_and(has_ended) {
            return noted;
        }
        notes.read(&entry.path, frames.by_ref());
        pieces.len()
    }

    /// What was read, when nobody reads any more.
    pub fn read_files(&self) -> ReadFiles {
        std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }

    /// What an interrupted backup stored of a file; what cannot be read is stored again.
    fn stored_of(&self, file: &Wanted) -> StoredFrames {
        let read = || {
            let (notes, left) = (self.notes.as_ref()?, self.left.as_ref()?);
            notes.pieces(left, &self.listing.entries.get(file.index)?.path).ok()
        };
        read().map(|pieces| StoredFrames::of(&pieces)).unwrap_or_default()
    }

    fn next(&self) -> Result<Option<(Wanted, Known)>, ReadError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = waiting.files.pop() else { return Ok(None) };
        let parents = match (&mut waiting.parent, self.listing.entries.get(file.index)) {
            (Some(parent), Some(entry)) => parent.file(&entry.path)?,
            _ => None,
        };
        let is_main = file.relation.is_some_and(|relation| relation.fork == Fork::Main);
        let known = match (parents, self.comparison) {
            (Some(file), Some(Comparison::Lsn { since })) if is_main && self.pages.size > 0 => {
                Known::Lsn { file, since, page_size: self.pages.size }
            }
            (Some(file), Some(_)) => Known::Content(file),
            _ => Known::Nothing,
        };
        Ok(Some((file, known)))
    }

    fn path(&self, index: usize) -> PathBuf {
        self.listing.entries.get(index).map(|entry| self.data_directory.join(&entry.path)).unwrap_or_default()
    }
}

impl Pages {
    fn check(self, relation: RelationFile) -> Option<PageCheck> {
        if !self.have_checksums || self.size == 0 {
            return None;
        }
        let first_block = relation.segment.checked_mul(self.in_file)?;
        Some(PageCheck { page_size: self.size, first_block })
    }
}

/// Ends the whole reading when a worker fails or panics.
struct GiveUpUnlessDone<'a> {
    queue: &'a Queue,
    is_done: bool,
}

impl Drop for GiveUpUnlessDone<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.queue.give_up();
        }
    }
}

/// The work of one worker: blocks its thread until the queue is empty.
/// Files that have vanished are left out.
pub fn work(queue: &Arc<Queue>, packer: &mut Packer, progress: &Progress) -> Result<(), ReadError> {
    let mut guard = GiveUpUnlessDone { queue: queue.as_ref(), is_done: false };
    let mut buffer = Vec::new();
    while let Some((wanted, known)) = queue.next()? {
        read_one(queue, &wanted, known, packer, progress, &mut buffer)?;
    }
    packer.finish()?;
    guard.is_done = true;
    Ok(())
}

fn read_one(
    queue: &Queue,
    wanted: &Wanted,
    known: Known,
    packer: &mut Packer,
    progress: &Progress,
    buffer: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let path = queue.path(wanted.index);
    let check = wanted.relation.and_then(|relation| queue.pages.check(relation));
    let mut assembly = Assembly::new(packer, known, queue.stored_of(wanted));
    let mut noted = 0;
    let read = file::read::<Stopped>(&path, check, buffer, |window, offset, bad| {
        queue.pace.wait(window.len(), || queue.is_given_up());
        if queue.is_given_up() {
            return Err(Stopped::GivenUp);
        }
        let is_bad = |at| check.is_some_and(|check| bad.iter().any(|page| page.block == check.block_at(at)));
        assembly.take(window, offset, is_bad).map_err(Stopped::Pack)?;
        noted = queue.note(wanted, assembly.placed(), noted, NOTED_AT_ONCE);
        progress.add_bytes(window.len() as u64);
        Ok(())
    });
    let content = read.map_err(|stopped| stopped.at(&path))?;
    let assembled = assembly.finish()?;
    progress.add_files(1);
    // What was announced and is not there any more would keep the bar below 100 %.
    let read = content.as_ref().map_or(0, |content| content.size);
    progress.add_bytes(wanted.size.saturating_sub(read));
    let Some(Content { bad_pages, .. }) = content else { return Ok(()) };
    queue.note(wanted, &assembled.pieces, noted, 1);
    let place = queue.spool.put(&assembled).map_err(ReadError::Spool)?;
    queue.files.lock().unwrap_or_else(PoisonError::into_inner).take(wanted.index, place, bad_pages);
    Ok(())
}

enum Stopped {
    Io(std::io::Error),
    Pack(PackError),
    GivenUp,
}

impl From<std::io::Error> for Stopped {
    fn from(error: std::io::Error) -> Stopped {
        Stopped::Io(error)
    }
}

impl Stopped {
    fn at(self, path: &Path) -> ReadError {
        match self {
            Stopped::Io(source) => ReadError::File { path: path.to_path_buf(), source },
            Stopped::Pack(error) => ReadError::Pack(error),
            Stopped::GivenUp => ReadError::GivenUp,
        }
    }
}
