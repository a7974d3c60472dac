//! Brings files into the archive: workers read and pack them on threads of
//! their own, sealed packs are stored side by side, and the first failure
//! ends it all.

use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use walpoint_archive::manifest::ManifestEntry;
use walpoint_archive::summary::StoredObject;
use walpoint_archive::{Archive, ArchiveError, BackupId};
use walpoint_pitr::progress::Progress;

use super::files::Listing;
use super::late::LateFile;
use super::packs::{PackError, Packer, SealedPack};
use super::read::{self, Means, Queue, ReadError, ReadFiles};
use super::resume::Beginning;
use super::unfinished::Notes;
use crate::data_directory::DataDirectory;
use crate::exit::Failure;

/// A pack as it lies in the archive.
#[derive(Debug)]
pub struct StoredPack {
    pub number: u32,
    pub object: StoredObject,
}

/// The way from files to stored packs, open until [`Reading::finish`].
pub struct Reading {
    workers: NonZeroUsize,
    packer: Packer,
    storing: Storing,
}

type Storing = JoinHandle<Result<Vec<StoredPack>, ArchiveError>>;

impl Reading {
    pub fn start(
        archive: &Arc<Archive>,
        id: &BackupId,
        workers: NonZeroUsize,
        beginning: &Beginning,
    ) -> Reading {
        let (packer, sealed) = Packer::new(archive.sealer().clone(), beginning.first_pack);
        let notes = beginning.notes.clone();
        let storing = store_packs(Arc::clone(archive), id.clone(), sealed, workers, notes);
        Reading { workers, packer, storing: tokio::spawn(storing) }
    }

    /// Reads all files of the listing into packs, but what they have in common with the parent.
    pub async fn read(
        self,
        listing: &Arc<Listing>,
        directory: &DataDirectory,
        means: Means,
        progress: &Arc<Progress>,
    ) -> Result<(ReadFiles, Reading), Failure> {
        let queue = Arc::new(Queue::new(listing, &directory.path, &directory.control, means));
        // Threads cannot be cancelled: when this future is dropped they are
        // told to stop.
        let _stop = StopOnDrop(Arc::clone(&queue));
        let mut workers = JoinSet::new();
        for _ in 0..self.workers.get() {
            let (queue, progress) = (Arc::clone(&queue), Arc::clone(progress));
            let mut packer = self.packer.beside();
            workers.spawn_blocking(move || read::work(&queue, &mut packer, &progress));
        }
        let mut failure = None;
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended.unwrap_or_else(|error| Err(panicked(&error))) {
                failure = Some(more_telling(failure, error));
            }
        }
        match failure {
            None => Ok((queue.read_files(), self)),
            Some(error) => {
                let Reading { storing, packer, .. } = self;
                drop(packer);
                Err(told(error, storing).await)
            }
        }
    }

    /// Packs what came to be known last, and waits until every pack is stored.
    pub async fn finish(self, late: Vec<LateFile>) -> Result<(Vec<ManifestEntry>, Vec<StoredPack>), Failure> {
        let Reading { mut packer, storing, .. } = self;
        let packing = move || {
            let stored: Result<Vec<_>, PackError> =
                late.into_iter().map(|file| file.pack(&mut packer)).collect();
            stored.and_then(|stored| packer.finish().map(|()| stored)).map_err(ReadError::from)
        };
        let packed = tokio::task::spawn_blocking(packing).await;
        match packed.unwrap_or_else(|error| Err(panicked(&error))) {
            Ok(late) => Ok((late, stored_packs(storing).await?)),
            Err(error) => Err(told(error, storing).await),
        }
    }
}

/// The failure that the operator is told: when storing ended early, the
/// store's own. No packer may be left when this is called.
async fn told(error: ReadError, storing: Storing) -> Failure {
    if !matches!(error, ReadError::Pack(PackError::NotStored)) {
        storing.abort();
        return unread(&error);
    }
    match stored_packs(storing).await {
        Err(failure) => failure,
        Ok(_) => unread(&error),
    }
}

fn unread(error: &ReadError) -> Failure {
    let hint = match error {
        ReadError::File { .. } => {
            "no file is skipped: let this user read it, or move it out of the data directory when it is not \
             PostgreSQL's; then start the backup again"
        }
        _ => "nothing of the backup is visible; start it again",
    };
    Failure::failed(error.to_string()).with_hint(hint)
}

async fn stored_packs(storing: Storing) -> Result<Vec<StoredPack>, Failure> {
    match storing.await {
        Ok(stored) => Ok(stored?),
        Err(error) => Err(Failure::failed(format!("could not store packs: {error}"))),
    }
}

/// Stores packs as they come, as many at a time as there are workers.
async fn store_packs(
    archive: Arc<Archive>,
    id: BackupId,
    mut sealed: mpsc::Receiver<SealedPack>,
    at_a_time: NonZeroUsize,
    notes: Option<Arc<Notes>>,
) -> Result<Vec<StoredPack>, ArchiveError> {
    let mut stored = Vec::new();
    let mut puts = JoinSet::new();
    while let Some(SealedPack { number, sealed }) = sealed.recv().await {
        if puts.len() >= at_a_time.get() {
            stored.extend(one_done(&mut puts).await?);
        }
        let (archive, id, notes) = (Arc::clone(&archive), id.clone(), notes.clone());
        puts.spawn(async move {
            let object = archive.put_pack(&id, number, &sealed).await?;
            if let Some(notes) = notes {
                notes.stored(number, &object);
            }
            Ok(StoredPack { number, object })
        });
    }
    while let Some(pack) = one_done(&mut puts).await? {
        stored.push(pack);
    }
    stored.sort_by_key(|pack: &StoredPack| pack.number);
    Ok(stored)
}

async fn one_done(
    puts: &mut JoinSet<Result<StoredPack, ArchiveError>>,
) -> Result<Option<StoredPack>, ArchiveError> {
    match puts.join_next().await {
        None => Ok(None),
        Some(Ok(stored)) => stored.map(Some),
        Some(Err(error)) => Err(ArchiveError::Io {
            verb: "write",
            what: "a pack".to_owned(),
            source: std::io::Error::other(error.to_string()),
        }),
    }
}

/// Tells the workers to stop when nobody waits for them any more.
struct StopOnDrop(Arc<Queue>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

/// Of two workers' failures the one that names a cause: the others stop
/// because of it.
fn more_telling(first: Option<ReadError>, second: ReadError) -> ReadError {
    match first {
        Some(first) if !matches!(first, ReadError::GivenUp) => first,
        _ => second,
    }
}

fn panicked(error: &JoinError) -> ReadError {
    ReadError::Worker(error.to_string())
}
