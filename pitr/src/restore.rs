//! Carries out a plan: a base backup becomes a data directory that PostgreSQL
//! recovers to the target as soon as it is started.
//!
//! Everything is looked at before anything is written; every byte is verified before
//! it counts; `pg_control` appears last, so that a restore that was stopped half-way
//! leaves nothing that could start.

use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use walpoint_archive::{Archive, ArchiveError};
use walpoint_wal::{Major, Timestamp};

use crate::data_dir::{self, Refusal};
use crate::plan::RecoveryPlan;
use crate::progress::{Phase, Progress};
use crate::recovery_settings::CONFIGURATION_DIRECTORY;

pub use crate::recovery_settings::TargetAction;
pub use error::RestoreError;
pub use ground::{Brought, Destination, Ground, Prepared, look_into, prepare, survey};
pub use tablespaces::TablespaceMapping;
pub use tree::Owner;

mod configuration;
mod error;
mod ground;
mod handover;
mod inventory;
mod packs;
mod site;
mod start_command;
mod sync;
mod tablespaces;
#[cfg(test)]
mod tests;
mod to_disk;
mod tree;

use inventory::Inventory;
use site::Site;
use tablespaces::Tablespace;

/// How a plan is to be carried out.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Where to, absolute; absent or empty.
    pub data_directory: PathBuf,
    /// Tablespaces that go elsewhere than where they were.
    pub tablespaces: Vec<TablespaceMapping>,
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
    /// Bytes of the restored files.
    pub bytes: u64,
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
    data_dir::examine(&request.data_directory)?;
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
    let Prepared { inventory, tablespaces, configuration, ground } = prepared;
    if let Some(refusal) = Refusal::of_all(&ground.refusals) {
        return Err(refusal.into());
    }
    progress.expect(inventory.bytes, inventory.files.len() as u64);

    let (site, mut inventory) = build(inventory, &tablespaces, request).await?;
    progress.enter(Phase::Copying);
    let packs = std::mem::take(&mut inventory.packs);
    let files = Arc::new(std::mem::take(&mut inventory.files));
    packs::write_all(archive, packs, Arc::clone(&files), Arc::clone(&site), request.workers, progress)
        .await?;

    progress.enter(Phase::Finishing);
    handover::hand_over(&site, &configuration, &tablespaces, plan, request, now())?;
    progress.enter(Phase::Syncing);
    blocking(move || site.finish()).await?;
    Ok(restored(&inventory, files.len(), tablespaces, ground, plan, request))
}

/// The whole manifest, verified. It passes through a pipe, so that only what is made
/// of it takes memory.
async fn read_manifest(archive: &Archive, plan: &RecoveryPlan) -> Result<Inventory, RestoreError> {
    let piped = |source| RestoreError::io(Path::new("a pipe"), "make", source);
    let (reader, mut writer) = std::io::pipe().map_err(piped)?;
    let (summary, layout) = (plan.backup.clone(), *archive.layout());
    let reading = tokio::spawn(blocking(move || inventory::read(reader, &summary, &layout)));
    let fetched = archive.fetch_manifest(&plan.backup, &mut writer).await;
    drop(writer);
    let read = reading.await.unwrap_or_else(|_| Err(stopped()));
    match fetched {
        // Nobody reads on: the manifest was refused. Any other failure cut it short, and nothing is
        // wrong with it.
        Err(ArchiveError::Io { verb: "write", source, .. })
            if source.kind() == ErrorKind::BrokenPipe && read.is_err() =>
        {
            read
        }
        Err(error) => Err(error.into()),
        Ok(()) => read,
    }
}

/// Takes the directories and makes everything that has a name.
async fn build(
    inventory: Inventory,
    tablespaces: &[Tablespace],
    request: &RestoreRequest,
) -> Result<(Arc<Site>, Inventory), RestoreError> {
    let data_directory = request.data_directory.clone();
    let directories: Vec<PathBuf> = tablespaces.iter().map(|it| it.directory.clone()).collect();
    let owner = request.owner;
    blocking(move || {
        let site = Site::claim(&data_directory, &directories, inventory.group, owner)?;
        site.build(&inventory.directories, &inventory.files)?;
        Ok((Arc::new(site), inventory))
    })
    .await
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
