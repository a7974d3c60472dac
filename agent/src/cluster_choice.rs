//! Which of the archive's clusters a reading command means: the one named by `--cluster`, else the one in
//! the configured data directory, else the only one there is.

use crate::config::Settings;
use crate::data_directory;
use crate::exit::{Failure, Status};
use crate::open::{self, Patience};
use std::sync::Arc;
use walpoint_archive::store::ObjectStore;
use walpoint_archive::{Archive, Cluster, ClusterListing, KeyRing};
use walpoint_wal::SystemIdentifier;

/// An archive, and the cluster in it that is meant.
#[derive(Debug)]
pub struct Chosen {
    /// The archive of that cluster.
    pub archive: Archive,
    /// The cluster.
    pub cluster: Cluster,
}

/// Opens the archive for a command that reads. What other clusters are there is asked only where it matters:
/// one of them that cannot be read is no trouble of this one.
///
/// # Errors
/// Status 2 when several clusters are there and none is named; status 4 when the one that is named, or that
/// the data directory holds, is not in the archive; status 1 when the archive is empty or away.
pub async fn open(settings: &Settings, named: Option<SystemIdentifier>) -> Result<Chosen, Failure> {
    let keys = KeyRing::from_config(&settings.encryption)?;
    let store = open::store(settings, Patience::Question).await?;
    let wanted = match named.or_else(|| in_data_directory(settings)) {
        Some(wanted) => wanted,
        None => {
            let there = Archive::clusters(store.as_ref()).await?;
            match the_only_one(&there) {
                Some(only) => only,
                None => {
                    return Err(unclear(&choices(settings, &store, &keys, &there).await?, &store.describe()));
                }
            }
        }
    };
    let archive = open::within(settings, Arc::clone(&store), wanted, keys.clone())?;
    match archive.cluster().await? {
        Some(cluster) => Ok(Chosen { archive, cluster }),
        None => {
            let there = Archive::clusters(store.as_ref()).await?;
            let choices = choices(settings, &store, &keys, &there).await?;
            Err(not_there(wanted, named.is_some(), &choices, &store.describe()))
        }
    }
}

/// The cluster in the configured data directory; none when there is no such directory any more, which is
/// when recovery is needed most.
fn in_data_directory(settings: &Settings) -> Option<SystemIdentifier> {
    let path = settings.postgres.data_directory.as_deref()?;
    match data_directory::look(path) {
        Ok(found) => found.map(|found| found.system_identifier()),
        Err(failure) => {
            tracing::warn!("{failure}");
            None
        }
    }
}

/// One that cannot be read counts: it may be the one that is meant.
fn the_only_one(there: &ClusterListing) -> Option<SystemIdentifier> {
    let sound = there.sound.iter().map(|cluster| cluster.system_identifier);
    let mut all = sound.chain(there.unreadable.iter().map(|(identifier, _)| *identifier));
    all.next().filter(|_| all.next().is_none())
}

/// What can be chosen, each as a person tells it from the others.
async fn choices(
    settings: &Settings,
    store: &Arc<dyn ObjectStore>,
    keys: &KeyRing,
    there: &ClusterListing,
) -> Result<Vec<String>, Failure> {
    let mut choices = Vec::new();
    for cluster in &there.sound {
        let archive = open::within(settings, Arc::clone(store), cluster.system_identifier, keys.clone())?;
        choices.push(choice(cluster, &archive).await);
    }
    choices.extend(there.unreadable.iter().map(|(identifier, object)| {
        format!("{identifier} (its cluster.json cannot be read: {})", object.reason)
    }));
    Ok(choices)
}

/// A cluster, and by its last backup which of several that is.
async fn choice(cluster: &Cluster, archive: &Archive) -> String {
    let last = match archive.catalog_of_newest(|catalog| !catalog.backups.is_empty()).await {
        Ok(catalog) => match catalog.backups.iter().max_by_key(|backup| backup.stop.time) {
            Some(backup) => format!("last backup {}", backup.stop.time),
            None => "no backup".to_owned(),
        },
        // The choice is what was asked for; what is wrong there is said when it is made.
        Err(_) => "its backups cannot be read".to_owned(),
    };
    format!("{} (PostgreSQL {}, {last})", cluster.system_identifier, cluster.major)
}

fn unclear(choices: &[String], archive: &str) -> Failure {
    if choices.is_empty() {
        return Failure::failed(format!("the archive {archive} is empty")).with_hint(NOTHING_YET);
    }
    Failure::usage(format!("the archive {archive} holds several clusters: {}", choices.join(", ")))
        .with_hint("choose one with --cluster")
}

fn not_there(wanted: SystemIdentifier, named: bool, choices: &[String], archive: &str) -> Failure {
    let who = if named { "cluster" } else { "the data directory's cluster" };
    let not_there = format!("{who} {wanted} is not in the archive {archive}");
    if choices.is_empty() {
        // An archive in which nothing is yet is no sign of a mistake.
        return Failure::failed(format!("{not_there}: it is empty")).with_hint(NOTHING_YET);
    }
    Failure::new(Status::WrongCluster, format!("{not_there}: it holds {}", choices.join(", ")))
        .with_hint("name another cluster with --cluster, or correct the url in section [archive]")
}

const NOTHING_YET: &str =
    "no backup or WAL is there yet: take one with walpoint backup; or does the url name another place?";

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_archive::{DamagedObject, Layout};
    use walpoint_wal::SegmentSize;

    fn cluster(id: u64) -> Cluster {
        Cluster {
            system_identifier: SystemIdentifier(id),
            segment_size: SegmentSize::new(16 << 20).unwrap(),
            block_size: 8192,
            wal_block_size: 8192,
            major: 15,
        }
    }

    fn listing(sound: &[u64], unreadable: &[u64]) -> ClusterListing {
        let damaged = |id: &u64| {
            let key = Layout::new(SystemIdentifier(*id)).cluster();
            (SystemIdentifier(*id), DamagedObject { key, reason: "torn".into() })
        };
        ClusterListing {
            sound: sound.iter().map(|id| cluster(*id)).collect(),
            unreadable: unreadable.iter().map(damaged).collect(),
        }
    }

    #[test]
    fn where_none_is_named_the_only_one_is_meant() {
        let chosen =
            |sound: &[u64], unreadable: &[u64]| the_only_one(&listing(sound, unreadable)).map(|it| it.0);
        assert_eq!(chosen(&[2], &[]), Some(2));
        assert_eq!(chosen(&[1, 2], &[]), None);
        assert_eq!(chosen(&[], &[]), None);
        assert_eq!(chosen(&[2], &[3]), None, "the other one may be meant");
        assert_eq!(chosen(&[], &[3]), Some(3), "which then says what is wrong with it");
    }

    #[test]
    fn one_that_is_not_there_is_a_mistake_unless_nothing_is() {
        let status = |choices: &[String]| not_there(SystemIdentifier(3), true, choices, "a").status;
        assert_eq!(status(&["2".to_owned()]), Status::WrongCluster);
        assert_eq!(status(&[]), Status::Failed);
    }

    #[test]
    fn several_are_listed_and_an_empty_archive_is_no_mistake() {
        let choices = ["1 (PostgreSQL 15, no backup)".to_owned(), "2".to_owned()];
        let failure = unclear(&choices, "file:///a");
        assert!(failure.error.contains("1 (PostgreSQL 15, no backup), 2"), "{failure}");
        assert_eq!((failure.status, unclear(&[], "file:///a").status), (Status::Usage, Status::Failed));
    }
}
