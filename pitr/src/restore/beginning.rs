//! How a restore begins: takes the directories, makes everything that has a name, and finds what is to be fetched.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use walpoint_archive::Archive;

use super::error::RestoreError;
use super::inventory::Inventory;
use super::manifest_copy::ManifestCopy;
use super::manifest_of::ManifestOf;
use super::site::{Claim, Site};
use super::tablespaces::Tablespace;
use super::to_fetch::{self, Made, ToFetch};
use super::{RestoreRequest, blocking, delta, stopped};
use crate::data_dir::{self, Existing};
use crate::plan::RecoveryPlan;
use crate::progress::{Phase, Progress};

/// How often it is told how far the comparing is.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// What is there when bytes begin to come.
pub(super) struct Beginning {
    pub(super) made: Made,
    /// Without what was made of it.
    pub(super) inventory: Inventory,
    pub(super) to_fetch: ToFetch,
}

/// Begins. Of a cluster that is there nothing is touched before the whole manifest is on this host.
pub(super) async fn begin(
    archive: &Archive,
    plan: &RecoveryPlan,
    request: &RestoreRequest,
    (inventory, tablespaces): (Inventory, &[Tablespace]),
    progress: &Progress,
) -> Result<Beginning, RestoreError> {
    let is_there = is_there(request, plan).await?;
    let (site, copy) = if is_there {
        let copy = ManifestCopy::fetch(archive, &plan.backup, &request.data_directory).await?;
        (claim(&inventory, tablespaces, request, plan, is_there).await?, copy)
    } else {
        let site = claim(&inventory, tablespaces, request, plan, is_there).await?;
        let copy = ManifestCopy::fetch(archive, &plan.backup, site.data().path()).await?;
        (site, copy)
    };
    let (made, inventory) = build(site, inventory, tablespaces, is_there).await?;
    if !made.kept.is_empty() {
        progress.enter(Phase::Comparing);
    }
    let to_fetch = find_what_to_fetch(copy, plan, &made, request, progress).await?;
    Ok(Beginning { made, inventory, to_fetch })
}

/// Whether a cluster is there, which becomes another.
async fn is_there(request: &RestoreRequest, plan: &RecoveryPlan) -> Result<bool, RestoreError> {
    let (data_directory, cluster, delta) =
        (request.data_directory.clone(), plan.system_identifier, request.delta);
    let look =
        move || Ok(delta && data_dir::examine_existing(&data_directory, cluster)? == Existing::Cluster);
    blocking(look).await
}

/// Takes the directories.
async fn claim(
    inventory: &Inventory,
    tablespaces: &[Tablespace],
    request: &RestoreRequest,
    plan: &RecoveryPlan,
    is_there: bool,
) -> Result<Site, RestoreError> {
    let data_directory = request.data_directory.clone();
    let directories: Vec<PathBuf> = tablespaces.iter().map(|it| it.directory.clone()).collect();
    let (group, owner, cluster) = (inventory.group, request.owner, plan.system_identifier);
    blocking(move || {
        let tablespaces = directories.as_slice();
        let claim = Claim { data_directory: &data_directory, tablespaces, group, owner, cluster };
        if is_there { Site::claim_existing(&claim) } else { Site::claim(&claim) }
    })
    .await
}

/// Makes everything that has a name.
async fn build(
    site: Site,
    mut inventory: Inventory,
    tablespaces: &[Tablespace],
    is_there: bool,
) -> Result<(Made, Inventory), RestoreError> {
    let tablespaces = tablespaces.to_vec();
    blocking(move || {
        let kept = match is_there {
            true => delta::clear(&site, &inventory, &tablespaces)?,
            false => BTreeSet::new(),
        };
        site.build_over(&inventory.directories, &tablespaces, &inventory.files, &kept)?;
        let made = Made {
            site: Arc::new(site),
            files: Arc::new(std::mem::take(&mut inventory.files)),
            kept: Arc::new(kept),
            zeroed: Arc::new(std::mem::take(&mut inventory.zeroed)),
            table: Arc::clone(&inventory.table),
        };
        Ok((made, inventory))
    })
    .await
}

/// Of the files that are there the pieces that differ, and all of the others.
async fn find_what_to_fetch(
    copy: ManifestCopy,
    plan: &RecoveryPlan,
    made: &Made,
    request: &RestoreRequest,
    progress: &Progress,
) -> Result<ToFetch, RestoreError> {
    // The threads that compare count by themselves; who draws sees it at the end of each of their steps.
    let (made, of, workers) = (made.clone(), ManifestOf::new(&plan.backup), request.workers.get());
    let counted = Arc::new(Progress::new());
    let counting = Arc::clone(&counted);
    let find = move || to_fetch::find(copy, of, &made, workers, &counting);
    let mut finding = tokio::spawn(blocking(find));
    let mut told = 0;
    loop {
        let pause = tokio::time::sleep(TOLD_EVERY);
        tokio::select! {
            found = &mut finding => return found.unwrap_or_else(|_| Err(stopped())),
            () = pause => {
                let now = counted.now().done_bytes;
                progress.add_bytes(now - told);
                told = now;
            }
        }
    }
}
