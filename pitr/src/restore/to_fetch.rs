//! What is to be fetched, and in which order: reads the manifest a second time, when the files have been made, leaves
//! out what is there already, and sorts the rest by packs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use walpoint_archive::ContentHash;
use walpoint_archive::manifest::{ManifestContent, ManifestPart, Windows};

use super::delta::{Comparison, OldFile};
use super::error::RestoreError;
use super::inventory::{Keep, Numbered, Numbering};
use super::manifest_copy::ManifestCopy;
use super::manifest_of::{ManifestOf, NotTaken};
use super::pack_table::PackTable;
use super::pieces::{Batches, PackPiece, PieceWork, Pieces};
use super::site::{NewFile, Site};
use super::{manifest_copy, pieces, stopped};
use crate::progress::Progress;

/// What a restore has made before it fetches.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) site: Arc<Site>,
    /// All files, at their length.
    pub(super) files: Arc<Vec<NewFile>>,
    /// Those, by their number, that were there before and kept their content.
    pub(super) kept: Arc<BTreeSet<usize>>,
    /// Those that hold zeros, and nothing is fetched of them.
    pub(super) zeroed: Arc<BTreeSet<usize>>,
    pub(super) table: Arc<PackTable>,
}

/// What is to be fetched.
#[derive(Debug)]
pub(super) struct ToFetch {
    pub(super) batches: Batches,
    /// How many pieces of each file.
    pub(super) of_file: Vec<u64>,
    /// Plain bytes in all.
    pub(super) bytes: u64,
}

/// Room on the disk that is needed meanwhile, for a manifest of this size that names so many pieces. Of those that are
/// there already none is sorted; how many these are shows only when the restore is at work.
pub(super) fn room(manifest: u64, pieces: u64) -> u64 {
    manifest_copy::room(manifest).saturating_add(pieces::room(pieces))
}

/// Blocks.
pub(super) fn find(
    copy: ManifestCopy,
    of: ManifestOf,
    made: &Made,
    workers: usize,
    progress: &Progress,
) -> Result<ToFetch, RestoreError> {
    let of = of.copy_in(made.site.data().path());
    let finding = Finding {
        made,
        found: Mutex::new(Found {
            pieces: Pieces::new(made.site.data().path().to_owned()),
            of_file: vec![0; made.files.len()],
            bytes: 0,
        }),
        failed: AtomicBool::new(false),
    };
    let workers = if made.kept.is_empty() { 0 } else { workers.max(1) };
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(workers);
        let receive = Arc::new(Mutex::new(receive));
        let work = |_| {
            let (finding, receive) = (&finding, Arc::clone(&receive));
            scope.spawn(move || finding.compare_all(&receive, progress))
        };
        let threads: Vec<_> = (0..workers).map(work).collect();
        // When all of them have ended nobody waits for them.
        drop(receive);
        let read = finding.read(copy, &of, &send);
        drop(send);
        let mut compared = Ok(());
        for thread in threads {
            compared = compared.and(thread.join().unwrap_or_else(|_| Err(stopped())));
        }
        compared.and(read)
    })?;
    let Found { pieces, of_file, bytes } = finding.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let batches = pieces.sorted().map_err(|source| unsorted(made, source))?;
    Ok(ToFetch { batches, of_file, bytes })
}

/// What the disk refused while pieces were sorted.
pub(super) fn unsorted(made: &Made, source: std::io::Error) -> RestoreError {
    RestoreError::io(made.site.data().path(), "sort what is to be fetched in", source)
}

/// Pieces of a file that are compared at a time: all of one of 1 GiB, as PostgreSQL makes them, in pages as small as
/// manifests have them.
const COMPARED: usize = if cfg!(test) { 64 } else { 32 * 1024 };

/// The file that the manifest is at.
enum Current {
    /// None, or one of which nothing is fetched.
    Nothing,
    ToFetch(usize),
    ToCompare {
        number: usize,
        pieces: Vec<PackPiece>,
        windows: Vec<Option<ContentHash>>,
    },
}

impl Current {
    /// Nothing more comes of it.
    fn send(self, compare: &SyncSender<Comparison>) -> Result<(), RestoreError> {
        let Current::ToCompare { number, pieces, windows } = self else { return Ok(()) };
        if pieces.is_empty() {
            return Ok(());
        }
        let windows = Windows::new(windows);
        compare.send(Comparison { number, pieces, windows }).map_err(|_| stopped())
    }
}

struct Finding<'a> {
    made: &'a Made,
    found: Mutex<Found>,
    /// Whether somebody has failed: then nothing comes of it.
    failed: AtomicBool,
}

struct Found {
    pieces: Pieces,
    of_file: Vec<u64>,
    bytes: u64,
}

impl Found {
    fn add(&mut self, piece: PackPiece) -> std::io::Result<()> {
        if let Some(count) = self.of_file.get_mut(piece.piece.file) {
            *count += 1;
        }
        self.bytes = self.bytes.saturating_add(piece.piece.place.length.into());
        self.pieces.add(piece)
    }
}

impl Finding<'_> {
    /// Reads the manifest. What may be there goes to those who compare.
    fn read(
        &self,
        copy: ManifestCopy,
        of: &ManifestOf,
        compare: &SyncSender<Comparison>,
    ) -> Result<(), RestoreError> {
        let mut numbering = Numbering::new(Keep::All);
        let mut file = Current::Nothing;
        of.each_part(copy.read()?, |part| {
            if self.failed.load(Ordering::Relaxed) {
                return Err(NotTaken::Failed(stopped()));
            }
            match part {
                ManifestPart::Entry(entry) => {
                    let next = match numbering.take(&entry)? {
                        Numbered::File(number, _) => self.begin(number),
                        Numbered::Counted(..) | Numbered::Other => Current::Nothing,
                    };
                    std::mem::replace(&mut file, next).send(compare)?;
                }
                ManifestPart::Content(content) => self.take(&mut file, content, compare)?,
            }
            Ok(())
        })?;
        file.send(compare)
    }

    fn begin(&self, number: usize) -> Current {
        if self.made.zeroed.contains(&number) {
            Current::Nothing
        } else if self.made.kept.contains(&number) {
            Current::ToCompare { number, pieces: Vec::new(), windows: Vec::new() }
        } else {
            Current::ToFetch(number)
        }
    }

    fn take(
        &self,
        file: &mut Current,
        content: ManifestContent,
        compare: &SyncSender<Comparison>,
    ) -> Result<(), NotTaken> {
        match file {
            Current::Nothing => Ok(()),
            Current::ToFetch(number) => {
                let pieces = self.pieces_of(*number, &content)?;
                self.add(pieces.into_iter()).map_err(NotTaken::from)
            }
            Current::ToCompare { number, pieces, windows } => {
                let more = self.pieces_of(*number, &content)?;
                if !pieces.is_empty() && pieces.len() + more.len() > COMPARED {
                    let pieces = std::mem::take(pieces);
                    let comparison =
                        Comparison { number: *number, pieces, windows: Windows::new(windows.clone()) };
                    compare.send(comparison).map_err(|_| stopped())?;
                }
                pieces.extend(more);
                // Without a hash of its window a piece is told by its own, or fetched.
                let room = COMPARED.saturating_sub(windows.len());
                windows.extend(content.windows.into_iter().take(room));
                Ok(())
            }
        }
    }

    fn pieces_of(&self, number: usize, content: &ManifestContent) -> Result<Vec<PackPiece>, String> {
        let of_pack = |piece| {
            let pack = self.made.table.pack_of(piece)?;
            Ok(PackPiece { pack, piece: PieceWork::new(number, piece) })
        };
        content.pieces.iter().map(of_pack).collect()
    }

    fn add(&self, mut pieces: impl Iterator<Item = PackPiece>) -> Result<(), RestoreError> {
        let mut found = lock(&self.found);
        pieces.try_for_each(|piece| found.add(piece)).map_err(|source| unsorted(self.made, source))
    }

    fn compare_all(
        &self,
        receive: &Mutex<Receiver<Comparison>>,
        progress: &Progress,
    ) -> Result<(), RestoreError> {
        let mut buffer = Vec::new();
        loop {
            let Ok(comparison) = lock(receive).recv() else { return Ok(()) };
            let compared = self.compare(comparison, &mut buffer, progress);
            if compared.is_err() {
                self.failed.store(true, Ordering::Relaxed);
                return compared;
            }
        }
    }

    fn compare(
        &self,
        comparison: Comparison,
        buffer: &mut Vec<u8>,
        progress: &Progress,
    ) -> Result<(), RestoreError> {
        let Some(file) = self.made.files.get(comparison.number) else { return Err(stopped()) };
        let open = self.made.site.open_to_read(&file.place)?;
        let mut old = OldFile::new(open, file.size, &comparison.windows, buffer);
        let mut differing = comparison.pieces;
        differing.retain(|PackPiece { piece, .. }| {
            let is_same = old.has(piece);
            progress.add_bytes(piece.place.length.into());
            !is_same
        });
        self.add(differing.into_iter())
    }
}

/// Nothing is left half done under these locks that anybody goes on with.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
