//! Which of the archive's clusters a reading command means: the one named by `--cluster`, else the one in
//! the configured data directory, else the only one there is.

use crate::config::Settings;
use crate::data_directory;
use crate::exit::{Failure, Status};
use crate::open::{self, Patience};
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
    let place = store.describe();
    let wanted = match named.or_else(|| in_data_directory(settings)) {
        Some(wanted) => wanted,
        None => the_only_one(&Archive::clusters(store.as_ref()).await?, &place)?,
    };
    let archive = open::within(settings, store, wanted, keys)?;
    match archive.cluster().await? {
        Some(cluster) => Ok(Chosen { archive, cluster }),
        None => {
            let there = Archive::clusters(archive.store().as_ref()).await?;
            Err(not_there(wanted, named.is_some(), &there, &place))
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
fn the_only_one(there: &ClusterListing, archive: &str) -> Result<SystemIdentifier, Failure> {
    match identifiers(there).as_slice() {
        [only] => Ok(*only),
        [] => Err(Failure::failed(format!("the archive {archive} is empty"))
            .with_hint("no backup or WAL is there yet: take one with walpoint backup; or does the url name another place?")),
        _ => {
            Err(Failure::usage(format!("the archive {archive} holds several clusters: {}", list(there)))
                .with_hint("choose one with --cluster"))
        }
    }
}

fn not_there(wanted: SystemIdentifier, named: bool, there: &ClusterListing, archive: &str) -> Failure {
    let who = if named { "cluster" } else { "the data directory's cluster" };
    let is_empty = identifiers(there).is_empty();
    let holds = if is_empty { "it is empty".to_owned() } else { format!("it holds {}", list(there)) };
    // An archive in which nothing is yet is no sign of a mistake.
    let status = if is_empty { Status::Failed } else { Status::WrongCluster };
    let hint = if is_empty {
        "no backup or WAL is there yet: take one with walpoint backup; or does the url name another place?"
    } else {
        "name another cluster with --cluster, or correct the url in section [archive]"
    };
    Failure::new(status, format!("{who} {wanted} is not in the archive {archive}: {holds}")).with_hint(hint)
}

fn identifiers(there: &ClusterListing) -> Vec<SystemIdentifier> {
    let sound = there.sound.iter().map(|cluster| cluster.system_identifier);
    sound.chain(there.unreadable.iter().map(|(identifier, _)| *identifier)).collect()
}

fn list(there: &ClusterListing) -> String {
    let sound = there.sound.iter();
    let sound = sound.map(|cluster| format!("{} (PostgreSQL {})", cluster.system_identifier, cluster.major));
    let unreadable = there.unreadable.iter();
    let unreadable = unreadable.map(|(identifier, object)| {
        format!("{identifier} (its cluster.json cannot be read: {})", object.reason)
    });
    sound.chain(unreadable).collect::<Vec<_>>().join(", ")
}

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
        let chosen = |sound: &[u64], unreadable: &[u64]| {
            let only = the_only_one(&listing(sound, unreadable), "file:///a");
            only.map(|identifier| identifier.0).map_err(|failure| failure.status)
        };
        assert_eq!(chosen(&[2], &[]), Ok(2));
        assert_eq!(chosen(&[1, 2], &[]), Err(Status::Usage));
        assert_eq!(chosen(&[], &[]), Err(Status::Failed));
        assert_eq!(chosen(&[2], &[3]), Err(Status::Usage), "the other one may be meant");
        assert_eq!(chosen(&[], &[3]), Ok(3), "which then says what is wrong with it");
    }

    #[test]
    fn one_that_is_not_there_is_a_mistake_unless_nothing_is() {
        let status = |there: &[u64]| not_there(SystemIdentifier(3), true, &listing(there, &[]), "a").status;
        assert_eq!(status(&[2]), Status::WrongCluster);
        assert_eq!(status(&[]), Status::Failed);
    }

    #[test]
    fn several_are_listed() {
        let failure = the_only_one(&listing(&[1, 2], &[3]), "file:///a").unwrap_err();
        let listed = "1 (PostgreSQL 15), 2 (PostgreSQL 15), 3 (its cluster.json cannot be read: torn)";
        assert!(failure.error.contains(listed), "{failure}");
    }
}
