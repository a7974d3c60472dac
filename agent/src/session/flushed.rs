//! How far the server's WAL is durable, asked for once a second.

use walpoint_wal::lsn::Lsn;
use walpoint_wal::page::{LONG_HEADER, PAGE_SIZE, SHORT_HEADER};
use walpoint_wal::timeline::TimelineId;
use walpoint_wal::timestamp::Timestamp;

use super::archiving::parse_timeline;
use super::online_backup::parse_lsn;
use super::{Session, SessionError};

/// Where the WAL of a server that takes writes ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// All before it is on the server's disk.
    pub flush: Lsn,
    /// Where the next record will begin.
    pub insert: Lsn,
    /// The timeline that is written.
    pub timeline: TimelineId,
    /// The server's clock.
    pub time: Timestamp,
}

impl Flushed {
    /// Nothing has been written that is not durable: the next record begins where the last one
    /// ended, or behind the header of a page that begins there.
    pub fn is_quiet(&self) -> bool {
        let between = self.insert.0.checked_sub(self.flush.0);
        let at_page = self.flush.0.is_multiple_of(PAGE_SIZE as u64);
        let headers = [SHORT_HEADER as u64, LONG_HEADER as u64];
        between.is_some_and(|between| between == 0 || (at_page && headers.contains(&between)))
    }
}

impl Session {
    /// Where WAL is durable up to; `None` from a server in recovery, which writes none of its own.
    pub async fn flushed(&self) -> Result<Option<Flushed>, SessionError> {
        let doing = "read how far the WAL is flushed";
        // One function after the other: a position that is asked for in recovery is an error. At a border
        // the file's name is that of one side or the other, by version: only its timeline counts.
        let sql = "SELECT flush::text, insert::text, left(pg_walfile_name(flush), 8), \
             (extract(epoch FROM clock_timestamp()) * 1000000)::bigint FROM ( \
             SELECT pg_current_wal_flush_lsn() AS flush, pg_current_wal_insert_lsn() AS insert \
             WHERE NOT pg_is_in_recovery() OFFSET 0) AS at";
        let row = self.client.query_opt(sql, &[]).await;
        let Some(row) = row.map_err(|error| SessionError::statement(doing, &error))? else {
            return Ok(None);
        };
        let time = Timestamp::from_unix_micros(row.get(3));
        Ok(Some(Flushed {
            flush: parse_lsn(doing, row.get(0))?,
            insert: parse_lsn(doing, row.get(1))?,
            timeline: parse_timeline(doing, row.get(2))?,
            time: time.unwrap_or(Timestamp(i64::MIN)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_under_way_when_the_next_record_begins_where_the_last_one_ended() {
        let at = |flush, insert| Flushed {
            flush: Lsn(flush),
            insert: Lsn(insert),
            timeline: TimelineId::FIRST,
            time: Timestamp(0),
        };
        for (flush, insert, quiet) in [
            (0x300_0028, 0x300_0028, true),
            (0x300_0028, 0x300_0030, false),
            (0x300_2000, 0x300_2018, true),
            (0x300_0000, 0x300_0028, true),
            (0x300_0008, 0x300_0020, false),
            (0x300_2000, 0x300_2030, false),
            (0x300_0030, 0x300_0028, false),
        ] {
            assert_eq!(at(flush, insert).is_quiet(), quiet, "{flush:X} {insert:X}");
        }
    }
}
