//! Which of the archive's clusters a reading command means: the one named by `--cluster`, else the one in
//! the configured data directory, else the only one there is.

use crate::config::Settings;
use crate::data_directory;
use crate::exit::{Failure, Status};
use crate::open::{self, Patience};
use std::sync::Arc;
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
    let archive_of = |cluster: &Cluster| {
        open::within(settings, Arc::clone(&store), cluster.system_identifier, keys.clone())
    };
    match choose(named, here, &there) {
        Ok(cluster) => Ok(Chosen { archive: archive_of(&cluster)?, cluster }),
        Err(unclear) => {
            let mut choices = Vec::new();
            for cluster in &there {
                choices.push(choice(cluster, &archive_of(cluster)?).await);
            }
            Err(unclear.told(&choices, &store.describe()))
        }
    }
}

/// A cluster, and by its last backup which of several that is.
async fn choice(cluster: &Cluster, archive: &Archive) -> String {
    let last = match archive.backups().await {
        Ok(listing) => match listing.sound.iter().max_by_key(|backup| backup.stop.time) {
            Some(backup) => format!("last backup {}", backup.stop.time),
            None => "no backup".to_owned(),
        },
        // The choice is what was asked for; what is wrong there is said when it is made.
        Err(_) => "its backups cannot be read".to_owned(),
    };
    format!("{} (PostgreSQL {}, {last})", cluster.system_identifier, cluster.major)
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

/// Why no cluster is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unclear {
    /// The archive holds none.
    Empty,
    /// It holds several, and none is named.
    Several,
    /// The cluster that is named is not in it.
    NamedIsNotThere(SystemIdentifier),
    /// The data directory's cluster is not in it.
    OwnIsNotThere(SystemIdentifier),
}

fn choose(
    named: Option<SystemIdentifier>,
    here: Option<SystemIdentifier>,
    there: &[Cluster],
) -> Result<Cluster, Unclear> {
    let find = |wanted| there.iter().find(|cluster| cluster.system_identifier == wanted).copied();
    match (named, here, there) {
        (Some(named), _, _) => find(named).ok_or(Unclear::NamedIsNotThere(named)),
        (None, Some(here), _) => find(here).ok_or(Unclear::OwnIsNotThere(here)),
        (None, None, [only]) => Ok(*only),
        (None, None, []) => Err(Unclear::Empty),
        (None, None, _) => Err(Unclear::Several),
    }
}

impl Unclear {
    /// As a failure that shows the choices.
    fn told(self, choices: &[String], archive: &str) -> Failure {
        let (who, wanted) = match self {
            Self::Empty => {
                return Failure::failed(format!("the archive {archive} is empty")).with_hint(NOTHING_YET);
            }
            Self::Several => {
                let choices = choices.join(", ");
                return Failure::usage(format!("the archive {archive} holds several clusters: {choices}"))
                    .with_hint("choose one with --cluster");
            }
            Self::NamedIsNotThere(wanted) => ("cluster", wanted),
            Self::OwnIsNotThere(wanted) => ("the data directory's cluster", wanted),
        };
        let not_there = format!("{who} {wanted} is not in the archive {archive}");
        if choices.is_empty() {
            // An archive in which nothing is yet is no sign of a mistake.
            return Failure::failed(format!("{not_there}: it is empty")).with_hint(NOTHING_YET);
        }
        Failure::new(Status::WrongCluster, format!("{not_there}: it holds {}", choices.join(", ")))
            .with_hint("name another cluster with --cluster, or correct the url in section [archive]")
    }
}

const NOTHING_YET: &str =
    "no backup or WAL is there yet: take one with walpoint backup; or does the url name another place?";

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
        let choices: Vec<String> =
            there.iter().map(|cluster| cluster.system_identifier.to_string()).collect();
        choose(named.map(SystemIdentifier), here.map(SystemIdentifier), &there)
            .map(|cluster| cluster.system_identifier.0)
            .map_err(|unclear| unclear.told(&choices, "file:///a").status)
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
        let choices = ["1 (PostgreSQL 15, no backup)".to_owned(), "2".to_owned()];
        let failure = Unclear::Several.told(&choices, "file:///a");
        assert!(failure.error.contains("1 (PostgreSQL 15, no backup), 2"), "{failure}");
    }
}
