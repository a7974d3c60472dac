//! The low-level backup interface of PostgreSQL: begin and end, on one
//! session, non-exclusive. Its end, however it comes, ends the backup too.

use walpoint_wal::lsn::Lsn;
use walpoint_wal::timestamp::Timestamp;

use super::{Session, SessionError};

/// A moment by the server's own clock and its place in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub lsn: Lsn,
    pub time: Timestamp,
}

/// What the server hands out at the end of a backup.
#[derive(Debug, Clone)]
pub struct StoppedBackup {
    pub position: Position,
    /// `backup_label`, to be stored byte by byte as it is.
    pub label_file: String,
    /// `tablespace_map`; empty when there are no tablespaces.
    pub tablespace_map: String,
}

impl Session {
    /// Begins a non-exclusive base backup with a checkpoint made at once, and
    /// returns its start position. `label` must hold no newline.
    pub async fn start_backup(&self, label: &str) -> Result<Position, SessionError> {
        let doing = "start the base backup";
        let time = self.clock(doing).await?;
        // PostgreSQL 15 renamed the functions and dropped the exclusive mode.
        let sql = if self.server.version_num >= 150_000 {
            "SELECT pg_backup_start($1, true)::text"
        } else {
            "SELECT pg_start_backup($1, true, false)::text"
        };
        let row = self.row(doing, sql, &[&label]).await?;
        Ok(Position { lsn: parse_lsn(doing, row.get(0))?, time })
    }

    /// Ends the backup. Does not wait for the archiver: the caller looks into
    /// the archive itself, for every segment and not only for the last.
    pub async fn stop_backup(&self) -> Result<StoppedBackup, SessionError> {
        let doing = "stop the base backup";
        let sql = if self.server.version_num >= 150_000 {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)"
        } else {
            "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
        };
        let row = self.row(doing, sql, &[]).await?;
        let lsn = parse_lsn(doing, row.get(0))?;
        let time = self.clock(doing).await?;
        let text = |column: usize| row.get::<_, Option<String>>(column).unwrap_or_default();
        Ok(StoppedBackup { position: Position { lsn, time }, label_file: text(1), tablespace_map: text(2) })
    }

    /// The server's clock.
    pub async fn clock(&self, doing: &str) -> Result<Timestamp, SessionError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let row = self.row(doing, sql, &[]).await?;
        let micros: i64 = row.get(0);
        Timestamp::from_unix_micros(micros).ok_or_else(|| SessionError::Statement {
            doing: doing.to_owned(),
            error: format!("the server's clock says {micros} microseconds since 1970"),
            code: None,
        })
    }
}

pub(super) fn parse_lsn(doing: &str, text: Option<String>) -> Result<Lsn, SessionError> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|_| SessionError::Statement {
        doing: doing.to_owned(),
        error: format!("the server answered \"{text}\" where an LSN was expected"),
        code: None,
    })
}
