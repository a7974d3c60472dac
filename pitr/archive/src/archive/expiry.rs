//! Marking what is to go, and the store's own clock, by which marks grow old.

use std::time::Duration;

use bytes::Bytes;
use walpoint_wal::Timestamp;

use super::Archive;
use super::cluster::plain_metadata;
use crate::catalog::DamagedObject;
use crate::content::ContentHash;
use crate::error::ArchiveError;
use crate::expiry::ExpiryMark;
use crate::layout::Entry;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::PutMode;

/// Largest mark that is read: a million names.
const MAX_MARK_BYTES: u64 = 64 * 1024 * 1024;

/// The name, among the marks, of what is stored to see what time it is.
const CLOCK: &str = "clock";

/// What lies under `expire/`.
#[derive(Clone, Debug, Default)]
pub struct ExpiryMarks {
    /// The marks that stand.
    pub standing: Vec<StandingMark>,
    /// When the clock was last replaced: when an expiry last ran.
    pub clock: Option<Timestamp>,
    /// Keys that are not ours.
    pub unknown: Vec<String>,
}

/// A mark as it lies in the archive.
#[derive(Clone, Debug)]
pub struct StandingMark {
    /// Its key.
    pub key: ObjectKey,
    /// When it was made, by the store's clock.
    pub stored_at: Option<Timestamp>,
    /// How long ago, by the store's clock alone; none where that does not tell.
    pub age: Option<Duration>,
    /// What it says, or why it cannot be read.
    pub mark: Result<ExpiryMark, DamagedObject>,
}

fn undescribable(what: String) -> ArchiveError {
    ArchiveError::Undescribable { key: "a mark".to_owned(), what }
}

impl Archive {
    /// Stores a mark. One that says the same may be there already: then its age begins anew.
    pub async fn put_expiry_mark(&self, mark: &ExpiryMark) -> Result<ObjectKey, ArchiveError> {
        let json = mark.to_json().map_err(|error| undescribable(error.to_string()))?;
        let key = self.layout.expiry_mark(&ContentHash::of(&json).id().to_string());
        self.put_mark_as(&key, json).await?;
        Ok(key)
    }

    /// Has a mark that cannot be deleted mark nothing.
    pub async fn empty_expiry_mark(&self, key: &ObjectKey) -> Result<(), ArchiveError> {
        let nothing = ExpiryMark::default().to_json().map_err(|error| undescribable(error.to_string()))?;
        self.put_mark_as(key, nothing).await
    }

    async fn put_mark_as(&self, key: &ObjectKey, json: Vec<u8>) -> Result<(), ArchiveError> {
        let metadata = plain_metadata(&json).map_err(|error| undescribable(error.to_string()))?;
        let _ = self.store.put(key, Bytes::from(json), &metadata, PutMode::Overwrite).await?;
        Ok(())
    }

    /// The marks that stand, and what else lies there.
    pub async fn expiry_marks(&self) -> Result<ExpiryMarks, ArchiveError> {
        let mut marks = ExpiryMarks::default();
        for object in self.store.list(&self.layout.expiry_prefix(), None, None).await? {
            match self.layout.parse(&object.key) {
                Some(Entry::ExpiryMark(name)) if name == CLOCK => {
                    marks.clock = object.modified;
                    continue;
                }
                Some(Entry::ExpiryMark(_)) => {}
                _ => {
                    marks.unknown.push(object.key.to_string());
                    continue;
                }
            }
            let mark = match self.expiry_mark(&object.key).await {
                Ok(mark) => Ok(mark),
                // Another run has just taken it away.
                Err(error) if error.is_not_found() => continue,
                Err(error) => Err(DamagedObject::by(object.key.clone(), error)?),
            };
            let age = match self.store.age(&object.key).await {
                Ok(age) => age,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            marks.standing.push(StandingMark { key: object.key, stored_at: object.modified, age, mark });
        }
        Ok(marks)
    }

    async fn expiry_mark(&self, key: &ObjectKey) -> Result<ExpiryMark, ArchiveError> {
        ExpiryMark::parse(key.as_str(), &self.read_plain(key, MAX_MARK_BYTES).await?)
    }

    /// What time it is by the clock of a store that does not tell: when it stores an object now.
    pub async fn store_time_of_a_put(&self) -> Result<Option<Timestamp>, ArchiveError> {
        let key = self.layout.expiry_mark(CLOCK);
        let body = Bytes::from_static(b"{\"format\":1}\n");
        let undescribable = |what: String| ArchiveError::Undescribable { key: key.to_string(), what };
        let metadata = plain_metadata(&body).map_err(|error| undescribable(error.to_string()))?;
        let _ = self.store.put(&key, body, &metadata, PutMode::Overwrite).await?;
        self.stored_at(&key).await
    }

    async fn stored_at(&self, key: &ObjectKey) -> Result<Option<Timestamp>, ArchiveError> {
        let Ok(prefix) = Prefix::new(key.as_str()) else { return Ok(None) };
        let listed = self.store.list(&prefix, None, Some(1)).await?;
        Ok(listed.first().filter(|object| object.key == *key).and_then(|object| object.modified))
    }

    /// What time it is by the store's clock; none where it does not tell.
    pub async fn store_time(&self) -> Result<Option<Timestamp>, ArchiveError> {
        let key = self.layout.cluster();
        let stored = self.stored_at(&key).await?;
        let age = self.store.age(&key).await?;
        let micros = |age: Duration| i64::try_from(age.as_micros()).ok();
        let now = stored.zip(age).and_then(|(stored, age)| stored.0.checked_add(micros(age)?));
        Ok(now.map(Timestamp))
    }
}
