//! Whether the archive holds the WAL between two positions without a break, and what that WAL did
//! that a backup which builds on an older one must know. By metadata; the content of a segment is
//! read only where two runs of WAL meet.

use std::sync::Arc;

use walpoint_archive::{Archive, ArchiveError, Catalog, WalEnding, WalFacts};
use walpoint_wal::{Event, Lsn, SegmentName};

use crate::coverage::{Coverage, last_segment_before};
use crate::locate::{Chain, ChainEnd, Content, PathWal, WalSource, chains};
use crate::path::TimelinePath;
use crate::plan::words;

/// What was found between two positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Between {
    /// All of it, every record linked to the one before it.
    Unbroken(Told),
    /// This segment is not there, or not whole yet.
    Missing(SegmentName),
    /// It is there and breaks: why, in words.
    Broken(String),
}

/// What unbroken WAL tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// A database or tablespace may have been made by copying files: their pages are older than the
    /// WAL that made them.
    pub file_copy: bool,
    /// `XLOG_PARAMETER_CHANGE` records; `None` when nobody counted them.
    pub parameter_changes: Option<u64>,
}

impl Told {
    /// Of WAL in which nothing is.
    pub const NOTHING: Told = Told { file_copy: false, parameter_changes: Some(0) };

    /// Of this WAL and what follows it.
    pub fn and(self, next: Told) -> Told {
        let changes = self.parameter_changes.zip(next.parameter_changes);
        Told {
            file_copy: self.file_copy || next.file_copy,
            parameter_changes: changes.map(|(one, other)| one.saturating_add(other)),
        }
    }
}

/// Looks at all segments that hold WAL from `from` up to, not including, `to`. What else is in the first one
/// counts as if it lay between.
///
/// # Errors
/// When the archive does not answer.
pub async fn between(
    archive: &Archive,
    catalog: &Catalog,
    path: TimelinePath,
    from: Lsn,
    to: Lsn,
) -> Result<Between, ArchiveError> {
    if from >= to {
        return Ok(Between::Unbroken(Told::NOTHING));
    }
    let size = catalog.cluster.segment_size;
    let (first, last) = (from.segment_number(size), last_segment_before(to, size));
    let coverage = Coverage::of(catalog, path);
    let source = WalSource::new(archive, catalog.cluster.system_identifier, size);
    let wal = PathWal::new(&source, &coverage);
    if let Some(found) = names(&wal, first, last) {
        return Ok(found);
    }
    // A host that only encrypts can read no content; it goes by what was checked when it was archived.
    let can_read = !archive.sealer().encrypts() || archive.keys().can_open();
    let content = if can_read { Content::Read } else { Content::Sealed };
    let found = match records(&wal, first, last, content).await {
        Err(ArchiveError::NoKey { .. } | ArchiveError::WrongKey { .. }) => {
            records(&wal, first, last, Content::Sealed).await
        }
        found => found,
    };
    match found {
        Err(error) if error.is_damaged() => Ok(Between::Broken(error.to_string())),
        other => other,
    }
}

/// What the names alone speak against.
fn names(wal: &PathWal<'_>, first: u64, last: u64) -> Option<Between> {
    (first..=last).find_map(|number| match wal.link(number) {
        None => Some(match missing(wal, number) {
            Some(name) => Between::Missing(name),
            None => Between::Broken("it leads through no timeline that is known".to_owned()),
        }),
        Some(link) if link.is_open => Some(Between::Missing(link.name)),
        Some(link) if link.is_contested => {
            Some(Between::Broken(format!("another content of segment {} was archived or refused", link.name)))
        }
        Some(_) => None,
    })
}

/// The name that it should have: a timeline's first segment is its own, with a copy of its parent's WAL.
fn missing(wal: &PathWal<'_>, number: u64) -> Option<SegmentName> {
    let begun = |begin: Lsn| begin.segment_number(wal.size()) <= number;
    let step = wal.coverage.path.steps.iter().rev().find(|step| begun(step.begin))?;
    SegmentName::from_number(step.timeline, number, wal.size())
}

async fn records(
    wal: &PathWal<'_>,
    first: u64,
    last: u64,
    content: Content,
) -> Result<Between, ArchiveError> {
    let chains = chains(wal, content).await?;
    let facts = wal.facts_from(first, last).await?;
    let before = match first.checked_sub(1).filter(|before| wal.link(*before).is_some()) {
        Some(before) => Some(wal.facts(before).await?),
        None => None,
    };
    Ok(match chains.iter().find(|chain| chain.contains(first)) {
        Some(chain) if chain.contains(last) => {
            Between::Unbroken(sum(before.as_ref(), &facts, |index| seen_at(chain, content, first + index)))
        }
        Some(chain) if matches!(chain.ends, ChainEnd::Sealed { .. }) => match unlinked(&facts) {
            None => Between::Unbroken(sum(before.as_ref(), &facts, |_| None)),
            Some(at) => Between::Broken(format!("the segment at {at} does not continue the one before it")),
        },
        Some(chain) => Between::Broken(words::chain_end(&chain.ends).0),
        None => Between::Broken("the version of its WAL is not known".to_owned()),
    })
}

/// What a record tells that spans into a segment and was not seen when that was archived; `None` when nobody has
/// seen it since.
fn seen_at(chain: &Chain, content: Content, number: u64) -> Option<Told> {
    let run = chain.run_of(number).filter(|run| content == Content::Read && run.first == number)?;
    let event = run.spanning.as_ref().map(|spanning| &spanning.event);
    Some(Told {
        file_copy: event == Some(&Event::FileCopy),
        parameter_changes: Some(u64::from(matches!(event, Some(Event::ParameterChange(_))))),
    })
}

/// The first of consecutive segments that does not continue the one before it, by the records that start in them.
fn unlinked(facts: &[Arc<WalFacts>]) -> Option<Lsn> {
    let mut last_start = None;
    let mut is_whole = true;
    for facts in facts {
        let is_linked = match (last_start, facts.first_prev) {
            (Some(before), Some(prev)) => before == prev,
            _ => true,
        };
        if !is_whole || !is_linked || !facts.validated {
            return Some(facts.start);
        }
        is_whole = matches!(facts.ending, WalEnding::Full | WalEnding::Switched { .. });
        last_start = facts.last_start.or(last_start);
    }
    None
}

/// What consecutive segments tell, given the one before them, and what was seen later of records that span into them.
fn sum(before: Option<&Arc<WalFacts>>, facts: &[Arc<WalFacts>], seen: impl Fn(u64) -> Option<Told>) -> Told {
    const ANYTHING: Told = Told { file_copy: true, parameter_changes: None };
    let mut told = Told::NOTHING;
    let mut before = before;
    for (index, own) in facts.iter().enumerate() {
        let parameter_changes = changes_in(before.map(AsRef::as_ref), own);
        told = told.and(Told { file_copy: own.file_copy, parameter_changes });
        // What spans into the first segment began before it.
        if index > 0 && !own.edge_checked {
            told = told.and(seen(index as u64).unwrap_or(ANYTHING));
        }
        before = Some(own);
    }
    told
}

/// How many of the run's changes are this segment's own.
fn changes_in(before: Option<&WalFacts>, own: &WalFacts) -> Option<u64> {
    let run = own.run?;
    let until_here = run.run_parameter_changes?;
    if run.run_start == own.start {
        return Some(until_here);
    }
    let before = before?.run.filter(|before| before.run_start == run.run_start)?;
    until_here.checked_sub(before.run_parameter_changes?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use walpoint_archive::{Common, ContentHash, RunFacts, WriterId};
    use walpoint_wal::{SystemIdentifier, TimelineId};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Segment `number` of a run from segment `run` on, in which so many changes were counted up to its end.
    fn facts(number: u64, run: u64, changes: Option<u64>) -> Arc<WalFacts> {
        let common = Common::new(ContentHash::of(b""), MIB, WriterId::random(), SystemIdentifier(7));
        let facts = WalFacts::unvalidated(common, TimelineId::FIRST, Lsn(number * MIB), 0xD110);
        let run = RunFacts {
            run_start: Lsn(run * MIB),
            run_high: None,
            run_last_time: None,
            run_commits: 0,
            run_steps: 0,
            run_points: 0,
            run_prepares: None,
            run_parameter_changes: changes,
            last_start: None,
        };
        Arc::new(WalFacts { validated: true, edge_checked: true, run: Some(run), ..facts })
    }

    fn changes(before: Option<&Arc<WalFacts>>, facts: &[Arc<WalFacts>]) -> Option<u64> {
        sum(before, facts, |_| None).parameter_changes
    }

    #[test]
    fn changes_are_those_of_the_segments_in_between_and_unknown_where_nobody_counted() {
        let (five, six) = (facts(5, 2, Some(3)), facts(6, 2, Some(3)));
        assert_eq!(changes(Some(&facts(4, 2, Some(3))), &[five.clone(), six.clone()]), Some(0));
        assert_eq!(changes(Some(&facts(4, 2, Some(1))), &[five.clone(), six.clone()]), Some(2));
        // Nothing is known of the segment before, or it is of another run.
        assert_eq!(changes(None, &[five.clone(), six.clone()]), None);
        assert_eq!(changes(Some(&facts(4, 4, Some(0))), std::slice::from_ref(&five)), None);
        // The first segment of a run needs none.
        assert_eq!(changes(None, &[facts(5, 5, Some(1)), facts(6, 5, Some(1))]), Some(1));
        assert_eq!(changes(Some(&facts(4, 2, Some(3))), &[five.clone(), facts(6, 6, Some(2))]), Some(2));
        assert_eq!(changes(Some(&facts(4, 2, None)), std::slice::from_ref(&five)), None);
        assert_eq!(changes(Some(&facts(4, 2, Some(3))), &[facts(5, 2, None), six]), None);
        // A count that falls is none.
        assert_eq!(changes(Some(&facts(4, 2, Some(4))), &[five]), None);
    }

    #[test]
    fn what_spans_in_unchecked_may_have_been_anything_but_not_what_began_before() {
        let unseen =
            |number| Arc::new(WalFacts { edge_checked: false, ..(*facts(number, 2, Some(0))).clone() });
        let before = facts(4, 2, Some(0));
        let sum = |facts: &[Arc<WalFacts>], seen| {
            sum(Some(&before), facts, |index| (index == 1).then_some(seen).flatten())
        };
        assert_eq!(sum(&[unseen(5), facts(6, 2, Some(0))], None), Told::NOTHING);
        let anything = Told { file_copy: true, parameter_changes: None };
        assert_eq!(sum(&[facts(5, 2, Some(0)), unseen(6)], None), anything);
        assert_eq!(sum(&[facts(5, 2, Some(0)), unseen(6)], Some(Told::NOTHING)), Told::NOTHING);
        let changed = Told { file_copy: false, parameter_changes: Some(1) };
        assert_eq!(sum(&[facts(5, 2, Some(0)), unseen(6)], Some(changed)), changed);
        let copied = Arc::new(WalFacts { file_copy: true, ..(*facts(6, 2, Some(0))).clone() });
        let expected = Told { file_copy: true, parameter_changes: Some(0) };
        assert_eq!(sum(&[facts(5, 2, Some(0)), copied], None), expected);
    }

    #[test]
    fn without_the_key_segments_continue_each_other_by_the_records_that_start_in_them() {
        let segment = |number: u64, prev: u64, last: u64| {
            let (first_prev, last_start) = (Some(Lsn(prev)), Some(Lsn(last)));
            let ending = WalEnding::Full;
            Arc::new(WalFacts { first_prev, last_start, ending, ..(*facts(number, 2, Some(0))).clone() })
        };
        let within = Arc::new(WalFacts { first_prev: None, last_start: None, ..(*segment(6, 0, 0)).clone() });
        let chain = [segment(5, 1, 100), within, segment(7, 100, 200), segment(8, 200, 300)];
        assert_eq!(unlinked(&chain), None);
        assert_eq!(unlinked(&[segment(5, 1, 100), segment(6, 99, 200)]), Some(Lsn(6 * MIB)));
        let open =
            Arc::new(WalFacts { ending: WalEnding::Open { at: Lsn(7) }, ..(*segment(5, 1, 100)).clone() });
        assert_eq!(unlinked(&[open.clone(), segment(6, 100, 200)]), Some(Lsn(6 * MIB)));
        let unknown = Arc::new(WalFacts { validated: false, ..(*segment(5, 1, 100)).clone() });
        assert_eq!(unlinked(&[unknown]), Some(Lsn(5 * MIB)));
    }
}
