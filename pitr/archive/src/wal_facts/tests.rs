#![allow(clippy::unwrap_used)]

use super::*;
use crate::description::{COVERED, resealed};
use crate::facts::FactsError;
use crate::run_facts::tests::{common, survey};
use proptest::prelude::*;

fn facts() -> WalFacts {
    let survey = survey(6);
    WalFacts::of_survey(common(), &survey, RunFacts::continue_from(None, &survey))
}

fn there_and_back(facts: &WalFacts) -> WalFacts {
    WalFacts::from_metadata(&facts.to_metadata().unwrap()).unwrap()
}

/// Every value as long as it can be.
pub(crate) fn worst_case() -> WalFacts {
    let (lsn, time) = (Lsn(u64::MAX), Timestamp(i64::MIN));
    let name = "ä".repeat(31);
    let point = RestorePoint { name, lsn, time };
    WalFacts {
        common: Common {
            plain_size: u64::MAX,
            system_identifier: walpoint_wal::SystemIdentifier(u64::MAX),
            ..common()
        },
        timeline: TimelineId::new(u32::MAX).unwrap(),
        validated: true,
        page_magic: Some(u16::MAX),
        start: lsn,
        end: lsn,
        first_record: Some(lsn),
        first_prev: Some(lsn),
        last_start: Some(lsn),
        ending: WalEnding::Switched { at: lsn },
        edge_checked: true,
        time_low: Some(time),
        time_high: Some(time),
        time_first: Some(time),
        time_last: Some(time),
        time_known: Some(time),
        commits: u64::MAX,
        aborts: u64::MAX,
        steps_back: u64::MAX,
        point_count: 8,
        restore_points: Some(vec![point; 8]),
        xids: Some((u32::MAX, u32::MAX)),
        file_copy: true,
        next_xid: Some(u64::MAX),
        run: Some(RunFacts {
            run_start: lsn,
            run_high: Some(time),
            run_last_time: Some(time),
            run_commits: u64::MAX,
            run_steps: u64::MAX,
            run_points: u64::MAX,
            run_prepares: Some(u64::MAX),
            run_parameter_changes: Some(u64::MAX),
            last_start: Some(lsn),
        }),
    }
}

#[test]
fn facts_come_back_from_metadata() {
    let facts = facts();
    assert_eq!(there_and_back(&facts), facts);
    for ending in [
        WalEnding::Full,
        WalEnding::Switched { at: Lsn(9) },
        WalEnding::Open { at: Lsn(9) },
        WalEnding::Damaged { at: Lsn(9) },
    ] {
        let facts = WalFacts { ending, ..facts.clone() };
        assert_eq!(there_and_back(&facts), facts);
    }
    let unvalidated = WalFacts::unvalidated(common(), TimelineId::FIRST, Lsn(1 << 20), 0xd999);
    let back = there_and_back(&unvalidated);
    assert_eq!(back.run, None);
    assert!(!back.validated);
    assert_eq!((back.start, back.end), (Lsn(1 << 20), Lsn(2 << 20)));
}

#[test]
fn the_worst_case_fits_and_keeps_the_number_of_restore_points() {
    let facts = worst_case();
    let metadata = facts.to_metadata().unwrap();
    assert!(metadata.size() <= MAX_METADATA_BYTES, "{} bytes", metadata.size());
    // Everything there can be but the list that does not fit.
    let names = metadata.iter().map(|(name, _)| name).filter(|name| *name != "check");
    assert_eq!(
        names.collect::<Vec<_>>(),
        COVERED.iter().copied().filter(|it| *it != "points").collect::<Vec<_>>()
    );
    let back = WalFacts::from_metadata(&metadata).unwrap();
    assert_eq!((back.point_count, &back.restore_points), (8, &None));
    assert_eq!(back, WalFacts { restore_points: None, ..facts });
}

#[test]
fn there_is_room_for_eight_restore_points_with_ordinary_names() {
    let mut facts = facts();
    let point = |number: u64| RestorePoint {
        name: format!("before migration {number}, the \"big\" one"),
        lsn: Lsn(0x1000_0000 + number),
        time: Timestamp(848_526_300_999_999),
    };
    facts.restore_points = Some((0..8).map(point).collect());
    facts.point_count = 8;
    assert!(facts.to_metadata().unwrap().size() <= MAX_METADATA_BYTES);
    let few = WalFacts { restore_points: Some((0..3).map(point).collect()), point_count: 3, ..facts.clone() };
    assert_eq!(there_and_back(&few), few);
    let many = WalFacts { restore_points: Some((0..9).map(point).collect()), point_count: 9, ..facts };
    assert_eq!(there_and_back(&many).restore_points, None);
    assert_eq!(there_and_back(&many).point_count, 9);
}

#[test]
fn restore_points_are_listed_up_to_the_last_byte_that_is_left() {
    let (base, mut fullest) = (facts(), 0);
    for (count, length) in (1..=8).flat_map(|count| (1..64).map(move |length| (count, length))) {
        let point = RestorePoint { name: "p".repeat(length), lsn: Lsn(u64::MAX), time: Timestamp(0) };
        let points = Some(vec![point; count]);
        let facts = WalFacts { restore_points: points, point_count: count as u64, ..base.clone() };
        let metadata = facts.to_metadata().unwrap();
        assert!(metadata.size() <= MAX_METADATA_BYTES, "{} bytes", metadata.size());
        fullest = fullest.max(metadata.size());
    }
    assert!(fullest + 8 > MAX_METADATA_BYTES, "{fullest} bytes at most");
}

#[test]
fn metadata_that_contradicts_itself_is_refused() {
    let metadata = facts().to_metadata().unwrap();
    for (name, value) in [
        ("timeline", "0"),
        ("point-count", "2"),
        ("points", "p@0/0"),
        ("points", "p@0/0@2026-11-20T21:45:00.123456Z@x"),
        ("points", "%FF@0/0@2026-11-20T21:45:00.123456Z"),
        ("ending", "lost"),
        ("edge-checked", "maybe"),
        ("magic", "xyz"),
        ("xids", "7"),
        ("start", "1"),
        ("time-high", "today"),
        ("run-commits", "many"),
        ("run-prepares", "-1"),
        ("format", "2"),
    ] {
        let error = WalFacts::from_metadata(&resealed(&metadata, &[(name, value)])).unwrap_err();
        assert_ne!(error, FactsError::Altered, "{name}={value}");
    }
    let ending = resealed(&metadata, &[("ending", "damaged")]);
    assert!(WalFacts::from_metadata(&ending).is_err(), "damaged, and nobody says where");
}

proptest! {
    #[test]
    fn restore_points_of_any_name_come_back(
        points in proptest::collection::vec((".{0,12}", any::<u64>(), any::<i64>()), 0..4),
    ) {
        let points: Vec<_> = points
            .into_iter()
            .map(|(name, lsn, time)| RestorePoint { name, lsn: Lsn(lsn), time: Timestamp(time) })
            .collect();
        let facts = WalFacts {
            point_count: points.len() as u64,
            restore_points: Some(points),
            ..facts()
        };
        let back = there_and_back(&facts);
        prop_assert!(back.restore_points.is_none() || back == facts);
    }

    #[test]
    fn any_metadata_gives_facts_or_an_error(
        values in proptest::collection::vec(("[a-z-]{1,12}|ending|points|xids|magic|start|run-start", "[ -~]{1,40}"), 0..8),
    ) {
        let values: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), value.trim())).collect();
        let _ = WalFacts::from_metadata(&resealed(&facts().to_metadata().unwrap(), &values));
    }
}
