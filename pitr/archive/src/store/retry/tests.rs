#![allow(clippy::unwrap_used)]

use std::time::Instant as WallInstant;

use futures::TryStreamExt;

use super::*;
use crate::store::StoreErrorKind::{Denied, Transient};
use crate::store::dir::DirStore;
use crate::store::faulty::{Fault, Faulty, Verb};

struct Place {
    _dir: tempfile::TempDir,
    faulty: Faulty,
    store: Retry,
}

impl Place {
    async fn new(give_up_after: Duration) -> Self {
        Self::trying_again_for(give_up_after, give_up_after).await
    }

    async fn trying_again_for(try_again_for: Duration, give_up_after: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let faulty = Faulty::new(Arc::new(DirStore::open(dir.path()).await.unwrap()));
        let policy = RetryPolicy {
            give_up_after,
            try_again_for,
            first_pause: Duration::from_millis(2),
            longest_pause: Duration::from_millis(10),
        };
        let store = Retry::new(Arc::new(faulty.clone()), policy);
        Self { _dir: dir, faulty, store }
    }

    async fn put(&self, body: &[u8], mode: PutMode) -> Result<PutOutcome, StoreError> {
        self.store.put(&key(), Bytes::copy_from_slice(body), &Metadata::new(), mode).await
    }
}

fn key() -> ObjectKey {
    ObjectKey::new("folder/object").unwrap()
}

async fn read(object: Object) -> Result<Vec<u8>, StoreError> {
    let chunks: Vec<Bytes> = object.body.try_collect().await?;
    Ok(chunks.concat())
}

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn transient_errors_are_tried_again_until_it_works() {
    let place = Place::new(LONG).await;
    for index in 0..4 {
        place.faulty.fail(Verb::Put, index, Fault::Before(Transient));
    }
    assert_eq!(place.put(b"x", PutMode::CreateOnly).await.unwrap(), PutOutcome::Created);
    assert_eq!(place.faulty.calls(Verb::Put), 5);
    for verb in [Verb::Head, Verb::List, Verb::Get, Verb::Delete] {
        place.faulty.fail(verb, 0, Fault::Before(Transient));
    }
    assert_eq!(place.store.head(&key()).await.unwrap().size, 1);
    assert_eq!(place.store.list(&Prefix::all(), None, None).await.unwrap().len(), 1);
    assert_eq!(place.store.list_folders(&Prefix::all()).await.unwrap(), ["folder"]);
    assert_eq!(read(place.store.get(&key(), None).await.unwrap()).await.unwrap(), b"x");
    place.store.delete(&key()).await.unwrap();
    assert_eq!(place.faulty.calls(Verb::Delete), 2);
}

#[tokio::test]
async fn errors_that_trying_again_does_not_help_come_at_once() {
    let place = Place::new(LONG).await;
    place.faulty.fail(Verb::Get, 0, Fault::Before(Denied));
    assert_eq!(place.store.get(&key(), None).await.unwrap_err().kind, Denied);
    assert_eq!(place.store.get(&key(), None).await.unwrap_err().kind, StoreErrorKind::NotFound);
    assert_eq!(place.faulty.calls(Verb::Get), 2);
}

#[tokio::test]
async fn it_gives_up_at_the_deadline_and_says_how_often_it_tried() {
    let place = Place::new(SHORT).await;
    place.faulty.fail_every(Verb::Head, Some(Fault::Before(Transient)));
    let since = WallInstant::now();
    let error = place.store.head(&key()).await.unwrap_err();
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind, Transient);
    let calls = place.faulty.calls(Verb::Head);
    assert!(calls > 2, "{calls} tries");
    assert!(error.detail.starts_with(&format!("{calls} tries in 0.")), "{error}");
}

#[tokio::test]
async fn a_try_that_hangs_is_cut_off_at_the_deadline() {
    let place = Place::new(SHORT).await;
    place.faulty.fail_every(Verb::Head, Some(Fault::Delay(LONG)));
    let since = WallInstant::now();
    assert_eq!(place.store.head(&key()).await.unwrap_err().kind, Transient);
    assert!(since.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_try_may_take_longer_than_trying_again() {
    let place = Place::trying_again_for(Duration::from_millis(50), LONG).await;
    place.faulty.fail(Verb::Put, 0, Fault::Delay(SHORT));
    assert_eq!(place.put(b"x", PutMode::CreateOnly).await.unwrap(), PutOutcome::Created);
    place.faulty.fail_every(Verb::Head, Some(Fault::Before(Transient)));
    let since = WallInstant::now();
    assert_eq!(place.store.head(&key()).await.unwrap_err().kind, Transient);
    assert!(since.elapsed() < Duration::from_secs(5));
    assert!(place.faulty.calls(Verb::Head) > 1);
}

#[tokio::test]
async fn once_is_one_try_without_a_limit() {
    let place = Place::new(Duration::ZERO).await;
    place.faulty.fail(Verb::Put, 0, Fault::Delay(Duration::from_millis(50)));
    assert_eq!(place.put(b"x", PutMode::CreateOnly).await.unwrap(), PutOutcome::Created);
    place.faulty.fail(Verb::Put, 1, Fault::Before(Transient));
    assert_eq!(place.put(b"x", PutMode::CreateOnly).await.unwrap_err().kind, Transient);
    assert_eq!(place.faulty.calls(Verb::Put), 2);
}

#[tokio::test]
async fn a_put_whose_reply_was_lost_is_found_there_at_the_next_try() {
    let place = Place::new(LONG).await;
    place.faulty.fail(Verb::Put, 0, Fault::After(Transient));
    assert_eq!(place.put(b"x", PutMode::CreateOnly).await.unwrap(), PutOutcome::Exists);
    assert_eq!(place.store.head(&key()).await.unwrap().size, 1);
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_at_the_byte_reached() {
    let place = Place::new(LONG).await;
    let body: Vec<u8> = (0..3_000_000u32).map(|byte| byte as u8).collect();
    let _created = place.put(&body, PutMode::CreateOnly).await.unwrap();
    place.faulty.fail_every(Verb::Get, Some(Fault::CutBody(700_000)));
    let whole = read(place.store.get(&key(), None).await.unwrap()).await.unwrap();
    assert_eq!(whole, body);
    assert_eq!(place.faulty.calls(Verb::Get), 5);
    let part = read(place.store.get(&key(), Some(10..2_999_999)).await.unwrap()).await.unwrap();
    assert_eq!(part, body[10..2_999_999]);
    let past = read(place.store.get(&key(), Some(2_000_000..u64::MAX)).await.unwrap()).await.unwrap();
    assert_eq!(past, body[2_000_000..]);
}

#[tokio::test]
async fn a_body_that_makes_no_progress_is_given_up() {
    let place = Place::new(SHORT).await;
    let body = Bytes::from_static(b"some bytes");
    // Not within the short time that is to be seen below.
    let _created = place.faulty.put(&key(), body, &Metadata::new(), PutMode::CreateOnly).await.unwrap();
    place.faulty.fail_every(Verb::Get, Some(Fault::CutBody(0)));
    let error = read(place.store.get(&key(), None).await.unwrap()).await.unwrap_err();
    assert_eq!(error.kind, Transient);
    assert!(error.detail.contains("tries in"), "{error}");
}

#[tokio::test]
async fn a_body_whose_object_was_replaced_is_never_pieced_together() {
    let place = Place::new(LONG).await;
    let _created = place.put(b"the old body", PutMode::CreateOnly).await.unwrap();
    place.faulty.fail(Verb::Get, 0, Fault::CutBody(4));
    let object = place.store.get(&key(), None).await.unwrap();
    let _created = place.put(b"the newer body", PutMode::Overwrite).await.unwrap();
    assert_eq!(read(object).await.unwrap_err().kind, StoreErrorKind::Other);
}

#[tokio::test]
async fn an_upload_survives_failed_parts_and_a_lost_last_reply() {
    let place = Place::new(LONG).await;
    place.faulty.fail(Verb::BeginUpload, 0, Fault::Before(Transient));
    place.faulty.fail(Verb::Part, 0, Fault::Before(Transient));
    place.faulty.fail(Verb::Finish, 0, Fault::Before(Transient));
    place.faulty.fail(Verb::Finish, 1, Fault::After(Transient));
    let mut upload = place.store.begin_upload(&key(), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
    upload.part(Bytes::from_static(b"one ")).await.unwrap();
    upload.part(Bytes::from_static(b"two")).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), PutOutcome::Created);
    assert_eq!(read(place.store.get(&key(), None).await.unwrap()).await.unwrap(), b"one two");
}

#[tokio::test]
async fn pauses_grow_to_their_limit() {
    let policy = RetryPolicy::for_at_most(LONG);
    let limits: Vec<u128> = (1..=8).map(|failures| policy.pause_limit(failures).as_millis()).collect();
    assert_eq!(limits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    assert_eq!(policy.pause_limit(u32::MAX), policy.longest_pause);
}
