#![allow(clippy::unwrap_used)]

use super::*;
use crate::content::ContentHash;
use crate::facts::Common;
use crate::writer_id::WriterId;
use proptest::prelude::*;
use walpoint_wal::{Ending, Major, RestorePoint, SegmentSize, SystemIdentifier, TimelineId};

const SIZE: u64 = 1 << 20;
const SECOND: i64 = 1_000_000;

/// Segment `number` of 1 MiB: some commits, chained to a record 100 bytes
/// before the end of the segment before.
pub(crate) fn survey(number: u64) -> Survey {
    let size = SegmentSize::new(SIZE).unwrap();
    let start = Lsn(number * SIZE);
    let name = walpoint_wal::SegmentName::containing(TimelineId::FIRST, start, size);
    Survey {
        name,
        major: Major::V15,
        system_identifier: SystemIdentifier(7),
        segment_size: size,
        first_page_timeline: TimelineId::FIRST,
        start,
        end: Lsn(start.0 + SIZE),
        first_record: Some(Lsn(start.0 + 40)),
        first_prev: Some(Lsn(start.0 - 100)),
        overwrites: None,
        last_start: Some(Lsn(start.0 + SIZE - 100)),
        last_complete: Some(Lsn(start.0 + SIZE - 200)),
        ending: Ending::Full,
        edge: Edge::Checked,
        times: Some((Timestamp(10 * SECOND), Timestamp(20 * SECOND))),
        first_time: Some(Timestamp(10 * SECOND)),
        last_time: Some(Timestamp(20 * SECOND)),
        known_time: Some(Timestamp(21 * SECOND)),
        commits: 3,
        aborts: 1,
        prepares: 2,
        parameter_changes: 1,
        steps_back: 0,
        restore_points: vec![RestorePoint { name: "p".to_owned(), lsn: start, time: Timestamp(0) }],
        xids: Some((700, 710)),
        file_copy: false,
        next_xid: Some(711),
        carry_out: None,
    }
}

pub(crate) fn common() -> Common {
    Common::new(ContentHash::of(b"segment"), SIZE, WriterId::random(), SystemIdentifier(7))
}

fn facts(survey: &Survey) -> WalFacts {
    WalFacts::of_survey(common(), survey, RunFacts::continue_from(None, survey))
}

fn quiet(number: u64) -> Survey {
    Survey {
        times: None,
        first_time: None,
        last_time: None,
        known_time: None,
        commits: 0,
        aborts: 0,
        prepares: 0,
        parameter_changes: 0,
        restore_points: Vec::new(),
        ..survey(number)
    }
}

/// A run that goes on keeps its start; a new one begins where the segment does.
fn goes_on(previous: Option<&WalFacts>, survey: &Survey) -> bool {
    let run = RunFacts::continue_from(previous, survey);
    if run.run_start == survey.start {
        assert_eq!(run.run_commits, survey.commits, "a new run knows nothing of the one before");
        return false;
    }
    assert_eq!(run.run_start, Lsn(5 * SIZE));
    assert_eq!(run.run_commits, 3 + survey.commits);
    true
}

#[test]
fn a_run_goes_on_only_when_nothing_can_have_been_missed() {
    let before = survey(5);
    let after = survey(6);
    let sound = facts(&before);
    assert!(goes_on(Some(&sound), &after));
    assert!(!goes_on(None, &after));

    let switched = Ending::Switched { at: Lsn(5 * SIZE + 800) };
    let damaged = Ending::Damaged { at: Lsn(5 * SIZE + 800), reason: "crc".to_owned() };
    let open = Ending::Open { at: Lsn(5 * SIZE + 800) };
    for (ending, expected) in [(switched, true), (damaged, false), (open, false)] {
        let previous = facts(&Survey { ending: ending.clone(), ..before.clone() });
        assert_eq!(goes_on(Some(&previous), &after), expected, "{ending:?}");
    }

    let unvalidated = WalFacts::unvalidated(common(), TimelineId::FIRST, Lsn(5 * SIZE), 0xd999);
    assert!(!goes_on(Some(&unvalidated), &after));

    let cases: [(&str, Survey, bool); 8] = [
        ("an edge with nothing spanning in", Survey { edge: Edge::Clean, ..after.clone() }, true),
        (
            "a record spans in unchecked",
            Survey { edge: Edge::Unchecked { record_rest: 9 }, ..after.clone() },
            false,
        ),
        ("another record before", Survey { first_prev: Some(Lsn(6 * SIZE - 108)), ..after.clone() }, false),
        ("no link", Survey { first_prev: None, ..after.clone() }, false),
        (
            "it stands for a record cut by a crash",
            Survey { first_prev: Some(Lsn(1)), overwrites: before.last_start, ..after.clone() },
            true,
        ),
        (
            "it stands for another record",
            Survey { first_prev: Some(Lsn(1)), overwrites: Some(Lsn(2)), ..after.clone() },
            false,
        ),
        (
            "wholly inside one record, checked",
            Survey { first_record: None, first_prev: None, last_start: None, ..after.clone() },
            true,
        ),
        (
            "wholly inside one record, unchecked",
            Survey {
                first_record: None,
                first_prev: None,
                last_start: None,
                edge: Edge::Unchecked { record_rest: 1 << 21 },
                ..after.clone()
            },
            false,
        ),
    ];
    for (what, survey, expected) in cases {
        assert_eq!(goes_on(Some(&sound), &survey), expected, "{what}");
    }

    // Not adjacent, though the chain fits.
    assert!(!goes_on(Some(&sound), &Survey { first_prev: before.last_start, ..survey(7) }));
    assert!(!goes_on(Some(&sound), &Survey { first_prev: before.last_start, ..survey(5) }));
}

#[test]
fn a_run_goes_on_across_a_fork_from_the_parents_segment() {
    let child = Survey {
        name: walpoint_wal::SegmentName { timeline: TimelineId::new(2).unwrap(), ..survey(6).name },
        ..survey(6)
    };
    assert!(goes_on(Some(&facts(&survey(5))), &child));
}

#[test]
fn a_long_record_is_followed_over_segments_in_which_none_starts() {
    let before = survey(5);
    let inside = Survey { first_record: None, first_prev: None, last_start: None, ..quiet(6) };
    let run = RunFacts::continue_from(Some(&facts(&before)), &inside);
    assert_eq!(run.last_start, before.last_start);
    let middle = WalFacts::of_survey(common(), &inside, run);
    let after = Survey { first_prev: before.last_start, ..survey(7) };
    assert_eq!(RunFacts::continue_from(Some(&middle), &after).run_start, Lsn(5 * SIZE));
}

#[test]
fn the_running_values_never_fall_though_the_clock_does() {
    let first = facts(&survey(5));
    let earlier = Survey {
        times: Some((Timestamp(-50 * SECOND), Timestamp(-40 * SECOND))),
        first_time: Some(Timestamp(-50 * SECOND)),
        last_time: Some(Timestamp(-40 * SECOND)),
        steps_back: 2,
        ..survey(6)
    };
    let run = RunFacts::continue_from(Some(&first), &earlier);
    assert_eq!(run.run_high, Some(Timestamp(20 * SECOND)));
    assert_eq!(run.run_last_time, Some(Timestamp(-40 * SECOND)));
    assert_eq!(run.run_steps, 3, "two within and one at the border");
    assert_eq!((run.run_commits, run.run_points), (6, 2));
    assert_eq!((run.run_prepares, run.run_parameter_changes), (Some(4), Some(2)));

    let second = WalFacts::of_survey(common(), &earlier, run);
    let run = RunFacts::continue_from(Some(&second), &quiet(7));
    assert_eq!(run.run_high, Some(Timestamp(20 * SECOND)));
    assert_eq!(run.run_last_time, Some(Timestamp(-40 * SECOND)));
    assert_eq!((run.run_steps, run.run_commits, run.run_points), (3, 6, 2));
    assert_eq!((run.run_prepares, run.run_parameter_changes), (Some(4), Some(2)));
}

#[test]
fn what_an_earlier_segment_did_not_count_stays_unknown_until_a_new_run() {
    let mut first = facts(&survey(5));
    first.run.as_mut().unwrap().run_prepares = None;
    let run = RunFacts::continue_from(Some(&first), &survey(6));
    assert_eq!((run.run_prepares, run.run_parameter_changes), (None, Some(2)));
    let new = RunFacts::continue_from(None, &survey(6));
    assert_eq!((new.run_prepares, new.run_parameter_changes), (Some(2), Some(1)));
}

/// What a segment counts: commits, prepares, parameter changes, restore points; and
/// whether the run of the one before goes on in it.
type Counts = (u64, u64, u64, usize, bool);

fn counted(number: u64, (commits, prepares, parameter_changes, points, goes_on): Counts) -> Survey {
    let sound = survey(number);
    let point = sound.restore_points[0].clone();
    Survey {
        commits,
        prepares,
        parameter_changes,
        restore_points: vec![point; points],
        first_prev: sound.first_prev.filter(|_| goes_on),
        ..sound
    }
}

proptest! {
    #[test]
    fn the_running_numbers_are_the_sums_since_the_run_began_and_never_fall(
        all in prop::collection::vec((0..9_u64, 0..9_u64, 0..9_u64, 0..3_usize, prop::bool::weighted(0.9)), 1..30),
    ) {
        let mut before: Option<WalFacts> = None;
        let mut first = 0;
        for (index, counts) in all.iter().enumerate() {
            let survey = counted(5 + index as u64, *counts);
            let run = RunFacts::continue_from(before.as_ref(), &survey);
            if !counts.4 {
                first = index;
            }
            let since = &all[first..=index];
            prop_assert_eq!(run.run_start, Lsn((5 + first as u64) * SIZE));
            prop_assert_eq!(run.run_commits, since.iter().map(|it| it.0).sum::<u64>());
            prop_assert_eq!(run.run_prepares, Some(since.iter().map(|it| it.1).sum()));
            prop_assert_eq!(run.run_parameter_changes, Some(since.iter().map(|it| it.2).sum()));
            prop_assert_eq!(run.run_points, since.iter().map(|it| it.3 as u64).sum::<u64>());
            let facts = WalFacts::of_survey(common(), &survey, run);
            // As the next push has it: from the metadata.
            before = Some(WalFacts::from_metadata(&facts.to_metadata().unwrap()).unwrap());
        }
    }
}

#[test]
fn a_step_at_the_border_counts_from_more_than_a_second() {
    let first = facts(&survey(5));
    for (first_time, steps) in
        [(20 * SECOND, 0), (19 * SECOND, 0), (19 * SECOND - 1, 1), (i64::MIN, 1), (i64::MAX, 0)]
    {
        let next = Survey { first_time: Some(Timestamp(first_time)), ..survey(6) };
        assert_eq!(RunFacts::continue_from(Some(&first), &next).run_steps, steps, "{first_time}");
    }
}
