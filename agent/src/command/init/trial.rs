//! Tries a store with one small object: whatever an archive needs later must work now.

use crate::exit::{Failure, Status};
use bytes::Bytes;
use futures::TryStreamExt;
use walpoint_archive::object_key::{ObjectKey, Prefix};
use walpoint_archive::store::{ChecksumCheck, Metadata, ObjectStore, PutMode, PutOutcome, StoreErrorKind};
use walpoint_archive::writer_id::WriterId;

/// What the store can do beyond what every store must.
#[derive(Clone, Copy, Debug)]
pub struct Ability {
    /// Whether it refuses to overwrite when it is asked to.
    pub create_only: bool,
    /// What it makes of the checksum that comes with an object.
    pub checksum: ChecksumCheck,
}

impl Ability {
    /// For people, one line each.
    pub fn text(self) -> String {
        let create_only = if self.create_only {
            "refuses to overwrite an object when asked to"
        } else {
            "overwrites although it is asked not to (walpoint's keys carry a hash of the content, so nothing is lost)"
        };
        let checksum = match self.checksum {
            ChecksumCheck::Verified => "verifies the SHA-256 of what it is sent, and refuses what differs",
            ChecksumCheck::Ignored => {
                "does not look at the SHA-256 of what it is sent (what it stored is verified when it is read)"
            }
            ChecksumCheck::NotSent => "writes to the file system's durable storage (fsync) before it answers",
        };
        format!("  writes, reads back, lists and deletes\n  {create_only}\n  {checksum}\n")
    }
}

/// Writes an object, writes it again, reads it, lists it, deletes it.
///
/// # Errors
/// What the store said, or what it did wrong.
pub async fn run(store: &dyn ObjectStore) -> Result<Ability, Failure> {
    let name = format!("walpoint-init-{}", WriterId::random());
    let key = ObjectKey::new(&name).map_err(|error| Failure::failed(error.to_string()))?;
    let tried = steps(store, &key).await;
    // Also after a failure: nothing of the trial should stay.
    let removed = store.delete(&key).await;
    let ability = tried?;
    removed?;
    match store.head(&key).await {
        Err(error) if error.kind == StoreErrorKind::NotFound => Ok(ability),
        Err(error) => Err(error.into()),
        Ok(_) => Err(wrong(store, "an object that was deleted is still there")),
    }
}

async fn steps(store: &dyn ObjectStore, key: &ObjectKey) -> Result<Ability, Failure> {
    let (first, second) = (Bytes::from_static(b"walpoint"), Bytes::from_static(b"walpoint again"));
    let mut metadata = Metadata::new();
    metadata.insert("trial", "yes").map_err(|error| Failure::failed(error.to_string()))?;
    if store.put(key, first.clone(), &metadata, PutMode::CreateOnly).await? != PutOutcome::Created {
        return Err(wrong(store, "it says that an object exists which was never written"));
    }
    let create_only =
        store.put(key, second.clone(), &metadata, PutMode::CreateOnly).await? == PutOutcome::Exists;
    let object = store.get(key, None).await?;
    let read_metadata = object.metadata.clone();
    let body: Vec<Bytes> = object.body.try_collect().await?;
    if body.concat() != if create_only { first } else { second } {
        return Err(wrong(store, "what was read is not what was written"));
    }
    if read_metadata.get("trial") != Some("yes") {
        return Err(wrong(store, "it does not keep the metadata of objects"));
    }
    let prefix = Prefix::new(key.as_str()).map_err(|error| Failure::failed(error.to_string()))?;
    if store.list(&prefix, None, None).await?.len() != 1 {
        return Err(wrong(store, "a listing does not show an object that was just written"));
    }
    // Last of all: a store that does not look at it replaces the object.
    let checksum = store.try_checksum(key).await?;
    Ok(Ability { create_only, checksum })
}

fn wrong(store: &dyn ObjectStore, what: &str) -> Failure {
    Failure::new(Status::Failed, format!("could not use {} as an archive: {what}", store.describe()))
        .with_hint(
            "an archive needs a store with S3's semantics: read-after-write, complete listings, metadata",
        )
}
