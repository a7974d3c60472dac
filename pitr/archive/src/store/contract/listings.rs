//! Promises about listings.

use bytes::Bytes;

use super::bench::Bench;
use super::{Broken, ensure, ensure_eq};
use crate::store::{Metadata, PutMode};

/// Names that a file system, a locale or a tree would put in another order.
const ORDERED: &[&str] = &[
    "order/-first",
    "order/0",
    "order/A",
    "order/B-1",
    "order/Z",
    "order/_",
    "order/a",
    "order/a-1",
    "order/a.1",
    "order/a.d/x",
    "order/a.d/x-1",
    "order/a.d/x.y",
    "order/a.d0",
    "order/a.live/0",
    "order/a0",
    "order/aa",
    "order/b/c/d/e",
    "order/b/c0",
    "order/b0",
    "order/z",
];

pub(super) async fn order(bench: &Bench) -> Result<(), Broken> {
    let names = ORDERED;
    let mut shuffled = names.to_vec();
    shuffled.reverse();
    bench.put_small(&shuffled).await?;
    ensure_eq(&bench.names("order/", None, None).await?, &owned(names), "the order")?;
    for line in bench.store.list(&bench.prefix("order/")?, None, None).await? {
        let own_name = line.key.as_str().find("order/").map_or(0, |at| line.key.as_str().len() - at);
        ensure_eq(&line.size, &(own_name as u64), "the size listed")?;
        ensure(line.modified.is_some(), || format!("{} has no time", line.key))?;
    }
    for after in names {
        let rest: Vec<&str> = names.iter().copied().filter(|name| name > after).collect();
        ensure_eq(
            &bench.names("order/", Some(after), None).await?,
            &owned(&rest),
            &format!("what follows {after}"),
        )?;
    }
    Ok(())
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A prefix, a start, a limit, and the names they give.
type Case<'a> = (&'a str, Option<&'a str>, Option<usize>, &'a [&'a str]);

pub(super) async fn limits(bench: &Bench) -> Result<(), Broken> {
    bench.put_small(&["limit/a/1", "limit/a/2", "limit/a-1", "limit/ab/1", "limit/b"]).await?;
    let cases: &[Case<'_>] = &[
        ("limit/", None, Some(0), &[]),
        ("limit/", None, Some(2), &["limit/a-1", "limit/a/1"]),
        ("limit/a", None, None, &["limit/a-1", "limit/a/1", "limit/a/2", "limit/ab/1"]),
        ("limit/a/", None, None, &["limit/a/1", "limit/a/2"]),
        ("limit/a/2", None, None, &["limit/a/2"]),
        ("limit/c", None, None, &[]),
        ("limit/a", Some("limit/a/1"), Some(1), &["limit/a/2"]),
        // A start that is no object, before, inside and behind the prefix.
        ("limit/a/", Some("limit/a/0"), None, &["limit/a/1", "limit/a/2"]),
        ("limit/a", Some("limit/a"), None, &["limit/a-1", "limit/a/1", "limit/a/2", "limit/ab/1"]),
        ("limit/a", Some("limit/0"), Some(1), &["limit/a-1"]),
        ("limit/a", Some("limit/ab"), None, &["limit/ab/1"]),
        ("limit/a", Some("limit/b"), None, &[]),
    ];
    for (prefix, after, limit, expected) in cases {
        let found = bench.names(prefix, *after, *limit).await?;
        ensure_eq(&found, &owned(expected), &format!("{prefix} after {after:?}, at most {limit:?}"))?;
    }
    Ok(())
}

pub(super) async fn many(bench: &Bench) -> Result<(), Broken> {
    const COUNT: usize = 2100;
    let names: Vec<String> = (0..COUNT).map(|number| format!("many/{number:04}-x")).collect();
    let keys = names.iter().map(|name| bench.key(name)).collect::<Result<Vec<_>, _>>()?;
    bench
        .for_each(keys, |store, key| async move {
            store
                .put(&key, Bytes::from_static(b"x"), &Metadata::new(), PutMode::Overwrite)
                .await
                .map(|_created| ())
        })
        .await?;
    ensure_eq(&bench.names("many/", None, None).await?, &names, "the listing")?;
    let behind = names.get(1050..).unwrap_or_default().to_vec();
    ensure_eq(&bench.names("many/", Some("many/1049-x"), None).await?, &behind, "the second half")?;
    for limit in [1, 999, 1000, 1001, 2000, COUNT + 1] {
        let found = bench.names("many/", None, Some(limit)).await?;
        ensure_eq(&found.len(), &limit.min(COUNT), "the number of keys")?;
    }
    Ok(())
}

pub(super) async fn folders(bench: &Bench) -> Result<(), Broken> {
    bench
        .put_small(&["dirs/b/1", "dirs/b/2", "dirs/a/deep/1", "dirs/b.d/1", "dirs/b-d/1", "dirs/file"])
        .await?;
    let expected: &[(&str, &[&str])] = &[
        ("dirs/", &["a", "b-d", "b.d", "b"]),
        ("dirs/b", &["b-d", "b.d", "b"]),
        ("dirs/a/", &["deep"]),
        ("dirs/a/deep/", &[]),
        ("dirs/file", &[]),
        ("dirs/nowhere/", &[]),
    ];
    for (prefix, folders) in expected {
        let found = bench.store.list_folders(&bench.prefix(prefix)?).await?;
        ensure_eq(&found, &owned(folders), &format!("the folders of {prefix}"))?;
    }
    bench.store.delete(&bench.key("dirs/a/deep/1")?).await?;
    let found = bench.store.list_folders(&bench.prefix("dirs/")?).await?;
    ensure_eq(&found, &owned(&["b-d", "b.d", "b"]), "the folders once the last object of one is gone")
}
