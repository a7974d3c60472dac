//! What stays, by tables; and of random histories, compared with looking at every backup, every segment and every
//! moment of them.

mod histories;
mod shown;

use super::*;
use crate::keep::model::{BEGIN, Branch, HOUR, MIB, Made, World, tli};
use crate::keep::policy::Calendar;
use jiff::tz::TimeZone;
use shown::TEN;
use std::time::Duration;
use walpoint_archive::{ContentHash, FolderObjects};
use walpoint_wal::Timestamp;

/// A segment comes so often.
const EVERY: i64 = 6 * HOUR;

fn tidy(backups: &[u64]) -> World {
    let mut world = World { now: BEGIN + 60 * EVERY, ..World::default() };
    world.branches.push(Branch { parent: None, first: 1 });
    world.write(0, 60, BEGIN, EVERY);
    let made = |(index, stop): (usize, &u64)| Made {
        branch: 0,
        redo: *stop,
        stop: *stop,
        at: BEGIN + (*stop as i64 - 1) * EVERY + HOUR,
        server_off: 0,
        store_off: 0,
        damaged: false,
        verified: false,
        named: BTreeMap::from([(index, BTreeSet::from([0]))]),
    };
    world.backups = backups.iter().enumerate().map(made).collect();
    world
}

fn last(last: u32) -> Policy {
    let calendar = Calendar { daily: 0, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let grace = Duration::from_secs(3600);
    Policy { last, window: None, calendar, wal: None, min_verified: 0, grace }
}

fn stays(decision: &Decision) -> Vec<bool> {
    decision.backups.iter().map(|backup| !backup.stays.is_empty()).collect()
}

#[test]
fn an_empty_policy_lets_nothing_go_and_says_so() {
    let policy = Policy { min_verified: 2, ..last(0) };
    let decision = decide(&tidy(&[5, 20, 40]).snapshot(), &policy);
    assert!(!decision.lets_anything_go());
    assert!(decision.notes.iter().any(|note| note.contains("nothing expires")));
}

#[test]
fn a_clock_that_ran_ahead_for_a_while_costs_no_other_backup_its_place() {
    let mut world = tidy(&[5, 10, 20, 30, 40]);
    // Both clocks, as on one host; the clock is right again since.
    (world.backups[1].server_off, world.backups[1].store_off) = (365 * 24 * HOUR, 365 * 24 * HOUR);
    let decision = decide(&world.snapshot(), &last(2));
    assert_eq!(stays(&decision), [false, true, false, true, true]);
    assert!(decision.backups[1].stays.contains(&Why::Future));
}

#[test]
fn a_clock_that_was_set_back_for_a_while_costs_no_moment_of_the_window() {
    let mut world = tidy(&[5, 30, 50]);
    let year = 365 * 24 * HOUR;
    (world.backups[2].server_off, world.backups[2].store_off) = (-year, -year);
    // Segments 41 to 60 are of the last five days.
    let policy = Policy { window: Some(Duration::from_secs(5 * 24 * 3600)), ..last(0) };
    let decision = decide(&world.snapshot(), &policy);
    assert_eq!(stays(&decision), [false, true, true]);
    let after = world.after(&decision);
    assert!((42..=60).all(|number| world.can_reach(&after, 0, number)));
}

#[test]
fn a_grace_that_is_short_is_spoken_of() {
    let notes = |seconds| {
        let policy = Policy { grace: Duration::from_secs(seconds), ..last(1) };
        decide(&tidy(&[5, 20]).snapshot(), &policy).notes
    };
    assert!(notes(3599)[0].contains("is short") && notes(3600).is_empty());
}

#[test]
fn while_the_clock_is_a_year_ahead_or_behind_nothing_goes_that_would_stay_otherwise() {
    let world = tidy(&[5, 10, 20, 30, 40, 50]);
    let policy = Policy { window: Some(Duration::from_secs(5 * 24 * 3600)), ..last(0) };
    let rightly = decide(&world.snapshot(), &policy);
    assert_eq!(stays(&rightly), [false, false, false, false, true, true]);
    let year = 365 * 24 * HOUR;
    let ahead = decide(&World { now: world.now + year, ..world.clone() }.snapshot(), &policy);
    // The window counts back from the last sign of life, a little before now.
    assert_eq!(stays(&ahead), [false, false, false, true, true, true]);
    assert!(ahead.notes.iter().any(|note| note.contains("not counted")), "{:?}", ahead.notes);
    let behind = decide(&World { now: world.now - year, ..world.clone() }.snapshot(), &policy);
    assert_eq!(stays(&behind), [true; 6]);
}

#[test]
fn a_backup_that_lacks_a_segment_or_a_pack_takes_no_other_ones_place() {
    let mut world = tidy(&[5, 10, 20, 30]);
    world.segments.remove(&(0, 30));
    let decision = decide(&world.snapshot(), &last(1));
    assert_eq!(stays(&decision), [false, false, true, true]);
    let world = tidy(&[5, 10, 20, 30]);
    let mut snapshot = world.snapshot();
    snapshot.folders.get_mut(&world.ids()[3]).unwrap().packs.clear();
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
    // Its manifest is not there, or two contents stand under the name of its segment.
    let mut snapshot = world.snapshot();
    snapshot.folders.get_mut(&world.ids()[3]).unwrap().manifests = vec![ContentHash::of(b"another").id()];
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
    let mut snapshot = world.snapshot();
    let own = snapshot.wal.get_mut(&tli(1)).unwrap();
    own.iter_mut().filter(|segment| segment.number == 30).for_each(|segment| segment.is_decided = false);
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
}

#[test]
fn what_was_found_damaged_takes_no_other_ones_place() {
    let mut snapshot = tidy(&[5, 10, 20, 30]).snapshot();
    snapshot.backups[3].is_damaged = true;
    assert_eq!(stays(&decide(&snapshot, &last(1))), [false, false, true, true]);
}

/// A backup that was interrupted goes on under the id that it was begun with, days later.
#[test]
fn ids_tell_no_age() {
    let world = tidy(&[5, 20, 40]);
    let calendar = Calendar { daily: 2, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let policy = Policy { calendar, ..last(0) };
    let expected = stays(&decide(&world.snapshot(), &policy));
    let mut snapshot = world.snapshot();
    let old = "20200101T000000Z-full-00000a".parse::<BackupId>().unwrap();
    let last = &mut snapshot.backups[2];
    let own = snapshot.folders.remove(&last.id).unwrap();
    let named = last.named.remove(&last.id).unwrap();
    last.named.insert(old.clone(), named);
    last.id = old.clone();
    snapshot.folders.insert(old, own);
    assert_eq!(stays(&decide(&snapshot, &policy)), expected);
    // One that goes on just now.
    let running = "20200101T000000Z-full-00000b".parse::<BackupId>().unwrap();
    let newest = Some(Timestamp(world.now - HOUR));
    snapshot
        .folders
        .insert(running.clone(), FolderObjects { newest, objects: 1, ..FolderObjects::default() });
    let decision = decide(&snapshot, &policy);
    assert!(decision.folders.iter().any(|folder| folder.id == running && folder.is_young && !folder.goes()));
}

#[test]
fn wal_of_a_policy_of_its_own_lets_no_backup_go() {
    let policy = Policy { wal: Some(Duration::from_secs(24 * 3600)), ..last(0) };
    let world = tidy(&[5, 20, 40]);
    let decision = decide(&world.snapshot(), &policy);
    assert_eq!(stays(&decision), [true; 3]);
    let after = world.after(&decision);
    // What each backup needs, and from the last one on.
    let expected: BTreeSet<(usize, u64)> =
        [5, 20].into_iter().chain(40..=60).map(|number| (0, number)).collect();
    assert_eq!(after.segments, expected);
}

#[test]
fn before_the_first_backup_no_wal_goes() {
    let decision = decide(&tidy(&[]).snapshot(), &last(3));
    assert!(!decision.lets_anything_go());
}

#[test]
fn a_backup_that_is_being_made_stays_and_one_that_was_given_up_goes_with_what_nobody_needs() {
    let world = tidy(&[5, 20, 40]);
    let mut snapshot = world.snapshot();
    let id = |text: &str| text.parse::<BackupId>().unwrap();
    let (running, dead) = (id("20270101T000000Z-full-00000a"), id("20261101T000000Z-full-00000b"));
    let folder = |newest: i64| FolderObjects {
        packs: BTreeMap::from([(0, TEN), (1, TEN)]),
        newest: Some(Timestamp(newest)),
        objects: 2,
        ..FolderObjects::default()
    };
    // The grace is an hour; but a backup may pause for longer.
    snapshot.folders.insert(running.clone(), folder(world.now - 20 * HOUR));
    snapshot.folders.insert(dead.clone(), folder(world.now - 30 * HOUR));
    // A newer backup uses a pack of the one that was given up.
    snapshot.backups[2].named.insert(dead.clone(), vec![1]);
    let decision = decide(&snapshot, &last(1));
    let fate = |id: &BackupId| decision.folders.iter().find(|folder| folder.id == *id).unwrap();
    assert!(fate(&running).is_young && !fate(&running).goes());
    assert!(fate(&dead).goes());
    assert_eq!((fate(&dead).frees, fate(&dead).needed_packs), (10, 1));
    assert_eq!(decision.needed_packs[&dead], BTreeSet::from([1]));
}

/// Timeline 1, and timeline 2 that was forked from it in the midst, weeks after the last segment of timeline 1.
fn with_a_copy(fork: u64) -> World {
    let mut world = tidy(&[20, 40]);
    let begins = BEGIN + 200 * EVERY;
    world.branches.push(Branch { parent: Some((0, fork * MIB + 100)), first: fork });
    world.write(1, fork + 20, begins, EVERY);
    world.now = begins + 21 * EVERY;
    for stop in [fork + 2, fork + 10, fork + 18] {
        let index = world.backups.len();
        let at = begins + (stop - fork) as i64 * EVERY + HOUR;
        let named = BTreeMap::from([(index, BTreeSet::from([0]))]);
        let of_copy = Made { branch: 1, redo: stop, stop, at, named, ..world.backups[0].clone() };
        world.backups.push(of_copy);
    }
    world
}

#[test]
fn a_server_at_rest_keeps_its_last_backup_while_it_says_that_it_is_there() {
    let world = with_a_copy(30);
    let mut snapshot = world.snapshot();
    let left_behind = decide(&snapshot, &last(3));
    assert_eq!(stays(&left_behind), [false, false, true, true, true]);
    let notes = |decision: &Decision, what: &str| decision.notes.iter().any(|note| note.contains(what));
    assert!(notes(&left_behind, "timeline 1 counts as left behind"), "{:?}", left_behind.notes);
    snapshot.idle.insert(tli(1), Timestamp(world.now - HOUR));
    for policy in [last(3), Policy { window: Some(Duration::from_secs(3 * 24 * 3600)), ..last(0) }] {
        let decision = decide(&snapshot, &policy);
        assert!(stays(&decision)[1], "{decision:?}");
        let after = world.after(&decision);
        assert!((40..=60).all(|number| after.segments.contains(&(0, number))));
        assert!(!notes(&decision, "left behind"));
    }
}

#[test]
fn wal_of_a_timeline_in_use_that_no_backup_leads_to_stays() {
    // Forked before every backup of its parent, and without one of its own yet.
    let mut world = with_a_copy(10);
    world.backups.truncate(2);
    let decision = decide(&world.snapshot(), &last(1));
    let after = world.after(&decision);
    assert!((10..=30).all(|number| after.segments.contains(&(1, number))), "{:?}", decision.wal);
    assert!(decision.notes.iter().any(|note| note.contains("no backup leads to timeline 2")));
}

#[test]
fn the_last_backup_of_an_archive_never_goes() {
    // On a timeline that was left behind; the newest forked before it, and has none of its own.
    let mut world = with_a_copy(10);
    world.backups.truncate(2);
    world.now += 20 * EVERY;
    let policy = Policy { window: Some(Duration::ZERO), ..last(0) };
    let decision = decide(&world.snapshot(), &policy);
    assert_eq!(stays(&decision), [false, true]);
    assert_eq!(decision.backups[1].stays, BTreeSet::from([Why::Only]));
    let after = world.after(&decision);
    assert!(world.is_whole(&after, 1));
}

#[test]
fn segments_that_are_asked_for_and_not_listed_lie_in_no_run_that_goes() {
    let mut world = tidy(&[20, 40]);
    // The first backup stays for its day, the second is the newest; the first one's segment is not listed.
    world.segments.remove(&(0, 20));
    let calendar = Calendar { daily: 9, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let decision = decide(&world.snapshot(), &Policy { calendar, ..last(0) });
    assert_eq!(stays(&decision), [true, true]);
    assert!(decision.doomed_wal().all(|run| !(run.first..=run.last).contains(&20)), "{:?}", decision.wal);
    assert!(decision.asked_wal[&tli(1)].hold(20) && !decision.asked_wal[&tli(1)].hold(21));
}

#[test]
fn what_cannot_be_read_stands_in_the_way() {
    let mut snapshot = tidy(&[5, 20, 40]).snapshot();
    snapshot.now = None;
    assert_eq!(decide(&snapshot, &last(1)).obstacles.len(), 1);
}

#[test]
fn a_full_backup_is_due_when_most_of_the_newest_lies_in_packs_of_expired_ones() {
    let mut world = tidy(&[5, 20, 40]);
    world.backups[0].named = BTreeMap::from([(0, BTreeSet::from([0, 1, 2, 3]))]);
    world.backups[2].named = BTreeMap::from([(0, BTreeSet::from([0, 1])), (2, BTreeSet::from([0]))]);
    // Its full backup stays: nothing would be freed.
    assert!(!decide(&world.snapshot(), &last(3)).borrowed.full_is_due());
    let decision = decide(&world.snapshot(), &last(1));
    assert_eq!(decision.borrowed, Borrowed { needs: 30, of_the_gone: 20 });
    assert!(decision.borrowed.full_is_due());
    world.backups[2].named.insert(2, BTreeSet::from([0, 1, 2]));
    assert!(!decide(&world.snapshot(), &last(1)).borrowed.full_is_due());
}

#[test]
fn too_few_verified_backups_keep_all_and_enough_keep_that_many() {
    let mut world = tidy(&[5, 10, 20, 30, 40]);
    let policy = Policy { min_verified: 2, ..last(1) };
    world.backups[1].verified = true;
    assert_eq!(stays(&decide(&world.snapshot(), &policy)), [true; 5]);
    world.backups[0].verified = true;
    assert_eq!(stays(&decide(&world.snapshot(), &policy)), [true, true, false, false, true]);
    // The last one stays anyway and counts; one that is damaged does not.
    world.backups[4].verified = true;
    assert_eq!(stays(&decide(&world.snapshot(), &policy)), [false, true, false, false, true]);
    world.backups[1].damaged = true;
    assert_eq!(stays(&decide(&world.snapshot(), &policy)), [true, false, false, false, true]);
}
