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
            RestoreError::TablespaceMapping { .. } | RestoreError::Setting(_) => Status::Usage,
            RestoreError::Damaged { .. } => Status::Damaged,
            RestoreError::Io { .. } | RestoreError::Interrupted(_) => Status::Failed,
        };
        Self::new(status, text).with_hint_of(hint)
    }
}
