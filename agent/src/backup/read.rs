//! Reads the files of a backup in parallel: workers take files from one
//! queue, the largest first, and cut them into pieces that go into packs.

pub mod file;
pub mod pages;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use walpoint_pitr::progress::Progress;
use walpoint_wal::control_file::ControlFile;

use super::files::rules::RelationFile;
use super::files::{EntryKind, Listing};
use super::packs::{PackError, Packer, PlacedPiece};
use file::Content;
use pages::PageCheck;

/// One file to read. `index` is its place in the listing.
#[derive(Debug)]
struct Wanted {
    index: usize,
    size: u64,
    check: Option<PageCheck>,
}

/// A file as it is in the packs.
#[derive(Debug)]
pub struct ReadFile {
    /// Place in the listing.
    pub index: usize,
    pub content: Content,
    /// Most files have one: no room for more is kept, for there may be a million of them.
    pub pieces: Box<[PlacedPiece]>,
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
    /// Somebody else failed or the operator asked to stop.
    #[error("could not go on reading files: the backup was given up")]
    GivenUp,
}

/// The files that are still to be read, shared by the workers.
#[derive(Debug)]
pub struct Queue {
    listing: Arc<Listing>,
    data_directory: PathBuf,
    /// The smallest first: they are taken from the end.
    wanted: Mutex<Vec<Wanted>>,
    is_given_up: AtomicBool,
}

impl Queue {
    /// Queues the regular files of the listing. Pages are verified where
    /// `control` says that they have checksums.
    pub fn new(listing: &Arc<Listing>, data_directory: &Path, control: &ControlFile) -> Queue {
        let mut wanted: Vec<Wanted> = listing
            .entries
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| match entry.kind {
                EntryKind::File { size, relation } => Some(Wanted {
                    index,
                    size,
                    check: relation.and_then(|relation| page_check(relation, control)),
                }),
                EntryKind::Directory | EntryKind::Tablespace { .. } => None,
            })
            .collect();
        wanted.sort_by_key(|file| file.size);
        Queue {
            listing: Arc::clone(listing),
            data_directory: data_directory.to_owned(),
            wanted: Mutex::new(wanted),
            is_given_up: AtomicBool::new(false),
        }
    }

    /// Makes every worker stop at its next piece.
    pub fn give_up(&self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }

    fn next(&self) -> Option<Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn path(&self, index: usize) -> PathBuf {
        self.listing.entries.get(index).map(|entry| self.data_directory.join(&entry.path)).unwrap_or_default()
    }
}

fn page_check(relation: RelationFile, control: &ControlFile) -> Option<PageCheck> {
    if control.data_checksum_version == 0 {
        return None;
    }
    let first_block = relation.segment.checked_mul(control.relation_segment_size)?;
    let page_size = usize::try_from(control.block_size).ok().filter(|size| *size > 0)?;
    Some(PageCheck { page_size, first_block })
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
pub fn work(
    queue: &Arc<Queue>,
    packer: &mut Packer,
    progress: &Progress,
) -> Result<Vec<ReadFile>, ReadError> {
    let mut guard = GiveUpUnlessDone { queue: queue.as_ref(), is_done: false };
    let mut buffer = Vec::new();
    let mut files = Vec::new();
    while let Some(wanted) = queue.next() {
        files.extend(read_one(queue, wanted, packer, progress, &mut buffer)?);
    }
    packer.finish()?;
    guard.is_done = true;
    Ok(files)
}

fn read_one(
    queue: &Queue,
    wanted: Wanted,
    packer: &mut Packer,
    progress: &Progress,
    buffer: &mut Vec<u8>,
) -> Result<Option<ReadFile>, ReadError> {
    let Wanted { index, size, check } = wanted;
    let path = queue.path(index);
    let mut pieces = Vec::new();
    let read = file::read::<Stopped>(&path, check, buffer, |piece| {
        if queue.is_given_up.load(Ordering::Relaxed) {
            return Err(Stopped::GivenUp);
        }
        pieces.push(packer.append(piece).map_err(Stopped::Pack)?);
        progress.add_bytes(piece.len() as u64);
        Ok(())
    });
    let content = read.map_err(|stopped| stopped.at(&path))?;
    progress.add_files(1);
    // What was announced and is not there any more would keep the bar below 100 %.
    let read = content.as_ref().map_or(0, |content| content.size);
    progress.add_bytes(size.saturating_sub(read));
    Ok(content.map(|content| ReadFile { index, content, pieces: pieces.into() }))
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
