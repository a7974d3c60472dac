//! What was promised is what comes back: random targets by time, LSN and xid,
//! each restored and compared to the ledger, row for row.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::ledger::Ledger;
use walpoint_tests::oracle::{Moment, Oracle, OracleTarget, TransactionEnd};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;
use walpoint_tests::wal_dump::{format_lsn, parse_lsn};

const LOAD_LIMIT: Duration = Duration::from_secs(120);

fn options() -> ClusterOptions {
    // The oracle dumps the primary's own WAL, so it has to stay.
    ClusterOptions { configuration: "wal_keep_size = '4GB'".into(), ..ClusterOptions::default() }
}

#[test]
fn every_target_comes_back_exactly_from_a_directory() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let scene = Scene::on_directory(&postgres, options())?;
    recover_random_targets(scene, 12)
}

#[test]
fn every_target_comes_back_exactly_from_s3() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let scene = Scene::on_garage(&postgres, garage, options())?;
    recover_random_targets(scene, 10)
}

#[test]
fn every_major_comes_back_exactly() -> Result<()> {
    let distribution = programs::distribution_postgres()?.map(|postgres| postgres.major);
    for major in programs::MAJORS {
        // The distribution's is what the other tests run on.
        if Some(major) == distribution {
            continue;
        }
        let Some(postgres) = programs::postgres(major)? else { continue };
        recover_one_target(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn recover_random_targets(mut scene: Scene, count: usize) -> Result<()> {
    let seed: u64 = rand::random_range(0..1_000_000);
    println!("seed {seed}");
    let start = parse_lsn(&scene.cluster.value("select pg_current_wal_insert_lsn()::text")?).unwrap();
    let ledger = Ledger::start(&scene.cluster, 4, seed)?;
    ledger.wait_for_commits(100, LOAD_LIMIT)?;
    let backup = scene.backup()?;
    // Many segments, with checkpoints between: a lost or mistaken one has to
    // show wherever it is.
    for round in 0..12 {
        ledger.wait_for_commits(60, LOAD_LIMIT)?;
        scene.cluster.execute(if round % 3 == 0 { "checkpoint" } else { "select pg_switch_wal()" })?;
    }
    let notes = ledger.finish()?;
    scene.archive_everything()?;

    let oracle = Oracle::read(&scene.cluster, notes, start)?;
    let first = scene.backup_stop(&backup)?;
    let targets = random_targets(&oracle, first, count, &mut StdRng::seed_from_u64(seed));
    scene.cluster.stop(Stop::Fast)?;
    for target in targets {
        let arguments = arguments(&target);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let planned = judge_plan(&scene, &oracle, first, &target, &arguments);
        planned.with_context(|| format!("seed {seed}, plan {}", arguments.join(" ")))?;
        let judged = recover_and_judge(&mut scene, &oracle, &target, &arguments);
        judged.with_context(|| format!("seed {seed}, restore {}", arguments.join(" ")))?;
    }
    Ok(())
}

/// The plan names the last transaction that will be there and the first that
/// will not, exactly as `pg_waldump` shows them.
fn judge_plan(
    scene: &Scene,
    oracle: &Oracle,
    backup_stop: u64,
    target: &OracleTarget,
    arguments: &[&str],
) -> Result<()> {
    let (status, plan) = scene.walpoint.json(&[&["plan"], arguments].concat())?;
    assert_eq!(status, 0, "{plan}");
    assert_eq!(plan["reachable"], true, "{plan}");
    let (included, excluded) = oracle.neighbours(target)?;
    // What was committed before the backup is not for the plan to know.
    if let Some(included) = included.filter(|end| end.lsn > backup_stop) {
        assert_same_commit(&plan["last_included"], included);
    }
    match excluded {
        Some(excluded) => assert_same_commit(&plan["first_excluded"], excluded),
        None => assert!(plan["first_excluded"].is_null(), "{plan}"),
    }
    Ok(())
}

fn assert_same_commit(said: &serde_json::Value, expected: &TransactionEnd) {
    assert_eq!(said["xid"], expected.xid, "{said} is not {expected:?}");
    assert_eq!(said["lsn"], format_lsn(expected.lsn), "{said} is not {expected:?}");
    let time = said["time"].as_str().map(|text| Moment::parse(text).unwrap());
    assert_eq!(time, Some(expected.time), "{said} is not {expected:?}");
}

fn recover_and_judge(
    scene: &mut Scene,
    oracle: &Oracle,
    target: &OracleTarget,
    arguments: &[&str],
) -> Result<()> {
    let mut restored: Cluster = scene.recover(arguments)?;
    oracle.judge(&restored, target)?;
    restored.stop(Stop::Immediate)?;
    std::fs::remove_dir_all(restored.data()).context("make room")
}

/// Times on commits and just off them, LSNs of any record, xids of commits and
/// then of aborts too; four inclusive ones, four exclusive ones, and so on.
fn random_targets(oracle: &Oracle, first: u64, count: usize, random: &mut StdRng) -> Vec<OracleTarget> {
    let ends: Vec<_> = oracle.ends().iter().filter(|end| end.lsn > first).collect();
    // The last ones stay out: a time after the last known commit cannot be
    // promised, whoever asks.
    let ends = &ends[..ends.len() - 5];
    let commits: Vec<_> = ends.iter().filter(|end| end.is_commit).collect();
    let records: Vec<u64> = oracle.record_lsns().iter().copied().filter(|lsn| *lsn > first).collect();
    let records = &records[..records.len() - 20];
    let mut targets = vec![OracleTarget::Latest];
    while targets.len() < count {
        let number = targets.len() - 1;
        let exclusive = number / 4 % 2 == 1;
        let end = ends.choose(random).unwrap();
        targets.push(match number % 4 {
            0 => OracleTarget::Time { at: end.time.plus_micros(random.random_range(-2..=2)), exclusive },
            1 if number < 8 => OracleTarget::Xid { xid: commits.choose(random).unwrap().xid, exclusive },
            1 => OracleTarget::Xid { xid: end.xid, exclusive },
            2 => OracleTarget::Lsn { lsn: *records.choose(random).unwrap(), exclusive },
            _ => OracleTarget::Time { at: end.time, exclusive },
        });
    }
    targets
}

fn arguments(target: &OracleTarget) -> Vec<String> {
    let (flag, value, exclusive) = match target {
        OracleTarget::Latest => return vec!["--latest".into()],
        OracleTarget::Time { at, exclusive } => ("--target-time", at.to_string(), exclusive),
        OracleTarget::Lsn { lsn, exclusive } => ("--target-lsn", format_lsn(*lsn), exclusive),
        OracleTarget::Xid { xid, exclusive } => ("--target-xid", xid.to_string(), exclusive),
    };
    let mut arguments = vec![flag.to_owned(), value];
    if *exclusive {
        arguments.push("--exclusive".into());
    }
    arguments
}

/// One time target with a ledger of one client: these majors come without
/// `pg_waldump`, and then the order of times is the order of commits.
fn recover_one_target(postgres: &Postgres) -> Result<()> {
    let mut scene = Scene::on_directory(postgres, options())?;
    let ledger = Ledger::start(&scene.cluster, 1, u64::from(postgres.major))?;
    ledger.wait_for_commits(50, LOAD_LIMIT)?;
    scene.backup()?;
    let before = ledger.notes().acknowledged();
    ledger.wait_for_commits(200, LOAD_LIMIT)?;
    let notes = ledger.finish()?;
    scene.archive_everything()?;
    let oracle = Oracle::from_commit_timestamps(&scene.cluster, notes)?;
    let commits = oracle.ledger_commits();
    let at = commits[before + 100].time;
    scene.cluster.stop(Stop::Fast)?;
    let target = OracleTarget::Time { at, exclusive: false };
    let arguments = arguments(&target);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    recover_and_judge(&mut scene, &oracle, &target, &arguments)
}
