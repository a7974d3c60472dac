//! What was promised is what comes back: random targets by time, LSN, xid and
//! name, each restored and compared to the ledger, row for row.

mod branches;
mod load;
mod majors;
mod targets;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::oracle::{Moment, Oracle, OracleTarget, TransactionEnd};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::wal_dump::{format_lsn, parse_lsn};

fn options(segment_megabytes: u32) -> ClusterOptions {
    ClusterOptions {
        wal_segsize_mb: segment_megabytes,
        // The oracle dumps the primary's own WAL, so it has to stay.
        configuration: "wal_keep_size = '4GB'".into(),
        ..ClusterOptions::default()
    }
}

#[test]
fn every_target_comes_back_exactly_from_a_directory() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    recover_random_targets(Scene::on_directory(&postgres, options(1))?, 32)
}

#[test]
fn every_target_comes_back_exactly_from_s3() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    recover_random_targets(Scene::on_garage(&postgres, garage, options(1))?, 10)
}

#[test]
fn every_target_comes_back_exactly_from_segments_of_16_mib() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    recover_random_targets(Scene::on_directory(&postgres, options(16))?, 6)
}

#[test]
fn every_target_comes_back_exactly_from_segments_of_64_mib() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    recover_random_targets(Scene::on_directory(&postgres, options(64))?, 4)
}

fn recover_random_targets(mut scene: Scene, count: usize) -> Result<()> {
    let seed: u64 = rand::random_range(0..1_000_000);
    println!("seed {seed}");
    let start = parse_lsn(&scene.cluster.value("select pg_current_wal_insert_lsn()::text")?).unwrap();
    let (backup, notes) = load::run(&scene, seed)?;
    let oracle = Oracle::read(&scene.cluster, notes, start)?;
    let end = scene.backup_end(&backup)?;
    let targets = targets::random(&oracle, end, count, &mut StdRng::seed_from_u64(seed));
    scene.cluster.stop(Stop::Fast)?;
    judge_all(&mut scene, &oracle, end.0, &targets, &[]).with_context(|| format!("seed {seed}"))
}

/// Plans and restores every target, with `more` arguments.
fn judge_all(
    scene: &mut Scene,
    oracle: &Oracle,
    backup_stop: u64,
    targets: &[OracleTarget],
    more: &[&str],
) -> Result<()> {
    for target in targets {
        let arguments = targets::arguments(target);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        judge_plan(scene, oracle, backup_stop, target, &arguments)
            .with_context(|| format!("plan {}", arguments.join(" ")))?;
        recover_and_judge(scene, oracle, target, &arguments)
            .with_context(|| format!("restore {}", arguments.join(" ")))?;
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
    load::judge_definitions(&restored)?;
    restored.stop(Stop::Immediate)?;
    std::fs::remove_dir_all(restored.data()).context("make room")
}
