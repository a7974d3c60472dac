//! What the WAL that a recovery replays does to it: prepared transactions that stay open,
//! settings that a server must match.

use std::collections::BTreeMap;

use walpoint_archive::summary::Settings;
use walpoint_archive::{ArchiveError, BackupHead};
use walpoint_wal::{Event, Lsn, ParameterChange};

use super::minimal;
use super::rising::rising;
use crate::locate::{Finder, Prepared, Scan, Search, Spot};

/// Most plain bytes of WAL that are read for this. What it finds is advice, and reading
/// all of a long recovery's WAL to plan it would take as long as the recovery.
const MOST_BYTES: u64 = 64 << 20;
/// The same for clusters that can have prepared transactions.
const MOST_BYTES_WITH_PREPARED: u64 = 256 << 20;
/// Most segments with changed settings that are read one by one. A server writes one when
/// it is started with others.
pub(super) const MOST_CHANGES: usize = 64;

/// What replaying does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Replay {
    /// Prepared and not ended, by the WAL that was read.
    pub prepared_open: Vec<Prepared>,
    /// Settings in the WAL that was read that are above the backup's.
    pub raised: Vec<Raised>,
    /// The first record that no recovery gets across ([`minimal`]).
    pub minimal: Option<Spot>,
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

/// Reads the WAL in which metadata count something of this. Where nobody counted, the WAL
/// from the backup's beginning, or as much of its end as is affordable.
pub(crate) async fn replay(
    finder: Finder<'_>,
    backup: &BackupHead,
    last_record: Lsn,
) -> Result<Replay, ArchiveError> {
    let size = finder.wal.size();
    let (first, last) = (backup.redo.segment_number(size), last_record.segment_number(size));
    let most = if backup.settings.max_prepared_xacts > 0 { MOST_BYTES_WITH_PREPARED } else { MOST_BYTES };
    let affordable = last.saturating_add(1).saturating_sub((most / size.bytes()).max(1));
    let mut state = State::new(backup.settings);
    let chain = finder.chains.iter().find(|chain| chain.contains(first) && chain.contains(last));
    let counted = match chain {
        Some(chain) => Counted::between(Search { wal: finder.wal, chain }, first, last).await?,
        None => None,
    };
    let (wanted, changes) = match counted {
        Some(Counted { prepared, changes }) => (prepared, changes),
        None => (Some(first), Vec::new()),
    };
    let from = wanted.map(|wanted| wanted.max(affordable));
    if let Some(chain) = chain {
        let search = Search { wal: finder.wal, chain };
        for number in changes.into_iter().filter(|it| from.is_none_or(|from| *it < from)) {
            let events = search.scanned(number).await?;
            let inside = |at: Lsn| at >= backup.redo && at <= last_record;
            let events = events.events.iter().filter(|event| inside(event.spot.lsn));
            events.for_each(|it| state.take_change(it.spot, &it.event));
        }
    }
    let (Some(wanted), Some(from)) = (wanted, from) else { return Ok(state.into_replay(None)) };
    // The first record to end there may begin before.
    let spanning = match chain.filter(|_| from > first) {
        Some(chain) => Search { wal: finder.wal, chain }.last_start_before(from).await?,
        None => None,
    };
    let mut scan = match spanning.filter(|lsn| *lsn >= backup.redo) {
        Some(lsn) => Scan::at_record(finder.wal, lsn, last),
        None if from > first => Scan::at_segment(finder.wal, from, last),
        None => Scan::at_record(finder.wal, backup.redo, last),
    };
    while let Some(record) = scan.next().await?.filter(|record| record.lsn <= last_record) {
        if let Some(event) = scan.event(&record)? {
            state.take(Spot { lsn: record.lsn, end: record.end, prev: record.prev }, event);
        }
    }
    let read_from = (from > wanted).then(|| finder.wal.start_of(from));
    Ok(state.into_replay(read_from))
}

/// Where metadata count what is looked for.
struct Counted {
    /// The first segment in which a transaction was prepared. How it ended may be said in
    /// any segment from there on.
    prepared: Option<u64>,
    /// The segments in which settings changed.
    changes: Vec<u64>,
}

impl Counted {
    /// `None` when nobody counted.
    async fn between(search: Search<'_>, first: u64, last: u64) -> Result<Option<Counted>, ArchiveError> {
        let prepared = rising(search, first, last, 1, |run| run.run_prepares).await?;
        let changes = rising(search, first, last, MOST_CHANGES, |run| run.run_parameter_changes).await?;
        let changes = changes.filter(|changes| changes.len() < MOST_CHANGES);
        let both = prepared.zip(changes);
        Ok(both.map(|(prepared, changes)| Counted { prepared: prepared.first().copied(), changes }))
    }
}

struct State {
    at_backup: Settings,
    highest: Settings,
    prepared: BTreeMap<u32, Prepared>,
    minimal: Option<Spot>,
}

impl State {
    fn new(at_backup: Settings) -> State {
        State { at_backup, highest: at_backup, prepared: BTreeMap::new(), minimal: None }
    }

    fn take(&mut self, spot: Spot, event: Event) {
        match event {
            Event::Prepare { xid, gid, .. } => {
                self.prepared.insert(xid, Prepared { xid, gid, lsn: spot.lsn });
            }
            Event::Commit { xid, prepared: true, .. } | Event::Abort { xid, prepared: true, .. } => {
                self.prepared.remove(&xid);
            }
            Event::ParameterChange(change) => self.change(spot, change),
            _ => {}
        }
    }

    fn take_change(&mut self, spot: Spot, event: &Event) {
        if let Event::ParameterChange(change) = event {
            self.change(spot, *change);
        }
    }

    fn change(&mut self, spot: Spot, change: ParameterChange) {
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
        if minimal::says_so(&change) {
            self.minimal = self.minimal.or(Some(spot));
        }
    }

    fn into_replay(self, read_from: Option<Lsn>) -> Replay {
        Replay {
            raised: raised(&self.at_backup, &self.highest),
            prepared_open: self.prepared.into_values().collect(),
            minimal: self.minimal,
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
