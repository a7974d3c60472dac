//! An encrypted archive can be planned on where the key is not: to the segment, by what
//! object metadata say. Nothing is restored there, and a wrong key is still a wrong key.

use anyhow::{Context, Result, ensure};
use walpoint_tests::age::Identity;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::ARCHIVING_LIMIT;
use walpoint_tests::walpoint::ArchivePlace;

#[test]
fn without_the_key_lsns_are_planned_to_the_segment_and_the_rest_asks_for_it() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let sealing = cluster.archive_to(&place)?;
    let directory = cluster.scratch().path();
    let Some(identity) = Identity::generate(directory, "identity.txt")? else { return Ok(()) };
    let Some(stranger) = Identity::generate(directory, "stranger.txt")? else { return Ok(()) };
    sealing.configure(&format!("[encryption]\nrecipients = [\"{}\"]", identity.recipient))?;
    cluster.start()?;
    sealing.ok(&["backup"])?;
    let xid = cluster.value("select txid_current()")?;
    cluster.execute("select pg_create_restore_point('here')")?;
    let now = cluster.value("select now()")?;
    let mut lsns = Vec::new();
    for turn in 0..3 {
        cluster.execute(&format!("create table t{turn} as select generate_series(1, 10000)"))?;
        lsns.push(cluster.value("select pg_current_wal_insert_lsn()")?);
        cluster.execute(&format!("insert into t{turn} select generate_series(1, 10000)"))?;
        cluster.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    }
    cluster.stop(Stop::Fast)?;
    let with_identity = |identity: &Identity| {
        let line = format!("identity_file = \"{}\"\nrecipients = [", identity.file.display());
        sealing.with_config(|text| text.replace("recipients = [", &line))
    };
    let (holding, mistaken) = (with_identity(&identity)?, with_identity(&stranger)?);

    let mut targets: Vec<Vec<&str>> = vec![vec!["--target-immediate"], vec!["--latest"]];
    targets.extend(lsns.iter().map(|lsn| vec!["--target-lsn", lsn.as_str()]));
    for target in &targets {
        let args: Vec<&str> = ["plan"].into_iter().chain(target.iter().copied()).collect();
        let (status, without) = sealing.json(&args)?;
        let (exact_status, with) = holding.json(&args)?;
        ensure!((status, exact_status) == (0, 0), "{target:?}: {without}\n{with}");
        for name in ["reachable", "backup", "timeline", "segments", "bytes_to_fetch"] {
            ensure!(without[name] == with[name], "{target:?}: {name}: {without}\n{with}");
        }
        ensure!((&without["exact"], &with["exact"]) == (&false.into(), &true.into()), "{without}\n{with}");
        for name in ["last_record", "last_included", "first_excluded"] {
            ensure!(without[name].is_null(), "{target:?}: {name}: {without}");
        }
        ensure!(without["warnings"].to_string().contains("planned without the key"), "{without}");
        // With a key that does not fit, something is wrong that must be said.
        ensure!(mistaken.json(&args)?.0 == 5, "{target:?}");
    }
    let text = sealing.ok(&["plan", "--latest"])?.stdout;
    ensure!(text.contains("restore needs the identity") && !text.contains("last record"), "{text}");
    let (status, beyond) = sealing.json(&["plan", "--target-lsn", "FF/0"])?;
    ensure!(status == 6 && beyond["exact"] == false, "{beyond}");

    for target in [["--target-time", now.as_str()], ["--target-xid", xid.as_str()], ["--target-name", "here"]]
    {
        let outcome = sealing.run(&["plan", target[0], target[1]])?.expect(5)?;
        ensure!(outcome.stderr.contains("[encryption] identity_file"), "{}", outcome.stderr);
        ensure!(outcome.stderr.contains("--target-lsn"), "{}", outcome.stderr);
    }
    let (_, without) = sealing.json(&["window"])?;
    let (_, with) = holding.json(&["window"])?;
    ensure!((&without["exact"], &with["exact"]) == (&false.into(), &true.into()), "{without}\n{with}");
    // Every segment was switched: nothing of the edges is left to guess.
    ensure!(without["ranges"] == with["ranges"] && without["gaps"] == with["gaps"], "{without}\n{with}");
    ensure!(mistaken.json(&["window"])?.0 == 5);

    let directory = cluster.scratch().path().join("restored");
    let name = directory.to_str().context("the directory's name is not UTF-8")?;
    sealing.run(&["restore", "--latest", "--data-directory", name])?.expect(5)?;
    ensure!(!directory.exists(), "something was written");
    Ok(())
}
