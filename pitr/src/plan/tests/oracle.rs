//! Plans on random clusters, compared with what looking at every record says.

use std::collections::BTreeSet;

use proptest::prelude::*;
use walpoint_archive::BackupSummary;
use walpoint_wal::{Lsn, PathStep, STEP_BACK_MICROS, Timestamp};

use super::*;
use crate::testing::model::{Says, Story, World, Written, story};

/// WAL on the way to a timeline that can be read without a break.
#[derive(Debug)]
struct Piece<'w> {
    first: u64,
    last: u64,
    cut: Option<Lsn>,
    /// Nothing can be read from here on, because of damage.
    damaged: Option<Lsn>,
    /// Nothing was shipped from here on.
    open: Option<Lsn>,
    records: Vec<&'w Written>,
}

/// The answers, found by looking at everything.
struct Oracle<'w> {
    world: &'w World,
    timeline: u32,
    pieces: Vec<Piece<'w>>,
    backups: Vec<&'w BackupSummary>,
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// The last record and the piece it is in.
    Record(usize, Written),
    No,
    /// Several, by their LSNs.
    Several(Vec<Lsn>),
    /// Clocks that went back leave both answers right.
    Open(Box<Answer>),
}

fn number_of(lsn: u64) -> u64 {
    lsn / MIB
}

impl<'w> Oracle<'w> {
    fn of(world: &'w World, timeline: u32) -> Oracle<'w> {
        let fork = world.fork.filter(|_| timeline == 2);
        // Which timeline's file serves, and where it is cut.
        let serves = |number: u64| -> Option<(u32, Option<Lsn>)> {
            let only_parents =
                fork.is_some_and(|fork| world.tails.get(&(2, number)).is_some_and(|end| *end <= fork));
            let own = !only_parents
                && world.there.contains(&(timeline, number))
                && fork.is_none_or(|fork| number >= number_of(fork.0));
            let old =
                fork.filter(|fork| number <= number_of(fork.0 - 1) && world.there.contains(&(1, number)));
            match (own, old) {
                (true, _) => Some((timeline, None)),
                (false, Some(fork)) => Some((1, (number == number_of(fork.0)).then_some(fork))),
                _ => None,
            }
        };
        let numbers: BTreeSet<u64> = world.there.iter().map(|(_, number)| *number).collect();
        let mut pieces: Vec<Piece<'w>> = Vec::new();
        for number in numbers {
            let Some((file, cut)) = serves(number) else { continue };
            let damaged = world.damaged.filter(|it| (it.0, it.1) == (file, number)).map(|it| it.2);
            let damaged = damaged.filter(|lsn| cut.is_none_or(|cut| *lsn < cut));
            let limit = cut.unwrap_or(Lsn((number + 1) * MIB));
            let open = world.tails.get(&(file, number)).copied().filter(|end| *end < limit);
            let goes_on = |piece: &&mut Piece<'_>| {
                let ends = piece.cut.or(piece.damaged).or(piece.open);
                piece.last + 1 == number && ends.is_none()
            };
            match pieces.last_mut().filter(goes_on) {
                Some(piece) => {
                    (piece.last, piece.cut, piece.damaged, piece.open) = (number, cut, damaged, open);
                }
                None => {
                    let records = Vec::new();
                    pieces.push(Piece { first: number, last: number, cut, damaged, open, records });
                }
            }
        }
        let all = world.records.iter().find(|(it, _)| *it == timeline).map(|(_, records)| records).unwrap();
        for piece in &mut pieces {
            let inside = |record: &&Written| {
                number_of(record.lsn.0) >= piece.first
                    && number_of(record.end.0 - 1) <= piece.last
                    && piece.cut.is_none_or(|cut| record.end <= cut)
                    && piece.damaged.is_none_or(|damaged| record.end <= damaged)
                    && piece.open.is_none_or(|open| record.end <= open)
            };
            piece.records = all.iter().filter(inside).collect();
        }
        let on_path = |backup: &&BackupSummary| {
            backup.timeline.get() == timeline || fork.is_some_and(|fork| backup.stop.lsn <= fork)
        };
        let mut backups: Vec<_> = world.backups.iter().filter(on_path).collect();
        backups.sort_by_key(|backup| backup.stop.lsn);
        Oracle { world, timeline, pieces, backups }
    }

    fn inside(&self, backup: &BackupSummary, piece: &Piece<'_>) -> bool {
        (piece.first..=piece.last).contains(&number_of(backup.redo.0))
    }

    fn time(&self, target: Timestamp, exclusive: bool) -> Answer {
        let out = |time: Timestamp| time > target || (exclusive && time == target);
        for (at, piece) in self.pieces.iter().enumerate().rev() {
            let first = piece.records.iter().position(|record| record.end_time().is_some_and(out));
            let before = &piece.records[..first.unwrap_or(piece.records.len())];
            let start = Lsn(piece.first * MIB);
            let shown = |record: &&&Written| match record.says {
                Says::Checkpoint { redo } => redo >= start,
                _ => record.time.is_some(),
            };
            let by_backup = self.backups.iter().any(|backup| {
                let behind = first.is_none_or(|first| backup.stop.lsn <= piece.records[first].lsn);
                self.inside(backup, piece) && behind && backup.stop.time <= target
            });
            let by_end = before.iter().any(|record| record.end_time().is_some());
            let by_record = before.iter().find(shown).is_some_and(|record| !out(record.time.unwrap()));
            let begun = by_backup || by_end || by_record;
            // What was expired may still be known to have had such a time.
            let may_have_begun = at == 0 && self.world.expired;
            if !begun && !may_have_begun {
                continue;
            }
            let answer = match first {
                Some(first) => self.before_excluded(at, first, out),
                None => self.nothing_out(at, target),
            };
            return if begun { answer } else { Answer::Open(Box::new(answer)) };
        }
        Answer::No
    }

    fn before_excluded(&self, at: usize, first: usize, out: impl Fn(Timestamp) -> bool) -> Answer {
        let mut last = self.pieces[at].records[first].end_time().unwrap();
        let later = self.pieces[at].records[first + 1..].iter().map(|record| (at, *record));
        let newer = (at + 1..self.pieces.len())
            .flat_map(|at| self.pieces[at].records.iter().map(move |it| (at, *it)));
        for (piece, record) in later.chain(newer) {
            let Some(time) = record.end_time() else { continue };
            if time.0 + STEP_BACK_MICROS < last.0 && !out(time) {
                let behind = self.pieces[piece].records.iter().filter(|it| it.lsn > record.lsn);
                let second = behind.filter(|it| it.end_time().is_some_and(&out)).map(|it| it.lsn).next();
                return Answer::Several(
                    [Some(self.pieces[at].records[first].lsn), second].into_iter().flatten().collect(),
                );
            }
            last = time;
        }
        self.previous(at, first)
    }

    fn previous(&self, at: usize, index: usize) -> Answer {
        match index.checked_sub(1) {
            Some(before) => Answer::Record(at, self.pieces[at].records[before].clone()),
            None => Answer::No,
        }
    }

    fn nothing_out(&self, at: usize, target: Timestamp) -> Answer {
        let piece = &self.pieces[at];
        let Some(last) = piece.records.last() else { return Answer::No };
        let ended = self.backups.iter().filter(|it| self.inside(it, piece) && it.stop.lsn <= last.end);
        let by_backup = ended.map(|backup| backup.stop.time).max();
        let ends = piece.records.iter().filter_map(|record| record.end_time()).max();
        let newest = piece.records.iter().rev().find_map(|record| record.time);
        let all = piece.records.iter().filter_map(|record| record.time).max();
        let answer = Answer::Record(at, (*last).clone());
        match () {
            () if by_backup.max(ends).max(newest) >= Some(target) => answer,
            () if by_backup.max(all) >= Some(target) => Answer::Open(Box::new(answer)),
            () => Answer::No,
        }
    }

    fn lsn(&self, lsn: Lsn, exclusive: bool) -> Answer {
        let holds = |piece: &Piece<'_>| {
            let end = piece.cut.unwrap_or(Lsn((piece.last + 1) * MIB));
            lsn.0 >= piece.first * MIB && lsn <= end
        };
        let Some(at) = self.pieces.iter().position(holds) else { return Answer::No };
        let records = &self.pieces[at].records;
        let next = records.iter().position(|record| record.lsn >= lsn);
        let last = records.last().filter(|last| if exclusive { lsn <= last.end } else { lsn == last.end });
        match (next, exclusive) {
            (Some(next), false) => Answer::Record(at, records[next].clone()),
            (Some(next), true) => self.previous(at, next),
            (None, _) => last.map_or(Answer::No, |last| Answer::Record(at, (*last).clone())),
        }
    }

    fn all(&self, wanted: impl Fn(&Says) -> bool) -> Vec<(usize, usize)> {
        let pieces = self.pieces.iter().enumerate();
        pieces
            .flat_map(|(at, piece)| (0..piece.records.len()).map(move |index| (at, index)))
            .filter(|(at, index)| wanted(&self.pieces[*at].records[*index].says))
            .collect()
    }

    fn one_of(&self, found: &[(usize, usize)], exclusive: bool) -> Answer {
        match found {
            [] => Answer::No,
            [(at, index)] if exclusive => self.previous(*at, *index),
            [(at, index)] => Answer::Record(*at, self.pieces[*at].records[*index].clone()),
            several => Answer::Several(
                several.iter().map(|(at, index)| self.pieces[*at].records[*index].lsn).collect(),
            ),
        }
    }

    fn latest(&self) -> Answer {
        let Some(piece) = self.pieces.last() else { return Answer::No };
        let end = piece.cut.unwrap_or(Lsn((piece.last + 1) * MIB));
        let end = piece.open.unwrap_or(end);
        let stops_short = self.timeline == 2 && self.world.fork.is_some_and(|fork| end < fork);
        if stops_short || piece.damaged.is_some() {
            return Answer::No;
        }
        let last = piece.records.last();
        last.map_or(Answer::No, |last| Answer::Record(self.pieces.len() - 1, (*last).clone()))
    }

    fn immediate(&self) -> Answer {
        for backup in self.backups.iter().rev() {
            let Some(at) = self.pieces.iter().position(|piece| self.inside(backup, piece)) else { continue };
            let reached = self.pieces[at].records.iter().find(|record| record.end >= backup.stop.lsn);
            if let Some(record) = reached {
                return Answer::Record(at, (*record).clone());
            }
        }
        Answer::No
    }

    fn answer(&self, target: &Target, exclusive: bool) -> Answer {
        match target {
            Target::Time(time) => self.time(*time, exclusive),
            Target::Lsn(lsn) => self.lsn(*lsn, exclusive),
            Target::Xid(wanted) => {
                let wanted = *wanted as u32;
                let ends = |says: &Says| matches!(says, Says::End { xid, subxids, .. } if *xid == wanted || subxids.contains(&wanted));
                self.one_of(&self.all(ends), exclusive)
            }
            Target::Name(wanted) => {
                self.one_of(&self.all(|says| matches!(says, Says::Point(name) if name == wanted)), false)
            }
            Target::Latest => self.latest(),
            Target::Immediate => self.immediate(),
        }
    }

    fn commits(&self, at: usize) -> impl DoubleEndedIterator<Item = (u32, &'w Written)> {
        self.pieces[at].records.iter().filter_map(|record| match record.says {
            Says::End { xid, commit: true, .. } => Some((xid, *record)),
            _ => None,
        })
    }

    /// The newest backup from which PostgreSQL can get to `last`.
    fn backup(&self, target: &Target, at: usize, last: &Written) -> Option<&'w BackupSummary> {
        let piece = &self.pieces[at];
        let included =
            self.commits(at).rfind(|(_, record)| record.lsn <= last.lsn).map(|(_, record)| record.lsn);
        let serves = |backup: &&&BackupSummary| {
            let in_time = match target {
                Target::Time(time) => {
                    backup.stop.time <= *time || included.is_some_and(|lsn| lsn >= backup.stop.lsn)
                }
                _ => true,
            };
            let replayable = piece.records.iter().any(|record| record.lsn == backup.redo);
            replayable && backup.stop.lsn <= last.end && in_time
        };
        self.backups.iter().filter(serves).max_by_key(|backup| (backup.stop.lsn, &backup.id)).copied()
    }

    /// Does what PostgreSQL does with a plan: looks for each segment newest timeline first
    /// and never past a fork, and replays up to the last record.
    fn replay(&self, plan: &RecoveryPlan) {
        let handed = plan.timeline.get();
        let fork = self.world.fork;
        for number in number_of(plan.backup.redo.0)..=number_of(plan.last_record_end.0 - 1) {
            let newest_first = plan.path.iter().rev().filter(|step| number_of(step.begin.0) <= number);
            let tail = |timeline: u32| self.world.tails.get(&(timeline, number));
            let only_parents =
                |step: &&PathStep| tail(step.timeline.get()).is_some_and(|end| *end <= step.begin);
            let file = newest_first
                .filter(|step| !only_parents(step))
                .map(|step| step.timeline.get())
                .find(|it| self.world.there.contains(&(*it, number)));
            let needed_to = plan.last_record_end.0.min((number + 1) * MIB);
            let shipped_to = file.and_then(tail);
            assert!(
                shipped_to.is_none_or(|end| needed_to <= end.0),
                "segment {number} was shipped to {shipped_to:?}: {plan:?}"
            );
            match (file, fork) {
                (None, _) => panic!("segment {number} is not there: {plan:?}"),
                (Some(1), Some(fork)) if handed == 2 => {
                    assert!(
                        needed_to <= fork.0.max(number * MIB),
                        "segment {number} is past the fork: {plan:?}"
                    );
                }
                (Some(2), _) => assert_eq!(handed, 2),
                _ => {}
            }
            if let Some((timeline, damaged, lsn)) = self.world.damaged {
                let used = file == Some(timeline) && number == damaged;
                assert!(!used || plan.last_record_end <= lsn, "segment {number} is damaged: {plan:?}");
            }
        }
        let (_, records) = self.world.records.iter().find(|(it, _)| *it == handed).unwrap();
        assert!(
            records.iter().any(|record| record.lsn == plan.last_record && record.end == plan.last_record_end)
        );
        assert!(records.iter().any(|record| record.lsn == plan.backup.redo));
        assert!(plan.backup.stop.lsn <= plan.last_record_end);
    }

    fn check(&self, request: &TargetRequest, outcome: &PlanOutcome) {
        let mut expected = self.answer(&request.target, request.exclusive);
        while let Answer::Open(answer) = expected {
            if matches!(outcome, PlanOutcome::Unreachable(_)) {
                return;
            }
            expected = *answer;
        }
        let said = || format!("{request:?}\nexpected {expected:?}\ngot {outcome:?}");
        match (&expected, outcome) {
            (Answer::Record(at, last), PlanOutcome::Reachable(plan)) => {
                assert_eq!((plan.last_record, plan.last_record_end), (last.lsn, last.end), "{}", said());
                let backup = self.backup(&request.target, *at, last);
                assert_eq!(Some(&plan.backup.id), backup.map(|backup| &backup.id), "{}", said());
                let point = |(xid, it): (u32, &Written)| (xid, it.lsn, it.time.unwrap());
                let included = self.commits(*at).rfind(|(_, it)| it.lsn <= last.lsn).map(point);
                let excluded = self.commits(*at).find(|(_, it)| it.lsn > last.lsn).map(point);
                assert_eq!(plan.last_included.map(|it| (it.xid, it.lsn, it.time)), included, "{}", said());
                assert_eq!(plan.first_excluded.map(|it| (it.xid, it.lsn, it.time)), excluded, "{}", said());
                self.replay(plan);
            }
            (Answer::Record(at, last), PlanOutcome::Unreachable(_)) => {
                assert!(self.backup(&request.target, *at, last).is_none(), "{}", said());
            }
            (Answer::Several(lsns), PlanOutcome::Unreachable(why)) => {
                assert_eq!(&why.candidates.iter().map(|it| it.lsn).collect::<Vec<_>>(), lsns, "{}", said());
            }
            (Answer::No, PlanOutcome::Unreachable(why)) => assert!(why.candidates.is_empty(), "{}", said()),
            _ => panic!("{}", said()),
        }
    }
}

/// Targets on, just before and just after everything, as far as a few go.
pub(super) fn targets(world: &World, timeline: u32, pick: &[prop::sample::Index]) -> Vec<(Target, bool)> {
    let (_, records) = world.records.iter().find(|(it, _)| *it == timeline).unwrap();
    let mut targets = vec![(Target::Latest, false), (Target::Immediate, false)];
    for (turn, index) in pick.iter().enumerate() {
        let record = index.get(records);
        let exclusive = turn % 2 == 1;
        targets.push((Target::Lsn(Lsn(record.lsn.0 + (turn as u64 % 3))), exclusive));
        targets.push((Target::Lsn(record.end), exclusive));
        if let Some(time) = record.time {
            targets
                .extend([-1_000_000, -1, 0, 1].map(|by| (Target::Time(Timestamp(time.0 + by)), exclusive)));
        }
        match &record.says {
            Says::End { xid, subxids, .. } => {
                let xid = subxids.last().filter(|_| turn % 3 == 0).unwrap_or(xid);
                targets.push((Target::Xid(u64::from(*xid)), exclusive));
            }
            Says::Point(name) => targets.push((Target::Name(name.clone()), false)),
            _ => {}
        }
    }
    targets
}

async fn compare(story: &Story, pick: &[prop::sample::Index]) {
    let world = World::of(story).await;
    let catalog = world.test.catalog().await;
    for (timeline, _) in &world.records {
        let oracle = Oracle::of(&world, *timeline);
        for (target, exclusive) in targets(&world, *timeline, pick) {
            let on = TargetTimeline::Number(tli(*timeline));
            let request = TargetRequest { target, exclusive, timeline: on, backup: None };
            let outcome = plan(&world.test.archive, &catalog, &request).await.unwrap();
            oracle.check(&request, &outcome);
            if let PlanOutcome::Unreachable(why) = outcome {
                // What is offered instead can be had.
                for moment in [why.nearest.before, why.nearest.after].into_iter().flatten() {
                    let instead = TargetRequest {
                        target: Target::Lsn(moment.lsn),
                        exclusive: false,
                        ..request.clone()
                    };
                    let outcome = plan(&world.test.archive, &catalog, &instead).await.unwrap();
                    assert!(
                        matches!(outcome, PlanOutcome::Reachable(_)),
                        "{request:?}\n{why:?}\n{outcome:?}"
                    );
                }
            }
        }
    }
}

/// Each case archives a cluster of its own: a few by default, `PROPTEST_CASES` of them on demand.
pub(super) fn few_cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(24), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn every_plan_is_what_looking_at_every_record_says(
        story in story(),
        pick in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(compare(&story, &pick));
    }
}
