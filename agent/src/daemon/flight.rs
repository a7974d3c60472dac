//! One piece of work of the agent, beside others, and what came of it.

use super::left_behind;
use super::ready::{self, Sweep};
use crate::config::Settings;
use crate::exit::Failure;
use crate::ship::cluster::HookCluster;
use crate::ship::ground::{Ground, PG_WAL, aside};
use crate::ship::push::{Announced, Shipper, about, deadline, within};
use crate::ship::shipped::Shipped;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use walpoint_wal::{SystemIdentifier, TimelineId, WalFileName};

/// What came of it.
#[derive(Debug)]
pub enum Landing {
    /// A push.
    Pushed {
        /// The file.
        name: WalFileName,
        /// Which archive it went to.
        generation: u64,
        /// What was shipped, and how many bytes; or why not.
        outcome: Result<(Shipped, u64), Failure>,
        /// Whether it is still to be archived, when it was not.
        is_there: bool,
    },
    /// Whether a file is still what was shipped under its name.
    Checked(WalFileName, Result<bool, Failure>),
    /// The directory was read.
    Swept(Result<Sweep, Failure>),
    /// What the parents of a timeline left behind.
    LeftBehind(TimelineId, Result<Vec<WalFileName>, Failure>),
}

/// What all flights know.
#[derive(Clone, Debug)]
pub struct Base {
    /// The cluster's data directory.
    pub data_directory: PathBuf,
    /// Which cluster it is.
    pub cluster: SystemIdentifier,
    /// The way into the archive.
    pub shipper: Arc<Shipper>,
    /// Grows with every other archive.
    pub generation: u64,
}

/// Pushes a file, within its deadline.
pub async fn push(base: Base, settings: Arc<Settings>, name: WalFileName, announced: Announced) -> Landing {
    // On a task of its own: a panic is a failure of this file, and of nothing else.
    let pushing = tokio::spawn(push_within(base.clone(), settings, name, announced));
    let outcome = pushing.await.unwrap_or_else(|error| {
        Err(Failure::failed(format!(
            "could not archive \"{name}\": an internal error ended the work: {error}"
        )))
    });
    let generation = base.generation;
    let is_there = match &outcome {
        Ok(_) => true,
        Err(_) => aside(move || Ok(is_to_be_archived(&base.data_directory, name))).await.unwrap_or(true),
    };
    let outcome = outcome.map_err(|failure| about(name, failure));
    Landing::Pushed { name, generation, outcome, is_there }
}

async fn push_within(
    base: Base,
    settings: Arc<Settings>,
    name: WalFileName,
    announced: Announced,
) -> Result<(Shipped, u64), Failure> {
    let started = Instant::now();
    let looking = Ground::of_name(&base.data_directory, name);
    let ground = within(name, settings.archive_push.deadline, started, looking).await?;
    let bytes = ground.source.size();
    let shipped = Shipped::of(&ground.source)?;
    let shipping = base.shipper.ship(name, ground, announced);
    within(name, deadline(&settings, bytes), started, shipping).await?;
    Ok((shipped, bytes))
}

/// A file that was left behind has no note; it is there as long as it is in `pg_wal`.
fn is_to_be_archived(data_directory: &Path, name: WalFileName) -> bool {
    data_directory.join(PG_WAL).join(name.to_string()).exists()
}

/// Looks whether the name still means the file that was shipped, of the cluster that it was of.
pub async fn check(base: Base, name: WalFileName, shipped: Shipped, limit: Duration) -> Landing {
    let looking = aside(move || {
        let path = base.data_directory.join(PG_WAL).join(name.to_string());
        let is_same = shipped.is_at(&path)?;
        let found = HookCluster::in_directory(&base.data_directory)?;
        Ok(is_same && found.system_identifier == base.cluster)
    });
    Landing::Checked(name, within(name, limit, Instant::now(), looking).await)
}

/// Reads the directory of what is to be archived.
pub async fn sweep(base: Base) -> Landing {
    Landing::Swept(aside(move || Sweep::read(&base.data_directory)).await)
}

/// Looks for what the parents of a timeline left behind.
pub async fn look_behind(base: Base, timeline: TimelineId) -> Landing {
    let pg_wal = base.data_directory.join(PG_WAL);
    Landing::LeftBehind(timeline, left_behind::find(base.shipper.archive(), &pg_wal, timeline).await)
}

/// How long the oldest of these has been waiting, in seconds.
pub async fn age(data_directory: PathBuf, name: WalFileName) -> Option<f64> {
    aside(move || Ok(super::clock::age_of(&ready::note(&data_directory, name)))).await.ok().flatten()
}
