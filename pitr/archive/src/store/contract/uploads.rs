//! Promises about objects in parts.

use bytes::Bytes;

use super::bench::{Bench, bytes, metadata};
use super::{Broken, ensure, ensure_eq};
use crate::store::{Metadata, PART_BYTES, PutMode, PutOutcome, StoreErrorKind, Upload};

async fn send(upload: &mut Box<dyn Upload>, body: &Bytes) -> Result<(), Broken> {
    let mut rest = body.clone();
    while !rest.is_empty() {
        upload.part(rest.split_to(rest.len().min(PART_BYTES))).await?;
    }
    Ok(())
}

pub(super) async fn parts(bench: &Bench) -> Result<(), Broken> {
    let (body, values) = (bytes(PART_BYTES * 2 + 1024 * 1024), metadata(&[("content", "0123")])?);
    let key = bench.key("upload/parts")?;
    let mut upload = bench.store.begin_upload(&key, &values, PutMode::CreateOnly).await?;
    send(&mut upload, &body).await?;
    ensure_eq(&upload.finish().await?, &PutOutcome::Created, "the outcome")?;
    bench.expect("upload/parts", &body, &values).await?;
    let border = PART_BYTES as u64;
    let (found, _) = bench.read("upload/parts", Some(border - 10..border + 10)).await?;
    ensure(body.get(PART_BYTES - 10..PART_BYTES + 10) == Some(&found), || {
        "a range over two parts differs".to_owned()
    })?;
    let listed = bench.store.list(&bench.prefix("upload/parts")?, None, None).await?;
    let sizes: Vec<u64> = listed.iter().map(|line| line.size).collect();
    ensure_eq(&sizes, &vec![body.len() as u64], "the size listed")
}

pub(super) async fn one_part(bench: &Bench) -> Result<(), Broken> {
    for length in [0, 1, PART_BYTES, PART_BYTES + 1024 * 1024] {
        let name = format!("upload/one-{length}");
        let mut upload =
            bench.store.begin_upload(&bench.key(&name)?, &Metadata::new(), PutMode::Overwrite).await?;
        let body = bytes(length);
        send(&mut upload, &body).await?;
        ensure_eq(&upload.finish().await?, &PutOutcome::Created, "the outcome")?;
        bench.expect(&name, &body, &Metadata::new()).await?;
    }
    Ok(())
}

pub(super) async fn unfinished(bench: &Bench) -> Result<(), Broken> {
    let key = bench.key("unfinished/object")?;
    let mut upload = bench.store.begin_upload(&key, &Metadata::new(), PutMode::CreateOnly).await?;
    upload.part(bytes(PART_BYTES)).await?;
    let head = bench.store.head(&key).await.map_err(|error| error.kind);
    ensure_eq(&head, &Err(StoreErrorKind::NotFound), "an upload under way")?;
    let names = bench.names("unfinished/", None, None).await?;
    ensure(names.is_empty(), || format!("an upload under way is listed: {names:?}"))?;
    upload.abort().await?;
    upload.abort().await?;
    let head = bench.store.head(&key).await.map_err(|error| error.kind);
    ensure_eq(&head, &Err(StoreErrorKind::NotFound), "an aborted upload")?;
    ensure(upload.finish().await.is_err(), || "an aborted upload could be finished".to_owned())
}

pub(super) async fn create_only(bench: &Bench) -> Result<(), Broken> {
    let (old, new) = (bytes(10), bytes(20));
    bench.put("upload/taken", &old, &Metadata::new()).await?;
    let key = bench.key("upload/taken")?;
    let mut upload = bench.store.begin_upload(&key, &Metadata::new(), PutMode::CreateOnly).await?;
    upload.part(new.clone()).await?;
    let left = match upload.finish().await? {
        PutOutcome::Exists => &old,
        PutOutcome::Created => &new,
    };
    bench.expect("upload/taken", left, &Metadata::new()).await
}
