#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use bytes::Bytes;
use walpoint_wal::{SystemIdentifier, WalFileName};

use super::*;
use crate::compress::CompressionLevel;
use crate::content::{ContentHash, ContentId};
use crate::encrypt::KeyRing;
use crate::encrypt::tests::key_pair;
use crate::store::dir::DirStore;
use crate::writer_id::WriterId;

mod ahead;
mod backups;
mod catalog;
mod fetch;
mod gate;
mod interleavings;
mod inventory;
mod model;
mod neighbours;
mod push;
mod races;
mod resolve;
mod tail;

/// An archive in a directory of its own.
struct Place {
    dir: tempfile::TempDir,
    store: Arc<dyn ObjectStore>,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(DirStore::open(dir.path()).await.unwrap());
        Self { dir, store }
    }

    fn archive(&self) -> Archive {
        archive_on(Arc::clone(&self.store))
    }

    /// The same archive by somebody who encrypts, and by somebody who can decrypt.
    fn encrypted(&self) -> (Archive, Archive) {
        let (seals, opens) = key_pair();
        (archive_with(Arc::clone(&self.store), seals), archive_with(Arc::clone(&self.store), opens))
    }
}

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

fn archive_on(store: Arc<dyn ObjectStore>) -> Archive {
    archive_with(store, KeyRing::default())
}

fn archive_with(store: Arc<dyn ObjectStore>, keys: KeyRing) -> Archive {
    Archive::new(store, CLUSTER, Sealer::new(CompressionLevel::default(), Arc::new(keys)))
}

fn segment() -> WalFileName {
    "000000010000000000000003".parse().unwrap()
}

fn id(content: &str) -> ContentId {
    ContentHash::of(content.as_bytes()).id()
}

fn common(content: &[u8]) -> Common {
    Common::new(ContentHash::of(content), content.len() as u64, WriterId::random(), CLUSTER)
}

fn file(name: WalFileName, content: &[u8]) -> PutWal {
    let source = PutSource::Bytes(Bytes::copy_from_slice(content));
    PutWal { name, facts: FileFacts::Other(common(content)), source }
}

fn put(content: &str) -> PutWal {
    file(segment(), content.as_bytes())
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// What recovery would take of the segment, fetched and verified.
async fn usable(archive: &Archive) -> Result<Option<Vec<u8>>, Vec<ContentId>> {
    let state = archive.wal_variants(&segment()).await.unwrap();
    match state.usable() {
        crate::catalog::Usable::Nothing => Ok(None),
        crate::catalog::Usable::One(variant) => {
            let mut content = Vec::new();
            archive.fetch_wal(variant, &mut content, 1 << 20).await.unwrap();
            Ok(Some(content))
        }
        crate::catalog::Usable::Ambiguous(variants) => Err(variants.iter().map(|it| it.content).collect()),
    }
}
