//! The S3 store against a real Garage, directly and through a proxy that
//! breaks requests.
//!
//! Credentials come from the environment, which a running process cannot
//! change safely. So each promise that needs them is a test that is ignored by
//! itself and run in a process of its own by the one that prepares the store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::TryStreamExt;
use walpoint_archive::config::{ArchiveConfig, ArchiveUrl, open_store};
use walpoint_archive::object_key::{ObjectKey, Prefix};
use walpoint_archive::store::contract::run_contract;
use walpoint_archive::store::s3::S3Store;
use walpoint_archive::store::{
    ChecksumCheck, Metadata, ObjectStore, PART_BYTES, PutMode, PutOutcome, RetryPolicy, StoreError,
    StoreErrorKind,
};
use walpoint_tests::garage::{Garage, credentials};
use walpoint_tests::process::run;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::runtime;

const URL: &str = "WALPOINT_TEST_STORE_URL";
const ENDPOINT: &str = "WALPOINT_TEST_STORE_ENDPOINT";
const TIMEOUT: &str = "WALPOINT_TEST_STORE_TIMEOUT_MS";

const CHILD_LIMIT: Duration = Duration::from_secs(300);

/// What a test in its own process is told.
struct Told {
    bucket: String,
    endpoint: String,
    request_timeout: Duration,
}

impl Told {
    fn new(bucket: &str, endpoint: &str) -> Told {
        Told {
            bucket: bucket.to_owned(),
            endpoint: endpoint.to_owned(),
            request_timeout: Duration::from_secs(30),
        }
    }

    fn impatient(bucket: &str, endpoint: &str) -> Told {
        Told { request_timeout: Duration::from_secs(2), ..Told::new(bucket, endpoint) }
    }

    /// Runs the ignored test of this name with all this in its environment.
    fn run(&self, name: &str) -> Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([name, "--exact", "--ignored", "--nocapture"]).envs(credentials());
        command.env(URL, format!("s3://{}/some/prefix", self.bucket));
        command.env(ENDPOINT, &self.endpoint);
        command.env(TIMEOUT, self.request_timeout.as_millis().to_string());
        let outcome = run(command, CHILD_LIMIT)?.success()?;
        if !outcome.stdout.contains("test result: ok. 1 passed") {
            bail!("no such test was run\n{outcome}");
        }
        Ok(())
    }
}

fn config() -> ArchiveConfig {
    let told = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by the test that runs this one"))
    };
    let mut config = ArchiveConfig::new(told(URL).parse().unwrap());
    config.endpoint = Some(told(ENDPOINT));
    config.request_timeout = Duration::from_millis(told(TIMEOUT).parse().unwrap());
    config
}

/// The store without retries: what one request meets is what is seen.
fn plain_store() -> Result<S3Store> {
    let config = config();
    let ArchiveUrl::S3 { bucket, prefix } = &config.url else { bail!("not a bucket") };
    runtime::block_on(async { Ok(S3Store::open(&config, bucket, prefix).await?) })
}

fn retried_store() -> Result<Arc<dyn ObjectStore>> {
    let policy = RetryPolicy::for_at_most(Duration::from_secs(60));
    runtime::block_on(async { Ok(open_store(&config(), &policy).await?) })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

async fn put(store: &dyn ObjectStore, name: &str, body: Vec<u8>) -> Result<PutOutcome, StoreError> {
    store.put(&key(name), body.into(), &Metadata::new(), PutMode::CreateOnly).await
}

async fn read(store: &dyn ObjectStore, name: &str) -> Result<Vec<u8>, StoreError> {
    let chunks: Vec<Bytes> = store.get(&key(name), None).await?.body.try_collect().await?;
    Ok(chunks.concat())
}

/// The error of every verb, asked about an object that is there.
async fn every_verb(store: &dyn ObjectStore, name: &str) -> Vec<StoreError> {
    let results = [
        read(store, name).await.map(drop),
        store.head(&key(name)).await.map(drop),
        store.list(&Prefix::all(), None, None).await.map(drop),
        store.list_folders(&Prefix::all()).await.map(drop),
        put(store, name, vec![1]).await.map(drop),
        store.begin_upload(&key(name), &Metadata::new(), PutMode::CreateOnly).await.map(drop),
        store.delete(&key(name)).await,
    ];
    results.into_iter().map(|result| result.expect_err("a request succeeded")).collect()
}

#[test]
fn garage_keeps_the_store_contract() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    Told::new(&garage.bucket()?, &garage.endpoint()).run("child_runs_the_contract")
}

#[test]
#[ignore = "run by the tests above"]
fn child_runs_the_contract() -> Result<()> {
    let store = Arc::new(plain_store()?);
    runtime::block_on(async { Ok(run_contract(store).await?) })
}

#[test]
fn the_contract_holds_through_a_proxy_that_breaks_requests() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let faults = break_here_and_there(&proxy);
    Told::new(&garage.bucket()?, &proxy.endpoint()).run("child_runs_the_contract_with_retries")?;
    assert!(proxy.requests().len() > 2000 + faults, "the contract did not go through the proxy");
    Ok(())
}

#[test]
fn garage_overwrites_although_it_is_asked_not_to_and_looks_at_checksums() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    Told::new(&garage.bucket()?, &garage.endpoint()).run("child_finds_out_what_the_store_does")
}

#[test]
#[ignore = "run by the tests above"]
fn child_finds_out_what_the_store_does() -> Result<()> {
    for store in [Arc::new(plain_store()?), retried_store()?] as [Arc<dyn ObjectStore>; 2] {
        runtime::block_on(async {
            assert_eq!(put(store.as_ref(), "object", vec![1]).await?, PutOutcome::Created);
            assert_eq!(put(store.as_ref(), "object", vec![2]).await?, PutOutcome::Created);
            assert_eq!(store.try_checksum(&key("object")).await?, ChecksumCheck::Verified);
            assert_eq!(read(store.as_ref(), "object").await?, [2], "what was refused has replaced it");
            store.delete(&key("object")).await?;
            anyhow::Ok(())
        })?;
    }
    Ok(())
}

/// Each kind of fault several times in each kind of request.
fn break_here_and_there(proxy: &Proxy) -> usize {
    let faults = [
        Fault::status(503, "SlowDown"),
        Fault::status(500, "InternalError"),
        Fault::status(403, "RequestTimeTooSkewed"),
        Fault::Html,
        Fault::DropBefore,
        Fault::DropAfter,
        Fault::HalfOfRequest,
        Fault::Truncate(100),
    ];
    let kinds = [
        ("GET", "list-type=2", 3),
        ("GET", "GetObject", 4),
        ("HEAD", "", 4),
        ("PUT", "", 90),
        ("DELETE", "", 300),
        ("POST", "", 1),
    ];
    let mut rules = 0;
    for (method, target, distance) in kinds {
        for fault in &faults {
            // A HEAD has no body to cut or to say why in, and neither has the
            // answer to a PUT one to cut.
            let is_skewed = matches!(fault, Fault::Status { status: 403, .. });
            let bodiless = matches!(fault, Fault::Truncate(_)) && method != "GET"
                || matches!(fault, Fault::HalfOfRequest) && !matches!(method, "PUT" | "POST")
                || is_skewed && method == "HEAD";
            if !bodiless {
                proxy.add(Rule::new(fault.clone()).method(method).target(target).after(distance).times(1));
                rules += 1;
            }
        }
    }
    rules
}

#[test]
#[ignore = "run by the tests above"]
fn child_runs_the_contract_with_retries() -> Result<()> {
    let store = retried_store()?;
    runtime::block_on(async { Ok(run_contract(store).await?) })
}

#[test]
fn a_captive_portal_is_an_outage_for_every_verb() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    proxy.add(Rule::new(Fault::Html));
    Told::new(&garage.bucket()?, &proxy.endpoint()).run("child_meets_an_outage")
}

#[test]
fn a_store_that_breaks_every_connection_is_an_outage_for_every_verb() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    proxy.add(Rule::new(Fault::DropBefore));
    Told::new(&garage.bucket()?, &proxy.endpoint()).run("child_meets_an_outage")
}

#[test]
fn a_store_that_never_answers_is_an_outage_for_every_verb() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    proxy.add(Rule::new(Fault::Blackhole));
    Told::impatient(&garage.bucket()?, &proxy.endpoint()).run("child_meets_an_outage")
}

#[test]
fn a_store_that_is_not_there_is_an_outage_for_every_verb() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    proxy.take_down()?;
    Told::new(&garage.bucket()?, &proxy.endpoint()).run("child_meets_an_outage")
}

#[test]
#[ignore = "run by the tests above"]
fn child_meets_an_outage() -> Result<()> {
    every_verb_says(StoreErrorKind::Transient)
}

fn every_verb_says(kind: StoreErrorKind) -> Result<()> {
    let store = plain_store()?;
    runtime::block_on(async {
        for error in every_verb(&store, "an/object").await {
            assert_eq!(error.kind, kind, "{error}");
        }
        Ok(())
    })
}

#[test]
fn a_denied_bucket_is_denied_and_never_absent() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let bucket = garage.bucket()?;
    garage.deny(&bucket)?;
    Told::new(&bucket, &garage.endpoint()).run("child_is_denied")
}

#[test]
#[ignore = "run by the tests above"]
fn child_is_denied() -> Result<()> {
    every_verb_says(StoreErrorKind::Denied)
}

#[test]
fn a_missing_bucket_is_no_archive_and_never_an_absent_object() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    Told::new("there-is-no-such-bucket", &garage.endpoint()).run("child_has_no_archive")
}

#[test]
#[ignore = "run by the tests above"]
fn child_has_no_archive() -> Result<()> {
    every_verb_says(StoreErrorKind::NoArchive)
}

#[test]
fn a_404_that_is_not_s3s_is_never_an_absent_object() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    proxy.add(Rule::new(Fault::status(404, "NotFound")).method("HEAD"));
    proxy.add(Rule::new(Fault::status(404, "NotFound")).method("GET").target("GetObject"));
    Told::new(&garage.bucket()?, &proxy.endpoint()).run("child_sees_false_404s")
}

#[test]
#[ignore = "run by the tests above"]
fn child_sees_false_404s() -> Result<()> {
    let store = plain_store()?;
    runtime::block_on(async {
        assert_eq!(put(&store, "there", vec![1]).await?, PutOutcome::Created);
        // The listing behind the false 404 shows the object.
        assert_eq!(store.head(&key("there")).await.unwrap_err().kind, StoreErrorKind::Transient);
        assert_eq!(read(&store, "there").await.unwrap_err().kind, StoreErrorKind::Transient);
        assert_eq!(store.head(&key("absent")).await.unwrap_err().kind, StoreErrorKind::NotFound);
        Ok(())
    })
}

#[test]
fn a_trickling_body_is_an_outage_and_a_slow_one_is_not() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    // 10 KiB/s and 300 KiB/s, with 64 KiB wanted in 2 s.
    proxy.add(Rule::new(Fault::Trickle(1024)).method("GET").target("trickle"));
    proxy.add(Rule::new(Fault::Trickle(30 * 1024)).method("GET").target("slow"));
    Told::impatient(&garage.bucket()?, &proxy.endpoint()).run("child_reads_slow_bodies")
}

#[test]
#[ignore = "run by the tests above"]
fn child_reads_slow_bodies() -> Result<()> {
    let store = plain_store()?;
    runtime::block_on(async {
        let body: Vec<u8> = (0..1024 * 1024).map(|byte: u32| (byte % 251) as u8).collect();
        for name in ["trickle", "slow"] {
            assert_eq!(put(&store, name, body.clone()).await?, PutOutcome::Created);
        }
        assert_eq!(read(&store, "slow").await?, body);
        let since = Instant::now();
        let error = read(&store, "trickle").await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
        assert!(since.elapsed() < Duration::from_secs(10), "noticed after {:?}", since.elapsed());
        Ok(())
    })
}

#[test]
fn a_body_that_is_cut_off_is_never_taken_for_whole() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    proxy.add(Rule::new(Fault::Truncate(1000)).method("GET").target("GetObject"));
    Told::new(&garage.bucket()?, &proxy.endpoint()).run("child_reads_a_cut_body")
}

#[test]
#[ignore = "run by the tests above"]
fn child_reads_a_cut_body() -> Result<()> {
    let store = plain_store()?;
    runtime::block_on(async {
        assert_eq!(put(&store, "object", vec![7; 100_000]).await?, PutOutcome::Created);
        let error = read(&store, "object").await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
        assert!(error.detail.contains("1000 of 100000 bytes"), "{error}");
        Ok(())
    })
}

#[test]
fn an_upload_that_is_torn_is_an_outage_and_no_object() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let bucket = garage.bucket()?;
    let proxy = Proxy::start(garage.address())?;
    proxy.add(Rule::new(Fault::HalfOfRequest).method("PUT"));
    Told::new(&bucket, &proxy.endpoint()).run("child_tears_its_uploads")
}

#[test]
#[ignore = "run by the tests above"]
fn child_tears_its_uploads() -> Result<()> {
    let store = plain_store()?;
    runtime::block_on(async {
        for length in [2, 100_000, PART_BYTES] {
            let error = put(&store, "torn", vec![7; length]).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
        }
        let mut upload = store.begin_upload(&key("torn"), &Metadata::new(), PutMode::CreateOnly).await?;
        let error = upload.part(vec![7_u8; PART_BYTES].into()).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Transient, "{error}");
        assert_eq!(store.head(&key("torn")).await.unwrap_err().kind, StoreErrorKind::NotFound);
        assert!(store.list(&Prefix::all(), None, None).await?.is_empty());
        Ok(())
    })
}
