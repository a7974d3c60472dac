//! What PostgreSQL's own `pg_waldump` says about WAL, as values.
//!
//! The text is that of `XLogDumpDisplayRecord` in
//! src/bin/pg_waldump/pg_waldump.c, the same from 13 to 18:
//! `rmgr: Transaction len (rec/tot):     34/    34, tx:        732,
//! lsn: 0/0174F0A8, prev 0/0174F068, desc: COMMIT 2026-11-21 00:11:11.123456 UTC`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::run;
use crate::programs::Postgres;
use crate::user::User;

/// One record as `pg_waldump` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpedRecord {
    pub lsn: u64,
    pub previous: u64,
    pub resource_manager: String,
    pub xid: u32,
    pub total_length: u32,
    /// Everything after `desc: `, block references included.
    pub description: String,
}

/// Dumps from `start` on timeline `timeline`, to `end` when it is given, else
/// to where the WAL in `directory` ends.
pub fn dump(
    postgres: &Postgres,
    directory: &Path,
    timeline: u32,
    start: u64,
    end: Option<u64>,
) -> Result<Vec<DumpedRecord>> {
    let mut command = User::current()?.command(&postgres.tool("pg_waldump"));
    command.arg("-p").arg(directory).arg("-t").arg(timeline.to_string());
    command.arg("-s").arg(format_lsn(start)).current_dir("/");
    if let Some(end) = end {
        command.arg("-e").arg(format_lsn(end));
    }
    let outcome = run(command, Duration::from_secs(120))?;
    // Where WAL ends it prints what it found and fails: "invalid record length".
    if outcome.code() != 0 && outcome.stdout.is_empty() {
        bail!("pg_waldump found no record\n{outcome}");
    }
    outcome.stdout.lines().filter(|line| line.starts_with("rmgr: ")).map(parse_line).collect()
}

/// Parses one line of `pg_waldump`'s output.
pub fn parse_line(line: &str) -> Result<DumpedRecord> {
    let parsed = || -> Option<DumpedRecord> {
        let rest = line.strip_prefix("rmgr: ")?;
        let (resource_manager, rest) = rest.split_once("len (rec/tot):")?;
        let (lengths, rest) = rest.split_once(", tx:")?;
        let (xid, rest) = rest.split_once(", lsn: ")?;
        let (lsn, rest) = rest.split_once(", prev ")?;
        let (previous, description) = rest.split_once(", desc: ")?;
        Some(DumpedRecord {
            lsn: parse_lsn(lsn)?,
            previous: parse_lsn(previous)?,
            resource_manager: resource_manager.trim().to_owned(),
            xid: xid.trim().parse().ok()?,
            total_length: lengths.split_once('/')?.1.trim().parse().ok()?,
            description: description.trim_end().to_owned(),
        })
    };
    parsed().with_context(|| format!("not a line of pg_waldump: {line}"))
}

/// `X/X` to a number.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.trim().split_once('/')?;
    Some((u64::from_str_radix(high, 16).ok()? << 32) | u64::from(u32::from_str_radix(low, 16).ok()?))
}

/// A number to `X/X`.
pub fn format_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_commit_line_is_taken_apart() {
        let line = "rmgr: Transaction len (rec/tot):     34/    46, tx:        732, lsn: 1/0174F0A8, prev 0/0174F068, desc: COMMIT 2026-11-21 00:11:11.123456 UTC";
        let record = parse_line(line).unwrap();
        assert_eq!(record.lsn, 0x1_0174_F0A8);
        assert_eq!(record.previous, 0x0174_F068);
        assert_eq!((record.xid, record.total_length), (732, 46));
        assert_eq!(record.resource_manager, "Transaction");
        assert_eq!(record.description, "COMMIT 2026-11-21 00:11:11.123456 UTC");
        assert_eq!(format_lsn(record.lsn), "1/174F0A8");
    }

    #[test]
    fn another_line_is_an_error() {
        assert!(parse_line("pg_waldump: fatal: could not find a valid record").is_err());
    }
}
