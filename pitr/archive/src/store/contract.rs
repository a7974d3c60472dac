//! What every store must do, as checks that run against a real one.
//!
//! For tests: [`run_contract`] is given a store that may be written to, works
//! below a folder of its own, and removes what it put there. It returns the
//! first promise that the store breaks.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::object_key::ObjectKeyError;
use crate::store::{MetadataError, ObjectStore, StoreError};

mod bench;
mod listings;
mod objects;
mod uploads;

use bench::Bench;

/// A promise that the store does not keep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Breach {
    /// The promise.
    pub promise: &'static str,
    /// What the store did instead.
    pub what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a store must keep its promise that {}: {}", self.promise, self.what)
    }
}

impl std::error::Error for Breach {}

/// Why a check ended.
#[derive(Debug)]
struct Broken(String);

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<ObjectKeyError> for Broken {
    fn from(error: ObjectKeyError) -> Self {
        Self(error.to_string())
    }
}

impl From<MetadataError> for Broken {
    fn from(error: MetadataError) -> Self {
        Self(error.to_string())
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(otherwise())) }
}

fn ensure_eq<T: PartialEq + fmt::Debug>(found: &T, expected: &T, of: &str) -> Result<(), Broken> {
    ensure(found == expected, || format!("{of} is {found:?} where {expected:?} was expected"))
}

type Check = for<'a> fn(&'a Bench) -> BoxFuture<'a, Result<(), Broken>>;

/// Every promise and its check.
const PROMISES: &[(&str, Check)] = &[
    ("an object reads back as it was put, empty ones too", |b| Box::pin(objects::reads_back(b))),
    ("metadata of every printable character and of 1536 bytes comes back", |b| {
        Box::pin(objects::worst_metadata(b))
    }),
    ("create-only says truly whether it created", |b| Box::pin(objects::create_only(b))),
    ("the same put again is no failure", |b| Box::pin(objects::same_put_again(b))),
    ("puts of one object at the same time all succeed", |b| Box::pin(objects::puts_at_once(b))),
    ("overwriting replaces bytes and metadata", |b| Box::pin(objects::overwrite(b))),
    ("a range is those bytes, cut at the end of the object", |b| Box::pin(objects::ranges(b))),
    ("what is absent is not found, and nothing else is", |b| Box::pin(objects::absent(b))),
    ("an object that was just put is not said to be old", |b| Box::pin(objects::age(b))),
    ("a deleted object is gone, and deleting nothing is no error", |b| Box::pin(objects::delete(b))),
    ("a listing is in bytewise order with sizes and times", |b| Box::pin(listings::order(b))),
    ("a listing keeps to its prefix, start and limit", |b| Box::pin(listings::limits(b))),
    ("a listing of more than a thousand keys is whole", |b| Box::pin(listings::many(b))),
    ("folders are those that hold objects", |b| Box::pin(listings::folders(b))),
    ("an upload of several parts reads back whole", |b| Box::pin(uploads::parts(b))),
    ("an upload of one part, full or empty, reads back", |b| Box::pin(uploads::one_part(b))),
    ("an upload that is not finished is no object", |b| Box::pin(uploads::unfinished(b))),
    ("an upload says truly whether it created", |b| Box::pin(uploads::create_only(b))),
];

/// Checks every promise on this store; the first one broken is the error.
pub async fn run_contract(store: Arc<dyn ObjectStore>) -> Result<(), Breach> {
    let bench = Bench::new(store);
    let mut result = Ok(());
    for (promise, check) in PROMISES {
        if let Err(Broken(what)) = check(&bench).await {
            result = Err(Breach { promise, what });
            break;
        }
    }
    let cleared = clear(&bench).await;
    result.and(cleared.map_err(|Broken(what)| Breach { promise: "what was put can be removed", what }))
}

async fn clear(bench: &Bench) -> Result<(), Broken> {
    let everything = bench.prefix("")?;
    let keys = bench.store.list(&everything, None, None).await?;
    bench.for_each(keys, |store, listed| async move { store.delete(&listed.key).await }).await?;
    let left = bench.store.list(&everything, None, None).await?;
    ensure(left.is_empty(), || format!("{} objects are left", left.len()))
}
