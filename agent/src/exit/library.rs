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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use walpoint_archive::ContentHash;
    use walpoint_wal::SystemIdentifier;

    fn key() -> String {
        "7/wal/key".to_owned()
    }

    #[test]
    fn what_the_store_says_may_pass_but_damage_does_not() {
        for kind in [
            StoreErrorKind::NotFound,
            StoreErrorKind::NoArchive,
            StoreErrorKind::Denied,
            StoreErrorKind::Transient,
            StoreErrorKind::Other,
        ] {
            let failure = Failure::from(ArchiveError::Store(StoreError::new("get", "key", kind, "detail")));
            assert_eq!(failure.status, Status::Failed, "{kind:?}");
        }
        let damaged = StoreError::new("get", "key", StoreErrorKind::Damaged, "detail");
        assert_eq!(Failure::from(damaged).status, Status::Damaged);
    }

    #[test]
    fn every_error_of_the_archive_has_its_status() {
        let name = "000000010000000000000001".parse().unwrap();
        let content = ContentHash::of(b"content").id();
        let io = || io::Error::other("why");
        for (error, status) in [
            (ArchiveError::Damaged { key: key(), what: "why".to_owned() }, Status::Damaged),
            (ArchiveError::WrongKey { key: key() }, Status::Damaged),
            (ArchiveError::NoKey { key: key() }, Status::Damaged),
            (ArchiveError::UnknownFormat { key: key(), version: 2 }, Status::Damaged),
            (ArchiveError::Conflict { name, ours: content, theirs: Vec::new() }, Status::Conflict),
            (ArchiveError::Ambiguous { name, contents: vec![content] }, Status::Conflict),
            (ArchiveError::Overtaken { name, what: "why".to_owned() }, Status::Conflict),
            (ArchiveError::NoSuchVariant { name, keep: content }, Status::Usage),
            (
                ArchiveError::WrongCluster { system_identifier: SystemIdentifier(7), what: "why".to_owned() },
                Status::WrongCluster,
            ),
            (ArchiveError::NoCluster(SystemIdentifier(7)), Status::Failed),
            (ArchiveError::SourceChanged { name }, Status::Failed),
            (ArchiveError::Io { verb: "read", what: "it".to_owned(), source: io() }, Status::Failed),
            (ArchiveError::Undescribable { key: key(), what: "why".to_owned() }, Status::Failed),
        ] {
            let said = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status, failure.error.as_str()), (status, said.as_str()));
        }
    }

    #[test]
    fn a_key_or_a_target_that_is_none_is_wrong_usage_with_a_hint() {
        let key = Failure::from(KeyError::TooMany(1000));
        assert!(key.status == Status::Usage && key.hint.is_some(), "{key:?}");
    }
}
