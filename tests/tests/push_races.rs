//! Two servers push different content under one name into a real Garage, which
//! overwrites where it was asked not to.
//!
//! The test that needs the store's credentials runs in a process of its own.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use walpoint_archive::archive::{FileFacts, PutSource, PutWal};
use walpoint_archive::catalog::Usable;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::{ArchiveConfig, open_store};
use walpoint_archive::facts::Common;
use walpoint_archive::store::RetryPolicy;
use walpoint_archive::{Archive, ArchiveError, ContentHash, KeyRing, Sealer, WriterId};
use walpoint_tests::garage::{Garage, credentials};
use walpoint_tests::process::run;
use walpoint_tests::runtime;
use walpoint_wal::{SystemIdentifier, WalFileName};

const URL: &str = "WALPOINT_TEST_RACE_URL";
const ENDPOINT: &str = "WALPOINT_TEST_RACE_ENDPOINT";

const CLUSTER: SystemIdentifier = SystemIdentifier(7);
const RACES: u32 = 40;

/// Pushes begin up to so much apart: about as long as a listing and a put take.
const APART: Duration = Duration::from_millis(6);

#[test]
fn of_two_contents_that_race_on_garage_one_is_acknowledged_and_used() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child_races", "--exact", "--ignored", "--nocapture"]).envs(credentials());
    command.env(URL, format!("s3://{}", garage.bucket()?)).env(ENDPOINT, garage.endpoint());
    let outcome = run(command, Duration::from_secs(300))?.success()?;
    if !outcome.stdout.contains("test result: ok. 1 passed") {
        bail!("no such test was run\n{outcome}");
    }
    print!("{}", outcome.stdout);
    Ok(())
}

#[test]
#[ignore = "run by the test above"]
fn child_races() -> Result<()> {
    runtime::block_on(async {
        let servers = [server().await?, server().await?];
        let (mut met, mut won) = (0, [0, 0]);
        for number in 0..RACES {
            let name: WalFileName = format!("0000000100000000000000{number:02X}").parse()?;
            let winner = race(&servers, name).await?;
            won[winner] += 1;
            // Who comes late is refused before its put and leaves nothing beside the other.
            met += u32::from(servers[0].wal_variants(&name).await?.variants.len() > 1);
        }
        println!("{met} of {RACES} pushes met, won by {won:?}");
        // Else nothing was tried.
        ensure!(met > 0 && won[0] > 0 && won[1] > 0, "the pushes never met");
        Ok(())
    })
}

/// Each server has connections of its own.
async fn server() -> Result<Archive> {
    let mut config = ArchiveConfig::new(std::env::var(URL)?.parse().unwrap());
    config.endpoint = Some(std::env::var(ENDPOINT)?);
    let store = open_store(&config, &RetryPolicy::for_at_most(Duration::from_secs(30))).await?;
    let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
    Ok(Archive::new(store, CLUSTER, sealer))
}

fn file(name: WalFileName, content: &str) -> PutWal {
    let plain = Bytes::from(content.to_owned());
    let common = Common::new(ContentHash::of(&plain), plain.len() as u64, WriterId::random(), CLUSTER);
    PutWal { name, facts: FileFacts::Other(common), source: PutSource::Bytes(plain) }
}

/// Which of the two was acknowledged, once it is sure that recovery uses its content.
async fn race(servers: &[Archive; 2], name: WalFileName) -> Result<usize> {
    let contents = [format!("{name} of one"), format!("{name} of the other")];
    let [one, other] = [0, 1].map(|side| {
        let (archive, put) = (servers[side].clone(), file(name, &contents[side]));
        tokio::spawn(async move {
            tokio::time::sleep(APART.mul_f64(rand::random())).await;
            archive.put_wal(&put).await
        })
    });
    let answers = [one.await?, other.await?];
    let winner = match &answers {
        [Ok(_), Err(ArchiveError::Conflict { .. })] => 0,
        [Err(ArchiveError::Conflict { .. }), Ok(_)] => 1,
        other => bail!("{name}: {other:?}"),
    };
    let state = servers[0].wal_variants(&name).await?;
    let Usable::One(variant) = state.usable() else { bail!("{name}: {state:?}") };
    let mut found = Vec::new();
    servers[0].fetch_wal(variant, &mut found, 1024).await?;
    ensure!(found == contents[winner].as_bytes(), "{name}: recovery uses what was refused");
    Ok(winner)
}
