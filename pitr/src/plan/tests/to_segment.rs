//! Plans without the key: never more than what the plan with the key says.

use proptest::prelude::*;

use super::oracle::{few_cases, targets};
use super::*;
use crate::testing::model::{Story, World, story};
use crate::window::window;

async fn outline(test: &TestArchive, request: &TargetRequest) -> Result<SegmentOutcome, PlanError> {
    plan_to_segment(&test.archive, &test.catalog().await, request).await
}

async fn sketch(test: &TestArchive, request: &TargetRequest) -> RecoveryPlan {
    match outline(test, request).await.unwrap() {
        SegmentOutcome::Reachable(plan) => plan.bounds().clone(),
        SegmentOutcome::Unreachable(why) => panic!("{why:?}"),
    }
}

async fn unreachable(test: &TestArchive, request: &TargetRequest) -> Unreachable {
    match outline(test, request).await.unwrap() {
        SegmentOutcome::Reachable(plan) => panic!("{plan:?}"),
        SegmentOutcome::Unreachable(why) => why,
    }
}

#[tokio::test]
async fn lsns_the_end_of_the_backup_and_the_end_of_all_are_planned_as_with_the_key() {
    let (test, commits, last) = three_commits().await;
    let lsns = commits.iter().flat_map(|commit| [commit.lsn, commit.end]).chain([last.end]);
    for target in lsns.map(Target::Lsn).chain([Target::Immediate, Target::Latest]) {
        let request = request(target);
        let (without, with) = (sketch(&test, &request).await, reach(&test, &request).await);
        assert_eq!((&without.backup.id, without.timeline), (&with.backup.id, with.timeline), "{request:?}");
        assert_eq!(without.segments, with.segments, "{request:?}");
        assert_eq!(without.bytes_to_fetch, with.bytes_to_fetch);
        assert!(without.warnings.contains(&words::to_the_segment()));
    }
}

#[tokio::test]
async fn what_only_the_content_can_tell_needs_the_key() {
    let (test, commits, _) = three_commits().await;
    let exclusive = TargetRequest { exclusive: true, ..request(Target::Lsn(commits[1].lsn)) };
    let others = [time(150), Target::Xid(1100), Target::Name("x".to_owned())].map(request);
    for request in others.into_iter().chain([exclusive]) {
        let error = outline(&test, &request).await.unwrap_err();
        assert!(matches!(error, PlanError::NeedsKey { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_missing_segment_and_one_without_an_end_are_not_planned_across() {
    let (test, commits, last) = three_commits().await;
    test.delete(segment(1, 4)).await;
    for target in [Target::Lsn(commits[1].lsn), Target::Lsn(commits[2].lsn), Target::Latest] {
        unreachable(&test, &request(target)).await;
    }
    let why = unreachable(&test, &request(Target::Lsn(Lsn(last.end.0 + MIB)))).await;
    assert_eq!(why.nearest.before.map(|it| it.lsn), Some(Lsn(4 * MIB)));
    sketch(&test, &request(Target::Lsn(Lsn(4 * MIB)))).await;
}

#[tokio::test]
async fn the_last_record_of_a_full_segment_is_not_promised_when_the_next_segment_is_missing() {
    let (mut wal, backup) = with_backup(3);
    wal.fill_until(4 * MIB);
    let spanning = wal.filler(10_000);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |number| (number == 3).then_some(Knows::All)).await;
    test.backup(&backup).await;
    assert!(spanning.end.0 > 4 * MIB);
    let request = request(Target::Lsn(spanning.lsn));
    let error = outline(&test, &request).await.unwrap_err();
    assert!(matches!(error, PlanError::NeedsKey { .. }), "{error}");
}

#[tokio::test]
async fn segments_whose_metadata_do_not_link_are_left_to_the_key() {
    let (mut wal, backup) = with_backup(3);
    wal.fill_until(4 * MIB);
    wal.filler(10_000);
    let commit = wal.commit(2000, at_second(100), &[]);
    wal.switch();
    for (knows, decides) in [(Knows::All, true), (Knows::Nothing, false)] {
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |_| Some(knows)).await;
        test.backup(&backup).await;
        let request = request(Target::Lsn(commit.lsn));
        reach(&test, &request).await;
        match outline(&test, &request).await {
            Ok(SegmentOutcome::Reachable(_)) => assert!(decides),
            Err(PlanError::NeedsKey { why, .. }) => assert!(!decides, "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

async fn compare(story: &Story, pick: &[prop::sample::Index]) {
    let world = World::of(story).await;
    for (timeline, _) in &world.records {
        for (target, exclusive) in targets(&world, *timeline, pick) {
            let on = TargetTimeline::Number(tli(*timeline));
            let request = TargetRequest { target, exclusive, timeline: on, backup: None };
            let said = outline(&world.test, &request).await;
            agrees(&world, &request, said).await;
        }
    }
    no_wider(&world).await;
}

async fn agrees(world: &World, request: &TargetRequest, said: Result<SegmentOutcome, PlanError>) {
    let exact = ask(&world.test, request).await;
    let both = format!("{request:?}\nwithout {said:?}\nwith {exact:?}");
    match (said, exact) {
        (Err(PlanError::NeedsKey { .. }), _) => {}
        (Ok(SegmentOutcome::Unreachable(why)), PlanOutcome::Unreachable(_)) => {
            for moment in [why.nearest.before, why.nearest.after].into_iter().flatten() {
                let instead =
                    TargetRequest { target: Target::Lsn(moment.lsn), exclusive: false, ..request.clone() };
                let outcome = ask(&world.test, &instead).await;
                assert!(matches!(outcome, PlanOutcome::Reachable(_)), "{both}\n{outcome:?}");
            }
        }
        (Ok(SegmentOutcome::Reachable(without)), PlanOutcome::Reachable(with)) => {
            let without = without.bounds();
            assert_eq!((&without.backup.id, without.timeline), (&with.backup.id, with.timeline), "{both}");
            assert_eq!(without.record_timeline, with.record_timeline, "{both}");
            assert_eq!(without.segments.first.number(size()), with.segments.first.number(size()), "{both}");
            // Only the record that spans out of the segment may end in a later one.
            let spans = with.last_record.segment_number(size()) < with.last_record_end.segment_number(size());
            assert!(without.segments == with.segments || spans, "{both}");
            assert!(without.segments.count <= with.segments.count, "{both}");
            assert!(with.last_record <= without.last_record, "{both}");
            assert!(with.last_record_end <= without.last_record_end, "{both}");
        }
        _ => panic!("{both}"),
    }
}

/// Every range without the key lies in one with it.
async fn no_wider(world: &World) {
    let catalog = world.test.catalog().await;
    let exact = window(&world.test.archive, &catalog).await.unwrap();
    let without = crate::window::window_by_metadata(&world.test.archive, &catalog).await.unwrap();
    assert!(exact.exact && !without.exact);
    for range in &without.ranges {
        let inside = exact.ranges.iter().any(|it| {
            it.timeline == range.timeline && it.from.lsn <= range.from.lsn && range.to.lsn <= it.to.lsn
        });
        assert!(inside, "{range:?} is in none of {exact:?}");
    }
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn a_plan_without_the_key_says_what_the_plan_with_it_says_or_that_it_needs_it(
        story in story(),
        pick in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(&story, &pick));
    }
}
