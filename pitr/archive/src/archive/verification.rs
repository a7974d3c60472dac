//! The records of `verify`: storing one's own, and reading what all of them say.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use walpoint_wal::Timestamp;

use super::cluster::plain_metadata;
use super::{Archive, PARALLEL};
use crate::catalog::DamagedObject;
use crate::error::ArchiveError;
use crate::layout::Entry;
use crate::store::{Listed, PutMode};
use crate::verification::{MAX_RECORD_BYTES, RecordId, Verification, VerificationRecord};

/// A record that is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRecord {
    /// Its name.
    pub id: RecordId,
    /// When it was last stored, by the store's clock.
    pub stored_at: Option<Timestamp>,
    /// What it says.
    pub record: VerificationRecord,
}

/// A record, or why it cannot be read.
type ReadRecord = Result<StoredRecord, DamagedObject>;

impl Archive {
    /// What was verified, and when: all records together. Two requests where nobody has verified
    /// anything or everything was put together again, and never any of what was verified.
    pub async fn verification(&self) -> Result<Verification, ArchiveError> {
        let mut verification = Verification::new();
        for stored in self.verification_records().await? {
            verification.merge(&stored.record);
        }
        Ok(verification)
    }

    /// The same, and the records that cannot be read: nobody knows what damage they tell of.
    pub async fn verification_and_unreadable(
        &self,
    ) -> Result<(Verification, Vec<DamagedObject>), ArchiveError> {
        let (mut verification, mut unreadable) = (Verification::new(), Vec::new());
        for read in self.read_verification_records().await? {
            match read {
                Ok(stored) => verification.merge(&stored.record),
                Err(object) => unreadable.push(object),
            }
        }
        Ok((verification, unreadable))
    }

    /// Every record. One that cannot be read says nothing: what it said is verified again.
    pub async fn verification_records(&self) -> Result<Vec<StoredRecord>, ArchiveError> {
        let read = self.read_verification_records().await?.into_iter();
        let told = |object: &DamagedObject| {
            tracing::warn!("\"{}\" says nothing of what was verified: {}", object.key, object.reason);
        };
        Ok(read.filter_map(|read| read.inspect_err(told).ok()).collect())
    }

    async fn read_verification_records(&self) -> Result<Vec<ReadRecord>, ArchiveError> {
        let listed = self.store.list(&self.layout.verification_prefix(), None, None).await?;
        let records = listed.iter().filter_map(|object| match self.layout.parse(&object.key) {
            Some(Entry::Verification(id)) => Some((id, object.modified)),
            _ => None,
        });
        let records: Vec<(RecordId, Option<Timestamp>)> = records.collect();
        let read = records.into_iter().map(|(id, stored_at)| self.verification_record(id, stored_at));
        let read: Vec<Option<ReadRecord>> = stream::iter(read).buffered(PARALLEL).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    async fn verification_record(
        &self,
        id: RecordId,
        stored_at: Option<Timestamp>,
    ) -> Result<Option<ReadRecord>, ArchiveError> {
        let key = self.layout.verification(id);
        let read = match self.read_plain(&key, MAX_RECORD_BYTES).await {
            Ok(json) => VerificationRecord::parse(key.as_str(), &json),
            Err(error) => Err(error),
        };
        match read {
            Ok(record) => Ok(Some(Ok(StoredRecord { id, stored_at, record: record.not_after(stored_at) }))),
            // Another run has put it together with its own.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Ok(Some(Err(DamagedObject::by(key, error)?))),
        }
    }

    /// Stores a record in the place of what the same run stored before.
    pub async fn put_verification(
        &self,
        id: RecordId,
        record: &VerificationRecord,
    ) -> Result<(), ArchiveError> {
        let key = self.layout.verification(id);
        let undescribable = |what: String| ArchiveError::Undescribable { key: key.to_string(), what };
        let json = record.to_json().map_err(|error| undescribable(error.to_string()))?;
        // Nobody could read it, and what the others say would be taken away for it.
        if json.len() as u64 > MAX_RECORD_BYTES {
            let what =
                format!("it would have {} bytes, and no more than {MAX_RECORD_BYTES} are read", json.len());
            return Err(undescribable(what));
        }
        let metadata = plain_metadata(&json).map_err(|error| undescribable(error.to_string()))?;
        let _ = self.store.put(&key, Bytes::from(json), &metadata, PutMode::Overwrite).await?;
        Ok(())
    }

    /// When a record was stored, by the store's clock; `None` where the store does not tell.
    pub async fn verification_stored_at(&self, id: RecordId) -> Result<Option<Timestamp>, ArchiveError> {
        let key = self.layout.verification(id);
        let listed = self.store.list(&self.layout.verification_prefix(), None, None).await?;
        Ok(listed.iter().find(|object| object.key == key).and_then(|object: &Listed| object.modified))
    }

    /// Takes away a record that another one has taken in.
    pub async fn remove_verification(&self, id: RecordId) -> Result<(), ArchiveError> {
        Ok(self.store.delete(&self.layout.verification(id)).await?)
    }
}
