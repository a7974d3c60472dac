//! What makes a backup complete: the manifest, and last of all the summary.

use std::collections::BTreeMap;
use std::path::PathBuf;

use walpoint_archive::facts::FORMAT;
use walpoint_archive::manifest::{ManifestError, ManifestHeader, ManifestTotals, ManifestWriter};
use walpoint_archive::relative_path::RelativePathError;
use walpoint_archive::summary::{
    BackupBytes, ManifestObject, Position as SummaryPosition, ServerFacts, Settings,
};
use walpoint_archive::{Archive, BackupId, BackupSummary, WriterId};
use walpoint_wal::backup_label::BackupLabel;
use walpoint_wal::control_file::ControlFile;
use walpoint_wal::tablespace_map;

use super::entries::Contents;
use super::store::StoredPack;
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
    pub contents: &'a Contents,
    pub packs: Vec<StoredPack>,
}

impl Completion<'_> {
    /// Stores the manifest, then the summary. When this returns the backup
    /// exists; when it fails it does not.
    pub async fn store(self, archive: &Archive) -> Result<Taken, Failure> {
        let (manifest, totals) = self.manifest()?;
        let manifest = archive.put_manifest(&self.id, manifest).await?;
        let damaged = self.damaged();
        let summary = self.summary(manifest, totals, damaged.len() as u64);
        archive.put_summary(&summary).await?;
        Ok(Taken { summary, damaged })
    }

    fn manifest(&self) -> Result<(Vec<u8>, ManifestTotals), Failure> {
        let header =
            ManifestHeader { backup: self.id.clone(), system_identifier: self.control.system_identifier };
        let write = || -> Result<_, Unwritable> {
            let mut writer = ManifestWriter::new(Vec::new(), &header)?;
            self.contents.each::<Unwritable>(|entry| Ok(writer.entry(entry)?))?;
            Ok(writer.finish()?)
        };
        write().map_err(|error| Failure::failed(format!("could not write the backup's manifest: {error}")))
    }

    fn damaged(&self) -> Vec<DamagedPage> {
        let (start, stop) = (self.started.lsn, self.stopped.position.lsn);
        let mut damaged = Vec::new();
        for read in &self.contents.files {
            let Some(entry) = self.contents.listing.entries.get(read.index) else { continue };
            let pages = read.content.bad_pages.iter().filter(|page| page.is_damaged(start, stop));
            damaged.extend(pages.map(|page| DamagedPage { file: entry.path.clone(), block: page.block }));
        }
        damaged.sort();
        damaged
    }

    fn summary(&self, manifest: ManifestObject, totals: ManifestTotals, damaged_pages: u64) -> BackupSummary {
        let control = self.control;
        let number = |value: i32| u32::try_from(value).unwrap_or_default();
        let stored = self.packs.iter().map(|pack| pack.object.size).sum::<u64>() + manifest.size;
        BackupSummary {
            format: FORMAT,
            tool: TOOL.to_owned(),
            kind: self.id.kind(),
            id: self.id.clone(),
            parent: None,
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
            manifest,
            packs: self.packs.iter().map(|pack| pack.object.clone()).collect(),
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

#[derive(Debug, thiserror::Error)]
enum Unwritable {
    #[error(transparent)]
    Path(#[from] RelativePathError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}
