//! Two servers push under one name, in every order of their requests.

use tokio::task::JoinHandle;

use super::gate::Gated;
use super::*;

type Pushed = Result<PutWalOutcome, ArchiveError>;

struct Pusher {
    gate: Gated,
    task: JoinHandle<Pushed>,
}

impl Pusher {
    fn start(place: &Place, overwrites: bool, content: &'static str) -> Self {
        let gate = Gated::new(Arc::clone(&place.store), overwrites);
        let archive = archive_on(Arc::new(gate.clone()));
        let task = tokio::spawn(async move { archive.put_wal(&put(content)).await });
        Self { gate, task }
    }

    /// Lets the next request through and waits until it is done.
    async fn step(&self) {
        self.gate.permits.add_permits(1);
        while !self.task.is_finished() {
            if let Ok(done) = self.gate.done.try_acquire() {
                done.forget();
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    fn run_on(&self) {
        self.gate.permits.add_permits(1000);
    }

    async fn end(self) -> Pushed {
        self.run_on();
        self.task.await.unwrap()
    }
}

/// What must hold afterwards, whoever got what answer.
async fn check(place: &Place, acknowledged: &[&str], killed: bool, what: &str) {
    let mut distinct = acknowledged.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() <= 1, "{what}: two contents were acknowledged");
    let archive = place.archive();
    let Some(content) = distinct.first() else { return };
    let state = archive.wal_variants(&segment()).await.unwrap();
    assert!(!state.refused.contains(&id(content)), "{what}: what was acknowledged is refused");
    match usable(&archive).await {
        Ok(found) => assert_eq!(found.as_deref(), Some(content.as_bytes()), "{what}"),
        // A push that was killed right after its put leaves the decision to the operator.
        Err(contents) => assert!(killed && contents.contains(&id(content)), "{what}: {contents:?}"),
    }
}

/// Every order of three requests of one and three of the other: to list, to put, to list.
fn orders() -> Vec<Vec<usize>> {
    let all = 0u32..64;
    let order = |bits: u32| (0..6).map(|bit| (bits >> bit & 1) as usize).collect::<Vec<_>>();
    all.filter(|bits| bits.count_ones() == 3).map(order).collect()
}

async fn race(order: Vec<usize>, overwrites: bool, contents: [&'static str; 2]) -> usize {
    let place = Place::new().await;
    let pushers = contents.map(|content| Pusher::start(&place, overwrites, content));
    for turn in &order {
        pushers[*turn].step().await;
    }
    pushers.iter().for_each(Pusher::run_on);
    let [one, other] = pushers;
    let answers = [one.end().await, other.end().await];
    let mut acknowledged = Vec::new();
    for (answer, content) in answers.iter().zip(contents) {
        match answer {
            Ok(_) => acknowledged.push(content),
            Err(ArchiveError::Conflict { .. }) => {}
            Err(error) => panic!("{order:?}: {error}"),
        }
    }
    let what = format!("order {order:?}, overwrites {overwrites}, {contents:?}");
    check(&place, &acknowledged, false, &what).await;
    acknowledged.len()
}

#[tokio::test(start_paused = true)]
async fn of_two_contents_at_most_one_is_acknowledged_and_that_one_is_used() {
    let mut races = Vec::new();
    for order in orders() {
        for overwrites in [false, true] {
            races.push(tokio::spawn(race(order.clone(), overwrites, ["ours", "theirs"])));
        }
    }
    let mut decided = 0;
    for race in races {
        decided += race.await.unwrap();
    }
    // Were both to refuse themselves, the name would wait for an operator.
    assert_eq!(decided, 40, "some of 40 races had no winner");
}

#[tokio::test(start_paused = true)]
async fn a_refused_push_that_is_tried_again_does_not_undo_what_the_operator_decides() {
    let place = Place::new().await;
    let _stored = place.archive().put_wal(&put("theirs")).await.unwrap();
    assert!(place.archive().put_wal(&put("ours")).await.is_err());
    let again = Pusher::start(&place, false, "ours");
    again.step().await;
    place.archive().resolve(&segment(), id("ours")).await.unwrap();
    // What it pushes is what stands now.
    assert!(again.end().await.is_ok());
    assert_eq!(usable(&place.archive()).await.unwrap().as_deref(), Some(&b"ours"[..]));
    assert_eq!(place.archive().put_wal(&put("ours")).await.unwrap(), PutWalOutcome::AlreadyThere);
}

#[tokio::test(start_paused = true)]
async fn the_same_content_from_two_servers_is_acknowledged_to_both() {
    let mut races = Vec::new();
    for order in orders() {
        for overwrites in [false, true] {
            races.push(tokio::spawn(race(order.clone(), overwrites, ["same", "same"])));
        }
    }
    for race in races {
        assert_eq!(race.await.unwrap(), 2);
    }
}

/// One push is killed after so many requests; the other one goes through; both
/// are tried again, the killed one first or last.
async fn killed(after: usize, killed_first: bool, overwrites: bool) {
    let place = Place::new().await;
    let what = format!("killed after {after}, first again {killed_first}, overwrites {overwrites}");
    let victim = Pusher::start(&place, overwrites, "victim");
    for _ in 0..after {
        victim.step().await;
    }
    let answered = victim.task.is_finished();
    victim.task.abort();
    let mut acknowledged = Vec::new();
    if let Ok(Ok(_)) = victim.task.await {
        acknowledged.push("victim");
    }
    assert_eq!(answered, !acknowledged.is_empty(), "{what}");
    let mut contents = vec!["other", "victim", "other"];
    if killed_first {
        contents.insert(0, "victim");
    }
    for content in contents {
        match place.archive().put_wal(&put(content)).await {
            Ok(_) => acknowledged.push(content),
            Err(ArchiveError::Conflict { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
        check(&place, &acknowledged, true, &what).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_killed_anywhere_leaves_nothing_doubtful() {
    for after in 0..=3 {
        for killed_first in [false, true] {
            for overwrites in [false, true] {
                killed(after, killed_first, overwrites).await;
            }
        }
    }
}

/// One is killed between its put and its listing, while the other does all of its push.
#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_beside_a_killed_push_is_never_refused() {
    for before_put in [1, 2] {
        let place = Place::new().await;
        let rogue = Pusher::start(&place, false, "rogue");
        rogue.step().await;
        let ours = Pusher::start(&place, false, "ours");
        for _ in 0..3 {
            ours.step().await;
        }
        let acknowledged = ours.end().await.is_ok();
        assert!(acknowledged);
        if before_put == 2 {
            rogue.step().await;
        }
        rogue.task.abort();
        check(&place, &["ours"], true, "the rogue put its own and was killed").await;
        // PostgreSQL asks again after a crash: nothing may be decided against what was acknowledged.
        let again = place.archive().put_wal(&put("ours")).await;
        assert_eq!(again.is_ok(), before_put == 1, "{again:?}");
        check(&place, &["ours"], true, "pushed again").await;
        // The operator decides.
        place.archive().resolve(&segment(), id("ours")).await.unwrap();
        assert_eq!(usable(&place.archive()).await.unwrap().as_deref(), Some(&b"ours"[..]));
        assert_eq!(place.archive().put_wal(&put("ours")).await.unwrap(), PutWalOutcome::AlreadyThere);
    }
}
