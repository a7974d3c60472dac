//! Promises about one object.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::bench::{Bench, bytes, metadata};
use super::{Broken, ensure, ensure_eq};
use crate::store::{Metadata, PART_BYTES, PutMode, PutOutcome, StoreErrorKind};

pub(super) async fn reads_back(bench: &Bench) -> Result<(), Broken> {
    let values = metadata(&[("content", "0123"), ("plain-size", "7")])?;
    for length in [0, 1, 4096, 1_000_003, PART_BYTES] {
        let body = bytes(length);
        let name = format!("whole/{length}");
        bench.put(&name, &body, &values).await?;
        bench.expect(&name, &body, &values).await?;
    }
    bench.put("whole/bare", &bytes(10), &Metadata::new()).await?;
    bench.expect("whole/bare", &bytes(10), &Metadata::new()).await
}

fn metadata_values() -> Result<Metadata, Broken> {
    let printable: String = ('!'..='~').collect();
    let mut values =
        metadata(&[("printable", &printable), ("spaces", "a b  c"), ("a-0-z", "=?utf-8?q?x?=")])?;
    let room = Metadata::MAX_BYTES - values.size() - "full".len();
    values.insert("full", &"x".repeat(room))?;
    Ok(values)
}

pub(super) async fn worst_metadata(bench: &Bench) -> Result<(), Broken> {
    let values = metadata_values()?;
    ensure_eq(&values.size(), &Metadata::MAX_BYTES, "the size of the worst case")?;
    bench.put("metadata", &bytes(3), &values).await?;
    bench.expect("metadata", &bytes(3), &values).await
}

pub(super) async fn create_only(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("create")?;
    let (old, new) = (bytes(100), bytes(101));
    let (old_values, new_values) = (metadata(&[("is", "old")])?, metadata(&[("is", "new")])?);
    let first = bench.store.put(&key, old.clone(), &old_values, PutMode::CreateOnly).await?;
    ensure_eq(&first, &PutOutcome::Created, "the first outcome")?;
    bench.expect("create", &old, &old_values).await?;
    match bench.store.put(&key, new.clone(), &new_values, PutMode::CreateOnly).await? {
        PutOutcome::Exists => bench.expect("create", &old, &old_values).await,
        // Best effort, on stores that know no conditions.
        PutOutcome::Created => bench.expect("create", &new, &new_values).await,
    }
}

pub(super) async fn same_put_again(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("again")?;
    let values = metadata(&[("content", "0123")])?;
    for _ in 0..3 {
        let _either = bench.store.put(&key, bytes(5000), &values, PutMode::CreateOnly).await?;
        bench.expect("again", &bytes(5000), &values).await?;
    }
    Ok(())
}

pub(super) async fn puts_at_once(bench: &Bench) -> Result<(), Broken> {
    let key = &bench.key("at-once/deep/object")?;
    let values = &metadata(&[("content", "0123")])?;
    let put = |store: std::sync::Arc<dyn crate::store::ObjectStore>, mode| async move {
        store.put(key, bytes(5000), values, mode).await.map(|_either| ())
    };
    bench.for_each([PutMode::CreateOnly; 12], put).await?;
    bench.expect("at-once/deep/object", &bytes(5000), values).await?;
    bench.for_each([PutMode::Overwrite; 12], put).await?;
    bench.expect("at-once/deep/object", &bytes(5000), values).await
}

pub(super) async fn age(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("young")?;
    bench.put("young", &bytes(10), &Metadata::new()).await?;
    let age = bench.store.age(&key).await?;
    ensure(age.is_none_or(|age| age < Duration::from_secs(60)), || format!("its age is {age:?}"))?;
    let absent = bench.store.age(&bench.key("never")?).await;
    ensure(absent.is_err_and(|error| error.is_not_found()), || "what is absent has an age".to_owned())
}

pub(super) async fn overwrite(bench: &Bench) -> Result<(), Broken> {
    for length in [4096, 0, 9000] {
        let length_text = length.to_string();
        let values = metadata(&[("length", &length_text)])?;
        bench.put("overwritten", &bytes(length), &values).await?;
        bench.expect("overwritten", &bytes(length), &values).await?;
    }
    bench.put("overwritten", &bytes(1), &Metadata::new()).await?;
    bench.expect("overwritten", &bytes(1), &Metadata::new()).await
}

pub(super) async fn ranges(bench: &Bench) -> Result<(), Broken> {
    let body = bytes(3_000_000);
    bench.put("range", &body, &Metadata::new()).await?;
    bench.put("empty", &Bytes::new(), &Metadata::new()).await?;
    let size = body.len() as u64;
    for asked in [
        0..1,
        0..size,
        1..2,
        65_535..1_500_000,
        size - 1..size,
        size - 1..size + 9,
        0..u64::MAX,
        7..7,
        size..size + 1,
        size + 9..size + 10,
    ] {
        let (found, said) = bench.read("range", Some(asked.clone())).await?;
        ensure_eq(&said, &size, "the size of the whole object")?;
        ensure(found == body.get(cut(&asked, body.len())).unwrap_or_default(), || {
            format!("{asked:?} gives {} other bytes", found.len())
        })?;
    }
    for asked in [0..1, 0..0, 5..9] {
        ensure_eq(&bench.read("empty", Some(asked)).await?, &(Vec::new(), 0), "a range of nothing")?;
    }
    Ok(())
}

fn cut(range: &Range<u64>, length: usize) -> Range<usize> {
    let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(length);
    within(range.start)..within(range.end)
}

pub(super) async fn absent(bench: &Bench) -> Result<(), Broken> {
    bench.put_small(&["there/object-and-more", "there/object.d/below"]).await?;
    for name in [
        "nowhere",
        "no/such/folder",
        "there/object",
        "there/object.d",
        "there",
        "there/object-and-more/below",
    ] {
        let key = bench.key(name)?;
        let kinds = [
            bench.store.get(&key, None).await.map(drop),
            bench.store.get(&key, Some(0..1)).await.map(drop),
            bench.store.get(&key, Some(1..1)).await.map(drop),
            bench.store.head(&key).await.map(drop),
        ];
        for result in kinds {
            let kind = result.map_err(|error| error.kind);
            ensure_eq(&kind, &Err(StoreErrorKind::NotFound), &format!("reading {name}"))?;
        }
    }
    let empty = bench.names("nowhere", None, None).await?;
    ensure(empty.is_empty(), || format!("listing what is absent gives {empty:?}"))
}

pub(super) async fn delete(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("gone/object")?;
    bench.store.delete(&key).await?;
    bench.put_small(&["gone/object", "gone/object-2"]).await?;
    bench.store.delete(&key).await?;
    bench.store.delete(&key).await?;
    let head = bench.store.head(&key).await.map_err(|error| error.kind);
    ensure_eq(&head, &Err(StoreErrorKind::NotFound), "a deleted object")?;
    ensure_eq(&bench.names("gone/", None, None).await?, &vec!["gone/object-2".to_owned()], "the listing")?;
    bench.store.delete(&bench.key("gone/object-2")?).await?;
    bench.put_small(&["gone/object"]).await?;
    bench.expect("gone/object", b"gone/object", &Metadata::new()).await
}
