//! The state of archiving by SQL: the archiver's statistics, the position of
//! WAL, and the statements by which walpoint moves them.

use walpoint_wal::lsn::Lsn;
use walpoint_wal::timeline::TimelineId;
use walpoint_wal::timestamp::Timestamp;

use super::online_backup::parse_lsn;
use super::{Session, SessionError};

/// `pg_stat_archiver`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiverStatistics {
    pub archived_count: i64,
    pub last_archived_wal: Option<String>,
    pub last_archived_time: Option<Timestamp>,
    pub failed_count: i64,
    pub last_failed_wal: Option<String>,
    pub last_failed_time: Option<Timestamp>,
}

/// A file of `pg_wal` or of its `archive_status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalFile {
    pub name: String,
    pub modified: Timestamp,
}

impl ArchiverStatistics {
    /// Is the newest thing that the archiver reported a failure?
    pub fn is_failing(&self) -> bool {
        match (self.last_failed_time, self.last_archived_time) {
            (Some(failed), Some(archived)) => failed > archived,
            (failed, None) => failed.is_some(),
            (None, Some(_)) => false,
        }
    }
}

impl Session {
    /// Names of the databases with these OIDs.
    pub async fn databases(&self, oids: &[u32]) -> Result<Vec<String>, SessionError> {
        let sql = "SELECT ARRAY(SELECT datname::text FROM pg_database WHERE oid = ANY($1::oid[]) ORDER BY 1)";
        Ok(self.row("read pg_database", sql, &[&oids]).await?.get(0))
    }

    pub async fn archiver_statistics(&self) -> Result<ArchiverStatistics, SessionError> {
        let sql = "SELECT archived_count, last_archived_wal, \
             (extract(epoch FROM last_archived_time) * 1000000)::bigint, \
             failed_count, last_failed_wal, \
             (extract(epoch FROM last_failed_time) * 1000000)::bigint \
             FROM pg_stat_archiver";
        let row = self.row("read pg_stat_archiver", sql, &[]).await?;
        let time = |column: usize| row.get::<_, Option<i64>>(column).and_then(Timestamp::from_unix_micros);
        Ok(ArchiverStatistics {
            archived_count: row.get(0),
            last_archived_wal: row.get(1),
            last_archived_time: time(2),
            failed_count: row.get(3),
            last_failed_wal: row.get(4),
            last_failed_time: time(5),
        })
    }

    /// Where the server inserts WAL next, and on which timeline. Not to be
    /// asked of a server in recovery.
    pub async fn wal_position(&self) -> Result<(Lsn, TimelineId), SessionError> {
        let doing = "read the current WAL position";
        let sql = "SELECT lsn::text, left(pg_walfile_name(lsn), 8) \
             FROM pg_current_wal_insert_lsn() AS lsn";
        let row = self.row(doing, sql, &[]).await?;
        Ok((parse_lsn(doing, row.get(0))?, parse_timeline(doing, row.get(1))?))
    }

    /// The timeline of the last checkpoint: what a standby follows.
    pub async fn checkpoint_timeline(&self) -> Result<TimelineId, SessionError> {
        let doing = "read the timeline";
        let sql = "SELECT to_hex(timeline_id) FROM pg_control_checkpoint()";
        let row = self.row(doing, sql, &[]).await?;
        parse_timeline(doing, row.get(0))
    }

    /// Is there a recovery target and no primary to follow? So a restored copy is set up.
    pub async fn recovers_to_a_target(&self) -> Result<bool, SessionError> {
        let sql = "SELECT current_setting('primary_conninfo') = '' AND EXISTS (SELECT FROM pg_settings \
             WHERE name IN ('recovery_target', 'recovery_target_lsn', 'recovery_target_name', \
             'recovery_target_time', 'recovery_target_xid') AND setting <> '')";
        Ok(self.row("read the recovery target", sql, &[]).await?.get(0))
    }

    /// Where the last checkpoint's redo begins, as the server's own control file says.
    pub async fn checkpoint_redo(&self) -> Result<Lsn, SessionError> {
        let doing = "read the last checkpoint";
        let row = self.row(doing, "SELECT redo_lsn::text FROM pg_control_checkpoint()", &[]).await?;
        parse_lsn(doing, row.get(0))
    }

    /// Number of files with a `.ready`, and the one that waits longest: its
    /// name and since when.
    pub async fn waiting_files(&self) -> Result<(u64, Option<(String, Timestamp)>), SessionError> {
        let sql = "SELECT left(name, -6), (extract(epoch FROM modification) * 1000000)::bigint, \
             count(*) OVER () FROM pg_ls_archive_statusdir() \
             WHERE name LIKE '%.ready' ORDER BY modification, name LIMIT 1";
        let doing = "list the files that wait to be archived";
        let rows = self.client.query(sql, &[]).await;
        let rows = rows.map_err(|error| SessionError::statement(doing, &error))?;
        let Some(row) = rows.first() else { return Ok((0, None)) };
        let count: i64 = row.get(2);
        let since = Timestamp::from_unix_micros(row.get(1));
        Ok((count.unsigned_abs(), since.map(|since| (row.get(0), since))))
    }

    /// The files of `pg_wal`.
    pub async fn wal_files(&self) -> Result<Vec<WalFile>, SessionError> {
        self.files("list pg_wal", "pg_ls_waldir()").await
    }

    /// The files of `pg_wal/archive_status`: `.ready` and `.done`.
    pub async fn archive_statuses(&self) -> Result<Vec<WalFile>, SessionError> {
        self.files("list the state of archiving", "pg_ls_archive_statusdir()").await
    }

    async fn files(&self, doing: &str, function: &str) -> Result<Vec<WalFile>, SessionError> {
        let sql =
            format!("SELECT name, (extract(epoch FROM modification) * 1000000)::bigint FROM {function}");
        let rows = self.client.query(&sql, &[]).await;
        let rows = rows.map_err(|error| SessionError::statement(doing, &error))?;
        let file = |row: &tokio_postgres::Row| {
            let modified = Timestamp::from_unix_micros(row.get(1))?;
            Some(WalFile { name: row.get(0), modified })
        };
        Ok(rows.iter().filter_map(file).collect())
    }

    /// Ends the segment that is being written, also on an idle server, where
    /// `pg_switch_wal` alone would do nothing: an empty logical message, which
    /// nobody decodes, is written first. Returns the end of the WAL written,
    /// which lies in the segment that ends or at its border.
    pub async fn switch_wal(&self) -> Result<Lsn, SessionError> {
        let doing = "switch to a new WAL segment";
        let sql = "SELECT pg_logical_emit_message(false, 'walpoint', '')::text";
        self.row(doing, sql, &[]).await?;
        let row = self.row(doing, "SELECT pg_switch_wal()::text", &[]).await?;
        parse_lsn(doing, row.get(0))
    }

    /// `archive_timeout` as the server shows it: `0` when it is off.
    pub async fn archive_timeout(&self) -> Result<String, SessionError> {
        let sql = "SELECT current_setting('archive_timeout')";
        Ok(self.row("read archive_timeout", sql, &[]).await?.get(0))
    }

    /// Writes settings with `ALTER SYSTEM` and has the server read them.
    pub async fn alter_system(&self, settings: &[(&str, &str)]) -> Result<(), SessionError> {
        for (name, value) in settings {
            let sql = format!("ALTER SYSTEM SET {name} = {}", quote(value));
            self.run(&format!("set {name}"), &sql).await?;
        }
        self.run("have the server read its settings again", "SELECT pg_reload_conf()").await
    }
}

pub(super) fn parse_timeline(doing: &str, hex: &str) -> Result<TimelineId, SessionError> {
    let number = u32::from_str_radix(hex, 16).ok();
    number.and_then(TimelineId::new).ok_or_else(|| SessionError::Statement {
        doing: doing.to_owned(),
        error: format!("the server answered \"{hex}\" where a timeline was expected"),
        code: None,
    })
}

/// A string literal, whatever `standard_conforming_strings` is.
fn quote(value: &str) -> String {
    format!("E'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(archived: Option<i64>, failed: Option<i64>) -> ArchiverStatistics {
        ArchiverStatistics {
            last_archived_time: archived.map(Timestamp),
            last_failed_time: failed.map(Timestamp),
            ..ArchiverStatistics::default()
        }
    }

    #[test]
    fn the_newest_report_decides_whether_the_archiver_fails() {
        assert!(!statistics(None, None).is_failing());
        assert!(!statistics(Some(1), None).is_failing());
        assert!(statistics(None, Some(1)).is_failing());
        assert!(statistics(Some(1), Some(2)).is_failing());
        assert!(!statistics(Some(2), Some(1)).is_failing());
    }

    #[test]
    fn literals_are_quoted() {
        assert_eq!(quote("a'b\\c"), "E'a''b\\\\c'");
    }
}
