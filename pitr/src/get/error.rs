//! Why recovery must not go on.

use std::io;
use std::path::PathBuf;

use walpoint_archive::{ArchiveError, ObjectKey};
use walpoint_wal::{NameError, SystemIdentifier, Timestamp, WalFileName};

/// An answer that stops recovery. None of these says that there is no such file.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// The archive lacks a file that existed.
    #[error(
        "could not get \"{name}\": the archive does not have it, and it is not the end of the archive: {proof}"
    )]
    Gap {
        /// The file.
        name: WalFileName,
        /// How that is known.
        proof: String,
        /// When what follows it was stored, by the store's clock. What is young may be on its way.
        followed_since: Option<Timestamp>,
    },
    /// The archive could not give what it has, or could not be asked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// It belongs to another cluster.
    #[error("could not get it: {what} is of cluster {found}, not of {expected}")]
    WrongCluster {
        /// What was looked at.
        what: String,
        /// The cluster that asks.
        expected: SystemIdentifier,
        /// The cluster that it belongs to.
        found: SystemIdentifier,
    },
    /// The contract was made for segments of another size.
    #[error(
        "could not follow the recovery contract: it is for segments of {found} bytes, and the cluster has {expected}"
    )]
    SegmentSize {
        /// The cluster's, in bytes.
        expected: u64,
        /// The contract's, in bytes.
        found: u64,
    },
    /// The object is sound, but it is not the file that its name says.
    #[error("could not hand over \"{name}\": object \"{key}\" {what}")]
    Contradicted {
        /// The file.
        name: WalFileName,
        /// The object.
        key: ObjectKey,
        /// What its content says.
        what: String,
    },
    /// No segment of this cluster has such a name.
    #[error(transparent)]
    Name(NameError),
    /// The file could not be written.
    #[error("could not {verb} \"{}\": {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was to be done with it.
        verb: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl GetError {
    /// What to do next, when that can be said here.
    pub fn hint(&self) -> Option<String> {
        match self {
            GetError::Gap { name: WalFileName::History(_), .. } => Some(
                "push it from the cluster that made it, where it is in pg_wal: \
                 walpoint archive-push pg_wal/<name>; then start again"
                    .to_owned(),
            ),
            GetError::Gap { .. } => Some(
                "if a server still has it in pg_wal, push it from there and start again; \
                 otherwise ask walpoint window for what can be reached"
                    .to_owned(),
            ),
            GetError::WrongCluster { .. } => {
                Some("check which data directory and which archive the configuration names".to_owned())
            }
            GetError::Contradicted { .. } => {
                Some("the archive was changed by hand: compare walpoint list --wal".to_owned())
            }
            GetError::Archive(error) => error.hint(),
            GetError::SegmentSize { .. } => Some(
                "the contract is another cluster's, or the segment size was changed after the restore: \
                 restore again"
                    .to_owned(),
            ),
            GetError::Io { .. } => {
                Some("can this user write to pg_wal, and is its disk full? then start again".to_owned())
            }
            GetError::Name(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_the_servers_log_is_told_the_next_step() {
        let io = GetError::Io {
            path: "pg_wal/x".into(),
            verb: "write",
            source: io::ErrorKind::StorageFull.into(),
        };
        assert!(io.hint().is_some_and(|hint| hint.contains("start again")));
        let size = GetError::SegmentSize { expected: 1 << 20, found: 1 << 24 };
        assert!(size.hint().is_some_and(|hint| hint.contains("restore again")));
    }
}
