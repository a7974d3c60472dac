//! Every order in which the requests of several pushes can reach a store, with every
//! delay that matters: the real push against a store in memory, in virtual time.
//!
//! A push that is never let go on stands for one that was killed: what must hold is
//! looked at after every step, not only in the end. Orders that lead to the same state
//! are followed once.

use std::collections::{BTreeSet, HashSet};
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::model::{Model, ModelStore, Turn};
use super::*;
use crate::archive::push::{MARKING, SETTLED};

/// Virtual time goes in steps of the longest wait for rivals.
const STEP: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(100);

type Pushing = Pin<Box<dyn Future<Output = Result<PutWalOutcome, ArchiveError>>>>;

/// One that pushes.
struct Pusher {
    content: &'static str,
    turn: Arc<Mutex<Turn>>,
    pushing: Option<Pushing>,
    is_acknowledged: bool,
    /// When it began what it does now: a request, or a wait.
    since: Instant,
    /// When it asked for its put, and for its latest listing.
    put_since: Option<Instant>,
    list_since: Instant,
    has_begun: bool,
}

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Choice {
    /// This pusher's request is served, or its wait ends and the listing after it is served.
    Go(usize),
    /// A mark that its pusher gave up arrives all the same.
    LateMark(usize),
    /// Everything takes longer.
    Stall,
}

struct World {
    model: Arc<Mutex<Model>>,
    pushers: Vec<Pusher>,
    stalls: u32,
}

/// A history file's name: its content is stored as it is, without threads.
fn name() -> WalFileName {
    "00000002.history".parse().unwrap()
}

impl World {
    fn new(contents: &[&'static str], overwrites: bool, stalls: u32) -> Self {
        let model = Arc::new(Mutex::new(Model { overwrites, ..Model::default() }));
        let start = |content: &&'static str| Pusher::start(content, &model);
        let mut pushers: Vec<Pusher> = contents.iter().map(start).collect();
        pushers.iter_mut().for_each(Pusher::poll);
        Self { model, pushers, stalls }
    }

    fn choices(&self) -> Vec<Choice> {
        let going = (0..self.pushers.len()).filter(|it| self.pushers[*it].pushing.is_some());
        let now = Instant::now();
        let late = &self.model.lock().unwrap().late;
        let landing = (0..late.len()).filter(|it| late[*it].until > now);
        let mut choices: Vec<Choice> = going.map(Choice::Go).collect();
        let is_going = !choices.is_empty();
        choices.extend(landing.map(Choice::LateMark));
        choices.extend((self.stalls > 0 && is_going).then_some(Choice::Stall));
        choices
    }

    async fn make(&mut self, choice: Choice) {
        match choice {
            Choice::Go(number) => self.go(number).await,
            Choice::LateMark(number) => self.model.lock().unwrap().land(number),
            Choice::Stall => {
                self.stalls -= 1;
                self.pass(MARKING).await;
            }
        }
    }

    async fn go(&mut self, number: usize) {
        if self.pushers[number].is_asking() {
            return self.pushers[number].serve();
        }
        while self.pushers[number].is_waiting() {
            self.pass(STEP).await;
            self.pushers[number].poll();
        }
        if self.pushers[number].is_asking() {
            self.pushers[number].serve();
        }
    }

    /// Who waits for a request notices that time is up; who sleeps may wake late.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            tokio::time::advance(TICK).await;
            for pusher in self.pushers.iter_mut().filter(|pusher| pusher.is_asking()) {
                pusher.poll();
            }
        }
    }

    fn check(&self, how: &[Choice]) {
        let model = self.model.lock().unwrap();
        let acknowledged: BTreeSet<_> =
            self.pushers.iter().filter(|it| it.is_acknowledged).map(|it| it.content).collect();
        assert!(acknowledged.len() <= 1, "two contents were acknowledged: {how:?}");
        for content in acknowledged {
            let layout = crate::layout::Layout::new(CLUSTER);
            let is_refused = model.objects.contains_key(&layout.refused(&name(), id(content)));
            assert!(!is_refused, "what was acknowledged is refused: {how:?}");
        }
    }

    /// All that the future depends on.
    fn state(&self) -> String {
        let now = Instant::now();
        let model = self.model.lock().unwrap();
        let mut state = format!("{:?} {}", model.objects.keys().collect::<Vec<_>>(), self.stalls);
        for pusher in &self.pushers {
            state += &pusher.state(now);
        }
        for late in model.late.iter().filter(|late| late.until > now) {
            state += &format!("{} {:?}", late.key, late.until - now);
        }
        state
    }
}

impl Pusher {
    fn start(content: &'static str, model: &Arc<Mutex<Model>>) -> Self {
        let turn = Arc::new(Mutex::new(Turn::default()));
        let archive = archive_on(Arc::new(ModelStore { model: Arc::clone(model), turn: Arc::clone(&turn) }));
        let put = file(name(), content.as_bytes());
        let pushing: Pushing = Box::pin(async move { archive.put_wal(&put).await });
        let now = Instant::now();
        Self {
            content,
            turn,
            pushing: Some(pushing),
            is_acknowledged: false,
            since: now,
            put_since: None,
            list_since: now,
            has_begun: false,
        }
    }

    fn is_asking(&self) -> bool {
        self.pushing.is_some() && self.turn.lock().unwrap().asked.is_some()
    }

    fn is_waiting(&self) -> bool {
        self.pushing.is_some() && self.turn.lock().unwrap().asked.is_none()
    }

    fn serve(&mut self) {
        self.turn.lock().unwrap().is_served = true;
        self.poll();
        assert!(!self.turn.lock().unwrap().is_served);
    }

    fn poll(&mut self) {
        let Some(pushing) = &mut self.pushing else { return };
        let before = self.turn.lock().unwrap().asking();
        let waker = futures::task::noop_waker();
        match pushing.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(Ok(_)) => {
                self.is_acknowledged = true;
                self.pushing = None;
            }
            Poll::Ready(Err(ArchiveError::Conflict { .. })) => self.pushing = None,
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => {}
        }
        self.note_times(before);
    }

    fn note_times(&mut self, before: (usize, bool)) {
        let (turn, now) = (self.turn.lock().unwrap(), Instant::now());
        if turn.asking() == before && self.has_begun {
            return;
        }
        self.has_begun = true;
        self.since = now;
        match turn.asked.as_deref() {
            Some("list") => self.list_since = now,
            Some("put") => self.put_since = Some(now),
            _ => {}
        }
    }

    fn state(&self, now: Instant) -> String {
        if self.pushing.is_none() {
            return format!(" [{} {}]", self.content, self.is_acknowledged);
        }
        let turn = self.turn.lock().unwrap();
        let age = |since: Instant, limit: Duration| (now - since).min(limit).as_millis();
        let put = self.put_since.map(|since| age(since, MARKING));
        let list = age(self.list_since, MARKING);
        let waited = if turn.asked.is_none() { age(self.since, SETTLED) } else { 0 };
        format!(" [{} {:?} {:?} {put:?} {list} {waited}]", self.content, turn.served, turn.seen)
    }
}

/// Follows every order, and says how many states there were and which contents were ever acknowledged.
async fn explore(
    contents: &[&'static str],
    overwrites: bool,
    stalls: u32,
) -> (usize, BTreeSet<&'static str>) {
    let mut states = HashSet::new();
    let mut acknowledged = BTreeSet::new();
    let mut open: Vec<Vec<Choice>> = vec![Vec::new()];
    while let Some(how) = open.pop() {
        let mut world = World::new(contents, overwrites, stalls);
        for choice in &how {
            world.make(*choice).await;
        }
        tokio::task::yield_now().await;
        world.check(&how);
        if !states.insert(world.state()) {
            continue;
        }
        acknowledged.extend(world.pushers.iter().filter(|it| it.is_acknowledged).map(|it| it.content));
        for choice in world.choices() {
            open.push(how.iter().copied().chain([choice]).collect());
        }
    }
    (states.len(), acknowledged)
}

/// Which of two contents has the lower id decides who waits longer: both ways.
async fn both_ways(roles: [usize; 3], pushers: usize, overwrites: bool, stalls: u32) {
    for names in [["ours", "theirs"], ["theirs", "ours"]] {
        let contents: Vec<&'static str> = roles.iter().take(pushers).map(|role| names[*role]).collect();
        let (states, acknowledged) = explore(&contents, overwrites, stalls).await;
        println!("{contents:?}, overwrites {overwrites}, {stalls} stalls: {states} states");
        let all: BTreeSet<&'static str> = contents.iter().copied().collect();
        assert_eq!(acknowledged, all, "each can win");
    }
}

#[tokio::test(start_paused = true)]
async fn in_every_order_two_pushes_acknowledge_one_content_and_never_refuse_it() {
    for overwrites in [false, true] {
        both_ways([0, 1, 0], 2, overwrites, 2).await;
        both_ways([0, 0, 0], 2, overwrites, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn in_every_order_two_pushes_of_one_content_and_one_of_another_acknowledge_one_and_never_refuse_it() {
    both_ways([0, 0, 1], 3, false, 0).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "takes minutes"]
async fn the_same_holds_when_everything_takes_longer_than_a_push_may_mark() {
    both_ways([0, 0, 1], 3, false, 1).await;
}
