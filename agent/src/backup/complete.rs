//! What makes a backup complete: the manifest, and last of all the summary.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use walpoint_archive::facts::FORMAT;
use walpoint_archive::manifest::{ManifestHeader, ManifestTotals};
use walpoint_archive::summary::{
    BackupBytes, ManifestObject, Position as SummaryPosition, ServerFacts, Settings, StoredObject,
};
use walpoint_archive::{Archive, BackupId, BackupSummary, ObjectKey, WriterId};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::backup_label::BackupLabel;
use walpoint_wal::control_file::ControlFile;
use walpoint_wal::tablespace_map;
use walpoint_wal::timestamp::Timestamp;

use super::entries::Contents;
use super::last_look::LastLook;
use super::manifest::{self, NamedPacks, Written};
use super::marked::Marked;
use super::parent::manifest::NewCopy;
use crate::exit::Failure;
use crate::session::{Position, StoppedBackup};

/// Name of this program in what it stores.
const TOOL: &str = concat!("walpoint ", env!("CARGO_PKG_VERSION"));

/// A backup that is complete in the archive.
#[derive(Debug)]
pub struct Taken {
    pub summary: BackupSummary,
    /// Pages whose checksum is wrong on disk, in path order.
    pub damaged: Vec<DamagedPage>,
    /// Why it is a full one although an incremental one was asked for.
    pub instead: Option<String>,
}

/// A page that was damaged on disk when it was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedPage {
    /// The file, relative to the data directory.
    pub file: PathBuf,
    /// Number of the page in its fork, counted over all files of the fork.
    pub block: u32,
}

/// Everything that is known at the end.
#[derive(Debug)]
pub struct Completion<'a> {
    pub id: BackupId,
    pub writer: WriterId,
    /// `pg_control` as it was right after the start.
    pub control: &'a ControlFile,
    pub version_num: i32,
    pub subscriptions: Vec<String>,
    /// As the server runs with it.
    pub archive_mode: String,
    pub label: &'a BackupLabel,
    pub started: Position,
    pub stopped: &'a StoppedBackup,
    pub contents: Arc<Contents>,
    /// Stored for this backup, by number: now, or before it was interrupted.
    pub packs: BTreeMap<u32, StoredObject>,
    /// What it builds on, when it is an incremental one.
    pub parent: Option<Arc<BackupSummary>>,
    /// The way to its timeline.
    pub path: TimelinePath,
    /// What stood in marks before anything of it was stored.
    pub marked_at_begin: Marked,
    pub server_started: Timestamp,
    /// The data directory, where files without a name are kept, and the copy of the manifest.
    pub directory: &'a Path,
}

impl Completion<'_> {
    /// Stores the manifest, then the summary. When this returns the backup exists; when it fails it does not, or the
    /// failure says so.
    pub async fn store(self, archive: &Archive) -> Result<Taken, Failure> {
        let written = self.manifest(archive).await?;
        let packs = self.packs(archive, &written.packs)?;
        let Written { seal, stored, totals, copy, .. } = written;
        let manifest = archive.put_sealed_manifest(&self.id, seal, stored).await?;
        let damaged = self.damaged();
        let summary = self.summary(manifest, totals, damaged.len() as u64, packs);
        let look = LastLook { archive, summary: &summary, path: &self.path, at_begin: &self.marked_at_begin };
        look.before().await?;
        archive.put_summary(&summary).await?;
        look.after().await?;
        keep_copy(copy);
        Ok(Taken { summary, damaged, instead: None })
    }

    async fn manifest(&self, archive: &Archive) -> Result<Written, Failure> {
        let header =
            ManifestHeader { backup: self.id.clone(), system_identifier: self.control.system_identifier };
        let (contents, sealer) = (Arc::clone(&self.contents), archive.sealer().clone());
        let directory = self.directory.to_owned();
        let writing = move || manifest::write(&contents, &header, &sealer, &directory);
        let written = tokio::task::spawn_blocking(writing).await.map_err(|error| error.to_string());
        written
            .and_then(|written| written.map_err(|error| error.to_string()))
            .map_err(|error| Failure::failed(format!("could not write the backup's manifest: {error}")))
    }

    /// Those that the manifest names: this backup's own, and its parent's.
    fn packs(&self, archive: &Archive, named: &NamedPacks) -> Result<Vec<StoredObject>, Failure> {
        let parents = self.parent.as_ref().map(|parent| parent.packs_by_number(archive.layout()));
        let parents = parents.unwrap_or_default();
        let own = named.own.iter().map(|number| (&self.id, *number, self.packs.get(number)));
        let older = named.older.iter().map(|it| (&it.0, it.1, parents.get(it).copied()));
        let mut packs = Vec::with_capacity(named.own.len() + named.older.len());
        for (backup, number, object) in own.chain(older) {
            packs.push(object.cloned().ok_or_else(|| {
                Failure::failed(format!(
                    "could not complete the base backup: nobody knows pack {number} of {backup}, which it needs"
                ))
                .with_hint("take a full backup")
            })?);
        }
        packs.sort_by(|one, other| one.key.as_str().cmp(other.key.as_str()));
        Ok(packs)
    }

    fn damaged(&self) -> Vec<DamagedPage> {
        let (start, stop) = (self.started.lsn, self.stopped.position.lsn);
        let mut damaged = Vec::new();
        for (index, page) in &self.contents.files.bad_pages {
            let Some(entry) = self.contents.listing.entries.get(*index) else { continue };
            if page.is_damaged(start, stop) {
                damaged.push(DamagedPage { file: entry.path.clone(), block: page.block });
            }
        }
        damaged.sort();
        damaged
    }

    fn summary(
        &self,
        manifest: ManifestObject,
        totals: ManifestTotals,
        damaged_pages: u64,
        packs: Vec<StoredObject>,
    ) -> BackupSummary {
        let control = self.control;
        let number = |value: i32| u32::try_from(value).unwrap_or_default();
        let own: BTreeSet<&ObjectKey> = self.packs.values().map(|pack| &pack.key).collect();
        let own = packs.iter().filter(|pack| own.contains(&pack.key));
        let stored = own.map(|pack| pack.size).sum::<u64>() + manifest.size;
        BackupSummary {
            format: FORMAT,
            tool: TOOL.to_owned(),
            kind: self.id.kind(),
            id: self.id.clone(),
            parent: self.parent.as_ref().map(|parent| parent.id.clone()),
            label: None,
            writer: self.writer,
            system_identifier: control.system_identifier,
            timeline: self.label.start_segment.timeline,
            start: position(self.started),
            stop: position(self.stopped.position),
            redo: self.label.start,
            checkpoint: self.label.checkpoint,
            next_xid: control.next_xid,
            from_standby: self.label.from_standby,
            server: ServerFacts {
                major: number(self.version_num) / 10_000,
                version_num: number(self.version_num),
                control_version: control.control_version,
                catalog_version: control.catalog_version,
            },
            segment_size: control.segment_size,
            block_size: control.block_size,
            wal_block_size: control.wal_block_size,
            data_checksums: control.data_checksum_version != 0,
            wal_log_hints: control.wal_log_hints,
            settings: settings(control),
            tablespaces: self.contents.tablespaces.len() as u64,
            files: totals.files,
            bytes: BackupBytes { data: totals.bytes, stored },
            damaged_pages,
            subscriptions: Some(self.subscriptions.clone()),
            archive_mode: Some(self.archive_mode.clone()),
            server_started: Some(self.server_started),
            manifest,
            packs,
        }
    }
}

fn settings(control: &ControlFile) -> Settings {
    Settings {
        max_connections: control.max_connections,
        max_worker_processes: control.max_worker_processes,
        max_wal_senders: control.max_wal_senders,
        max_prepared_xacts: control.max_prepared_xacts,
        max_locks_per_xact: control.max_locks_per_xact,
        wal_level: control.wal_level,
    }
}

fn position(position: Position) -> SummaryPosition {
    SummaryPosition { lsn: position.lsn, time: position.time }
}

/// The tablespaces that the server listed when the backup started.
pub fn tablespaces(stopped: &StoppedBackup) -> Result<BTreeMap<u32, PathBuf>, Failure> {
    let listed = tablespace_map::parse(stopped.tablespace_map.as_bytes());
    let listed = listed.map_err(|error| Failure::failed(error.to_string()))?;
    Ok(listed.into_iter().map(|(oid, path)| (oid, PathBuf::from(path))).collect())
}

/// Without it the next backup is a full one, which is no reason to fail this one.
fn keep_copy(copy: Option<NewCopy>) {
    if let Some(Err(error)) = copy.map(NewCopy::keep) {
        tracing::warn!("could not keep a copy of the manifest for the next incremental backup: {error}");
    }
}
