//! What the libraries' errors mean as statuses.

use super::{Failure, Status};
use walpoint_archive::ArchiveError;
use walpoint_archive::encrypt::KeyError;
use walpoint_archive::store::{StoreError, StoreErrorKind};
use walpoint_pitr::target::TargetError;

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let status = match error.kind {
            StoreErrorKind::Damaged => Status::Damaged,
            // A missing bucket may be a disk that is not mounted, a refusal a key that is being renewed.
            StoreErrorKind::NotFound
            | StoreErrorKind::NoArchive
            | StoreErrorKind::Denied
            | StoreErrorKind::Transient
            | StoreErrorKind::Other => Status::Failed,
        };
        Self::new(status, error.to_string()).with_hint_of(error.hint)
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        let status = match error {
            ArchiveError::Store(error) => return error.into(),
            ArchiveError::Damaged { .. }
            | ArchiveError::WrongKey { .. }
            | ArchiveError::NoKey { .. }
            | ArchiveError::UnknownFormat { .. } => Status::Damaged,
            ArchiveError::Conflict { .. }
            | ArchiveError::Ambiguous { .. }
            | ArchiveError::Overtaken { .. } => Status::Conflict,
            ArchiveError::NoSuchVariant { .. } => Status::Usage,
            ArchiveError::WrongCluster { .. } => Status::WrongCluster,
            ArchiveError::NoCluster(_)
            | ArchiveError::SourceChanged { .. }
            | ArchiveError::Io { .. }
            | ArchiveError::Undescribable { .. } => Status::Failed,
        };
        Self::new(status, text).with_hint_of(hint)
    }
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Self::usage(error.to_string()).with_hint(error.hint())
    }
}

impl From<TargetError> for Failure {
    fn from(error: TargetError) -> Self {
        Self::usage(error.to_string()).with_hint_of(error.hint())
    }
}
