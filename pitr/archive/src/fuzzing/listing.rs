//! Listings of a bucket, as the SDK and the checks behind it read them.

use std::sync::OnceLock;

use crate::object_key::{ObjectKey, Prefix};
use crate::store::s3::S3Store;
use crate::store::s3::fuzzing::{Answers, store};
use crate::store::{ObjectStore, StoreError};

/// Any answers make a listing in the order of keys, within what was asked for, or an
/// error; and they come to an end.
///
/// The answers are divided by zero bytes; the last one comes again and again.
pub fn listing(data: &[u8]) {
    let Some(Bucket { runtime, store, answers }) = bucket() else { return };
    let everything = Prefix::all();
    let (Ok(folder), Ok(after)) = (Prefix::new("wal/"), ObjectKey::new("wal/b")) else { return };
    runtime.block_on(async {
        answers.set(data);
        check(store.list(&everything, None, None).await, &everything, None);
        answers.set(data);
        check(store.list(&folder, Some(&after), Some(2)).await, &folder, Some((&after, 2)));
        answers.set(data);
        if let Ok(names) = store.list_folders(&folder).await {
            assert!(names.iter().all(|name| ObjectKey::new(name).is_ok() && !name.contains('/')));
        }
    });
}

fn check(
    found: Result<Vec<crate::store::Listed>, StoreError>,
    prefix: &Prefix,
    bounds: Option<(&ObjectKey, usize)>,
) {
    let Ok(found) = found else { return };
    assert!(found.is_sorted_by(|one, other| one.key < other.key));
    assert!(found.iter().all(|it| it.key.as_str().starts_with(prefix.as_str())));
    if let Some((after, limit)) = bounds {
        assert!(found.iter().all(|it| it.key > *after), "before where the listing was to begin");
        assert!(found.len() <= limit, "{} were listed, at most {limit} were wanted", found.len());
    }
}

struct Bucket {
    runtime: tokio::runtime::Runtime,
    store: S3Store,
    answers: Answers,
}

fn bucket() -> Option<&'static Bucket> {
    static BUCKET: OnceLock<Option<Bucket>> = OnceLock::new();
    let make = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().ok()?;
        let answers = Answers::default();
        let store = store(&answers)?;
        Some(Bucket { runtime, store, answers })
    };
    BUCKET.get_or_init(make).as_ref()
}
