//! What failovers, holes and damage leave, staged.

use super::*;
use crate::testing::size;
use walpoint_wal::SegmentName;

/// Timeline 1 with its backup, a fork at second 200 inside segment 5, and both branches
/// going on: commits 1100, then 1200 and 1300 on the old branch, 2200 and 2300 on the new.
pub(super) struct Forked {
    pub old: WalWriter,
    pub new: WalWriter,
    pub backup: BackupSummary,
    pub fork: Lsn,
    /// Last record before the fork.
    pub last_shared: Placed,
    pub first_new: Placed,
    pub last_new: Placed,
}

pub(super) fn forked() -> Forked {
    let (mut old, backup) = with_backup(3);
    old.switch();
    old.filler(100);
    old.switch();
    old.commit(1100, at_second(100), &[]);
    let last_shared = old.filler(300);
    let fork = old.end();
    let mut new = old.clone();
    new.promote(tli(2));
    let first_new = new.end_of_recovery(tli(1), at_second(200));
    new.commit(2200, at_second(210), &[]);
    new.switch();
    new.commit(2300, at_second(300), &[]);
    let last_new = new.checkpoint(new.end(), at_second(400), 2400);
    old.commit(1200, at_second(220), &[]);
    old.switch();
    old.commit(1300, at_second(320), &[]);
    Forked { old, new, backup, fork, last_shared, first_new, last_new }
}

async fn archive_of(
    forked: &Forked,
    old: impl Fn(u64) -> Option<Knows>,
    new: impl Fn(u64) -> Option<Knows>,
) -> TestArchive {
    let mut test = TestArchive::new().await;
    test.push_all(&forked.old, old).await;
    test.history(2, &[(1, forked.fork.0)]).await;
    test.push_all(&forked.new, new).await;
    test.backup(&forked.backup).await;
    test
}

fn all(_: u64) -> Option<Knows> {
    Some(Knows::All)
}

fn on(timeline: u32, target: Target) -> TargetRequest {
    TargetRequest { timeline: TargetTimeline::Number(tli(timeline)), ..request(target) }
}

fn segment_of(lsn: Lsn, timeline: u32) -> SegmentName {
    SegmentName::containing(tli(timeline), lsn, size())
}

#[tokio::test]
async fn latest_follows_the_newest_timeline_and_a_number_goes_back() {
    for knows in [Knows::All, Knows::Metadata, Knows::Nothing] {
        let forked = forked();
        let test = archive_of(&forked, |_| Some(knows), |_| Some(knows)).await;
        let plan = reach(&test, &request(Target::Latest)).await;
        assert_eq!(
            (plan.last_record, plan.timeline, plan.record_timeline),
            (forked.last_new.lsn, tli(2), tli(2))
        );
        assert_eq!(plan.last_included.map(|it| it.xid), Some(2300));
        assert_eq!((plan.segments.first, plan.segments.last), (segment(1, 3), segment(2, 6)), "{knows:?}");
        let steps: Vec<_> = plan.path.iter().map(|step| (step.timeline.get(), step.end)).collect();
        assert_eq!(steps, [(1, Some(forked.fork)), (2, None)]);
        let plan = reach(&test, &on(1, Target::Latest)).await;
        assert_eq!((plan.timeline, plan.last_included.map(|it| it.xid)), (tli(1), Some(1300)));
        let current = TargetRequest { timeline: TargetTimeline::Current, ..request(Target::Latest) };
        assert_eq!(reach(&test, &current).await.timeline, tli(1));
        // The same time is another moment on either branch.
        let plan = reach(&test, &request(time(215))).await;
        assert_eq!(
            (plan.last_included.map(|it| it.xid), plan.first_excluded.map(|it| it.xid)),
            (Some(2200), Some(2300))
        );
        let plan = reach(&test, &on(1, time(215))).await;
        assert_eq!(
            (plan.last_included.map(|it| it.xid), plan.first_excluded.map(|it| it.xid)),
            (Some(1100), Some(1200))
        );
        for xid in [1200, 1300] {
            refused(&test, &request(Target::Xid(xid))).await;
            reach(&test, &on(1, Target::Xid(xid))).await;
        }
    }
}

#[tokio::test]
async fn a_record_before_the_fork_goes_to_postgresql_with_its_own_timeline_where_that_has_the_segment() {
    let forked = forked();
    let test = archive_of(&forked, all, all).await;
    let plan = reach(&test, &request(Target::Xid(1100))).await;
    assert_eq!((plan.timeline, plan.record_timeline), (tli(1), tli(1)));
    assert_eq!(plan.segments.last, segment_of(forked.fork, 1));
    assert_eq!(plan.path.len(), 1);
    // The first commit that is left out is the chosen timeline's.
    assert_eq!(plan.first_excluded.map(|it| it.xid), Some(2200));
}

#[tokio::test]
async fn where_only_a_child_has_the_segment_the_child_is_named() {
    let forked = forked();
    let test = archive_of(&forked, |number| (number < 5).then_some(Knows::All), all).await;
    let plan = reach(&test, &request(Target::Xid(1100))).await;
    assert_eq!((plan.timeline, plan.record_timeline), (tli(2), tli(1)));
    assert_eq!(plan.segments.last, segment_of(forked.fork, 2));
    assert!(plan.notes.iter().any(|note| note.contains("timeline 2 has a copy")), "{:?}", plan.notes);
    // Timeline 1 alone ends before it.
    refused(&test, &on(1, Target::Xid(1100))).await;
}

#[tokio::test]
async fn without_any_segment_of_the_child_latest_is_the_fork() {
    let forked = forked();
    let test = archive_of(&forked, all, |_| None).await;
    let plan = reach(&test, &request(Target::Latest)).await;
    assert_eq!((plan.last_record, plan.last_record_end), (forked.last_shared.lsn, forked.fork));
    assert_eq!((plan.timeline, plan.record_timeline), (tli(1), tli(1)));
    assert_eq!(plan.first_excluded, None);
    assert!(plan.notes.iter().any(|note| note.contains("no WAL of its own")), "{:?}", plan.notes);
    // The old branch's commits are on no way to timeline 2.
    refused(&test, &request(Target::Xid(1200))).await;
    refused(&test, &request(time(220))).await;
    refused(&test, &request(Target::Lsn(Lsn(forked.fork.0 + 1)))).await;
    let plan = reach(&test, &request(Target::Lsn(forked.fork))).await;
    assert_eq!(plan.last_record, forked.last_shared.lsn);
}

#[tokio::test]
async fn only_a_partial_and_no_copy_is_not_reachable() {
    let forked = forked();
    let mut test = archive_of(&forked, |number| (number < 5).then_some(Knows::All), |_| None).await;
    let (name, bytes) = forked.old.segments().nth(2).map(|(name, bytes)| (name, bytes.to_vec())).unwrap();
    let facts = test.survey(name, &bytes, Knows::All);
    test.store(walpoint_wal::WalFileName::Partial(name), facts, bytes).await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains("only as .partial"), "{}", why.reason);
    assert_eq!(why.nearest.before.map(|it| it.lsn), Some(Lsn(5 * MIB)));
    refused(&test, &request(time(150))).await;
}

#[tokio::test]
async fn a_hole_in_the_parent_behind_a_fork_is_said_before_anything_is_written() {
    let forked = forked();
    let test = archive_of(&forked, |number| (number < 4).then_some(Knows::All), all).await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains(&segment(1, 4).to_string()), "{}", why.reason);
    let before = why.nearest.before.unwrap();
    assert_eq!(before.lsn, Lsn(4 * MIB));
    reach(&test, &request(Target::Lsn(before.lsn))).await;
    for target in [time(150), time(250), Target::Xid(2300), Target::Lsn(forked.first_new.lsn)] {
        let why = refused(&test, &request(target)).await;
        assert_eq!(why.nearest.before.map(|it| it.lsn), Some(before.lsn));
    }
}

#[tokio::test]
async fn a_backup_from_behind_the_fork_serves_only_its_own_branch() {
    let mut forked = forked();
    forked.old.switch();
    let start = forked.old.checkpoint(forked.old.end(), at_second(500), 1600).lsn;
    let stop = forked.old.backup_end(start).end;
    let late = backup(2, 1, start, stop, at_second(510));
    let test = archive_of(&forked, all, all).await;
    test.backup(&late).await;
    let plan = reach(&test, &request(Target::Latest)).await;
    assert_eq!((plan.timeline, &plan.backup.id), (tli(2), &forked.backup.id));
    let asked = TargetRequest { backup: Some(late.id.clone()), ..request(Target::Latest) };
    let plan = reach(&test, &asked).await;
    assert_eq!((plan.timeline, &plan.backup.id), (tli(1), &late.id));
    let why = refused(&test, &TargetRequest { timeline: TargetTimeline::Number(tli(2)), ..asked }).await;
    assert!(why.reason.contains("no base backup lies on the way"), "{}", why.reason);
}

#[tokio::test]
async fn a_timeline_without_history_cannot_be_chosen_and_is_warned_of() {
    let forked = forked();
    let mut test = TestArchive::new().await;
    test.parent(2, 1, forked.fork.0);
    test.push_all(&forked.old, all).await;
    test.push_all(&forked.new, all).await;
    test.backup(&forked.backup).await;
    let plan = reach(&test, &request(Target::Latest)).await;
    assert_eq!(plan.timeline, tli(1));
    assert!(plan.warnings.iter().any(|warning| warning.contains("timeline 2")), "{:?}", plan.warnings);
    let why = refused(&test, &on(2, Target::Latest)).await;
    assert!(why.hint.unwrap().contains("00000002.history"));
}

#[tokio::test]
async fn two_histories_of_one_timeline_are_not_guessed_between() {
    let forked = forked();
    let test = archive_of(&forked, all, all).await;
    let mut catalog = test.catalog().await;
    catalog.histories.remove(&tli(2));
    catalog.history_conflicts.push(tli(2));
    let outcome = plan(&test.archive, &catalog, &request(Target::Latest)).await.unwrap();
    assert!(matches!(&outcome, PlanOutcome::Unreachable(why) if why.reason.contains("different histories")));
    let outcome = plan(&test.archive, &catalog, &on(1, Target::Latest)).await.unwrap();
    assert!(matches!(outcome, PlanOutcome::Reachable(_)));
}

/// Six segments with a commit each, at seconds 100, 200, …; a backup in the first one.
fn six_segments() -> (WalWriter, BackupSummary) {
    let (mut wal, backup) = with_backup(3);
    wal.switch();
    for second in 1..=5 {
        wal.commit(1000 + second, at_second(100 * i64::from(second)), &[]);
        wal.filler(2000);
        wal.switch();
    }
    (wal, backup)
}

#[tokio::test]
async fn a_missing_segment_cuts_off_what_is_behind_it() {
    let (wal, backup) = six_segments();
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |number| (number != 6).then_some(Knows::All)).await;
    test.backup(&backup).await;
    assert_eq!(reach(&test, &request(time(150))).await.last_included.map(|it| it.xid), Some(1001));
    for target in
        [Target::Latest, time(250), time(350), time(450), Target::Xid(1004), Target::Lsn(Lsn(7 * MIB + 50))]
    {
        let why = refused(&test, &request(target.clone())).await;
        assert!(why.reason.contains(&segment(1, 6).to_string()), "{target}: {}", why.reason);
        assert_eq!(why.nearest.before.map(|it| it.lsn), Some(Lsn(6 * MIB)), "{target}");
        assert_eq!(why.nearest.after, None);
    }
    // A backup behind the hole brings that part back.
    let late = backup_at(2, Lsn(7 * MIB + 40), Lsn(7 * MIB + 40), 350);
    test.backup(&late).await;
    assert_eq!(reach(&test, &request(Target::Latest)).await.backup.id, late.id);
    let why = refused(&test, &request(time(310))).await;
    assert_eq!(why.nearest.before.map(|it| it.lsn), Some(Lsn(6 * MIB)));
    assert_eq!(why.nearest.after.map(|it| it.lsn), Some(late.stop.lsn));
}

fn backup_at(number: u32, start: Lsn, stop: Lsn, second: i64) -> BackupSummary {
    backup(number, 1, start, stop, at_second(second))
}

#[tokio::test]
async fn a_damaged_record_cuts_off_what_is_behind_it_and_what_is_before_it_stays() {
    let (wal, backup) = six_segments();
    let mut test = TestArchive::new().await;
    for (name, bytes) in wal.segments().map(|(name, bytes)| (name, bytes.to_vec())).collect::<Vec<_>>() {
        let mut bytes = bytes;
        if name == segment(1, 6) {
            // Inside the filler behind the commit.
            bytes[1500] ^= 1;
        }
        test.push(name, bytes, Knows::All).await;
    }
    test.backup(&backup).await;
    let plan = reach(&test, &request(Target::Xid(1003))).await;
    assert_eq!(plan.segments.last, segment(1, 6));
    for target in [Target::Latest, time(350), Target::Xid(1004)] {
        let why = refused(&test, &request(target.clone())).await;
        assert!(why.reason.contains("is damaged at"), "{target}: {}", why.reason);
        assert!(why.hint.is_some_and(|hint| hint.contains("walpoint window")), "{target}");
        assert_eq!(why.nearest.before.map(|it| it.lsn), Some(plan.last_record_end));
    }
}

#[tokio::test]
async fn a_segment_of_other_wal_breaks_the_chain() {
    let (wal, backup) = six_segments();
    let mut other = WalWriter::new(size(), SYSTEM, 6);
    other.commit(9000, at_second(290), &[]);
    other.switch();
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |number| (number != 6).then_some(Knows::All)).await;
    test.push_all(&other, |_| Some(Knows::Nothing)).await;
    test.backup(&backup).await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains("does not continue the one before it"), "{}", why.reason);
    assert_eq!(reach(&test, &request(time(150))).await.last_included.map(|it| it.xid), Some(1001));
}

#[tokio::test]
async fn wal_of_an_unknown_version_is_said_to_be_that() {
    let (wal, backup) = six_segments();
    let mut test = TestArchive::new().await;
    for (name, bytes) in wal.segments().map(|(name, bytes)| (name, bytes.to_vec())).collect::<Vec<_>>() {
        if name < segment(1, 6) {
            test.push(name, bytes, Knows::All).await;
            continue;
        }
        let common = test.survey(name, &bytes, Knows::Nothing).common;
        let start = name.start(size()).unwrap();
        let facts = walpoint_archive::WalFacts::unvalidated(common, tli(1), start, 0xD120);
        test.store(walpoint_wal::WalFileName::Segment(name), facts, bytes).await;
    }
    test.backup(&backup).await;
    let why = refused(&test, &request(Target::Latest)).await;
    assert!(why.reason.contains("PostgreSQL version that this walpoint does not know"), "{}", why.reason);
    assert_eq!(why.nearest.before.map(|it| it.lsn), Some(Lsn(6 * MIB)));
}

#[tokio::test]
async fn metadata_that_lie_are_damage_and_never_a_wrong_plan() {
    type Lie = fn(&mut walpoint_archive::WalFacts);
    let lies: [(&str, Lie); 5] = [
        ("a time no record has", |facts| {
            facts.run.as_mut().unwrap().run_high = Some(at_second(100_000));
        }),
        ("a run that begins behind it", |facts| facts.run.as_mut().unwrap().run_start = Lsn(50 * MIB)),
        ("another place", |facts| facts.start = Lsn(0)),
        ("more commits", |facts| facts.run.as_mut().unwrap().run_commits = 1_000_000),
        ("soundness", |facts| facts.run.as_mut().unwrap().last_start = Some(Lsn(6 * MIB + 41))),
    ];
    for (what, lie) in lies {
        let (wal, backup) = six_segments();
        let mut test = TestArchive::new().await;
        for (name, bytes) in wal.segments().map(|(name, bytes)| (name, bytes.to_vec())).collect::<Vec<_>>() {
            let mut facts = test.survey(name, &bytes, Knows::All);
            if name == segment(1, 6) || name == segment(1, 8) {
                lie(&mut facts);
            }
            test.store(walpoint_wal::WalFileName::Segment(name), facts, bytes).await;
        }
        test.backup(&backup).await;
        let catalog = test.catalog().await;
        for target in [Target::Latest, time(250), time(350), time(99_999), Target::Xid(1004)] {
            match plan(&test.archive, &catalog, &request(target.clone())).await {
                Ok(PlanOutcome::Reachable(plan)) => {
                    let xid = plan.last_included.map(|it| it.xid);
                    let right = match target {
                        Target::Latest => Some(1005),
                        Target::Time(time) if time == at_second(250) => Some(1002),
                        Target::Time(time) if time == at_second(350) => Some(1003),
                        Target::Xid(_) => Some(1004),
                        _ => panic!("{what}, {target}: {plan:?}"),
                    };
                    assert_eq!(xid, right, "{what}, {target}");
                }
                Ok(PlanOutcome::Unreachable(_)) | Err(PlanError::Archive(ArchiveError::Damaged { .. })) => {}
                Err(error) => panic!("{what}, {target}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn settings_that_went_up_after_the_backup_are_warned_of() {
    let (mut wal, first) = with_backup(3);
    wal.parameter_change(300, 20);
    wal.parameter_change(200, 0);
    let last = wal.commit(1500, at_second(100), &[]);
    let mut test = TestArchive::new().await;
    test.push_all(&wal, all).await;
    test.backup(&first).await;
    let plan = reach(&test, &request(Target::Latest)).await;
    assert_eq!(plan.last_record, last.lsn);
    let warned = |text: &str| plan.warnings.iter().any(|warning| warning.contains(text));
    assert!(warned("max_connections was raised from 100 to 300"), "{:?}", plan.warnings);
    assert!(warned("max_prepared_transactions was raised from 0 to 20"));
    assert_eq!(plan.warnings.len(), 2);
}

#[tokio::test]
async fn a_parent_that_went_on_archiving_is_a_warning_to_who_named_no_timeline() {
    let forked = forked();
    // The history alone, as the first half of a take-over leaves it.
    let test = archive_of(&forked, all, |_| None).await;
    let left_out = |plan: &RecoveryPlan| {
        plan.warnings
            .iter()
            .any(|it| it.contains("--target-timeline 1") && it.contains(&forked.fork.to_string()))
    };
    assert!(left_out(&reach(&test, &request(Target::Latest)).await));
    let named = reach(&test, &on(2, Target::Latest)).await;
    assert!(!left_out(&named), "{:?}", named.warnings);
    // Before the fork both are one.
    let before = reach(&test, &request(Target::Xid(1100))).await;
    assert!(!left_out(&before), "{:?}", before.warnings);
    // A parent that ends with the segment of the fork leaves nothing out.
    let number = forked.fork.0 / size().bytes();
    let test = archive_of(&forked, |it| (it < number).then_some(Knows::All), all).await;
    let ended = reach(&test, &request(Target::Latest)).await;
    assert!(!left_out(&ended), "{:?}", ended.warnings);
}

#[tokio::test]
async fn that_an_open_prepared_transaction_stops_postgresql_at_a_fork_is_said_where_one_can_be() {
    let mut forked = forked();
    for (max_prepared_xacts, is_said) in [(0, false), (5, true)] {
        forked.backup.settings.max_prepared_xacts = max_prepared_xacts;
        let test = archive_of(&forked, all, all).await;
        let across = reach(&test, &request(Target::Latest)).await;
        let before = reach(&test, &on(1, Target::Latest)).await;
        let says = |plan: &RecoveryPlan| plan.notes.iter().any(|note| note.contains("hot_standby = off"));
        assert_eq!((says(&across), says(&before)), (is_said, false), "{max_prepared_xacts}");
    }
}
