//! Finds the end of a transaction by its number.

use futures::stream::{self, StreamExt, TryStreamExt};
use walpoint_archive::ArchiveError;
use walpoint_wal::Event;

use super::chain::Chain;
use super::scan::{EventAt, PathWal};
use super::search::Search;

/// Segments that are read at a time.
const PARALLEL: usize = 2;

/// The commits and aborts that end transaction `wanted`, each with the number of its
/// chain, in order of address. A subtransaction ends with the transaction that it is part
/// of. Above 2³² the number has an epoch, which is counted from `reference`: a 64-bit
/// number of about the time of the record, given its address.
pub(crate) async fn ends_of(
    wal: &PathWal<'_>,
    chains: &[Chain],
    wanted: u64,
    reference: impl Fn(&EventAt) -> u64,
) -> Result<Vec<(usize, EventAt)>, ArchiveError> {
    let short = (wanted & 0xFFFF_FFFF) as u32;
    let has_epoch = wanted > u64::from(u32::MAX);
    let mut found = Vec::new();
    for (at, chain) in chains.iter().enumerate() {
        let search = Search { wal, chain };
        let numbers = segments_with(search, short).await?;
        let scans = stream::iter(numbers).map(|number| async move { search.scanned(number).await });
        let scans: Vec<_> = scans.buffered(PARALLEL).try_collect().await?;
        let events = scans.iter().flat_map(|scanned| &scanned.events).filter(|event| ends(event, short));
        let in_epoch = |event: &&EventAt| !has_epoch || full_xid(short, reference(event)) == Some(wanted);
        found.extend(events.filter(in_epoch).map(|event| (at, event.clone())));
    }
    Ok(found)
}

/// The segments in which the transaction may end, by metadata.
async fn segments_with(search: Search<'_>, xid: u32) -> Result<Vec<u64>, ArchiveError> {
    let mut numbers = Vec::new();
    let mut next = Some(search.chain.first());
    while let Some(number) = next {
        let may = |facts: &walpoint_archive::WalFacts| {
            facts.xids.is_some_and(|(low, high)| (low..=high).contains(&xid))
        };
        let by_facts = search.next_by_facts(number, search.chain.last(), may).await?;
        let runs = search.chain.runs.iter().filter(|run| run.first >= number);
        let unknown = runs.filter(|run| run.is_cut || run.spanning.is_some()).map(|run| run.first);
        let found = unknown.chain(by_facts).min();
        numbers.extend(found);
        next = found.and_then(|found| found.checked_add(1));
    }
    Ok(numbers)
}

fn ends(event: &EventAt, wanted: u32) -> bool {
    match &event.event {
        Event::Commit { xid, subxids, .. } | Event::Abort { xid, subxids, .. } => {
            *xid == wanted || subxids.contains(&wanted)
        }
        _ => false,
    }
}

/// The 64-bit number of `xid` that is nearest to `reference`
/// (`FullXidRelativeTo`, access/transam/xlogutils.c and others).
fn full_xid(xid: u32, reference: u64) -> Option<u64> {
    let distance = xid.wrapping_sub((reference & 0xFFFF_FFFF) as u32) as i32;
    reference.checked_add_signed(i64::from(distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_that_of_the_nearest_number() {
        let epoch = 1 << 32;
        assert_eq!(full_xid(100, 5 * epoch + 90), Some(5 * epoch + 100));
        assert_eq!(full_xid(100, 5 * epoch + 110), Some(5 * epoch + 100));
        assert_eq!(full_xid(3, 6 * epoch - 10), Some(6 * epoch + 3));
        assert_eq!(full_xid(u32::MAX, 6 * epoch + 3), Some(6 * epoch - 1));
        assert_eq!(full_xid(u32::MAX, 3), None);
    }
}
