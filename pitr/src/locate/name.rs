//! Finds restore points by name.

use walpoint_archive::{ArchiveError, WalFacts};
use walpoint_wal::Event;

use super::chain::{Chain, Run};
use super::scan::{EventAt, PathWal};
use super::search::Search;

/// All restore points of this name, each with the number of its chain, in order of address.
pub(crate) async fn points_named(
    wal: &PathWal<'_>,
    chains: &[Chain],
    name: &str,
) -> Result<Vec<(usize, EventAt)>, ArchiveError> {
    let mut found = Vec::new();
    for (at, chain) in chains.iter().enumerate() {
        let search = Search { wal, chain };
        for run in &chain.runs {
            for number in segments_with_points(search, run, name).await? {
                let scanned = search.scanned(number).await?;
                let named = scanned.events.iter().filter(|event| is_named(event, name));
                found.extend(named.map(|event| (at, event.clone())));
            }
        }
    }
    Ok(found)
}

/// The segments of a run that can hold such a point.
async fn segments_with_points(search: Search<'_>, run: &Run, name: &str) -> Result<Vec<u64>, ArchiveError> {
    let mut numbers = Vec::new();
    let mut at = Some(run.first);
    while let Some(number) = at {
        let facts = search.wal.facts(number).await?;
        let unknown = run.is_cut || (number == run.first && run.spanning.is_some());
        if unknown || may_hold(&facts, name) {
            numbers.push(number);
        }
        at = search.next_in_run(number, |facts| facts.run.map_or(0, |run| run.run_points)).await?;
    }
    Ok(numbers)
}

fn may_hold(facts: &WalFacts, name: &str) -> bool {
    match &facts.restore_points {
        Some(points) => points.iter().any(|point| point.name == name),
        None => facts.point_count > 0,
    }
}

fn is_named(event: &EventAt, wanted: &str) -> bool {
    matches!(&event.event, Event::RestorePoint { name, .. } if name == wanted)
}
