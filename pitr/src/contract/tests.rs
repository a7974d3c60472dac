#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn segment(of: u32, number: u64) -> SegmentName {
    SegmentName::from_number(timeline(of), number, size()).unwrap()
}

/// A path through these timelines, each left at the LSN beside it.
fn path(forks: &[(u32, u64)], last: u32) -> Vec<PathStep> {
    let mut begin = Lsn::ZERO;
    let mut steps = Vec::new();
    for (of, fork) in forks {
        steps.push(PathStep { timeline: timeline(*of), begin, end: Some(Lsn(*fork)) });
        begin = Lsn(*fork);
    }
    steps.push(PathStep { timeline: timeline(last), begin, end: None });
    steps
}

fn contract(path: Vec<PathStep>, first: SegmentName, last: SegmentName) -> Contract {
    Contract {
        format: CONTRACT_FORMAT,
        system_identifier: SystemIdentifier(7_000_000_000_000_000_001),
        segment_size: size(),
        path,
        first_segment: first,
        last_segment: last,
        last_record: Lsn(last.number(size()).unwrap() * MIB + 40),
        target: "latest".to_owned(),
        restored_at: Timestamp(0),
        writer: "00112233445566778899aabbccddeeff".to_owned(),
        left_out: Vec::new(),
    }
}

/// 1 is left inside segment 8, 2 exactly where segment 12 begins.
fn forked() -> Contract {
    contract(path(&[(1, 8 * MIB + 0x98), (2, 12 * MIB)], 3), segment(1, 5), segment(3, 14))
}

#[test]
fn each_file_is_judged_by_its_place_on_the_path() {
    let table = [
        (1, 4, Need::NotOnPath, "before the first segment"),
        (1, 5, Need::Needed, "the first"),
        (1, 7, Need::Needed, "the last before the fork"),
        (2, 8, Need::Needed, "the child's copy of the fork segment"),
        (1, 8, Need::NotOnPath, "the parent's fork segment, when the child's is the one needed"),
        (1, 9, Need::PastFork, "the parent's branch"),
        (1, 99, Need::PastFork, "the parent's branch, past the target"),
        (2, 7, Need::NotOnPath, "before the child begins"),
        (2, 11, Need::Needed, "the last of 2"),
        (2, 12, Need::PastFork, "a fork at the segment's very start"),
        (3, 12, Need::Needed, "the first of 3"),
        (3, 14, Need::Needed, "the last"),
        (3, 15, Need::Beyond, "after the last"),
        (9, 10, Need::NotOnPath, "a timeline that is not on the path"),
        (9, 15, Need::Beyond, "after the last, whatever the timeline"),
    ];
    for (of, number, need, why) in table {
        let name = WalFileName::Segment(segment(of, number));
        assert_eq!(forked().judge(&name), need, "{name}: {why}");
    }
}

#[test]
fn the_last_segment_is_the_one_that_the_plan_counts_on() {
    // The child's first segment was never archived; the target lies before the fork.
    let contract = contract(path(&[(1, 8 * MIB + 0x98)], 2), segment(1, 5), segment(1, 8));
    assert_eq!(contract.judge(&WalFileName::Segment(segment(2, 8))), Need::Beyond);
    assert_eq!(contract.judge(&WalFileName::Segment(segment(1, 8))), Need::Needed);
    assert_eq!(contract.judge(&WalFileName::Segment(segment(1, 9))), Need::PastFork);
}

#[test]
fn other_files_have_rules_of_their_own() {
    for name in
        ["00000001.history", "000000010000000000000008.partial", "000000010000000000000008.00000028.backup"]
    {
        assert_eq!(forked().judge(&name.parse().unwrap()), Need::NotOnPath);
    }
}

#[test]
fn a_name_that_no_segment_can_have_is_not_needed() {
    let impossible = SegmentName { timeline: timeline(3), log: 0, seg: 0x1000 };
    assert_eq!(forked().judge(&WalFileName::Segment(impossible)), Need::NotOnPath);
    assert_eq!(forked().fork_cut(&impossible), None);
}

#[test]
fn only_the_fork_segment_of_a_parent_is_cut() {
    let contract = forked();
    assert_eq!(contract.fork_cut(&segment(1, 8)), Some(Lsn(8 * MIB + 0x98)));
    for whole in
        [segment(1, 7), segment(2, 8), segment(2, 11), segment(2, 12), segment(3, 12), segment(3, 14)]
    {
        assert_eq!(contract.fork_cut(&whole), None, "{whole}");
    }
}

#[test]
fn the_file_is_read_back_as_written() {
    let text = forked().to_json();
    assert_eq!(Contract::from_json(text.as_bytes()).unwrap(), forked());
}

#[test]
fn a_contract_of_a_later_version_is_refused_and_an_unknown_member_is_not() {
    let text = forked().to_json();
    let more = text.replacen('{', "{\"later\": 1,", 1);
    assert_eq!(Contract::from_json(more.as_bytes()).unwrap(), forked());
    // An older one knows of nothing that was left out; a newer one remembers it.
    assert!(!text.contains("left_out"));
    let left_out =
        vec![LeftOut { oid: 16_400, name: None }, LeftOut { oid: 16_401, name: Some("blog".to_owned()) }];
    let remembering = Contract { left_out, ..forked() };
    assert_eq!(Contract::from_json(remembering.to_json().as_bytes()).unwrap(), remembering);
    let newer = text.replace("\"format\": 1", "\"format\": 2, \"all\": \"new\"");
    assert_eq!(Contract::from_json(newer.as_bytes()), Err(ContractError::NewerFormat { found: 2 }));
}

#[test]
fn a_contract_that_contradicts_itself_is_refused() {
    let mut backwards = forked();
    backwards.first_segment = segment(1, 15);
    let mut torn = forked();
    torn.path[1].begin = Lsn(9 * MIB);
    let mut ended = forked();
    ended.path[2].end = Some(Lsn(99 * MIB));
    let mut foreign = forked();
    foreign.last_segment = segment(9, 14);
    let mut empty = forked();
    empty.path.clear();
    for contract in [backwards, torn, ended, foreign, empty] {
        let refused = Contract::from_json(contract.to_json().as_bytes());
        assert!(matches!(refused, Err(ContractError::Contradiction(_))), "{refused:?}");
    }
    assert!(matches!(Contract::from_json(b"{"), Err(ContractError::Malformed(_))));
}

/// PostgreSQL looking for one segment (`XLogFileReadAnyTLI`, access/transam/xlogrecovery.c):
/// newest timeline of the history first, those that begin later and those older than
/// the file before are passed over. Gives what it opens, or `None`, or the file that
/// stopped it.
fn postgres_opens(
    contract: &Contract,
    archived: &BTreeSet<SegmentName>,
    number: u64,
    current: TimelineId,
) -> Result<Option<SegmentName>, SegmentName> {
    for step in contract.path.iter().rev() {
        if step.timeline < current {
            break;
        }
        if number < step.begin.segment_number(size()) {
            continue;
        }
        let name = SegmentName::from_number(step.timeline, number, size()).unwrap();
        let there = archived.contains(&name);
        match contract.judge(&WalFileName::Segment(name)) {
            Need::PastFork => {}
            Need::Needed if !there => return Err(name),
            _ if there => return Ok(Some(name)),
            Need::Beyond => {}
            _ => return Err(name),
        }
    }
    Ok(None)
}

/// The bytes of the path, told by which timeline each comes from: does this file hold
/// only the path's own WAL for its stretch, up to where it is cut?
fn holds_the_path(contract: &Contract, name: SegmentName) -> bool {
    let number = name.number(size()).unwrap();
    let stretch_end = contract.fork_cut(&name).map_or((number + 1) * MIB, |cut| cut.0);
    let newest_inside = contract
        .path
        .iter()
        .filter(|step| step.begin.0 < stretch_end && step.end.is_none_or(|end| end.0 > number * MIB))
        .map(|step| step.timeline)
        .max();
    newest_inside == Some(name.timeline)
}

fn any_contract() -> impl Strategy<Value = Contract> {
    let forks = proptest::collection::btree_set(2 * 16..12 * 16u64, 0..5);
    (forks, 1..12u64, 0..12u64).prop_map(|(forks, first, more)| {
        // Forks at sixteenths of a segment, so that some fall on a boundary and some share one.
        let forks: Vec<(u32, u64)> = forks.iter().zip(1u32..).map(|(at, of)| (of, at * MIB / 16)).collect();
        let path = path(&forks, forks.len() as u32 + 1);
        let last = first + more;
        let at = |number: u64| {
            path.iter().rev().find(|step| step.begin.segment_number(size()) <= number).unwrap().timeline.get()
        };
        let (first, last) = (segment(at(first), first), segment(at(last), last));
        contract(path, first, last)
    })
}

proptest! {
    /// Whatever the archive lacks: PostgreSQL gets only WAL of the path, it is never told
    /// that the archive ends before the last needed segment, and with every needed
    /// segment there it gets through.
    #[test]
    fn postgres_never_stops_short_and_never_takes_a_foreign_branch(
        contract in any_contract(),
        missing in proptest::collection::btree_set((1..7u32, 0..40u64), 0..30),
    ) {
        let archived: BTreeSet<SegmentName> = (1..7u32)
            .flat_map(|of| (0..40u64).map(move |number| (of, number)))
            .filter(|file| !missing.contains(file))
            .map(|(of, number)| segment(of, number))
            .collect();
        let first = contract.first_segment.number(size()).unwrap();
        let last = contract.last_segment.number(size()).unwrap();
        let mut current = TimelineId::FIRST;
        for number in first..=last {
            match postgres_opens(&contract, &archived, number, current) {
                Ok(Some(name)) => {
                    prop_assert!(holds_the_path(&contract, name), "{name} is foreign");
                    current = name.timeline;
                }
                Ok(None) => prop_assert!(false, "segment {number} was reported as the end"),
                Err(gap) => {
                    prop_assert!(!archived.contains(&gap), "{gap} is there");
                    return Ok(());
                }
            }
        }
        // Reading ahead past the target never stops recovery.
        prop_assert!(postgres_opens(&contract, &archived, last + 1, current).is_ok());
    }
}
