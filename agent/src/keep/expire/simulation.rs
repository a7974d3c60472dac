//! Day after day: a server archives, is promoted, loses a segment; backups build on others and take days; policies
//! change, the store's clock jumps, deletes fail, runs are killed, and several are at work at once. All that lets go is
//! the expiry itself, over a store in memory. After every day each backup that is visible has all its packs and its own
//! WAL, every moment that the policy promises can be reached, and nothing went sooner than the grace after it was last
//! wanted.

mod judge;
mod server;
mod shelf;

use super::{Applied, Expiry};
use crate::keep::look::Clock;
use crate::keep::model::{DAY, HOUR, Promised};
use crate::keep::policy::{Calendar, Policy};
use jiff::tz::TimeZone;
use judge::{Judge, View};
use proptest::prelude::*;
use server::{Job, Server, Work};
use shelf::Manner;
use std::collections::BTreeSet;
use std::time::Duration;
use walpoint_archive::{Archive, ObjectKey};

const GRACE_DAYS: u64 = 4;

/// What happens on a day.
#[derive(Clone, Debug)]
struct Today {
    work: Work,
    policy: Policy,
    /// What expires at the same time, and how.
    runs: Vec<Manner>,
    /// How a backup goes that is completed beside them.
    completes: Manner,
    /// Days by which the store's clock is wrong.
    off: i64,
}

/// A history.
#[derive(Debug)]
struct Story {
    server: Server,
    judge: Judge,
    day: i64,
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 3600)
}

fn policy(last: u32, window: Option<u64>, daily: u32, wal: Option<u64>) -> Policy {
    let calendar = Calendar { daily, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    let (window, wal) = (window.map(days), wal.map(days));
    Policy { last, window, calendar, wal, min_verified: 0, grace: days(GRACE_DAYS) }
}

impl Story {
    async fn new(tells_age: bool) -> Story {
        Story { server: Server::new(tells_age).await, judge: Judge::default(), day: 0 }
    }

    async fn live(&mut self, today: &Today) -> Result<(), TestCaseError> {
        let before = self.server.shelf().off;
        let off = today.off * DAY;
        self.server.shelf().off = off;
        self.server.work(self.day, &today.work).await;
        if off != before {
            self.judge.jumped(self.server.shelf().now, off > before);
        }
        self.server.shelf().now += 10 * HOUR;
        let done = self.server.done_on(self.day).await;
        let before = self.view();
        let completes = async {
            if let Some(running) = &done {
                self.server.complete(running, today.completes.clone()).await;
            }
        };
        let runs = today.runs.iter().map(|manner| self.expire(&today.policy, manner));
        let (_, applied) = tokio::join!(completes, futures::future::join_all(runs));
        let counts = applied.iter().any(Option::is_some);
        self.judge.judge(&self.server, &before, &today.policy, counts)?;
        self.day += 1;
        Ok(())
    }

    fn view(&self) -> View {
        let (objects, now) = {
            let shelf = self.server.shelf();
            (shelf.objects.clone(), shelf.now + shelf.off)
        };
        View::of(&self.server, objects.iter(), now)
    }

    /// `expire --apply`; nothing when it was killed.
    async fn expire(&self, policy: &Policy, manner: &Manner) -> Option<Applied> {
        let (archive, hand) = self.server.archive_by(manner.clone());
        let applied = self.apply(&archive, policy).await;
        (!hand.is_dead()).then_some(applied?)
    }

    async fn apply(&self, archive: &Archive, policy: &Policy) -> Option<Applied> {
        let expiry = Expiry { archive, cluster: &self.server.cluster, policy, clock: Clock::OfAPut };
        let seen = expiry.see().await.ok()?;
        assert_eq!(seen.decision.obstacles, Vec::<String>::new());
        expiry.apply(&seen).await.ok()
    }

    /// With nothing in the way, all that no policy asks for is gone some days later.
    async fn end(mut self, is_exact: bool) -> Result<(), TestCaseError> {
        self.server.running = None;
        let quiet = Today {
            work: Work {
                segments: 1,
                loses_one: false,
                forks_before: None,
                old_goes_on: false,
                backup: None,
                leaves_packs: false,
            },
            policy: policy(1, None, 0, None),
            runs: vec![Manner::default()],
            completes: Manner::default(),
            off: 0,
        };
        for _ in 0..20 {
            self.live(&quiet).await?;
        }
        let (archive, _) = self.server.archive_by(Manner::default());
        let expiry = Expiry {
            archive: &archive,
            cluster: &self.server.cluster,
            policy: &quiet.policy,
            clock: Clock::OfAPut,
        };
        let left = expiry.see().await.unwrap();
        let decision = &left.decision;
        prop_assert!(!decision.lets_anything_go(), "{:?} {:?}", decision.folders, decision.wal);
        if is_exact {
            let view = self.view();
            let promised = Promised::by(&view.world, &quiet.policy, 0);
            prop_assert_eq!(&view.there.backups, &promised.backups);
            let needed = promised.needed(&view.world);
            let left_over: Vec<_> = view.there.segments.difference(&needed).collect();
            prop_assert!(left_over.is_empty(), "{:?}", left_over);
            let named = view.world.backups.iter().flat_map(|backup| &backup.named);
            let named: BTreeSet<(usize, u32)> =
                named.flat_map(|(of, numbers)| numbers.iter().map(|number| (*of, *number))).collect();
            prop_assert_eq!(&view.there.packs, &named);
        }
        Ok(())
    }
}

fn work() -> impl Strategy<Value = Work> {
    let takes = prop_oneof![3 => Just(0i64), 2 => 1i64..6];
    let job = (prop::bool::weighted(0.25), any::<u16>(), takes, prop::bool::weighted(0.2));
    let job = job.prop_map(|(is_full, keeps, takes, is_silent)| Job { is_full, keeps, takes, is_silent });
    let rarely = prop::bool::weighted(0.1);
    (
        1u64..4,
        rarely,
        prop::option::weighted(0.08, 0u64..4),
        any::<bool>(),
        prop::option::weighted(0.7, job),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(segments, loses_one, forks_before, old_goes_on, backup, leaves_packs)| Work {
            segments,
            loses_one,
            forks_before,
            old_goes_on,
            backup,
            leaves_packs,
        })
}

fn manners() -> impl Strategy<Value = Manner> {
    let dies_after = prop_oneof![3 => Just(None), 1 => (0u32..90).prop_map(Some)];
    let denied = prop_oneof![2 => Just(BTreeSet::new()), 1 => prop::collection::btree_set(0u32..14, 1..5)];
    (pauses(), dies_after, denied).prop_map(|(pauses, dies_after, denied)| Manner {
        pauses,
        dies_after,
        denied,
    })
}

fn pauses() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![3 => 0u8..3, 1 => 0u8..40], 0..12)
}

fn policies() -> impl Strategy<Value = Policy> {
    let some = |most: u64| prop::option::of(1..most);
    (0u32..4, some(6), 0u32..4, prop::option::weighted(0.2, 1u64..6)).prop_map(
        |(last, window, daily, wal)| {
            let asks = window.is_some() || daily > 0;
            policy(last.max(u32::from(!asks)), window, daily, wal)
        },
    )
}

/// The usual policy, and now and then another one. A clock that jumped is set right the next day, and somebody looks.
fn histories() -> impl Strategy<Value = Vec<Today>> {
    let runs = prop_oneof![
        1 => Just(Vec::new()),
        4 => prop::collection::vec(manners(), 1),
        2 => prop::collection::vec(manners(), 2),
    ];
    let off = prop_oneof![6 => Just(0i64), 1 => -5i64..=5];
    let odd = prop::option::weighted(0.15, policies());
    let day = (work(), odd, runs, pauses(), off);
    (policies(), prop::collection::vec(day, 6..26), any::<bool>()).prop_map(|(usual, days, jumps)| {
        let mut was_wrong = false;
        let today = |(work, odd, mut runs, pauses, off): (_, Option<Policy>, Vec<Manner>, _, i64)| {
            let mut policy = odd.unwrap_or_else(|| usual.clone());
            if was_wrong {
                (policy, runs) = (usual.clone(), vec![Manner::default()]);
            }
            let off = if jumps && !was_wrong { off } else { 0 };
            was_wrong = off != 0;
            Today { work, policy, runs, completes: Manner { pauses, ..Manner::default() }, off }
        };
        days.into_iter().map(today).collect()
    })
}

fn tell(history: &[Today], tells_age: bool) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut story = Story::new(tells_age).await;
        for today in history {
            story.live(today).await?;
        }
        story.end(history.iter().all(|today| today.off == 0)).await
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn day_after_day_every_visible_backup_is_whole_and_nothing_goes_before_its_grace(
        history in histories(), tells_age in any::<bool>(),
    ) {
        tell(&history, tells_age)?;
    }
}

/// A day with a backup and an expiry that keeps the last ones.
fn usual(is_full: bool, keeps: u16, last: u32) -> Today {
    let job = Job { is_full, keeps, takes: 0, is_silent: false };
    let work = Work {
        segments: 2,
        loses_one: false,
        forks_before: None,
        old_goes_on: false,
        backup: Some(job),
        leaves_packs: false,
    };
    let policy = policy(last, None, 0, None);
    Today { work, policy, runs: vec![Manner::default()], completes: Manner::default(), off: 0 }
}

impl Story {
    /// The keys of a day's backup that are there: its summary, and its packs.
    fn left_of(&self, day: usize) -> (usize, usize) {
        let objects = &self.server.shelf().objects;
        let of_day = format!("{day:06x}/");
        let count = |part: &str| {
            let is_part = |key: &&ObjectKey| key.as_str().contains(&format!("{of_day}{part}"));
            objects.keys().filter(is_part).count()
        };
        (count("backup.json"), count("pack-"))
    }
}

/// A full backup and one that names its packs go a day apart; the packs that only the second names wait for it.
#[tokio::test]
async fn packs_of_a_full_backup_wait_for_the_last_backup_that_names_them() {
    let mut story = Story::new(true).await;
    // The first incremental names all packs of the full one, those after it none.
    for keeps in [0, u16::MAX, 0, 0, 0, 0] {
        story.live(&usual(false, keeps, 2)).await.unwrap();
    }
    // The full one was marked on the third day, the incremental on the fourth: now the first of them is ripe.
    story.live(&usual(false, 0, 2)).await.unwrap();
    assert_eq!((story.left_of(0), story.left_of(1)), ((0, 3), (1, 3)));
    story.live(&usual(false, 0, 2)).await.unwrap();
    assert_eq!((story.left_of(0), story.left_of(1)), ((0, 0), (0, 0)));
}

/// The time in which a mistake can be undone.
#[tokio::test]
async fn a_policy_that_was_a_mistake_costs_nothing_in_the_run_that_makes_it() {
    let mut story = Story::new(true).await;
    for _ in 0..6 {
        let dies = vec![Manner { dies_after: Some(0), ..Manner::default() }];
        // The full backup is marked on the third day; nothing of it could be deleted yet.
        let runs = if story.day < 3 { vec![Manner::default()] } else { dies };
        story.live(&Today { runs, ..usual(false, u16::MAX, 2) }).await.unwrap();
    }
    story.live(&usual(false, 0, 1)).await.unwrap();
    assert_eq!((story.left_of(0), story.left_of(4), story.left_of(5)), ((0, 3), (1, 3), (1, 3)));
}

/// It would be old as soon as the clock is right, were it just stored anew.
#[tokio::test]
async fn a_mark_that_cannot_be_taken_away_while_the_clock_is_behind_marks_nothing() {
    let mut story = Story::new(true).await;
    for day in 0..18 {
        // On the tenth day a policy wants all that is marked.
        let (off, last) = if day == 10 { (-5, 12) } else { (0, 3) };
        let denied = if day == 10 { (0..20).collect() } else { BTreeSet::new() };
        let runs = vec![Manner { denied, ..Manner::default() }];
        story.live(&Today { off, runs, ..usual(false, 0, last) }).await.unwrap();
    }
    assert_eq!((story.left_of(6).0, story.left_of(15).0), (0, 1));
}

/// What was stored before makes a mark look old that was made while the clock was behind.
#[tokio::test]
async fn a_clock_that_is_set_back_for_a_day_ends_no_grace() {
    let mut story = Story::new(true).await;
    for day in 0..15 {
        // On the tenth day a policy lets the backups of the first days go, while the clock is five days behind.
        let (off, last) = (if day == 10 { -5 } else { 0 }, if day < 10 { 12 } else { 3 });
        story.live(&Today { off, ..usual(false, 0, last) }).await.unwrap();
    }
    assert_eq!(story.left_of(0).0, 1);
    for _ in 0..2 {
        story.live(&usual(false, 0, 3)).await.unwrap();
    }
    assert_eq!(story.left_of(0).0, 0);
}
