#![allow(clippy::unwrap_used, clippy::panic)]

use aws_config::BehaviorVersion;
use aws_sdk_s3::config::{Credentials, Region, SharedCredentialsProvider};
use base64::Engine;
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use super::*;
use crate::store::StoreErrorKind::{self, Damaged, Denied, NoArchive, NotFound, Other, Transient};
use server::{Answer, Request, Server, listing, s3_error};

mod credentials;
mod false_answers;
mod requests;
mod server;
mod trusted_authority;
mod uploads;

const SECRET: &str = "TheSecretAccessKeyOfTheTests";

fn config(server: &Server) -> ArchiveConfig {
    let mut config = ArchiveConfig::new("s3://bucket/pre/fix".parse().unwrap());
    config.endpoint = Some(server.endpoint());
    config
}

async fn store_with(config: &ArchiveConfig) -> S3Store {
    let credentials = Credentials::new("ACCESSKEYID", SECRET, None, None, "tests");
    let environment = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("here"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    S3Store::open_in(&environment, config, "bucket", "pre/fix").await.unwrap()
}

async fn store(server: &Server) -> S3Store {
    store_with(&config(server)).await
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

fn body() -> Bytes {
    Bytes::from_static(b"some bytes")
}

/// The answer to a PUT that went well.
fn stored() -> Answer {
    Answer::new(200).header("etag", "\"0123\"")
}

async fn put(store: &S3Store) -> Result<PutOutcome, StoreError> {
    store.put(&key("a/b"), body(), &Metadata::new(), PutMode::CreateOnly).await
}

async fn read(store: &S3Store, range: Option<Range<u64>>) -> Result<Vec<u8>, StoreError> {
    let object = store.get(&key("a/b"), range).await?;
    let chunks: Vec<Bytes> = object.body.try_collect().await?;
    Ok(chunks.concat())
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind
}
