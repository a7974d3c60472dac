//! What the errors of recovery mean as statuses.

use super::{Failure, Status};
use walpoint_pitr::get::GetError;
use walpoint_pitr::plan::PlanError;
use walpoint_pitr::restore::RestoreError;

impl From<GetError> for Failure {
    fn from(error: GetError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        let status = match error {
            GetError::Archive(error) => return error.into(),
            GetError::WrongCluster { .. } | GetError::SegmentSize { .. } => Status::WrongCluster,
            GetError::Contradicted { .. } => Status::Damaged,
            GetError::Name(_) => Status::Usage,
            GetError::Gap { .. } | GetError::Io { .. } => Status::Failed,
        };
        Self::new(status, text).with_hint_of(hint)
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::Target(error) => error.into(),
            PlanError::Archive(error) => error.into(),
            PlanError::NeedsKey { .. } => Self::new(Status::Damaged, error.to_string()).with_hint(
                "set [encryption] identity_file; without it, targets that object metadata decide can be planned: \
                 --target-lsn, --target-immediate, --latest",
            ),
            PlanError::UnknownBackup { .. } => {
                Self::usage(error.to_string()).with_hint("walpoint list shows the backups")
            }
            PlanError::UnknownTimeline { .. } => {
                Self::usage(error.to_string()).with_hint("walpoint list --wal shows the timelines")
            }
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let (text, hint) = (error.to_string(), error.hint());
        let status = match error {
            RestoreError::Archive(error) => return error.into(),
            RestoreError::Refused(_) => Status::Refused,
            RestoreError::TablespaceMapping { .. }
            | RestoreError::Database { .. }
            | RestoreError::Setting(_) => Status::Usage,
            RestoreError::Damaged { .. } => Status::Damaged,
            RestoreError::Io { .. } | RestoreError::Interrupted(_) => Status::Failed,
        };
        Self::new(status, text).with_hint_of(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use walpoint_archive::{ArchiveError, BackupId, BackupKind, ObjectKey};
    use walpoint_pitr::data_dir::Refusal;
    use walpoint_pitr::target::Target;
    use walpoint_wal::{SystemIdentifier, TimelineId, Timestamp};

    fn text() -> String {
        "why".to_owned()
    }

    fn damaged() -> ArchiveError {
        ArchiveError::Damaged { key: "key".to_owned(), what: text() }
    }

    #[test]
    fn every_error_of_a_get_has_its_status() {
        let name: walpoint_wal::WalFileName = "000000010000000000000001".parse().unwrap();
        let key = ObjectKey::new("7/wal/key").unwrap();
        let (expected, found) = (SystemIdentifier(7), SystemIdentifier(8));
        for (error, status) in [
            (GetError::Archive(damaged()), Status::Damaged),
            (GetError::WrongCluster { what: text(), expected, found }, Status::WrongCluster),
            (GetError::SegmentSize { expected: 1, found: 2 }, Status::WrongCluster),
            (GetError::Contradicted { name, key, what: text() }, Status::Damaged),
            (GetError::Gap { name, proof: text(), followed_since: None }, Status::Failed),
            (
                GetError::Io { path: "/x".into(), verb: "write", source: io::Error::other("why") },
                Status::Failed,
            ),
        ] {
            let said = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status, failure.error.as_str()), (status, said.as_str()));
        }
    }

    #[test]
    fn every_error_of_a_plan_has_its_status_and_a_next_step() {
        let backup = BackupId::new(Timestamp(0), BackupKind::Full);
        for (error, status) in [
            (PlanError::NeedsKey { target: Target::Latest, why: text() }, Status::Damaged),
            (PlanError::UnknownBackup { backup, there: text() }, Status::Usage),
            (PlanError::UnknownTimeline { timeline: TimelineId::FIRST, there: text() }, Status::Usage),
            (PlanError::Archive(damaged()), Status::Damaged),
        ] {
            let failure = Failure::from(error);
            assert!(failure.status == status && failure.hint.is_some(), "{failure:?}");
        }
    }

    #[test]
    fn every_error_of_a_restore_has_its_status() {
        let io = || io::Error::other("why");
        for (error, status) in [
            (RestoreError::Archive(damaged()), Status::Damaged),
            (RestoreError::Refused(Refusal { why: text(), hint: text() }), Status::Refused),
            (RestoreError::TablespaceMapping { from: text(), why: text() }, Status::Usage),
            (RestoreError::Damaged { object: text(), what: text() }, Status::Damaged),
            (RestoreError::Io { path: "/x".into(), verb: "write", source: io() }, Status::Failed),
            (RestoreError::Interrupted(text()), Status::Failed),
        ] {
            let said = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.status, failure.error.as_str()), (status, said.as_str()));
        }
    }
}
