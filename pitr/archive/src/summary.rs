//! `backup.json`: the summary of a backup, written last. A backup exists when
//! its summary does. It is never encrypted and names no files, so that listing,
//! planning, checking stored bytes and expiring need no key.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use walpoint_wal::{Lsn, SegmentSize, SystemIdentifier, TimelineId, Timestamp};

use crate::backup_id::{BackupId, BackupKind};
use crate::cluster::check_format;
use crate::content::{ContentHash, StoredHash};
use crate::error::ArchiveError;
use crate::facts::FORMAT;
use crate::layout::{Entry, Layout};
use crate::object_key::ObjectKey;
use crate::pack::MAX_PACK_BYTES;
use crate::writer_id::WriterId;

mod pack_numbers;

pub use pack_numbers::PackNumbers;

/// What is known of a backup without reading its manifest.
///
/// A large one names a hundred thousand packs, so whoever looks at many holds their [`BackupHead`]s.
///
/// Readers leave alone what they do not know; `signature` is reserved for a
/// signature of the rest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupSummary<P = Vec<StoredObject>> {
    /// Version of the stored format.
    pub format: u32,
    /// Program and version that made it.
    pub tool: String,
    /// Its name.
    pub id: BackupId,
    /// Full or incremental.
    pub kind: BackupKind,
    /// The backup that an incremental refers to.
    pub parent: Option<BackupId>,
    /// What the operator called it.
    pub label: Option<String>,
    /// The data directory's writer id.
    pub writer: WriterId,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// The timeline it was taken on.
    pub timeline: TimelineId,
    /// Where recovery must begin to read WAL, and when the backup began.
    pub start: Position,
    /// Where recovery must at least get to, and when the backup ended.
    pub stop: Position,
    /// Redo position of its checkpoint; where WAL begins to be read.
    pub redo: Lsn,
    /// Start of its checkpoint record.
    pub checkpoint: Lsn,
    /// The next xid (64 bits) as of that checkpoint.
    pub next_xid: u64,
    /// Whether it was taken from a standby.
    pub from_standby: bool,
    /// What server it was taken from.
    pub server: ServerFacts,
    /// Size of WAL segments in bytes.
    pub segment_size: SegmentSize,
    /// Size of data pages in bytes.
    pub block_size: u32,
    /// Size of WAL pages in bytes.
    pub wal_block_size: u32,
    /// Whether data pages have checksums.
    pub data_checksums: bool,
    /// Whether hint bits are logged.
    pub wal_log_hints: bool,
    /// What a server that recovers from it must at least be set to.
    pub settings: Settings,
    /// Number of tablespaces besides the two in the data directory.
    pub tablespaces: u64,
    /// Number of files.
    pub files: u64,
    /// Sizes.
    pub bytes: BackupBytes,
    /// Number of pages whose checksum was wrong on disk.
    pub damaged_pages: u64,
    /// Names of the subscriptions that were enabled, over all databases; not recorded by
    /// older versions. A copy that runs them takes what the original should get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriptions: Option<Vec<String>>,
    /// The server's `archive_mode`, wherever that was set: `on` or `always`; not recorded by
    /// older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_mode: Option<String>,
    /// When the server that it was taken from was started, by its own word; not recorded by older
    /// versions. Two backups that say the same were taken from one run of one server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_started: Option<Timestamp>,
    /// Where its manifest is.
    pub manifest: ManifestObject,
    /// Every pack that the manifest names, those of older backups too, by key.
    pub packs: P,
}

/// A summary that was read, of which it is kept which packs it names and not what these are:
/// [`Archive::whole`](crate::Archive::whole) reads that again.
pub type BackupHead = BackupSummary<PackNumbers>;

/// A position in WAL and the time that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The position.
    pub lsn: Lsn,
    /// The server's time.
    pub time: Timestamp,
}

/// A server's versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerFacts {
    /// Major version: 15.
    pub major: u32,
    /// `server_version_num`: 150020.
    pub version_num: u32,
    /// `pg_control_version`.
    pub control_version: u32,
    /// `catalog_version_no`.
    pub catalog_version: u32,
}

/// The settings that `pg_control` keeps because a standby must not be below them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// `max_connections`
    pub max_connections: i32,
    /// `max_worker_processes`
    pub max_worker_processes: i32,
    /// `max_wal_senders`
    pub max_wal_senders: i32,
    /// `max_prepared_transactions`
    pub max_prepared_xacts: i32,
    /// `max_locks_per_transaction`
    pub max_locks_per_xact: i32,
    /// `wal_level` as a number: 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
}

/// How large a backup is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupBytes {
    /// Of all its files.
    pub data: u64,
    /// Of the objects stored for it; what it shares with older backups not counted.
    pub stored: u64,
}

/// An object and what its bytes must be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its key, relative to the archive's root.
    #[serde(with = "key_as_text")]
    pub key: ObjectKey,
    /// Number of stored bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: StoredHash,
}

/// A backup's manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManifestObject {
    /// Its key, relative to the archive's root.
    #[serde(with = "key_as_text")]
    pub key: ObjectKey,
    /// Number of stored bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: StoredHash,
    /// BLAKE3 of its plain content.
    pub content: ContentHash,
    /// Size of its plain content in bytes.
    pub plain_size: u64,
}

impl BackupSummary {
    /// As it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads the summary that lies under this backup's key, and checks that it
    /// agrees with itself and with where it lies.
    pub fn parse(layout: &Layout, id: &BackupId, json: &[u8]) -> Result<Self, ArchiveError> {
        let key = layout.summary(id);
        check_format(key.as_str(), json)?;
        let summary: Self =
            serde_json::from_slice(json).map_err(|error| ArchiveError::damaged(&key, error))?;
        let contradiction = if summary.id == *id {
            summary.contradiction(layout)
        } else {
            Some(format!("it is the summary of {}", summary.id))
        };
        contradiction.map_or(Ok(summary), |what| Err(ArchiveError::damaged(&key, what)))
    }

    /// What in it cannot be true.
    pub fn contradiction(&self, layout: &Layout) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("it says format {}", self.format));
        }
        if self.kind != self.id.kind() {
            return Some("its kind is not the one in its id".to_owned());
        }
        if self.system_identifier != layout.system_identifier() {
            return Some(format!("it belongs to the cluster {}", self.system_identifier));
        }
        if self.stop.lsn < self.start.lsn || self.start.lsn < self.redo {
            return Some("its positions are out of order".to_owned());
        }
        if !self.manifest_is_its_own(layout) {
            return Some(format!("\"{}\" is not the key of its manifest", self.manifest.key));
        }
        let mut seen = BTreeSet::new();
        for pack in &self.packs {
            let Some(Entry::Pack { backup, number, .. }) = layout.parse(&pack.key) else {
                return Some(format!("\"{}\" is not the key of a pack", pack.key));
            };
            // Readers hold a pack in memory, on this word.
            if pack.size > MAX_PACK_BYTES as u64 {
                return Some(format!("it says that pack \"{}\" has {} bytes", pack.key, pack.size));
            }
            if !seen.insert((backup, number)) {
                return Some(format!("it names pack \"{}\" twice", pack.key));
            }
        }
        None
    }

    fn manifest_is_its_own(&self, layout: &Layout) -> bool {
        matches!(
            layout.parse(&self.manifest.key),
            Some(Entry::Manifest { backup, content, .. })
                if backup == self.id && content == self.manifest.content.id()
        )
    }

    /// Without what the packs are; these apart.
    pub fn split(self, layout: &Layout) -> (BackupHead, Vec<StoredObject>) {
        let numbers = PackNumbers::of(layout, &self.packs);
        self.with_packs(numbers)
    }

    /// Without what the packs are.
    pub fn into_head(self, layout: &Layout) -> BackupHead {
        self.split(layout).0
    }

    /// The packs by the backup they belong to and their number, as manifests name them.
    pub fn packs_by_number(&self, layout: &Layout) -> BTreeMap<(BackupId, u32), &StoredObject> {
        let mut numbered = BTreeMap::new();
        for pack in &self.packs {
            if let Some(Entry::Pack { backup, number, .. }) = layout.parse(&pack.key) {
                numbered.insert((backup, number), pack);
            }
        }
        numbered
    }
}

impl<P> BackupSummary<P> {
    /// The same with other packs, and those that it had.
    pub(crate) fn with_packs<Q>(self, packs: Q) -> (BackupSummary<Q>, P) {
        let Self {
            format,
            tool,
            id,
            kind,
            parent,
            label,
            writer,
            system_identifier,
            timeline,
            start,
            stop,
            redo,
            checkpoint,
            next_xid,
            from_standby,
            server,
            segment_size,
            block_size,
            wal_block_size,
            data_checksums,
            wal_log_hints,
            settings,
            tablespaces,
            files,
            bytes,
            damaged_pages,
            subscriptions,
            archive_mode,
            server_started,
            manifest,
            packs: had,
        } = self;
        let summary = BackupSummary {
            format,
            tool,
            id,
            kind,
            parent,
            label,
            writer,
            system_identifier,
            timeline,
            start,
            stop,
            redo,
            checkpoint,
            next_xid,
            from_standby,
            server,
            segment_size,
            block_size,
            wal_block_size,
            data_checksums,
            wal_log_hints,
            settings,
            tablespaces,
            files,
            bytes,
            damaged_pages,
            subscriptions,
            archive_mode,
            server_started,
            manifest,
            packs,
        };
        (summary, had)
    }
}

pub(crate) mod key_as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::object_key::ObjectKey;

    pub fn serialize<S: Serializer>(key: &ObjectKey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(key.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        ObjectKey::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "summary/tests.rs"]
pub(crate) mod tests;
