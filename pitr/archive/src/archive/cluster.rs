//! Which clusters an archive holds, and that this one is the one it should be.

use bytes::Bytes;
use futures::{StreamExt, stream};
use walpoint_wal::{SegmentSize, SystemIdentifier, WalFileName};

use super::{Archive, PARALLEL, SMALL, read_plain};
use crate::catalog::DamagedObject;
use crate::cluster::Cluster;
use crate::content::ContentHash;
use crate::description::Description;
use crate::error::ArchiveError;
use crate::layout::{Entry, Layout};
use crate::object_key::Prefix;
use crate::store::{Listed, Metadata, MetadataError, ObjectStore, PutMode, StoreErrorKind};

/// Objects among which a segment is looked for: a segment has few others beside it.
const FIRST_OBJECTS: usize = 100;

/// The clusters in a store, by system identifier.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ClusterListing {
    /// Those whose `cluster.json` is sound.
    pub sound: Vec<Cluster>,
    /// Those whose `cluster.json` is there and cannot be read.
    pub unreadable: Vec<(SystemIdentifier, DamagedObject)>,
}

impl Archive {
    /// The clusters in a store. One that cannot be read says nothing about the others.
    pub async fn clusters(store: &dyn ObjectStore) -> Result<ClusterListing, ArchiveError> {
        let folders = store.list_folders(&Prefix::all()).await?;
        let mut ours: Vec<SystemIdentifier> = folders
            .iter()
            .filter_map(|folder| {
                let identifier: SystemIdentifier = folder.parse().ok()?;
                (identifier.to_string() == *folder).then_some(identifier)
            })
            .collect();
        ours.sort_unstable();
        let looked =
            ours.into_iter().map(async |identifier| (identifier, cluster_of(store, identifier).await));
        let mut looked = stream::iter(looked).buffered(PARALLEL);
        let mut listing = ClusterListing::default();
        while let Some((identifier, found)) = looked.next().await {
            match found {
                Ok(found) => listing.sound.extend(found),
                Err(error) => listing.unreadable.push((identifier, unreadable(identifier, error)?)),
            }
        }
        Ok(listing)
    }

    /// What the archive says this cluster is; `None` when it says nothing yet.
    pub async fn cluster(&self) -> Result<Option<Cluster>, ArchiveError> {
        cluster_of(self.store.as_ref(), self.system_identifier()).await
    }

    /// Size of the cluster's segments, from `cluster.json` or, where a server later than
    /// the program that archived left none, from a segment. `None` when the archive has
    /// neither, so that nothing says it is this cluster's.
    pub async fn segment_size(&self) -> Result<Option<SegmentSize>, ArchiveError> {
        if let Some(cluster) = self.cluster().await? {
            return Ok(Some(cluster.segment_size));
        }
        let listed = self.store.list(&self.layout.wal_prefix(), None, Some(FIRST_OBJECTS)).await?;
        let is_segment = |object: &&Listed| {
            matches!(
                self.layout.parse(&object.key),
                Some(Entry::Wal { name: WalFileName::Segment(_) | WalFileName::Partial(_), .. })
            )
        };
        let Some(segment) = listed.iter().find(is_segment) else { return Ok(None) };
        let size = self.common(&segment.key).await?.plain_size;
        SegmentSize::new(size).map(Some).map_err(|error| ArchiveError::damaged(&segment.key, error))
    }

    /// Makes sure that the archive knows this cluster, as it is.
    ///
    /// # Errors
    /// [`ArchiveError::WrongCluster`] when the archive knows it otherwise.
    pub async fn ensure_cluster(&self, cluster: &Cluster) -> Result<(), ArchiveError> {
        let stored = match self.cluster().await? {
            Some(stored) => stored,
            None => {
                self.put_cluster(cluster).await?;
                // Another server may have been first: what counts is what is there now.
                self.cluster().await?.ok_or(ArchiveError::NoCluster(self.system_identifier()))?
            }
        };
        match stored.difference(cluster) {
            None => Ok(()),
            Some(what) => {
                Err(ArchiveError::WrongCluster { system_identifier: stored.system_identifier, what })
            }
        }
    }

    async fn put_cluster(&self, cluster: &Cluster) -> Result<(), ArchiveError> {
        let key = self.layout.cluster();
        let undescribable = |what: String| ArchiveError::Undescribable { key: key.to_string(), what };
        let json = cluster.to_json().map_err(|error| undescribable(error.to_string()))?;
        let metadata = plain_metadata(&json).map_err(|error| undescribable(error.to_string()))?;
        // Whether it was created or was there is all the same: it is read back.
        let _ = self.store.put(&key, Bytes::from(json), &metadata, PutMode::CreateOnly).await?;
        Ok(())
    }
}

/// Metadata of the small objects that are stored as they are.
pub(super) fn plain_metadata(plain: &[u8]) -> Result<Metadata, MetadataError> {
    Description::of(ContentHash::of(plain), plain.len() as u64)?.finish()
}

/// Rights can be given for each cluster: a refusal is no outage, which would leave the listing open.
fn unreadable(identifier: SystemIdentifier, error: ArchiveError) -> Result<DamagedObject, ArchiveError> {
    let key = Layout::new(identifier).cluster();
    match error {
        ArchiveError::Store(error) if error.kind == StoreErrorKind::Denied => {
            Ok(DamagedObject { key, reason: error.detail })
        }
        error => DamagedObject::by(key, error),
    }
}

async fn cluster_of(
    store: &dyn ObjectStore,
    identifier: SystemIdentifier,
) -> Result<Option<Cluster>, ArchiveError> {
    let key = Layout::new(identifier).cluster();
    let json = match read_plain(store, &key, SMALL).await {
        Ok(json) => json,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let cluster = Cluster::parse(key.as_str(), &json)?;
    if cluster.system_identifier != identifier {
        let what = format!("it describes the cluster {}", cluster.system_identifier);
        return Err(ArchiveError::damaged(key, what));
    }
    Ok(Some(cluster))
}
