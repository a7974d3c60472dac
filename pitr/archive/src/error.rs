//! Why the archive could not do what it was asked for. A variant exists where
//! the caller's exit status or the operator's next step differs.

use walpoint_wal::{SystemIdentifier, Timestamp, WalFileName};

use crate::content::ContentId;
use crate::envelope::OpenError;
use crate::facts::{FORMAT, FactsError};
use crate::store::{MetadataError, StoreError, StoreErrorKind};
use crate::writer_id::WriterId;

/// An error of the archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object is not what was stored.
    #[error("the object \"{key}\" is damaged: {what}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// An object is encrypted to other keys than those at hand.
    #[error("could not decrypt \"{key}\": none of the identities opens it")]
    WrongKey {
        /// Its key.
        key: String,
    },
    /// An object is encrypted, and no key is at hand.
    #[error("could not decrypt \"{key}\": no identity file is configured")]
    NoKey {
        /// Its key.
        key: String,
    },
    /// An object was written by a later version.
    #[error(
        "could not read \"{key}\": it has format {version}, and this program knows formats up to {FORMAT}"
    )]
    UnknownFormat {
        /// Its key.
        key: String,
        /// Its format.
        version: u32,
    },
    /// The name is taken by other content.
    #[error("could not archive \"{name}\": {}", conflict_text(theirs))]
    Conflict {
        /// The file.
        name: WalFileName,
        /// What was to be archived.
        ours: ContentId,
        /// What stands in its way. Empty when only our own was refused.
        theirs: Vec<Rival>,
    },
    /// The archive holds several variants of a file and cannot tell which is right.
    #[error("could not choose between {} variants of \"{name}\": {}", contents.len(), listed(contents))]
    Ambiguous {
        /// The file.
        name: WalFileName,
        /// Its variants.
        contents: Vec<ContentId>,
    },
    /// There is no variant with the content that was to be kept.
    #[error("could not resolve \"{name}\": the archive has no variant {keep} of it")]
    NoSuchVariant {
        /// The file.
        name: WalFileName,
        /// What was asked for.
        keep: ContentId,
    },
    /// Somebody else changed what is there while a person decided.
    #[error("could not resolve \"{name}\": {what}")]
    Overtaken {
        /// The file.
        name: WalFileName,
        /// What is there now.
        what: String,
    },
    /// The archive, or a file, belongs to another cluster.
    #[error("the archive's cluster {system_identifier} is another one: {what}")]
    WrongCluster {
        /// The identifier in the archive.
        system_identifier: SystemIdentifier,
        /// What differs.
        what: String,
    },
    /// The archive does not know this cluster.
    #[error("the archive holds nothing of the cluster with system identifier {0}")]
    NoCluster(SystemIdentifier),
    /// The file that was to be archived changed while it was read.
    #[error("could not archive \"{name}\": its content changed while it was read")]
    SourceChanged {
        /// The file.
        name: WalFileName,
    },
    /// A file beside the archive could not be read or written.
    #[error("could not {verb} {what}: {source}")]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// Which file.
        what: String,
        /// Why.
        source: std::io::Error,
    },
    /// Metadata or a summary could not be made. A bug, or a limit of ours.
    #[error("could not describe \"{key}\": {what}")]
    Undescribable {
        /// The object.
        key: String,
        /// Why.
        what: String,
    },
}

/// A variant that stands in the way of another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rival {
    /// Its content id.
    pub content: ContentId,
    /// Who stored it, when its metadata can be read.
    pub writer: Option<WriterId>,
    /// When it was stored, by the store's clock.
    pub stored_at: Option<Timestamp>,
    /// Whether it was refused too.
    pub refused: bool,
}

fn conflict_text(theirs: &[Rival]) -> String {
    let listed: Vec<_> = theirs.iter().map(rival_text).collect();
    match listed.is_empty() {
        true => "this content was refused under this name before".to_owned(),
        false => format!("the archive already has other content under this name: {}", listed.join("; ")),
    }
}

fn rival_text(rival: &Rival) -> String {
    let writer = rival.writer.map_or_else(|| "an unknown writer".to_owned(), |id| id.to_string());
    let at = rival.stored_at.map(|time| format!(" on {time}")).unwrap_or_default();
    let refused = if rival.refused { ", refused too" } else { "" };
    format!("{}, written by {writer}{at}{refused}", rival.content)
}

fn listed(contents: &[ContentId]) -> String {
    let listed: Vec<_> = contents.iter().map(ToString::to_string).collect();
    listed.join(", ")
}

impl ArchiveError {
    /// The next step for the operator.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Store(error) => return error.hint.clone(),
            Self::Conflict { name, .. } => format!(
                "is another server archiving with the same system identifier? clusters born of one image need an \
                 archive url of their own; \
                 compare with: walpoint list --wal {name}; decide with: walpoint resolve {name} --keep CONTENT_ID"
            ),
            Self::Ambiguous { name, .. }
            | Self::NoSuchVariant { name, .. }
            | Self::Overtaken { name, .. } => format!(
                "compare with: walpoint list --wal {name}; decide with: walpoint resolve {name} --keep CONTENT_ID"
            ),
            Self::WrongCluster { .. } => {
                "clusters made from one image share a system identifier, and pg_resetwal --wal-segsize \
                 keeps it: give each an archive url of its own"
                    .to_owned()
            }
            Self::NoCluster(_) => "check [archive] url; has this cluster archived anything yet?".to_owned(),
            Self::NoKey { .. } => "set [encryption] identity_file".to_owned(),
            Self::WrongKey { .. } => {
                "add the identity it was encrypted to to the file that [encryption] identity_file names"
                    .to_owned()
            }
            Self::UnknownFormat { .. } => {
                "use the version of walpoint that wrote it, or a later one".to_owned()
            }
            Self::Damaged { .. } => {
                "if the store keeps versions or replicas, put an intact copy in its place".to_owned()
            }
            Self::SourceChanged { .. } => {
                "PostgreSQL offers it again by itself; called by hand, name a file that is finished".to_owned()
            }
            Self::Io { .. } => {
                "can this user reach the file, and is its disk full? the kernel log says more of a disk that fails"
                    .to_owned()
            }
            Self::Undescribable { .. } => return None,
        })
    }

    /// True when trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::SourceChanged { .. } | Self::Io { .. } => true,
            _ => false,
        }
    }

    /// True when the archive answered that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_not_found())
    }

    /// True when an object is there and is not what was stored.
    pub fn is_damaged(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Store(error) => error.kind == StoreErrorKind::Damaged,
            _ => false,
        }
    }

    pub(crate) fn damaged(key: impl ToString, what: impl ToString) -> Self {
        Self::Damaged { key: key.to_string(), what: what.to_string() }
    }

    pub(crate) fn from_facts(key: impl ToString, error: FactsError) -> Self {
        match error {
            FactsError::UnknownFormat(version) => Self::UnknownFormat { key: key.to_string(), version },
            other => Self::damaged(key, other),
        }
    }

    pub(crate) fn from_metadata(key: impl ToString, error: MetadataError) -> Self {
        Self::Undescribable { key: key.to_string(), what: error.to_string() }
    }

    /// What went wrong with opening an object; an I/O error is the writer's.
    pub(crate) fn from_open(key: impl ToString, error: OpenError) -> Self {
        let key = key.to_string();
        match error {
            OpenError::Damaged(what) => Self::Damaged { key, what },
            OpenError::TooLarge { .. } => Self::Damaged { key, what: error.to_string() },
            OpenError::WrongKey => Self::WrongKey { key },
            OpenError::NoKey => Self::NoKey { key },
            OpenError::Io(source) => {
                Self::Io { verb: "write", what: format!("the content of \"{key}\""), source }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_the_writer_the_time_and_the_way_out() {
        let rival = Rival {
            content: "0123456789abcdef".parse().unwrap(),
            writer: Some("7f3a00000000beef".parse().unwrap()),
            stored_at: Some(Timestamp(848_526_300_000_000)),
            refused: false,
        };
        let error = ArchiveError::Conflict {
            name: "00000001000000A30000004F".parse().unwrap(),
            ours: "fedcba9876543210".parse().unwrap(),
            theirs: vec![rival],
        };
        assert_eq!(
            error.to_string(),
            "could not archive \"00000001000000A30000004F\": the archive already has other content under \
             this name: 0123456789abcdef, written by 7f3a00000000beef on 2026-11-20 21:45:00.000000+00"
        );
        let hint = error.hint().unwrap();
        assert!(hint.contains("walpoint resolve 00000001000000A30000004F --keep"), "{hint}");
        let name = "00000001000000A30000004F".parse().unwrap();
        let source = std::io::ErrorKind::StorageFull.into();
        let io = ArchiveError::Io { verb: "write", what: "x".to_owned(), source };
        assert!(io.hint().is_some() && ArchiveError::SourceChanged { name }.hint().is_some());
        assert!(hint.contains("born of one image need an archive url of their own"), "{hint}");
    }
}
