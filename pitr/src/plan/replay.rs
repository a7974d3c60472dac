//! What the WAL that a recovery replays does to it: prepared transactions that stay open,
//! settings that a server must match.

use std::collections::BTreeMap;

use walpoint_archive::summary::Settings;
use walpoint_archive::{ArchiveError, BackupSummary};
use walpoint_wal::{Event, Lsn, ParameterChange};

use crate::locate::{Finder, Prepared, Scan};

/// Most plain bytes of WAL that are read for this. What it finds is advice, and reading
/// all of a long recovery's WAL to plan it would take as long as the recovery.
const MOST_BYTES: u64 = 64 << 20;
/// The same for clusters that can have prepared transactions.
const MOST_BYTES_WITH_PREPARED: u64 = 256 << 20;

/// What replaying does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Replay {
    /// Prepared and not ended, by the WAL that was read.
    pub prepared_open: Vec<Prepared>,
    /// Settings in the WAL that was read that are above the backup's.
    pub raised: Vec<Raised>,
    /// `wal_level = minimal` was in force from here on.
    pub minimal_at: Option<Lsn>,
    /// Where reading began, when that is behind the backup's beginning.
    pub read_from: Option<Lsn>,
}

/// A setting of the primary that went above the backup's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raised {
    pub setting: &'static str,
    pub backup: i32,
    pub primary: i32,
}

/// Reads the WAL from the backup's beginning, or as much of its end as is affordable, to
/// the last record.
pub(crate) async fn replay(
    finder: Finder<'_>,
    backup: &BackupSummary,
    last_record: Lsn,
) -> Result<Replay, ArchiveError> {
    let size = finder.wal.size();
    let last = last_record.segment_number(size);
    let most = if backup.settings.max_prepared_xacts > 0 { MOST_BYTES_WITH_PREPARED } else { MOST_BYTES };
    let affordable = (most / size.bytes()).max(1);
    let first = backup.redo.segment_number(size);
    let from = first.max(last.saturating_add(1).saturating_sub(affordable));
    let mut scan = match from > first {
        true => Scan::at_segment(finder.wal, from, last),
        false => Scan::at_record(finder.wal, backup.redo, last),
    };
    let mut state = State::new(backup.settings);
    while let Some(record) = scan.next().await?.filter(|record| record.lsn <= last_record) {
        if let Some(event) = scan.event(&record)? {
            state.take(record.lsn, event);
        }
    }
    let read_from = (from > first).then(|| finder.wal.start_of(from));
    Ok(state.into_replay(read_from))
}

struct State {
    at_backup: Settings,
    highest: Settings,
    prepared: BTreeMap<u32, Prepared>,
    minimal_at: Option<Lsn>,
}

impl State {
    fn new(at_backup: Settings) -> State {
        State { at_backup, highest: at_backup, prepared: BTreeMap::new(), minimal_at: None }
    }

    fn take(&mut self, lsn: Lsn, event: Event) {
        match event {
            Event::Prepare { xid, gid, .. } => {
                self.prepared.insert(xid, Prepared { xid, gid, lsn });
            }
            Event::Commit { xid, prepared: true, .. } | Event::Abort { xid, prepared: true, .. } => {
                self.prepared.remove(&xid);
            }
            Event::ParameterChange(change) => self.change(lsn, change),
            _ => {}
        }
    }

    fn change(&mut self, lsn: Lsn, change: ParameterChange) {
        let highest = &mut self.highest;
        let pairs = [
            (&mut highest.max_connections, change.max_connections),
            (&mut highest.max_worker_processes, change.max_worker_processes),
            (&mut highest.max_wal_senders, change.max_wal_senders),
            (&mut highest.max_prepared_xacts, change.max_prepared_xacts),
            (&mut highest.max_locks_per_xact, change.max_locks_per_xact),
        ];
        for (highest, value) in pairs {
            *highest = value.max(*highest);
        }
        if change.wal_level == 0 {
            self.minimal_at = self.minimal_at.or(Some(lsn));
        }
    }

    fn into_replay(self, read_from: Option<Lsn>) -> Replay {
        Replay {
            raised: raised(&self.at_backup, &self.highest),
            prepared_open: self.prepared.into_values().collect(),
            minimal_at: self.minimal_at,
            read_from,
        }
    }
}

/// The settings that are higher in `primary` (`CheckRequiredParameterValues`,
/// access/transam/xlogrecovery.c: a hot standby must not be below the primary).
pub(crate) fn raised(backup: &Settings, primary: &Settings) -> Vec<Raised> {
    let all = [
        ("max_connections", backup.max_connections, primary.max_connections),
        ("max_worker_processes", backup.max_worker_processes, primary.max_worker_processes),
        ("max_wal_senders", backup.max_wal_senders, primary.max_wal_senders),
        ("max_prepared_transactions", backup.max_prepared_xacts, primary.max_prepared_xacts),
        ("max_locks_per_transaction", backup.max_locks_per_xact, primary.max_locks_per_xact),
    ];
    let higher = all.into_iter().filter(|(_, backup, primary)| primary > backup);
    higher.map(|(setting, backup, primary)| Raised { setting, backup, primary }).collect()
}
