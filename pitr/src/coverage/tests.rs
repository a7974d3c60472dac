#![allow(clippy::unwrap_used)]
//! The shapes that failovers leave in an archive.

use super::*;
use crate::testing::{MIB, catalog, history, put, segment, ship, size, state, tli};
use walpoint_wal::WalFileName;

fn coverage(catalog: &Catalog, timeline: u32) -> Coverage<'_> {
    Coverage::of(catalog, TimelinePath::to(catalog, tli(timeline)).unwrap())
}

/// `(timeline, first, last, cut)` of each stretch, one entry for each timeline in it.
type Part = (u32, u64, u64, Option<Lsn>);

fn shape(coverage: &Coverage<'_>) -> Vec<Vec<Part>> {
    let parts = |stretch: &Stretch| {
        let mut parts: Vec<Part> = Vec::new();
        for link in coverage.links_from(stretch.first()).take_while(|link| link.number <= stretch.last()) {
            let timeline = link.name.timeline.get();
            match parts.last_mut().filter(|part| part.0 == timeline) {
                Some(part) => (part.2, part.3) = (link.number, link.cut),
                None => parts.push((timeline, link.number, link.number, link.cut)),
            }
        }
        parts
    };
    coverage.stretches.iter().map(parts).collect()
}

fn gaps(coverage: &Coverage<'_>) -> Vec<(u32, u64, u64, WhyGap)> {
    let number = |name: SegmentName| name.number(size()).unwrap();
    let gap = |gap: &Gap| (gap.timeline.get(), number(gap.first), number(gap.last), gap.why.clone());
    coverage.gaps.iter().map(gap).collect()
}

#[test]
fn one_timeline_without_a_hole() {
    let catalog = catalog(&[(1, 3, 9)], &[]);
    let coverage = coverage(&catalog, 1);
    assert_eq!(shape(&coverage), [[(1, 3, 9, None)]]);
    assert_eq!(gaps(&coverage), []);
}

#[test]
fn a_hole_parts_it_and_is_named() {
    let catalog = catalog(&[(1, 3, 4), (1, 7, 9)], &[]);
    let coverage = coverage(&catalog, 1);
    assert_eq!(shape(&coverage), [[(1, 3, 4, None)], [(1, 7, 9, None)]]);
    assert_eq!(gaps(&coverage), [(1, 5, 6, WhyGap::Missing)]);
    assert_eq!(coverage.gap_after(4).map(|gap| gap.first), Some(segment(1, 5)));
    assert_eq!(coverage.gap_after(9), None);
}

#[test]
fn the_childs_first_segment_goes_before_the_parents_and_the_parents_branch_is_left_out() {
    let fork = 8 * MIB + 0x98;
    let catalog = catalog(&[(1, 3, 11), (2, 8, 10)], &[history(2, &[(1, fork)])]);
    assert_eq!(shape(&coverage(&catalog, 2)), [[(1, 3, 7, None), (2, 8, 10, None)]]);
    assert_eq!(gaps(&coverage(&catalog, 2)), []);
    assert_eq!(shape(&coverage(&catalog, 1)), [[(1, 3, 11, None)]]);
}

#[test]
fn a_hole_in_the_parent_behind_a_fork_is_a_hole() {
    // The old primary died with 0A to 0C; the new one begins in 0D.
    let catalog = catalog(&[(1, 3, 9), (2, 13, 15)], &[history(2, &[(1, 13 * MIB + 0x98)])]);
    let coverage = coverage(&catalog, 2);
    assert_eq!(shape(&coverage), [vec![(1, 3, 9, None)], vec![(2, 13, 15, None)]]);
    assert_eq!(gaps(&coverage), [(1, 10, 12, WhyGap::Missing)]);
}

#[test]
fn without_any_segment_of_the_child_the_way_ends_at_the_fork() {
    let fork = 8 * MIB + 0x98;
    let catalog = catalog(&[(1, 3, 11)], &[history(2, &[(1, fork)])]);
    let coverage = coverage(&catalog, 2);
    assert_eq!(shape(&coverage), [[(1, 3, 8, Some(Lsn(fork)))]]);
    assert_eq!(gaps(&coverage), []);
}

#[test]
fn a_fork_on_a_border_needs_no_cut() {
    let fork = 8 * MIB;
    let both = catalog(&[(1, 3, 11), (2, 8, 9)], &[history(2, &[(1, fork)])]);
    assert_eq!(shape(&coverage(&both, 2)), [[(1, 3, 7, None), (2, 8, 9, None)]]);
    let none = catalog(&[(1, 3, 11)], &[history(2, &[(1, fork)])]);
    assert_eq!(shape(&coverage(&none, 2)), [[(1, 3, 7, None)]]);
    assert_eq!(gaps(&coverage(&none, 2)), []);
}

#[test]
fn the_childs_first_segment_missing_is_a_hole_even_where_the_parent_has_that_number() {
    let fork = 8 * MIB + 0x98;
    let catalog = catalog(&[(1, 3, 11), (2, 9, 10)], &[history(2, &[(1, fork)])]);
    let coverage = coverage(&catalog, 2);
    assert_eq!(shape(&coverage), [[(1, 3, 8, Some(Lsn(fork)))].as_slice(), [(2, 9, 10, None)].as_slice()]);
    assert_eq!(gaps(&coverage), [(2, 8, 8, WhyGap::Missing)]);
    assert_eq!(coverage.gap_after(8).map(|gap| gap.first), Some(segment(2, 8)));
}

#[test]
fn a_partial_alone_serves_nothing_and_beside_a_copy_it_is_not_needed() {
    let fork = 8 * MIB + 0x98;
    let mut catalog = catalog(&[(1, 3, 7)], &[history(2, &[(1, fork)])]);
    let partial = segment(1, 8);
    catalog.partials.insert(partial, state(WalFileName::Partial(partial), &[1]));
    assert_eq!(shape(&coverage(&catalog, 2)), [[(1, 3, 7, None)]]);
    assert_eq!(gaps(&coverage(&catalog, 2)), [(2, 8, 8, WhyGap::OnlyPartial)]);
    put(&mut catalog, segment(2, 8), &[1]);
    assert_eq!(shape(&coverage(&catalog, 2)), [[(1, 3, 7, None), (2, 8, 8, None)]]);
    assert_eq!(gaps(&coverage(&catalog, 2)), []);
}

#[test]
fn what_is_undecided_is_a_hole_also_at_the_end() {
    let mut catalog = catalog(&[(1, 3, 9)], &[]);
    put(&mut catalog, segment(1, 5), &[1, 2]);
    put(&mut catalog, segment(1, 10), &[1, 2]);
    let coverage = coverage(&catalog, 1);
    assert_eq!(shape(&coverage), [[(1, 3, 4, None)], [(1, 6, 9, None)]]);
    let whys: Vec<_> = coverage.gaps.iter().map(|gap| (gap.first, &gap.why)).collect();
    assert!(matches!(whys.as_slice(), [(first, WhyGap::Ambiguous(a)), (last, WhyGap::Ambiguous(b))]
        if *first == segment(1, 5) && *last == segment(1, 10) && a.len() == 2 && b.len() == 2));
}

#[test]
fn where_the_childs_file_is_undecided_the_parents_serves_up_to_the_fork() {
    let fork = 8 * MIB + 0x98;
    let mut catalog = catalog(&[(1, 3, 9), (2, 9, 9)], &[history(2, &[(1, fork)])]);
    put(&mut catalog, segment(2, 8), &[1, 2]);
    let coverage = coverage(&catalog, 2);
    assert_eq!(shape(&coverage), [[(1, 3, 8, Some(Lsn(fork)))].as_slice(), [(2, 9, 9, None)].as_slice()]);
    assert!(matches!(gaps(&coverage).as_slice(), [(2, 8, 8, WhyGap::Ambiguous(_))]));
    let holders: Vec<_> =
        coverage.holders(&catalog, tli(1), 8).iter().map(|(timeline, _)| timeline.get()).collect();
    assert_eq!(holders, [1]);
}

#[test]
fn what_cannot_be_read_is_a_hole_and_the_parents_serves_up_to_the_fork() {
    let fork = 8 * MIB + 0x98;
    let catalog = catalog(&[(1, 3, 9), (2, 8, 9)], &[history(2, &[(1, fork)])]);
    let without = |timeline: u32, number: u64| {
        let variant = &catalog.wal[&tli(timeline)][&number].variants[0];
        let path = TimelinePath::to(&catalog, tli(2)).unwrap();
        Coverage::without(&catalog, path, &Illegible::only(variant, "altered"))
    };
    let altered = || WhyGap::Illegible("altered".to_owned());
    let coverage = without(2, 8);
    assert_eq!(shape(&coverage), [[(1, 3, 8, Some(Lsn(fork)))].as_slice(), [(2, 9, 9, None)].as_slice()]);
    assert_eq!(gaps(&coverage), [(2, 8, 8, altered())]);
    let holders: Vec<_> =
        coverage.holders(&catalog, tli(1), 8).iter().map(|(timeline, _)| timeline.get()).collect();
    assert_eq!(holders, [1]);
    // The parent's own file of the fork's segment is not missed.
    assert_eq!(gaps(&without(1, 8)), []);
    assert_eq!(gaps(&without(1, 5)), [(1, 5, 5, altered())]);
    assert_eq!(gaps(&without(2, 9)), [(2, 9, 9, altered())]);
}

#[test]
fn refused_variants_are_not_there() {
    let mut catalog = catalog(&[(1, 3, 5)], &[]);
    let refused = catalog.wal.get_mut(&tli(1)).unwrap().get_mut(&4).unwrap();
    refused.variants[0].refused = true;
    let coverage = coverage(&catalog, 1);
    assert_eq!(shape(&coverage), [[(1, 3, 3, None)], [(1, 5, 5, None)]]);
    assert_eq!(gaps(&coverage), [(1, 4, 4, WhyGap::Missing)]);
}

#[test]
fn two_forks_in_one_segment() {
    let (first, second) = (8 * MIB + 0x1000, 8 * MIB + 0x3000);
    let histories = [history(2, &[(1, first)]), history(3, &[(1, first), (2, second)])];
    let all = catalog(&[(1, 3, 8), (2, 8, 8), (3, 8, 9)], &histories);
    assert_eq!(shape(&coverage(&all, 3)), [[(1, 3, 7, None), (3, 8, 9, None)]]);
    let holders: Vec<_> =
        coverage(&all, 3).holders(&all, tli(2), 8).iter().map(|(timeline, _)| timeline.get()).collect();
    assert_eq!(holders, [2, 3]);
    let without_third = catalog(&[(1, 3, 8), (2, 8, 8)], &histories);
    assert_eq!(shape(&coverage(&without_third, 3)), [[(1, 3, 7, None), (2, 8, 8, Some(Lsn(second)))]]);
    assert_eq!(gaps(&coverage(&without_third, 3)), []);
    // Only the first timeline's file: what the second one wrote is missing.
    let only_first = catalog(&[(1, 3, 8)], &histories);
    assert_eq!(shape(&coverage(&only_first, 3)), [[(1, 3, 8, Some(Lsn(first)))]]);
    assert_eq!(gaps(&coverage(&only_first, 3)), [(3, 8, 8, WhyGap::Missing)]);
}

#[test]
fn a_hole_across_a_fork_is_named_by_timeline_and_far_numbers_cost_nothing() {
    let fork = 8 * MIB + 0x98;
    let catalog = catalog(&[(1, 3, 5), (2, 1 << 40, 1 << 40)], &[history(2, &[(1, fork)])]);
    let coverage = coverage(&catalog, 2);
    assert_eq!(gaps(&coverage), [(1, 6, 7, WhyGap::Missing), (2, 8, (1 << 40) - 1, WhyGap::Missing)]);
}

#[test]
fn a_parent_that_stops_before_the_fork_leaves_a_hole_up_to_it() {
    let catalog = catalog(&[(1, 3, 5)], &[history(2, &[(1, 8 * MIB + 0x98)])]);
    assert_eq!(gaps(&coverage(&catalog, 2)), [(1, 6, 7, WhyGap::Missing), (2, 8, 8, WhyGap::Missing)]);
}

#[test]
fn nothing_is_covered_by_nothing() {
    let catalog = catalog(&[], &[history(2, &[(1, 8 * MIB)])]);
    let coverage = coverage(&catalog, 2);
    assert!(coverage.stretches.is_empty() && coverage.gaps.is_empty());
}

#[test]
fn a_tail_serves_as_far_as_it_goes_and_is_the_end() {
    let mut catalog = catalog(&[(1, 3, 6)], &[]);
    ship(&mut catalog, segment(1, 7), &[(0, 8192), (8192, 20_000)]);
    let coverage = coverage(&catalog, 1);
    assert_eq!(shape(&coverage), [[(1, 3, 7, None)]]);
    assert_eq!(gaps(&coverage), []);
    let last = coverage.link(coverage.stretches[0].last()).unwrap();
    assert_eq!((last.is_open, last.end(size())), (true, Lsn(7 * MIB + 20_000)));
}

#[test]
fn a_tail_that_reaches_the_end_is_the_segment() {
    let mut catalog = catalog(&[(1, 3, 6), (1, 8, 8)], &[]);
    ship(&mut catalog, segment(1, 7), &[(0, 8192), (8192, 1 << 20)]);
    assert_eq!(shape(&coverage(&catalog, 1)), [[(1, 3, 8, None)]]);
    assert_eq!(gaps(&coverage(&catalog, 1)), []);
}

#[test]
fn later_wal_does_not_continue_a_tail_that_ends_before() {
    let mut catalog = catalog(&[(1, 3, 6), (1, 8, 9)], &[]);
    ship(&mut catalog, segment(1, 7), &[(0, 8192)]);
    assert_eq!(shape(&coverage(&catalog, 1)), [[(1, 3, 7, None)], [(1, 8, 9, None)]]);
}

#[test]
fn pieces_that_are_missing_make_a_gap_although_nothing_follows() {
    let mut lost = catalog(&[(1, 3, 6)], &[]);
    ship(&mut lost, segment(1, 7), &[(0, 8192), (16384, 20_000)]);
    let end = WhyGap::OnlyBeginning(Lsn(7 * MIB + 8192));
    assert_eq!(gaps(&coverage(&lost, 1)), [(1, 7, 7, end)]);
    assert_eq!(coverage(&lost, 1).gap_after(7).map(|gap| gap.first), Some(segment(1, 7)));
    let mut no_first = catalog(&[(1, 3, 6)], &[]);
    ship(&mut no_first, segment(1, 7), &[(8192, 20_000)]);
    assert_eq!(shape(&coverage(&no_first, 1)), [[(1, 3, 6, None)]]);
    assert_eq!(gaps(&coverage(&no_first, 1)), [(1, 7, 7, WhyGap::Missing)]);
}

#[test]
fn a_childs_tail_that_has_nothing_of_its_own_does_not_hide_its_parents_wal() {
    let fork = 8 * MIB + 0x98;
    let of = |end: u32| {
        let mut catalog = catalog(&[(1, 3, 9)], &[history(2, &[(1, fork)])]);
        ship(&mut catalog, segment(2, 8), &[(0, end)]);
        catalog
    };
    for (end, parents) in [(0x40, true), (0x98, true), (0xA0, false)] {
        let catalog = of(end);
        let expected = match parents {
            true => vec![vec![(1, 3, 8, Some(Lsn(fork)))]],
            false => vec![vec![(1, 3, 7, None), (2, 8, 8, None)]],
        };
        assert_eq!(shape(&coverage(&catalog, 2)), expected, "{end}");
        assert_eq!(gaps(&coverage(&catalog, 2)), [], "{end}");
    }
}

#[test]
fn a_parents_tail_that_ends_before_the_fork_leaves_a_gap_to_it() {
    let fork = 8 * MIB + 0x9000;
    for (end, gap) in [(0x8000, true), (0x9000, false), (0xA000, false)] {
        let mut catalog = catalog(&[(1, 3, 7)], &[history(2, &[(1, fork)])]);
        ship(&mut catalog, segment(1, 8), &[(0, end)]);
        assert_eq!(shape(&coverage(&catalog, 2)), [[(1, 3, 8, Some(Lsn(fork)))]]);
        let expected = (1, 8, 8, WhyGap::OnlyBeginning(Lsn(8 * MIB + u64::from(end))));
        assert_eq!(gaps(&coverage(&catalog, 2)), if gap { vec![expected] } else { vec![] }, "{end}");
    }
}

#[test]
fn a_parents_tail_that_ends_before_a_fork_at_its_segments_border_leaves_a_gap_to_it() {
    let fork = 9 * MIB;
    for (end, gap) in [(0x8000, true), (1 << 20, false)] {
        let mut catalog = catalog(&[(1, 3, 7)], &[history(2, &[(1, fork)])]);
        ship(&mut catalog, segment(1, 8), &[(0, end)]);
        assert_eq!(shape(&coverage(&catalog, 2)), [[(1, 3, 8, None)]]);
        let expected = (1, 8, 8, WhyGap::OnlyBeginning(Lsn(8 * MIB + u64::from(end))));
        assert_eq!(gaps(&coverage(&catalog, 2)), if gap { vec![expected] } else { vec![] }, "{end}");
    }
}
