//! Which of the archive's clusters a reading command means: the one named by `--cluster`, else the one in
//! the configured data directory, else the only one there is.

use crate::config::Settings;
use crate::data_directory;
use crate::exit::{Failure, Status};
use crate::open::{self, Patience};
use walpoint_archive::{Archive, Cluster, KeyRing};
use walpoint_wal::SystemIdentifier;

/// An archive, and the cluster in it that is meant.
#[derive(Debug)]
pub struct Chosen {
    /// The archive of that cluster.
    pub archive: Archive,
    /// The cluster.
    pub cluster: Cluster,
}

/// Opens the archive for a command that reads.
///
/// # Errors
/// Status 2 when several clusters are there and none is named; status 4 when the one that is named, or that
/// the data directory holds, is not in the archive; status 1 when the archive is empty or away.
pub async fn open(settings: &Settings, named: Option<SystemIdentifier>) -> Result<Chosen, Failure> {
    let keys = KeyRing::from_config(&settings.encryption)?;
    let store = open::store(settings, Patience::Question).await?;
    let there = Archive::clusters(store.as_ref()).await?;
    let here = match named {
        Some(_) => None,
        None => in_data_directory(settings),
    };
    let cluster = choose(named, here, &there, &store.describe())?;
    let archive = open::within(settings, store, cluster.system_identifier, keys)?;
    Ok(Chosen { archive, cluster })
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

fn choose(
    named: Option<SystemIdentifier>,
    here: Option<SystemIdentifier>,
    there: &[Cluster],
    archive: &str,
) -> Result<Cluster, Failure> {
    if let Some(wanted) = named.or(here) {
        let found = there.iter().find(|cluster| cluster.system_identifier == wanted);
        return found.copied().ok_or_else(|| not_there(wanted, named.is_some(), there, archive));
    }
    match there {
        [only] => Ok(*only),
        [] => Err(Failure::failed(format!("the archive {archive} is empty"))
            .with_hint("no backup or WAL is there yet: take one with walpoint backup; or does the url name another place?")),
        several => {
            Err(Failure::usage(format!("the archive {archive} holds several clusters: {}", list(several)))
                .with_hint("choose one with --cluster"))
        }
    }
}

fn not_there(wanted: SystemIdentifier, named: bool, there: &[Cluster], archive: &str) -> Failure {
    let who = if named { "cluster" } else { "the data directory's cluster" };
    let holds = if there.is_empty() { "it is empty".to_owned() } else { format!("it holds {}", list(there)) };
    // An archive in which nothing is yet is no sign of a mistake.
    let status = if there.is_empty() { Status::Failed } else { Status::WrongCluster };
    let hint = if there.is_empty() {
        "no backup or WAL is there yet: take one with walpoint backup; or does the url name another place?"
    } else {
        "name another cluster with --cluster, or correct the url in section [archive]"
    };
    Failure::new(status, format!("{who} {wanted} is not in the archive {archive}: {holds}")).with_hint(hint)
}

fn list(clusters: &[Cluster]) -> String {
    let one = |cluster: &Cluster| format!("{} (PostgreSQL {})", cluster.system_identifier, cluster.major);
    clusters.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn chosen(named: Option<u64>, here: Option<u64>, there: &[u64]) -> Result<u64, Status> {
        let there: Vec<Cluster> = there.iter().map(|id| cluster(*id)).collect();
        choose(named.map(SystemIdentifier), here.map(SystemIdentifier), &there, "file:///a")
            .map(|cluster| cluster.system_identifier.0)
            .map_err(|failure| failure.status)
    }

    #[test]
    fn the_named_one_then_the_data_directory_then_the_only_one() {
        assert_eq!(chosen(Some(2), Some(1), &[1, 2]), Ok(2));
        assert_eq!(chosen(None, Some(1), &[1, 2]), Ok(1));
        assert_eq!(chosen(None, None, &[2]), Ok(2));
        assert_eq!(chosen(None, None, &[1, 2]), Err(Status::Usage));
        assert_eq!(chosen(None, None, &[]), Err(Status::Failed));
        assert_eq!(chosen(Some(3), None, &[1, 2]), Err(Status::WrongCluster));
        assert_eq!(chosen(None, Some(3), &[2]), Err(Status::WrongCluster));
        assert_eq!(chosen(None, Some(3), &[]), Err(Status::Failed));
    }

    #[test]
    fn several_are_listed() {
        let failure = choose(None, None, &[cluster(1), cluster(2)], "file:///a").unwrap_err();
        assert!(failure.error.contains("1 (PostgreSQL 15), 2 (PostgreSQL 15)"), "{failure}");
    }
}
