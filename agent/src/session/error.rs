//! Why a session could not do what it was asked, and the status that means.

use tokio_postgres::error::SqlState;

use crate::exit::{Failure, Status};

/// A failed conversation with the server. Display is the first line;
/// `hint` is the operator's next step.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The settings cannot be used as they are (status 2).
    #[error("{error}")]
    Usage { error: String, hint: Option<String> },
    /// No server answers there now (status 1).
    #[error("{error}")]
    Unreachable { error: String, hint: Option<String> },
    /// The server that answered is not the data directory's (status 4).
    #[error("{error}")]
    WrongCluster { error: String, hint: Option<String> },
    /// The server refused a statement (status 1, or 2 when a right is missing).
    #[error("could not {doing}: {error}")]
    Statement { doing: String, error: String, code: Option<SqlState> },
}

impl SessionError {
    pub(super) fn statement(doing: &str, error: &tokio_postgres::Error) -> SessionError {
        SessionError::Statement {
            doing: doing.to_owned(),
            error: explain(error),
            code: error.code().cloned(),
        }
    }

    /// Is a right missing, which trying again will not bring?
    fn lacks_right(&self) -> bool {
        matches!(self, SessionError::Statement { code: Some(code), .. }
            if *code == SqlState::INSUFFICIENT_PRIVILEGE)
    }

    fn status(&self) -> Status {
        match self {
            SessionError::Usage { .. } => Status::Usage,
            SessionError::WrongCluster { .. } => Status::WrongCluster,
            SessionError::Statement { .. } if self.lacks_right() => Status::Usage,
            SessionError::Unreachable { .. } | SessionError::Statement { .. } => Status::Failed,
        }
    }
}

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Failure {
        let failure = Failure::new(error.status(), error.to_string());
        let rights = error.lacks_right().then(|| RIGHTS.to_owned());
        match error {
            SessionError::Usage { hint, .. }
            | SessionError::Unreachable { hint, .. }
            | SessionError::WrongCluster { hint, .. } => failure.with_hint_of(hint),
            SessionError::Statement { .. } => failure.with_hint_of(rights),
        }
    }
}

/// The rights that backup and check need beyond a login: those that `postgres-conf/role.sql` grants.
const RIGHTS: &str = "connect as the role that postgres-conf/role.sql makes, as a superuser, or as a role with \
                      pg_monitor and the right to execute pg_switch_wal, pg_backup_start and pg_backup_stop \
                      (pg_start_backup and pg_stop_backup before PostgreSQL 15)";

/// The server's own words where there are some: the client library's Display
/// says only "db error".
pub(super) fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(server) = error.as_db_error() {
        let detail = server.detail().map(|text| format!(" ({text})")).unwrap_or_default();
        return format!("{}{detail}", server.message());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_that_are_asked_for_are_those_of_the_role_that_is_named() {
        let role = include_str!("../../../postgres-conf/role.sql");
        assert!(RIGHTS.contains("postgres-conf/role.sql"));
        let words = RIGHTS.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named: Vec<&str> = words.filter(|word| word.starts_with("pg_")).collect();
        assert_eq!(named.len(), 6, "{named:?}");
        for right in named {
            assert!(
                role.contains(&format!("GRANT {right} TO")) || role.contains(&format!("FUNCTION {right}(")),
                "{right}"
            );
        }
    }
}
