//! What a first user is told of an S3 store: what it can do, and that its connection is in clear.

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

#[test]
fn a_store_is_tried_and_plain_http_is_warned_of_once_by_each_command() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let bucket = garage.bucket()?;
    let cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let mut scene = Scene::start(cluster, garage.archive_in(&bucket, &garage.endpoint()))?;
    // The same server under an address that is not taken for this machine.
    let abroad = scene.walpoint.with_config(|text| text.replace("127.0.0.1", "0.0.0.0"))?;

    let said = abroad.ok(&["init"])?.stdout;
    assert!(said.contains("writes, reads back, lists and deletes"), "{said}");
    let (_, tried) = abroad.json(&["init"])?;
    let able = &tried["archive"];
    assert!(able["create_only"].is_boolean(), "{tried}");
    assert_eq!(able["checksum"], "verified", "Garage refuses what differs from its SHA-256: {tried}");

    let directory = scene.fresh_directory();
    let into = directory.to_str().context("the directory's name is not UTF-8")?;
    let commands: [&[&str]; 5] =
        [&["backup"], &["list"], &["check"], &["init"], &["restore", "--latest", "--data-directory", into]];
    for args in commands {
        let outcome = abroad.ok(args)?;
        assert_eq!(outcome.stderr.matches("plain http").count(), 1, "{outcome}");
    }
    let near = scene.walpoint.ok(&["list"])?;
    assert!(!near.stderr.contains("plain http"), "{near}");
    scene.cluster.stop(Stop::Fast)
}
