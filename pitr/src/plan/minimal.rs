//! Records that no recovery gets across.
//!
//! With `wal_level = minimal` a server leaves out of its WAL what it makes durable in other
//! ways. Replaying the record by which it says so, PostgreSQL ends with FATAL, and so does
//! every later try (`CheckRequiredParameterValues`, access/transam/xlogrecovery.c). 13 does
//! so with `hot_standby = on`, and without it goes on with data missing.

use walpoint_archive::{ArchiveError, RunFacts};
use walpoint_wal::{Event, ParameterChange};

use super::replay::MOST_CHANGES;
use super::rising::rising;
use crate::locate::{Search, Spot};

/// Whether this is such a record.
pub(super) fn says_so(change: &ParameterChange) -> bool {
    change.wal_level == 0
}

/// Those of a chain, in order of address, where metadata count changed settings.
pub(super) async fn records(search: Search<'_>) -> Result<Vec<Spot>, ArchiveError> {
    let (first, last) = (search.chain.first(), search.chain.last());
    let counted = rising(search, first, last, MOST_CHANGES, changes).await?;
    let mut found = Vec::new();
    for number in counted.unwrap_or_default() {
        for event in &search.scanned(number).await?.events {
            if matches!(&event.event, Event::ParameterChange(change) if says_so(change)) {
                found.push(event.spot);
            }
        }
    }
    Ok(found)
}

/// Whether one may lie in these segments of a chain, by metadata alone.
pub(super) async fn may_be_between(search: Search<'_>, first: u64, last: u64) -> Result<bool, ArchiveError> {
    let counted = rising(search, first, last, 1, changes).await?;
    Ok(counted.is_none_or(|segments| !segments.is_empty()))
}

fn changes(run: &RunFacts) -> Option<u64> {
    run.run_parameter_changes
}
