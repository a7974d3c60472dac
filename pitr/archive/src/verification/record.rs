//! One record as it is stored: `verify/<id>.json`. It names no file of a backup.

use serde::{Deserialize, Serialize};
use walpoint_wal::{SegmentName, Timestamp};

use super::proof::{Depth, Proof};
use crate::backup_id::BackupId;
use crate::cluster::check_format;
use crate::content::ContentId;
use crate::error::ArchiveError;
use crate::object_key::ObjectKey;
use crate::summary::key_as_text;

/// Largest record that is read: some 500,000 stretches of WAL.
pub const MAX_RECORD_BYTES: u64 = 128 * 1024 * 1024;

/// What one run found, and what it took over from earlier records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerificationRecord {
    /// Version of the stored format.
    pub format: u32,
    /// Program and version that made it.
    pub tool: String,
    /// When the pass through everything began that the run is part of; `None` when the run read a part only.
    pub pass: Option<Timestamp>,
    /// Whether it is the last word of its run, and the run was at its end.
    pub finished: bool,
    /// Segments.
    pub wal: Vec<WalStretch>,
    /// Manifests and packs.
    pub backups: Vec<BackupProofs>,
    /// Other objects.
    pub objects: Vec<VerifiedObject>,
    /// What was found damaged.
    pub damaged: Vec<FoundDamaged>,
    /// How fast the archive was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<ReadSpeed>,
}

/// How fast an archive was read: fetched, opened and looked into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ReadSpeed {
    /// When.
    pub at: Timestamp,
    /// Stored bytes.
    pub bytes: u64,
    /// How long that took, in microseconds.
    pub micros: u64,
}

impl ReadSpeed {
    /// Less says more of how long a request takes than of how fast data come.
    pub const LEAST_BYTES: u64 = 4 << 20;

    /// Stored bytes a second.
    pub fn bytes_per_second(self) -> u64 {
        let per_second = u128::from(self.bytes) * 1_000_000 / u128::from(self.micros.max(1));
        u64::try_from(per_second).unwrap_or(u64::MAX).max(1)
    }
}

/// Segments of one folder that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalStretch {
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// Which objects belonged to them: [`super::keys_id`].
    pub keys: ContentId,
    /// Whether there was nothing to compare their stored bytes with: their number alone was.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub length_only: bool,
    /// When they were found sound.
    #[serde(flatten)]
    pub proof: Proof,
}

/// Of one backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupProofs {
    /// The backup.
    pub id: BackupId,
    /// When its manifest was found sound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Proof>,
    /// Its own packs.
    pub packs: Vec<PackRange>,
}

/// Packs by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PackRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
    /// When they were found sound.
    #[serde(flatten)]
    pub proof: Proof,
}

/// An object that is neither a segment nor a backup's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifiedObject {
    /// Its key, relative to the archive's root.
    #[serde(with = "key_as_text")]
    pub key: ObjectKey,
    /// When it was found sound.
    #[serde(flatten)]
    pub proof: Proof,
}

/// An object that was found damaged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FoundDamaged {
    /// Its key, relative to the archive's root.
    #[serde(with = "key_as_text")]
    pub key: ObjectKey,
    /// When.
    pub at: Timestamp,
    /// How deep the look was that showed it.
    pub depth: Depth,
}

impl VerificationRecord {
    /// As it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Without what it says was found sound later than it was stored itself: nobody knows that, and it would outlive
    /// all damage that is found until then.
    #[must_use]
    pub fn not_after(mut self, stored_at: Option<Timestamp>) -> Self {
        let Some(limit) = stored_at else { return self };
        let holds = |proof: &mut Proof| {
            proof.content_at = proof.content_at.filter(|at| *at <= limit);
            proof.stored_at <= limit
        };
        self.pass = self.pass.filter(|pass| *pass <= limit);
        self.wal.retain_mut(|stretch| holds(&mut stretch.proof));
        for backup in &mut self.backups {
            backup.manifest =
                backup.manifest.take().filter(|proof| proof.stored_at <= limit).map(|mut proof| {
                    holds(&mut proof);
                    proof
                });
            backup.packs.retain_mut(|range| holds(&mut range.proof));
        }
        self.objects.retain_mut(|object| holds(&mut object.proof));
        self
    }

    /// Reads what is stored under this key.
    pub fn parse(key: &str, json: &[u8]) -> Result<Self, ArchiveError> {
        check_format(key, json)?;
        serde_json::from_slice(json).map_err(|error| ArchiveError::damaged(key, error))
    }
}
