//! The door: what the rest of the program does with an archive. It brings
//! together a store, the layout of keys and the keys for encryption, and holds
//! the rules about what may stand beside what.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Semaphore;
use walpoint_wal::SystemIdentifier;

use crate::content::ContentHash;
use crate::description::Described;
use crate::encrypt::KeyRing;
use crate::envelope::Sealer;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::layout::Layout;
use crate::object_key::ObjectKey;
use crate::store::{Metadata, Object, ObjectStore};

mod ahead;
mod backup;
mod check;
mod cluster;
mod expiry;
mod history;
mod idle;
mod inventory;
mod listing;
mod pieces_of_body;
mod push;
mod receive;
mod refuse;
mod resolve;
mod send;
mod tail;
#[cfg(test)]
mod tests;
mod verification;
mod wal;

pub use check::{Compared, SegmentRead};
pub use cluster::ClusterListing;
pub use expiry::{ExpiryMarks, StandingMark};
pub use inventory::{BackupInventory, FolderObjects, PackObjects, SegmentObjects, StoredPart, WalInventory};
pub use listing::{BackupFolders, BackupListing, Timelines};
pub use send::{PutSource, SEALED_IN_MEMORY};
pub use tail::{PutChunk, TailRemoval};
pub use verification::StoredRecord;
pub use wal::{FileFacts, Neighbours, Onward, PutWal, PutWalOutcome};

/// Requests that are under way at once where many are needed.
const PARALLEL: usize = 16;

/// Largest object that is read into memory whole because it is small by nature:
/// `cluster.json`, history files.
const SMALL: u64 = 1024 * 1024;

/// One cluster's archive.
#[derive(Clone, Debug)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    layout: Layout,
    sealer: Sealer,
    /// Room in memory for summaries that are being read, in KiB as they are stored.
    summaries: Arc<Semaphore>,
}

impl Archive {
    /// The archive of one cluster in a store. Does no I/O.
    pub fn new(store: Arc<dyn ObjectStore>, system_identifier: SystemIdentifier, sealer: Sealer) -> Self {
        let summaries = Arc::new(Semaphore::new(backup::SUMMARIES_KIB as usize));
        Self { store, layout: Layout::new(system_identifier), sealer, summaries }
    }

    /// The store it lies in.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Its keys' layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What new objects are sealed with.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What objects are opened with.
    pub fn keys(&self) -> &Arc<KeyRing> {
        self.sealer.keys()
    }

    /// The cluster it is of.
    pub fn system_identifier(&self) -> SystemIdentifier {
        self.layout.system_identifier()
    }

    /// What an object's metadata says about its content and its writer.
    pub async fn common(&self, key: &ObjectKey) -> Result<Common, ArchiveError> {
        let head = self.store.head(key).await?;
        Common::from_metadata(&head.metadata).map_err(|error| ArchiveError::from_facts(key, error))
    }

    /// A small object that is stored as it is, whole and verified.
    async fn read_plain(&self, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, ArchiveError> {
        read_plain(self.store.as_ref(), key, limit).await
    }
}

/// An object that is stored as it is, of at most `limit` bytes, whole and verified.
async fn read_plain(store: &dyn ObjectStore, key: &ObjectKey, limit: u64) -> Result<Vec<u8>, ArchiveError> {
    plain_of(key, read_small(store, key, limit).await?)
}

/// What an object that is stored as it is holds, verified.
fn plain_of(key: &ObjectKey, (metadata, bytes): (Metadata, Vec<u8>)) -> Result<Vec<u8>, ArchiveError> {
    let stored: ContentHash = Described::verified(&metadata)
        .and_then(|described| described.required("content"))
        .map_err(|error| ArchiveError::from_facts(key, error))?;
    match ContentHash::of(&bytes) {
        found if found == stored => Ok(bytes),
        found => Err(ArchiveError::damaged(key, format!("its content is {found}, expected was {stored}"))),
    }
}

/// An object of at most `limit` bytes, whole.
async fn read_small(
    store: &dyn ObjectStore,
    key: &ObjectKey,
    limit: u64,
) -> Result<(Metadata, Vec<u8>), ArchiveError> {
    let object = store.get(key, None).await?;
    whole_of(key, object, limit).await
}

/// All of an object that was opened and has at most `limit` bytes.
async fn whole_of(
    key: &ObjectKey,
    mut object: Object,
    limit: u64,
) -> Result<(Metadata, Vec<u8>), ArchiveError> {
    let too_large = || ArchiveError::damaged(key, format!("it has more than {limit} bytes"));
    if object.size > limit {
        return Err(too_large());
    }
    // Bytes that are moved as they grow are there twice.
    let mut bytes = Vec::with_capacity(usize::try_from(object.size).unwrap_or_default());
    while let Some(piece) = object.body.next().await {
        let piece: Bytes = piece?;
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(too_large());
        }
        bytes.extend_from_slice(&piece);
    }
    if bytes.len() as u64 != object.size {
        let what = format!("{} of its {} bytes came", bytes.len(), object.size);
        return Err(ArchiveError::damaged(key, what));
    }
    Ok((object.metadata, bytes))
}
