//! Where along a chain something happened that metadata count.

use walpoint_archive::{ArchiveError, RunFacts, WalFacts};

use crate::locate::Search;

/// The first `most` segments in which a count along a run rises, or may.
pub(super) async fn rising(
    search: Search<'_>,
    first: u64,
    last: u64,
    most: usize,
    count: impl Fn(&RunFacts) -> Option<u64> + Copy,
) -> Result<Option<Vec<u64>>, ArchiveError> {
    let until = |facts: &WalFacts| facts.run.as_ref().and_then(count).unwrap_or_default();
    let mut found = Vec::new();
    for run in search.chain.runs.iter().filter(|run| run.last >= first && run.first <= last) {
        if count(&run.totals).is_none() {
            return Ok(None);
        }
        let begin = run.first.max(first);
        let before = match begin {
            // Counted since before the archive's WAL begins, or not counted at all.
            _ if run.is_cut || (begin == run.first && (run.began_before || run.spanning.is_some())) => None,
            _ if begin == run.first => Some(0),
            _ => Some(until(&*search.wal.facts(begin - 1).await?)),
        };
        let here = until(&*search.wal.facts(begin).await?);
        found.extend(Some(begin).filter(|_| before.is_none_or(|before| here > before)));
        let mut at = begin;
        while let Some(next) = search.next_in_run(at, until).await?.filter(|next| *next <= last) {
            found.push(next);
            if found.len() >= most {
                return Ok(Some(found));
            }
            at = next;
        }
    }
    Ok(Some(found))
}
