//! What stands in the way of a restore, and what may go wrong with it: looked at before
//! anything is written, by `plan` and `restore` alike.

use std::path::{Path, PathBuf};

use walpoint_archive::{Archive, ArchiveError};

use super::configuration::{Configuration, demands};
use super::databases;
use super::delta::is_linked_from;
use super::error::RestoreError;
use super::inventory::{Inventory, Keep};
use super::own_wal;
use super::site::NewFile;
use super::tablespaces::{self, Tablespace, TablespaceMapping};
use super::{RestoreRequest, read_manifest, to_fetch};
use crate::contract::LeftOut;
use crate::data_dir::{self, Refusal, SpaceNeed};
use crate::plan::RecoveryPlan;

/// What a file takes on disk beyond its content: half a block and its inode, on average.
pub(super) const BYTES_PER_FILE: u64 = 4096;

/// Where a plan is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Where to, absolute; absent or empty, or with `delta` this cluster's.
    pub data_directory: PathBuf,
    /// Whether a cluster that is there is made into what the backup has.
    pub delta: bool,
    /// Whether the data directory is the one in the configuration: what its tablespaces' links point to is its own.
    pub is_configured: bool,
    /// Whether WAL may be lost that only the directory has.
    pub discard_wal: bool,
    /// Tablespaces that go elsewhere than where they were.
    pub tablespaces: Vec<TablespaceMapping>,
    /// The databases to restore, by name or OID; all when none is named.
    pub databases: Vec<String>,
    /// Whether the restored cluster is to take the place of the original.
    pub take_over: bool,
}

/// What was found there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ground {
    /// Why nothing may be written; empty when it may.
    pub refusals: Vec<Refusal>,
    /// What may go wrong at the start.
    pub warnings: Vec<String>,
    /// What of the backup's settings is put out of action, by name and file; none when
    /// that could not be read without the key.
    pub neutralised: Option<Vec<String>>,
}

/// What a backup brings along, wherever it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Brought {
    /// What may go wrong at the start.
    pub warnings: Vec<String>,
    /// What of its settings is put out of action, by name and file.
    pub neutralised: Vec<String>,
    /// Its tablespaces: object identifier and old path.
    pub tablespaces: Vec<(u32, PathBuf)>,
}

/// Everything that a restore knows before it writes.
#[derive(Debug)]
pub struct Prepared {
    pub(super) inventory: Inventory,
    pub(super) tablespaces: Vec<Tablespace>,
    pub(super) configuration: Configuration,
    pub(super) ground: Ground,
    pub(super) left_out: Vec<LeftOut>,
}

impl Prepared {
    /// What was found.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }
}

impl RestoreRequest {
    /// The part of the request that says where to.
    pub fn destination(&self) -> Destination {
        Destination {
            data_directory: self.data_directory.clone(),
            delta: self.delta,
            is_configured: self.is_configured,
            discard_wal: self.discard_wal,
            tablespaces: self.tablespaces.clone(),
            databases: self.databases.clone(),
            take_over: self.take_over,
        }
    }
}

/// Looks without the intent to restore. An encrypted backup's manifest and configuration
/// cannot be read without the key; what they would have said is then a warning that
/// nobody looked.
///
/// # Errors
/// As [`prepare`], but for a missing key.
pub async fn survey(
    archive: &Archive,
    plan: &RecoveryPlan,
    destination: &Destination,
) -> Result<Ground, RestoreError> {
    // What is there is compared with the size of each file.
    let keep = if destination.delta { Keep::All } else { Keep::OutsideDatabases };
    match look_at(archive, plan, destination, keep).await {
        Ok(prepared) => Ok(prepared.ground),
        Err(RestoreError::Archive(error @ (ArchiveError::NoKey { .. } | ArchiveError::WrongKey { .. }))) => {
            Ok(without_key(plan, destination, &error))
        }
        Err(error) => Err(error),
    }
}

/// Looks into the backup when nobody has said where it is to go. None without the key to
/// its manifest and configuration.
///
/// # Errors
/// The archive cannot give what is needed.
pub async fn look_into(archive: &Archive, plan: &RecoveryPlan) -> Result<Option<Brought>, RestoreError> {
    match brought(archive, plan).await {
        Ok(brought) => Ok(Some(brought)),
        Err(RestoreError::Archive(ArchiveError::NoKey { .. } | ArchiveError::WrongKey { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn brought(archive: &Archive, plan: &RecoveryPlan) -> Result<Brought, RestoreError> {
    let inventory = read_manifest(archive, plan, Keep::OutsideDatabases).await?;
    let configuration = Configuration::fetch(archive, &plan.backup, &inventory).await?;
    Ok(Brought {
        warnings: configuration.low_settings(&plan.backup.settings),
        neutralised: configuration.neutralised(&inventory, &plan.backup, false),
        tablespaces: inventory.tablespaces,
    })
}

/// Reads the manifest and the configuration, and looks at the ground. What it refuses is
/// in the answer.
///
/// # Errors
/// The archive cannot give what is needed, or a tablespace cannot be mapped so.
pub async fn prepare(
    archive: &Archive,
    plan: &RecoveryPlan,
    destination: &Destination,
) -> Result<Prepared, RestoreError> {
    look_at(archive, plan, destination, Keep::All).await
}

async fn look_at(
    archive: &Archive,
    plan: &RecoveryPlan,
    destination: &Destination,
    keep: Keep,
) -> Result<Prepared, RestoreError> {
    let (data_directory, backup) = (&destination.data_directory, &plan.backup);
    let mut inventory = read_manifest(archive, plan, keep).await?;
    let left_out = databases::leave_out(archive, backup, &mut inventory, &destination.databases).await?;
    let tablespaces = tablespaces::place(&inventory.tablespaces, &destination.tablespaces, data_directory)?;
    let configuration = Configuration::fetch(archive, backup, &inventory).await?;
    let mut refusals = refusals(&inventory, &tablespaces, destination, plan);
    if destination.delta && refusals.is_empty() && !destination.discard_wal {
        refusals.extend(own_wal::nowhere_else(archive, data_directory).await?);
    }
    let ground = Ground {
        refusals,
        warnings: demands(&configuration, &inventory, data_directory, &backup.settings),
        neutralised: Some(configuration.neutralised(&inventory, backup, destination.take_over)),
    };
    Ok(Prepared { inventory, tablespaces, configuration, ground, left_out })
}

/// Whether the directories can be written to, and everything has room.
fn refusals(
    inventory: &Inventory,
    tablespaces: &[Tablespace],
    destination: &Destination,
    plan: &RecoveryPlan,
) -> Vec<Refusal> {
    let data_directory = destination.data_directory.as_path();
    let directories: Vec<&Path> = std::iter::once(data_directory)
        .chain(tablespaces.iter().map(|tablespace| tablespace.directory.as_path()))
        .collect();
    let mut refusals: Vec<Refusal> = examined(destination, plan).err().into_iter().collect();
    if destination.delta && refusals.is_empty() && !destination.discard_wal {
        refusals.extend(data_dir::wal_that_would_be_lost(data_directory));
    }
    if destination.delta && !destination.databases.is_empty() {
        refusals.extend(data_dir::others_that_would_be_lost(data_directory));
    }
    refusals.extend(tablespaces.iter().filter_map(|it| foreign(it, destination)));
    let needs = needs(inventory, &directories, destination.delta, plan.backup.manifest.plain_size);
    refusals.extend(data_dir::shortages(&needs));
    refusals
}

/// The room that it takes, by directory: what is written of new files, and what files that are there grow by.
pub(super) fn needs(
    inventory: &Inventory,
    directories: &[&Path],
    delta: bool,
    manifest: u64,
) -> Vec<SpaceNeed> {
    let need = |directory: &&Path| SpaceNeed { directory: directory.to_path_buf(), bytes: 0, files: 0 };
    let mut needs: Vec<SpaceNeed> = directories.iter().map(need).collect();
    for (number, file) in inventory.files.iter().enumerate() {
        if let Some(need) = needs.get_mut(file.place.tree) {
            // What is there is written into, and takes no more room than it does.
            let there = if delta { size_there(directories, file) } else { None };
            let more = match there {
                Some(there) if !inventory.zeroed.contains(&number) => file.size.saturating_sub(there),
                _ => inventory.written(number, file),
            };
            let overhead = if there.is_some() { 0 } else { BYTES_PER_FILE };
            need.bytes = need.bytes.saturating_add(more).saturating_add(overhead);
            need.files = need.files.saturating_add(u64::from(there.is_none()));
        }
    }
    for ((tree, _), counted) in &inventory.counted {
        if let Some(need) = needs.get_mut(*tree) {
            let overhead = counted.files.saturating_mul(BYTES_PER_FILE);
            let written = counted.bytes.saturating_sub(counted.holes);
            need.bytes = need.bytes.saturating_add(written).saturating_add(overhead);
            need.files = need.files.saturating_add(counted.files);
        }
    }
    if let Some(need) = needs.first_mut() {
        need.bytes = need.bytes.saturating_add(to_fetch::room(manifest, inventory.piece_count));
    }
    for directory in &inventory.directories {
        if let Some(need) = needs.get_mut(directory.place.tree) {
            need.files = need.files.saturating_add(1);
        }
    }
    needs
}

/// Why a tablespace's directory may not be written to. One in which something lies is this cluster's when a link in the
/// data directory leads there, and the data directory is no copy: a copy's links lead to the original's tablespaces.
fn foreign(tablespace: &Tablespace, destination: &Destination) -> Option<Refusal> {
    let refusal = data_dir::examine(&tablespace.directory).err()?;
    let data_directory = &destination.data_directory;
    if !destination.delta || !is_linked_from(data_directory, tablespace.oid, &tablespace.directory) {
        return Some(refusal);
    }
    let is_named = destination.tablespaces.iter().any(|mapping| mapping.to == tablespace.directory);
    let is_unfinished = data_dir::is_unfinished(data_directory);
    let is_own = destination.is_configured || is_named || is_unfinished;
    (!is_own).then(|| Refusal {
        why: format!(
            "{}; \"{}\" is not the data directory in the configuration, and may be a copy of the cluster whose \
             tablespace that is",
            refusal.why,
            data_directory.display()
        ),
        hint: format!(
            "when no other cluster uses it, name it with --tablespace {}={}; else name an empty directory there",
            tablespace.oid,
            tablespace.directory.display()
        ),
    })
}

/// Whether the data directory can be written to.
fn examined(destination: &Destination, plan: &RecoveryPlan) -> Result<(), Refusal> {
    match destination.delta {
        true => data_dir::examine_existing(&destination.data_directory, plan.system_identifier).map(drop),
        false => data_dir::examine(&destination.data_directory).map(drop),
    }
}

/// The size of a file that is there.
fn size_there(directories: &[&Path], file: &NewFile) -> Option<u64> {
    let path = directories.get(file.place.tree)?.join(&file.place.path);
    path.symlink_metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
}

fn without_key(plan: &RecoveryPlan, destination: &Destination, error: &ArchiveError) -> Ground {
    let data_directory = &destination.data_directory;
    let mut refusals: Vec<Refusal> = examined(destination, plan).err().into_iter().collect();
    // How much goes to which tablespace is not known, nor what of it is there.
    if plan.backup.tablespaces == 0 && !destination.delta {
        let bytes = plan.backup.bytes.data.saturating_add(plan.backup.files.saturating_mul(BYTES_PER_FILE));
        let need = SpaceNeed { directory: data_directory.to_owned(), bytes, files: plan.backup.files };
        refusals.extend(data_dir::shortages(&[need]));
    }
    let warning = format!(
        "tablespaces, their space and the restored configuration were not looked at, and nothing can be restored here: {error}"
    );
    Ground { refusals, warnings: vec![warning], neutralised: None }
}
