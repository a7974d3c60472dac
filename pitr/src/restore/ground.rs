//! What stands in the way of a restore, and what may go wrong with it: looked at before
//! anything is written, by `plan` and `restore` alike.

use std::path::{Path, PathBuf};

use walpoint_archive::{Archive, ArchiveError};

use super::configuration::{Configuration, demands};
use super::error::RestoreError;
use super::inventory::Inventory;
use super::tablespaces::{self, Tablespace, TablespaceMapping};
use super::{RestoreRequest, read_manifest};
use crate::data_dir::{self, Refusal, SpaceNeed};
use crate::plan::RecoveryPlan;

/// What a file takes on disk beyond its content: half a block and its inode, on average.
const BYTES_PER_FILE: u64 = 4096;

/// Where a plan is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Where to, absolute; absent or empty.
    pub data_directory: PathBuf,
    /// Tablespaces that go elsewhere than where they were.
    pub tablespaces: Vec<TablespaceMapping>,
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
            tablespaces: self.tablespaces.clone(),
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
    match prepare(archive, plan, destination).await {
        Ok(prepared) => Ok(prepared.ground),
        Err(RestoreError::Archive(error @ (ArchiveError::NoKey { .. } | ArchiveError::WrongKey { .. }))) => {
            Ok(without_key(plan, &destination.data_directory, &error))
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
    let inventory = read_manifest(archive, plan).await?;
    let configuration = Configuration::fetch(archive, &inventory).await?;
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
    let data_directory = &destination.data_directory;
    let inventory = read_manifest(archive, plan).await?;
    let tablespaces = tablespaces::place(&inventory.tablespaces, &destination.tablespaces, data_directory)?;
    let configuration = Configuration::fetch(archive, &inventory).await?;
    let ground = Ground {
        refusals: refusals(&inventory, &tablespaces, data_directory),
        warnings: demands(&configuration, &inventory, data_directory, &plan.backup.settings),
        neutralised: Some(configuration.neutralised(&inventory, &plan.backup, destination.take_over)),
    };
    Ok(Prepared { inventory, tablespaces, configuration, ground })
}

/// Whether the directories can be written to, and everything has room.
fn refusals(inventory: &Inventory, tablespaces: &[Tablespace], data_directory: &Path) -> Vec<Refusal> {
    let directories: Vec<&Path> = std::iter::once(data_directory)
        .chain(tablespaces.iter().map(|tablespace| tablespace.directory.as_path()))
        .collect();
    let mut refusals: Vec<Refusal> =
        directories.iter().filter_map(|directory| data_dir::examine(directory).err()).collect();
    let need = |directory: &&Path| SpaceNeed { directory: directory.to_path_buf(), bytes: 0, files: 0 };
    let mut needs: Vec<SpaceNeed> = directories.iter().map(need).collect();
    for file in &inventory.files {
        if let Some(need) = needs.get_mut(file.place.tree) {
            need.bytes = need.bytes.saturating_add(file.size).saturating_add(BYTES_PER_FILE);
            need.files = need.files.saturating_add(1);
        }
    }
    for directory in &inventory.directories {
        if let Some(need) = needs.get_mut(directory.place.tree) {
            need.files = need.files.saturating_add(1);
        }
    }
    refusals.extend(data_dir::shortages(&needs));
    refusals
}

fn without_key(plan: &RecoveryPlan, data_directory: &Path, error: &ArchiveError) -> Ground {
    let mut refusals: Vec<Refusal> = data_dir::examine(data_directory).err().into_iter().collect();
    // How much goes to which tablespace is not known.
    if plan.backup.tablespaces == 0 {
        let bytes = plan.backup.bytes.data.saturating_add(plan.backup.files.saturating_mul(BYTES_PER_FILE));
        let need = SpaceNeed { directory: data_directory.to_owned(), bytes, files: plan.backup.files };
        refusals.extend(data_dir::shortages(&[need]));
    }
    let warning = format!(
        "tablespaces, their space and the restored configuration were not looked at, and nothing can be restored here: {error}"
    );
    Ground { refusals, warnings: vec![warning], neutralised: None }
}
