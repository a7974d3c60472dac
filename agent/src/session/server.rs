//! What the server says about itself.

use std::path::{Path, PathBuf};

use tokio_postgres::Client;
use walpoint_wal::control_file::ControlFile;
use walpoint_wal::system_identifier::SystemIdentifier;
use walpoint_wal::timestamp::Timestamp;

use super::SessionError;

/// Settings and identity of a running server, as of the session's start.
#[derive(Debug, Clone)]
pub struct Server {
    /// `server_version_num`, for example 150020.
    pub version_num: i32,
    pub system_identifier: SystemIdentifier,
    pub data_directory: PathBuf,
    pub config_file: Option<PathBuf>,
    pub hba_file: Option<PathBuf>,
    pub ident_file: Option<PathBuf>,
    pub is_in_recovery: bool,
    /// `off`, `on` or `always`.
    pub archive_mode: String,
    /// Empty when archiving has no command: `(disabled)` is read as empty.
    pub archive_command: String,
    /// PostgreSQL 15 and later; takes the place of the command when set.
    pub archive_library: String,
    /// Bytes.
    pub wal_segment_size: u64,
    /// Where 13 and 14 keep their temporary statistics.
    pub stats_temp_directory: Option<PathBuf>,
    /// Names of the enabled subscriptions, over all databases.
    pub subscriptions: Vec<String>,
    /// Whether what it calls flushed has been told to the disk.
    pub has_fsync: bool,
    /// When it started, by its own clock: no two runs of a server say the same. A virtual machine that is put back
    /// with its memory does; its WAL then conflicts with what it archived before.
    pub started: Timestamp,
    /// As it runs with it; on a standby `pg_control` has its primary's.
    pub wal_log_hints: bool,
}

const QUESTION: &str = "SELECT current_setting('server_version_num')::int, \
    (SELECT system_identifier::text FROM pg_control_system()), \
    current_setting('data_directory'), current_setting('config_file'), \
    current_setting('hba_file'), current_setting('ident_file'), \
    pg_is_in_recovery(), current_setting('archive_mode'), \
    current_setting('archive_command'), current_setting('archive_library', true), \
    (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'), \
    current_setting('stats_temp_directory', true), \
    ARRAY(SELECT subname::text FROM pg_subscription WHERE subenabled ORDER BY 1), \
    current_setting('fsync') = 'on', \
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint, \
    current_setting('wal_log_hints')::bool";

impl Server {
    pub(super) async fn ask(client: &Client) -> Result<Server, SessionError> {
        let doing = "read the server's settings";
        let row =
            client.query_one(QUESTION, &[]).await.map_err(|error| SessionError::statement(doing, &error))?;
        let text = |column: usize| row.get::<_, Option<String>>(column).unwrap_or_default();
        let path = |column: usize| Some(text(column)).filter(|p| !p.is_empty()).map(PathBuf::from);
        let identifier = text(1);
        // The server prints the identifier as a signed number.
        let signed: i64 = identifier.parse().map_err(|_| SessionError::Statement {
            doing: doing.to_owned(),
            error: format!("the server says that its system identifier is \"{identifier}\""),
            code: None,
        })?;
        let command = text(8);
        Ok(Server {
            version_num: row.get(0),
            system_identifier: SystemIdentifier(signed.cast_unsigned()),
            data_directory: PathBuf::from(text(2)),
            config_file: path(3),
            hba_file: path(4),
            ident_file: path(5),
            is_in_recovery: row.get(6),
            archive_mode: text(7),
            archive_command: if command == "(disabled)" { String::new() } else { command },
            archive_library: text(9),
            wal_segment_size: row.get::<_, i64>(10).cast_unsigned(),
            stats_temp_directory: path(11),
            subscriptions: row.get(12),
            has_fsync: row.get(13),
            started: started(doing, row.get(14))?,
            wal_log_hints: row.get(15),
        })
    }

    /// Does somebody archive?
    pub fn has_archiver(&self) -> bool {
        !(self.archive_command.trim().is_empty() && self.archive_library.is_empty())
    }

    /// Is it walpoint? A wrapper that names the hook passes for it.
    pub fn archives_with_walpoint(&self) -> bool {
        self.archive_library.is_empty() && self.archive_command.contains("archive-push")
    }

    /// Is this the server of the data directory whose `pg_control` is given?
    pub fn must_own(&self, data_directory: &Path, control: &ControlFile) -> Result<(), SessionError> {
        if self.system_identifier == control.system_identifier {
            return Ok(());
        }
        Err(SessionError::WrongCluster {
            error: format!(
                "could not use the server that answered: its system identifier is {}, but that of \"{}\" is {}",
                self.system_identifier,
                data_directory.display(),
                control.system_identifier
            ),
            hint: Some(
                "do [postgres] connection and [postgres] data_directory name the same cluster?".into(),
            ),
        })
    }
}

/// No answer that cannot be read may pass for another one: they would be one run.
fn started(doing: &str, micros: i64) -> Result<Timestamp, SessionError> {
    Timestamp::from_unix_micros(micros).ok_or_else(|| SessionError::Statement {
        doing: doing.to_owned(),
        error: format!("the server says that it was started {micros} microseconds after 1970"),
        code: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_cannot_be_told_is_an_error_and_not_any_moment() {
        assert!(started("read", 1_700_000_000_000_000).is_ok());
        assert!(matches!(started("read", i64::MIN), Err(SessionError::Statement { .. })));
    }
}
