//! Carries out a plan: a base backup becomes a data directory that PostgreSQL
//! recovers to the target as soon as it is started.
//!
//! Everything is looked at before anything is written; every byte is verified before
//! it counts; `pg_control` appears last, so that a restore that was stopped half-way
//! leaves nothing that could start.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use walpoint_archive::Archive;
use walpoint_wal::{Major, Timestamp};

use crate::data_dir::{self, Refusal};
use crate::manifest_pipe::read_piped;
use crate::plan::RecoveryPlan;
use crate::progress::{Phase, Progress};
use crate::recovery_settings::CONFIGURATION_DIRECTORY;

pub use crate::contract::LeftOut;
pub use crate::recovery_settings::TargetAction;
pub use error::RestoreError;
pub use ground::{Brought, Destination, Ground, Prepared, look_into, prepare, survey};
pub use tablespaces::TablespaceMapping;
pub use tree::Owner;

mod beginning;
mod configuration;
mod contents;
mod databases;
mod delta;
mod error;
mod ground;
mod handover;
mod holes;
pub(crate) mod inventory;
mod manifest_copy;
mod manifest_of;
mod own_wal;
mod pack_table;
mod packs;
mod pieces;
mod site;
mod start_command;
mod sync;
mod tablespaces;
#[cfg(test)]
mod tests;
mod to_disk;
mod to_fetch;
mod tree;

use beginning::{Beginning, begin};
use inventory::{Inventory, Keep};
use manifest_of::ManifestOf;
use pack_table::PackTable;
use tablespaces::Tablespace;

/// How a plan is to be carried out.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
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
    /// What PostgreSQL does at the target.
    pub action: TargetAction,
    /// Whether the restored cluster is to archive, as the one that was backed up.
    pub take_over: bool,
    /// To become a standby instead of recovering to the target.
    pub standby: Option<Standby>,
    /// The `restore_command`, quoted for the shell. With a target it names the contract
    /// ([`crate::contract::CONTRACT_FILE`]); a standby has none.
    pub restore_command: String,
    /// Whom the files are to belong to, when root restores.
    pub owner: Option<Owner>,
    /// How many packs are fetched at once.
    pub workers: NonZeroUsize,
}

/// What a standby follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standby {
    /// The primary; without it the archive alone.
    pub primary_conninfo: Option<String>,
}

/// A restored cluster, ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Where it is.
    pub data_directory: PathBuf,
    /// The shell command that starts it.
    pub start_command: String,
    /// What of the backup's settings was put out of action, by name and file.
    pub neutralised: Vec<String>,
    /// Where configuration from outside the old data directory was put.
    pub configuration: Option<PathBuf>,
    /// Where each tablespace was put: object identifier and directory.
    pub tablespaces: Vec<(u32, PathBuf)>,
    /// Databases that were left out: their files hold only zeros.
    pub left_out: Vec<LeftOut>,
    /// Bytes of the restored files.
    pub bytes: u64,
    /// Of these, those that were fetched; the others were there.
    pub fetched_bytes: u64,
    /// Stored bytes that came for these: whole packs where much of one was wanted, of others their parts.
    pub transferred_bytes: u64,
    /// Number of the restored files.
    pub files: u64,
    /// What may go wrong at the start.
    pub warnings: Vec<String>,
}

/// Restores. On an error the directory may hold a part of the cluster, never one that
/// starts.
pub async fn restore(
    archive: &Archive,
    plan: &RecoveryPlan,
    request: &RestoreRequest,
    progress: &Progress,
) -> Result<Restored, RestoreError> {
    if !request.delta {
        data_dir::examine(&request.data_directory)?;
    }
    let prepared = prepare(archive, plan, &request.destination()).await?;
    carry_out(archive, plan, request, prepared, progress).await
}

/// Restores after [`prepare`] with this request's [`RestoreRequest::destination`].
///
/// # Errors
/// As [`restore`]; nothing is written when what was found refuses it.
pub async fn carry_out(
    archive: &Archive,
    plan: &RecoveryPlan,
    request: &RestoreRequest,
    prepared: Prepared,
    progress: &Progress,
) -> Result<Restored, RestoreError> {
    progress.enter(Phase::Preparing);
    let Prepared { inventory, tablespaces, configuration, ground, left_out } = prepared;
    if let Some(refusal) = Refusal::of_all(&ground.refusals) {
        return Err(refusal.into());
    }
    progress.expect(inventory.bytes, inventory.files.len() as u64);

    let Beginning { made, inventory, to_fetch } =
        begin(archive, plan, request, (inventory, &tablespaces), progress).await?;
    let (files, fetched_bytes) = (made.files.len(), to_fetch.bytes);
    progress.begin(fetched_bytes, files as u64);
    progress.enter(Phase::Copying);
    let transferred_bytes =
        packs::write_all(archive, &plan.backup, to_fetch, &made, request.workers, progress).await?;
    let site = Arc::clone(&made.site);
    // Of the files, of which there may be many, nothing more is needed.
    drop(made);

    progress.enter(Phase::Finishing);
    let contract = handover::contract(plan, &left_out, now());
    handover::hand_over(&site, &configuration, &tablespaces, plan, request, &contract)?;
    progress.enter(Phase::Syncing);
    blocking(move || site.finish()).await?;
    let restored = restored(&inventory, files, tablespaces, ground, plan, request);
    Ok(Restored { fetched_bytes, transferred_bytes, left_out, ..restored })
}

/// The whole manifest, verified.
async fn read_manifest(
    archive: &Archive,
    plan: &RecoveryPlan,
    keep: Keep,
) -> Result<Inventory, RestoreError> {
    let (of, table) = (ManifestOf::new(&plan.backup), PackTable::new(&plan.backup, archive.layout())?);
    let read = move |manifest| inventory::read(manifest, &of, Arc::new(table), keep);
    read_piped(archive, &plan.backup, read, stopped).await?
}

fn restored(
    inventory: &Inventory,
    files: usize,
    tablespaces: Vec<Tablespace>,
    ground: Ground,
    plan: &RecoveryPlan,
    request: &RestoreRequest,
) -> Restored {
    let major = Major::from_number(plan.backup.server.major);
    let configuration =
        (!inventory.configuration.is_empty()).then(|| request.data_directory.join(CONFIGURATION_DIRECTORY));
    Restored {
        start_command: start_command::start_command(&request.data_directory, major, request.owner),
        data_directory: request.data_directory.clone(),
        neutralised: ground.neutralised.unwrap_or_default(),
        configuration,
        tablespaces: tablespaces.into_iter().map(|it| (it.oid, it.directory)).collect(),
        bytes: inventory.bytes,
        left_out: Vec::new(),
        fetched_bytes: 0,
        transferred_bytes: 0,
        files: files as u64,
        warnings: ground.warnings,
    }
}

/// Runs work that waits for the disk where it holds up nothing else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RestoreError> + Send + 'static,
) -> Result<T, RestoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> RestoreError {
    RestoreError::Interrupted("a part of the work ended by itself".to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the contract says when the restore was made; nothing decides by it"
)]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).ok().and_then(Timestamp::from_unix_micros).unwrap_or(Timestamp(0))
}
