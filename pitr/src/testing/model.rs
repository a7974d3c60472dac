//! Random clusters: what happened is kept as a plain list beside the WAL it was written to,
//! so that every question can also be answered by looking at all of it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use walpoint_archive::BackupSummary;
use walpoint_wal::{Lsn, Timestamp};

use super::archive::{Knows, TestArchive};
use super::wal::{Placed, WalWriter};
use super::{MIB, SYSTEM, at_second, backup, size, tli};

/// Something a cluster does.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Commit {
        subxids: u32,
    },
    Abort,
    Prepare,
    CommitPrepared,
    AbortPrepared,
    Filler(usize),
    Switch,
    Point(u8),
    Checkpoint,
    Backup,
    Crash,
    /// The clock goes on, or back when negative.
    Clock(i64),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0_u32..3).prop_map(|subxids| Op::Commit { subxids }),
        1 => (1500_u32..2500).prop_map(|subxids| Op::Commit { subxids }),
        2 => Just(Op::Abort),
        1 => Just(Op::Prepare),
        1 => Just(Op::CommitPrepared),
        1 => Just(Op::AbortPrepared),
        3 => (0_usize..20_000).prop_map(Op::Filler),
        2 => (900_000_usize..2_600_000).prop_map(Op::Filler),
        3 => Just(Op::Switch),
        1 => (0_u8..6).prop_map(Op::Point),
        1 => Just(Op::Checkpoint),
        2 => Just(Op::Backup),
        1 => Just(Op::Crash),
        3 => (1_i64..5_000_000).prop_map(Op::Clock),
        1 => (-900_000_i64..0).prop_map(Op::Clock),
        1 => (-40_000_000_i64..-1_000_000).prop_map(Op::Clock),
    ]
}

/// A cluster's life, and what became of its archive.
#[derive(Debug, Clone)]
pub(crate) struct Story {
    pub shared: Vec<Op>,
    /// When it forks: what happens on the old timeline and on the new one.
    pub fork: Option<(Vec<Op>, Vec<Op>)>,
    /// Segments that are missing, by their place among all that there are.
    pub missing: Vec<prop::sample::Index>,
    /// What each push knew, in turn.
    pub knows: Vec<Knows>,
    /// A segment, and a record in it, that a disk damaged before it was pushed.
    pub damage: Option<(prop::sample::Index, prop::sample::Index)>,
    /// How many of the oldest segments were expired after all was pushed.
    pub expired: usize,
    /// Segments under whose name somebody else tried to archive, and was refused.
    pub rivals: Vec<prop::sample::Index>,
    /// Segments of which only the beginning was shipped (the newest where none is named), each
    /// up to one of the places where that can end.
    pub tails: Vec<(Option<prop::sample::Index>, prop::sample::Index)>,
}

pub(crate) fn story() -> impl Strategy<Value = Story> {
    let ops = |most| prop::collection::vec(op(), 0..most);
    let knows = prop_oneof![6 => Just(Knows::All), 2 => Just(Knows::Metadata), 1 => Just(Knows::Nothing)];
    let fork = prop::option::of((ops(10), ops(15)));
    let missing = prop::collection::vec(any::<prop::sample::Index>(), 0..3);
    let damage = prop::option::of(any::<(prop::sample::Index, prop::sample::Index)>());
    let expired = prop_oneof![3 => Just(0), 1 => 1_usize..4];
    let index = any::<prop::sample::Index>;
    let rivals = prop::collection::vec(index(), 0..3);
    let tails = prop::collection::vec((prop::option::of(index()), index()), 0..3);
    let known = prop::collection::vec(knows, 1..8);
    (ops(30), fork, missing, known, damage, expired, rivals, tails).prop_map(
        |(shared, fork, missing, knows, damage, expired, rivals, tails)| Story {
            shared,
            fork,
            missing,
            knows,
            damage,
            expired,
            rivals,
            tails,
        },
    )
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Says {
    /// A transaction and its subtransactions ended.
    End {
        xid: u32,
        subxids: Vec<u32>,
        commit: bool,
    },
    Point(String),
    Checkpoint {
        redo: Lsn,
    },
    Other,
}

/// A record that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub lsn: Lsn,
    pub end: Lsn,
    pub time: Option<Timestamp>,
    pub says: Says,
}

impl Written {
    /// Its time, when it is a transaction's end.
    pub fn end_time(&self) -> Option<Timestamp> {
        self.time.filter(|_| matches!(self.says, Says::End { .. }))
    }
}

/// One server's life on one timeline after another.
#[derive(Debug, Clone)]
struct Life {
    wal: WalWriter,
    clock: i64,
    next_xid: u32,
    prepared: Vec<u32>,
    written: Vec<Written>,
    backups: Vec<BackupSummary>,
    switches: BTreeSet<Lsn>,
}

/// What there is to plan on.
#[derive(Debug)]
pub(crate) struct World {
    pub test: TestArchive,
    /// All records on the way to timeline 1, and to timeline 2 when there is one.
    pub records: Vec<(u32, Vec<Written>)>,
    pub fork: Option<Lsn>,
    /// `(timeline, number)` of what is in the archive.
    pub there: BTreeSet<(u32, u64)>,
    pub backups: Vec<BackupSummary>,
    /// The damaged segment and where its first damaged record starts.
    pub damaged: Option<(u32, u64, Lsn)>,
    /// Segments were expired: totals in metadata count WAL that is not there.
    pub expired: bool,
    /// Where what was shipped of a segment ends, by `(timeline, number)`.
    pub tails: BTreeMap<(u32, u64), Lsn>,
}

impl Life {
    fn now(&self) -> Timestamp {
        Timestamp(at_second(1000).0 + self.clock)
    }

    fn note(&mut self, placed: Placed, time: Option<Timestamp>, says: Says) {
        self.written.push(Written { lsn: placed.lsn, end: placed.end, time, says });
    }

    fn end_of(&mut self, subxids: u32, commit: bool) {
        let xid = self.next_xid;
        let subxids: Vec<u32> = (xid + 1..=xid + subxids).collect();
        self.next_xid = xid + subxids.len() as u32 + 1;
        let now = self.now();
        let placed =
            if commit { self.wal.commit(xid, now, &subxids) } else { self.wal.abort(xid, now, &subxids) };
        self.note(placed, Some(now), Says::End { xid, subxids, commit });
    }

    fn checkpoint(&mut self, redo: Lsn) {
        let now = self.now();
        let whole = Timestamp(now.0 - now.0.rem_euclid(1_000_000));
        let placed = self.wal.checkpoint(redo, now, u64::from(self.next_xid));
        self.note(placed, Some(whole), Says::Checkpoint { redo });
    }

    fn live(&mut self, op: &Op) {
        self.clock += 1000;
        let now = self.now();
        match op {
            Op::Commit { subxids } => self.end_of(*subxids, true),
            Op::Abort => self.end_of(0, false),
            Op::Prepare => {
                let xid = self.next_xid;
                self.next_xid += 1;
                self.prepared.push(xid);
                let placed = self.wal.prepare(xid, &format!("p{xid}"), now);
                self.note(placed, Some(now), Says::Other);
            }
            Op::CommitPrepared | Op::AbortPrepared => {
                let commit = matches!(op, Op::CommitPrepared);
                if let Some(xid) = self.prepared.pop() {
                    let placed = match commit {
                        true => self.wal.commit_prepared(xid, now),
                        false => self.wal.abort_prepared(xid, now),
                    };
                    self.note(placed, Some(now), Says::End { xid, subxids: Vec::new(), commit });
                }
            }
            Op::Filler(bytes) => {
                let placed = self.wal.filler(*bytes);
                self.note(placed, None, Says::Other);
            }
            Op::Switch => {
                let placed = self.wal.switch();
                self.switches.insert(placed.lsn);
                self.note(placed, None, Says::Other);
            }
            Op::Point(number) => {
                let name = format!("point {number}");
                let placed = self.wal.restore_point(&name, now);
                self.note(placed, Some(now), Says::Point(name));
            }
            Op::Checkpoint => self.checkpoint(self.wal.end()),
            Op::Backup => self.backup(),
            Op::Crash => {
                self.wal.fill_until((self.wal.end().0 / MIB + 1) * MIB);
                // What fills up is one record after the other, none of them noted: note them.
                self.renote_fillers();
                let placed = self.wal.crash_in_record(now);
                self.note(placed, Some(now), Says::Other);
            }
            Op::Clock(micros) => self.clock += micros,
        }
    }

    /// A backup with a record at its beginning and one at its end.
    fn backup(&mut self) {
        let start = self.wal.filler(20);
        self.note(start, None, Says::Other);
        self.checkpoint(start.lsn);
        let stop = self.wal.backup_end(start.lsn);
        self.note(stop, None, Says::Other);
        let number = self.backups.len() as u32 + 1;
        let mut summary = backup(number, self.wal.timeline().get(), start.lsn, stop.end, self.now());
        summary.id =
            format!("20260101T0000{:02}Z-full-{:06x}", number % 60, stop.end.0 & 0xFF_FFFF).parse().unwrap();
        summary.manifest.key =
            walpoint_archive::Layout::new(SYSTEM).manifest(&summary.id, summary.manifest.content.id(), false);
        self.backups.push(summary);
    }

    /// Where a flush can end in a segment: behind a record, or at the border of a page in one.
    fn ends_in(&self, number: u64) -> Vec<Lsn> {
        let inside = |lsn: &Lsn| lsn.0 > number * MIB && lsn.0 <= (number + 1) * MIB;
        let mut ends: Vec<Lsn> = self.written.iter().map(|record| record.end).filter(inside).collect();
        let pages = (1..MIB / 8192).map(|page| Lsn(number * MIB + page * 8192));
        // Not between a switch and the segment's end: that is flushed at once.
        let in_record = |lsn: &Lsn| {
            let holds = |record: &&Written| record.lsn < *lsn && *lsn < record.end;
            self.written.iter().find(holds).is_none_or(|it| it.end.0 - it.lsn.0 > 40 && !self.is_switch(it))
        };
        let written_to = self.written.last().map_or(Lsn::ZERO, |last| last.end);
        ends.extend(pages.filter(|lsn| *lsn <= written_to && in_record(lsn)));
        ends.sort_unstable();
        ends.dedup();
        ends
    }

    /// A switch takes the rest of its segment; nothing else ends there by chance and is as short.
    fn is_switch(&self, record: &Written) -> bool {
        self.switches.contains(&record.lsn)
    }

    /// Whether records follow the one at `lsn` before `end`.
    fn goes_on(&self, lsn: Lsn, end: Lsn) -> bool {
        self.written.iter().any(|record| record.lsn > lsn && record.end <= end)
    }

    fn renote_fillers(&mut self) {
        for placed in self.wal.take_fillers() {
            self.note(placed, None, Says::Other);
        }
    }
}

impl World {
    pub async fn of(story: &Story) -> World {
        let wal = WalWriter::new(size(), SYSTEM, 3);
        let (written, backups, prepared, switches) = Default::default();
        let mut old = Life { wal, clock: 0, next_xid: 1000, prepared, written, backups, switches };
        // A cluster has a backup before it has a story.
        old.live(&Op::Backup);
        story.shared.iter().for_each(|op| old.live(op));
        let forked = story.fork.as_ref().map(|(on_old, on_new)| {
            let fork = old.wal.end();
            let mut new = old.clone();
            new.wal.promote(tli(2));
            let now = new.now();
            let placed = new.wal.end_of_recovery(tli(1), now);
            new.note(placed, Some(now), Says::Other);
            on_new.iter().for_each(|op| new.live(op));
            on_old.iter().for_each(|op| old.live(op));
            (fork, new)
        });
        World::archive(story, old, forked).await
    }

    async fn archive(story: &Story, old: Life, forked: Option<(Lsn, Life)>) -> World {
        let mut test = TestArchive::new().await;
        let mut all: Vec<_> = old.wal.segments().map(|(name, _)| (1, name.number(size()).unwrap())).collect();
        if let Some((_, new)) = &forked {
            all.extend(new.wal.segments().map(|(name, _)| (2, name.number(size()).unwrap())));
        }
        let missing: BTreeSet<_> = story.missing.iter().map(|index| *index.get(&all)).collect();
        let there: BTreeSet<_> = all.iter().copied().filter(|it| !missing.contains(it)).collect();
        let mut turns = story.knows.iter().copied().cycle();
        let mut lives = vec![(1, &old)];
        if let Some((fork, new)) = &forked {
            test.history(2, &[(1, fork.0)]).await;
            lives.push((2, new));
        }
        let tails = pick_tails(&lives, &all, &story.tails);
        let damaged = story.damage.and_then(|damage| pick_damage(&lives, &there, damage));
        // What is broken and followed by zeros is the end of WAL, no damage.
        let damaged = damaged.filter(|(timeline, number, lsn)| {
            let behind =
                |end: &Lsn| lives.iter().any(|(it, life)| it == timeline && life.goes_on(*lsn, *end));
            tails.get(&(*timeline, *number)).is_none_or(behind)
        });
        for (timeline, life) in &lives {
            for (name, mut bytes) in
                life.wal.segments().map(|(name, bytes)| (name, bytes.to_vec())).collect::<Vec<_>>()
            {
                let knows = turns.next().unwrap();
                let number = name.number(size()).unwrap();
                if let Some((_, _, lsn)) = damaged.filter(|it| (it.0, it.1) == (*timeline, number)) {
                    bytes[(lsn.0 % MIB) as usize + 25] ^= 1;
                }
                if there.contains(&(*timeline, number)) {
                    match tails.get(&(*timeline, number)) {
                        Some(end) => test.ship(name, &bytes, knows, &pieces_to(*end, number)).await,
                        None => test.push(name, bytes, knows).await,
                    }
                }
            }
        }
        let rivals: BTreeSet<_> = story.rivals.iter().map(|index| *index.get(&all)).collect();
        // Where only a tail is, the first whole content that comes stands.
        let is_whole = |it: &&(u32, u64)| !tails.contains_key(*it);
        for (timeline, number) in rivals.intersection(&there).filter(is_whole) {
            let life = lives.iter().find(|(it, _)| it == timeline).map(|(_, life)| life).unwrap();
            let name = super::segment(*timeline, *number);
            let mut bytes = life.wal.segments().find(|(it, _)| *it == name).unwrap().1.to_vec();
            *bytes.last_mut().unwrap() ^= 1;
            test.push_refused(name, bytes).await;
        }
        let mut backups: Vec<BackupSummary> = Vec::new();
        for backup in lives.iter().flat_map(|(_, life)| &life.backups) {
            if !backups.iter().any(|it| it.id == backup.id) {
                test.backup(backup).await;
                backups.push(backup.clone());
            }
        }
        let records = lives.iter().map(|(timeline, life)| (*timeline, life.written.clone())).collect();
        let mut there = there;
        for _ in 0..story.expired {
            // Never the last one: then nothing would be left to plan on.
            let oldest = there.first().copied().filter(|(timeline, _)| *timeline == 1 && there.len() > 1);
            if let Some((timeline, number)) = oldest {
                test.delete(super::segment(timeline, number)).await;
                there.remove(&(timeline, number));
            }
        }
        let fork = forked.map(|(fork, _)| fork);
        let tails = tails.into_iter().filter(|(it, _)| there.contains(it)).collect();
        World { test, records, fork, there, backups, damaged, expired: story.expired > 0, tails }
    }
}

/// Chooses where what is shipped of segments ends: with a record, or with a page.
fn pick_tails(
    lives: &[(u32, &Life)],
    all: &[(u32, u64)],
    wanted: &[(Option<prop::sample::Index>, prop::sample::Index)],
) -> BTreeMap<(u32, u64), Lsn> {
    let pick = |(segment, end): &(Option<prop::sample::Index>, prop::sample::Index)| {
        let (timeline, number) = segment.map_or(all.last().copied(), |it| Some(*it.get(all)))?;
        let (_, life) = lives.iter().find(|(it, _)| *it == timeline)?;
        let ends = life.ends_in(number);
        (!ends.is_empty()).then(|| ((timeline, number), *end.get(&ends)))
    };
    wanted.iter().filter_map(pick).collect()
}

/// A beginning of a segment in pieces, cut anywhere behind the header of its first page: a flush ends in none.
fn pieces_to(end: Lsn, number: u64) -> Vec<usize> {
    let length = (end.0 - number * MIB) as usize;
    let mut ends = vec![length / 3, length / 3 * 2 + 1, length];
    ends.retain(|it| *it >= 40 && *it <= length);
    ends.dedup();
    ends
}

/// Chooses a record that lies in one segment, and whose 26th byte is on the page it starts
/// on. Not the last of all: broken and followed by zeros it is the end of WAL, no damage.
fn pick_damage(
    lives: &[(u32, &Life)],
    there: &BTreeSet<(u32, u64)>,
    (segment, record): (prop::sample::Index, prop::sample::Index),
) -> Option<(u32, u64, Lsn)> {
    let there: Vec<_> = there.iter().copied().collect();
    if there.is_empty() {
        return None;
    }
    let (timeline, number) = *segment.get(&there);
    let (_, life) = lives.iter().find(|(it, _)| *it == timeline)?;
    let fits = |it: &&Written| {
        let inside = it.lsn.0 / MIB == number && it.end.0 <= (number + 1) * MIB;
        inside && it.end.0 - it.lsn.0 >= 32 && it.lsn.0 % 8192 + 26 < 8192 && !it.end.0.is_multiple_of(MIB)
    };
    let records: Vec<_> = life.written.split_last()?.1.iter().filter(fits).collect();
    (!records.is_empty()).then(|| (timeline, number, record.get(&records).lsn))
}
