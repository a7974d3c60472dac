//! Which rows a recovery must show, by PostgreSQL's own rules.
//!
//! The order and the times of commits come from `pg_waldump` over the
//! primary's WAL; what each transaction changed comes from the ledger's notes.
//! The rules are those of recoveryStopsBefore and recoveryStopsAfter in
//! src/backend/access/transam/xlogrecovery.c (xlog.c before 15): walk the
//! records in LSN order and stop at the first that matches.

mod moment;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};

pub use moment::Moment;

use crate::cluster::{Cluster, Sql};
use crate::ledger::{Change, Noted, Notes};
use crate::wal_dump::{self, DumpedRecord};

/// A commit or abort record, its prepared form included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionEnd {
    pub lsn: u64,
    /// The top-level xid; of a prepared transaction the one it was prepared as.
    pub xid: u32,
    pub time: Moment,
    pub is_commit: bool,
    /// COMMIT PREPARED or ROLLBACK PREPARED.
    pub prepared: bool,
}

/// A target as a user says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OracleTarget {
    Time {
        at: Moment,
        exclusive: bool,
    },
    Lsn {
        lsn: u64,
        exclusive: bool,
    },
    Xid {
        xid: u32,
        exclusive: bool,
    },
    /// A restore point: recovery stops right after it.
    Name(String),
    Latest,
}

/// The ledger's table: client and payload by id.
pub type Rows = BTreeMap<i64, (u32, String)>;

/// Everything that is needed to judge a recovery.
#[derive(Debug)]
pub struct Oracle {
    notes: Arc<Notes>,
    /// The start of every record, ascending.
    record_lsns: Vec<u64>,
    ends: Vec<TransactionEnd>,
    prepares: Vec<(u64, String)>,
    restore_points: Vec<(u64, String)>,
}

impl Oracle {
    /// Reads the primary's WAL from `start` to its end. The cluster needs the
    /// distribution's `pg_waldump` and a `wal_keep_size` that kept everything.
    pub fn read(cluster: &Cluster, notes: Arc<Notes>, start: u64) -> Result<Oracle> {
        let directory = cluster.data().join("pg_wal");
        let records = wal_dump::dump(&cluster.postgres, &directory, 1, start, None)?;
        Oracle::from_records(&records, notes)
    }

    /// Judges from records that were dumped already.
    pub fn from_records(records: &[DumpedRecord], notes: Arc<Notes>) -> Result<Oracle> {
        let mut oracle = Oracle {
            notes,
            record_lsns: records.iter().map(|record| record.lsn).collect(),
            ends: Vec::new(),
            prepares: Vec::new(),
            restore_points: restore_points(records),
        };
        for record in records.iter().filter(|record| record.resource_manager == "Transaction") {
            if let Some(end) = transaction_end(record)? {
                oracle.ends.push(end);
            }
            if let Some(name) = prepared_name(record) {
                oracle.prepares.push((record.lsn, name));
            }
        }
        oracle.check_acknowledged()?;
        Ok(oracle)
    }

    /// Judges time targets without `pg_waldump`, for majors whose client tools
    /// are not here: from `pg_xact_commit_timestamp`. Sound only for a ledger
    /// of one client, where the order of times is the order of commits.
    pub fn from_commit_timestamps(cluster: &Cluster, notes: Arc<Notes>) -> Result<Oracle> {
        let sql = cluster.sql()?;
        let mut ends = Vec::new();
        for xid in notes.acknowledged_xids() {
            let query = format!("select pg_xact_commit_timestamp('{xid}'::xid) at time zone 'UTC'");
            let time = Moment::parse(&sql.value(&query)?)?;
            ends.push(TransactionEnd { lsn: 0, xid, time, is_commit: true, prepared: false });
        }
        ends.sort_by_key(|end| end.time);
        for (position, end) in (1..).zip(&mut ends) {
            end.lsn = position;
        }
        Ok(Oracle { notes, record_lsns: Vec::new(), ends, prepares: Vec::new(), restore_points: Vec::new() })
    }

    /// All commits and aborts in LSN order.
    pub fn ends(&self) -> &[TransactionEnd] {
        &self.ends
    }

    /// The commits of the ledger's own transactions in LSN order.
    pub fn ledger_commits(&self) -> Vec<&TransactionEnd> {
        self.ends.iter().filter(|end| end.is_commit && self.notes.get(end.xid).is_some()).collect()
    }

    /// All restore points in LSN order.
    pub fn restore_points(&self) -> &[(u64, String)] {
        &self.restore_points
    }

    pub fn record_lsns(&self) -> &[u64] {
        &self.record_lsns
    }

    /// The rows that the table has after a recovery to `target`.
    pub fn expected_rows(&self, target: &OracleTarget) -> Result<Rows> {
        let cut = self.cut(target)?;
        let mut rows = Rows::new();
        for end in self.ends.iter().filter(|end| end.is_commit && end.lsn < cut) {
            if let Some(noted) = self.notes.get(end.xid) {
                apply(&mut rows, &noted);
            }
        }
        Ok(rows)
    }

    /// The prepared transactions that are open after a recovery to `target`.
    pub fn expected_prepared(&self, target: &OracleTarget) -> Result<Vec<String>> {
        let cut = self.cut(target)?;
        let ended: Vec<String> = self
            .ends
            .iter()
            .filter(|end| end.prepared && end.lsn < cut)
            .filter_map(|end| self.notes.get(end.xid)?.prepared)
            .collect();
        let mut open: Vec<String> = self
            .prepares
            .iter()
            .filter(|(lsn, name)| *lsn < cut && !ended.contains(name))
            .map(|(_, name)| name.clone())
            .collect();
        open.sort();
        Ok(open)
    }

    /// The last commit that a recovery to `target` shows and the first that it
    /// does not, whoever committed.
    pub fn neighbours(
        &self,
        target: &OracleTarget,
    ) -> Result<(Option<&TransactionEnd>, Option<&TransactionEnd>)> {
        let cut = self.cut(target)?;
        let mut commits = self.ends.iter().filter(|end| end.is_commit);
        let included = commits.clone().rfind(|end| end.lsn < cut);
        Ok((included, commits.find(|end| end.lsn >= cut)))
    }

    /// The LSN from which on nothing is replayed.
    pub fn cut(&self, target: &OracleTarget) -> Result<u64> {
        let after = |lsn: u64| self.record_lsns.iter().copied().find(|start| *start > lsn).unwrap_or(lsn + 1);
        match target {
            OracleTarget::Latest => Ok(u64::MAX),
            OracleTarget::Time { at, exclusive } => {
                let first = self.ends.iter().find(|end| end.time > *at || (*exclusive && end.time == *at));
                Ok(first.map_or(u64::MAX, |end| end.lsn))
            }
            OracleTarget::Lsn { lsn, exclusive } => {
                let reached = self.record_lsns.iter().copied().find(|start| start >= lsn);
                let reached = reached
                    .with_context(|| format!("no record at or after {}", wal_dump::format_lsn(*lsn)))?;
                Ok(if *exclusive { reached } else { after(reached) })
            }
            OracleTarget::Name(name) => {
                let point = self.restore_points.iter().find(|(_, known)| known == name);
                Ok(after(point.with_context(|| format!("no restore point {name}"))?.0))
            }
            OracleTarget::Xid { xid, exclusive } => {
                let end = self.ends.iter().find(|end| end.xid == *xid);
                let lsn = end.with_context(|| format!("xid {xid} has no end in the WAL"))?.lsn;
                Ok(if *exclusive { lsn } else { after(lsn) })
            }
        }
    }

    /// Compares a restored cluster with what must be there, row for row, and
    /// its open prepared transactions.
    pub fn judge(&self, restored: &Cluster, target: &OracleTarget) -> Result<()> {
        let sql = restored.sql()?;
        let (expected, found) = (self.expected_rows(target)?, read_rows(&sql)?);
        if expected != found {
            bail!("wrong rows for {target:?}: {}", difference(&expected, &found));
        }
        if !self.record_lsns.is_empty() {
            let open = sql.rows("select gid from pg_prepared_xacts order by gid collate \"C\"")?;
            let open: Vec<String> = open.into_iter().flatten().flatten().collect();
            let expected = self.expected_prepared(target)?;
            if open != expected {
                bail!("wrong prepared transactions for {target:?}: {open:?} instead of {expected:?}");
            }
        }
        Ok(())
    }

    // Were this to fail, PostgreSQL or the harness would be broken, and every
    // judgement worth nothing.
    fn check_acknowledged(&self) -> Result<()> {
        for xid in self.notes.acknowledged_xids() {
            if !self.ends.iter().any(|end| end.is_commit && end.xid == xid) {
                bail!("the commit of {xid} was acknowledged and is not in the WAL that was dumped");
            }
        }
        Ok(())
    }
}

/// The ledger's table as a cluster has it.
pub fn read_rows(sql: &Sql) -> Result<Rows> {
    let mut rows = Rows::new();
    for row in sql.rows("select id, client, payload from ledger")? {
        let [Some(id), Some(client), Some(payload)] = &row[..] else {
            bail!("not a row of the ledger: {row:?}")
        };
        rows.insert(id.parse()?, (client.parse()?, payload.clone()));
    }
    Ok(rows)
}

fn apply(rows: &mut Rows, noted: &Noted) {
    for change in &noted.changes {
        match change {
            Change::Put { id, client, payload } => {
                rows.insert(*id, (*client, payload.clone()));
            }
            Change::Delete { id } => {
                rows.remove(id);
            }
        }
    }
}

fn difference(expected: &Rows, found: &Rows) -> String {
    let missing: Vec<_> = expected.keys().filter(|id| !found.contains_key(id)).take(5).collect();
    let foreign: Vec<_> = found.keys().filter(|id| !expected.contains_key(id)).take(5).collect();
    let other = expected.iter().filter(|(id, row)| found.get(id).is_some_and(|there| there != *row)).count();
    format!(
        "{} expected, {} found, missing {missing:?}, not expected {foreign:?}, {other} with other content",
        expected.len(),
        found.len()
    )
}

/// `COMMIT 2026-… UTC; …`, `ABORT …`, `COMMIT_PREPARED 732: 2026-… UTC`.
fn transaction_end(record: &DumpedRecord) -> Result<Option<TransactionEnd>> {
    let (word, rest) = record.description.split_once(' ').unwrap_or((&record.description, ""));
    let (is_commit, prepared) = match word {
        "COMMIT" => (true, false),
        "ABORT" => (false, false),
        "COMMIT_PREPARED" => (true, true),
        "ABORT_PREPARED" => (false, true),
        _ => return Ok(None),
    };
    let (xid, time) = if prepared {
        let (xid, time) = rest.split_once(": ").context("a prepared form without its xid")?;
        (xid.trim().parse()?, time)
    } else {
        (record.xid, rest)
    };
    let time = Moment::parse(time).with_context(|| format!("the time in: {}", record.description))?;
    Ok(Some(TransactionEnd { lsn: record.lsn, xid, time, is_commit, prepared }))
}

/// `PREPARE gid ledger-732: 2026-… UTC`.
fn prepared_name(record: &DumpedRecord) -> Option<String> {
    let rest = record.description.strip_prefix("PREPARE gid ")?;
    Some(rest.split_once(": ")?.0.to_owned())
}

/// `RESTORE_POINT name`.
fn restore_points(records: &[DumpedRecord]) -> Vec<(u64, String)> {
    let named = |record: &DumpedRecord| {
        let name = record.description.strip_prefix("RESTORE_POINT ")?;
        Some((record.lsn, name.to_owned()))
    };
    records.iter().filter(|record| record.resource_manager == "XLOG").filter_map(named).collect()
}
