//! A history that forks: moments of the old branch, of the new one, and of
//! what both have in common, each with exactly its own rows.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand::rngs::StdRng;
use walpoint_tests::cluster::{Cluster, Stop};
use walpoint_tests::ledger::{Ledger, Notes};
use walpoint_tests::oracle::Oracle;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::wal_dump::{self, format_lsn, parse_lsn};

use super::load::{LOAD_LIMIT, make_definitions};
use super::{judge_all, options, targets};

const TARGETS_EACH: usize = 8;
const ROUNDS: u32 = 3;

#[test]
fn every_target_comes_back_exactly_on_either_side_of_a_fork() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let seed: u64 = rand::random_range(0..1_000_000);
    println!("seed {seed}");
    let mut scene = Scene::on_directory(&postgres, options(1))?;
    make_definitions(&scene.cluster)?;
    let start = lsn(&scene.cluster, "pg_current_wal_insert_lsn()")?;
    // The old branch goes on behind the fork, and all of it is archived.
    let ledger = Ledger::start(&scene.cluster, 3, seed)?;
    ledger.wait_for_commits(60, LOAD_LIMIT)?;
    let backup = scene.backup()?;
    write(&scene.cluster, &ledger, "common")?;
    // Between transactions: PostgreSQL cannot replay over a fork whose own segment holds the `PREPARE` of one that is
    // still open there, when that segment is only there as the child's (docs/operating.md).
    ledger.pause()?;
    let fork_target = format_lsn(lsn(&scene.cluster, "pg_current_wal_flush_lsn()")?);
    ledger.resume();
    write(&scene.cluster, &ledger, "old")?;
    let old_notes = ledger.finish()?;
    scene.archive_everything()?;
    let backup_end = scene.backup_end(&backup)?;
    let old = Oracle::read(&scene.cluster, old_notes.clone(), start)?;
    scene.cluster.stop(Stop::Fast)?;

    let mut successor = scene.recover(&["--target-lsn", &fork_target, "--take-over"])?;
    let ledger = Ledger::start_numbered(&successor, 10..13, seed)?;
    write(&successor, &ledger, "new")?;
    let new_notes = ledger.finish()?;
    successor.switch_and_wait_archived(LOAD_LIMIT)?;
    let new = read_branch(&scene, &successor, start, &old_notes, &new_notes)?;
    successor.stop(Stop::Fast)?;

    let mut random = StdRng::seed_from_u64(seed);
    for (oracle, timeline) in [(&old, "1"), (&new, "2")] {
        let targets = targets::random(oracle, backup_end, TARGETS_EACH, &mut random);
        judge_all(&mut scene, oracle, backup_end.0, &targets, &["--target-timeline", timeline])
            .with_context(|| format!("seed {seed}, timeline {timeline}"))?;
    }
    // Whoever names no timeline gets the new one.
    let targets = targets::random(&new, backup_end, 3, &mut random);
    judge_all(&mut scene, &new, backup_end.0, &targets, &[]).with_context(|| format!("seed {seed}"))
}

/// Commits with switches and restore points between them.
fn write(cluster: &Cluster, ledger: &Ledger, branch: &str) -> Result<()> {
    let sql = cluster.sql()?;
    for round in 0..ROUNDS {
        ledger.wait_for_commits(40, LOAD_LIMIT)?;
        sql.execute(&format!("select pg_create_restore_point('{branch}-{round}')"))?;
        sql.execute("select pg_switch_wal()")?;
    }
    ledger.wait_for_commits(40, LOAD_LIMIT)
}

/// What was on timeline 1 up to the fork, and then timeline 2.
fn read_branch(
    scene: &Scene,
    successor: &Cluster,
    start: u64,
    old_notes: &Notes,
    new_notes: &Notes,
) -> Result<Oracle> {
    let history = std::fs::read_to_string(successor.data().join("pg_wal/00000002.history"))?;
    let fork = history.split_whitespace().nth(1).and_then(parse_lsn).context("a history without a fork")?;
    let pg_wal = |cluster: &Cluster| cluster.data().join("pg_wal");
    let postgres = &scene.cluster.postgres;
    let mut records = wal_dump::dump(postgres, &pg_wal(&scene.cluster), 1, start, Some(fork))?;
    let common = Oracle::from_records(&records, Notes::default().into())?;
    let ended: BTreeSet<u32> = common.ends().iter().map(|end| end.xid).collect();
    records.extend(wal_dump::dump(postgres, &pg_wal(successor), 2, fork, None)?);
    let notes = old_notes.of_branch(|xid| ended.contains(&xid), new_notes);
    Oracle::from_records(&records, notes.into())
}

fn lsn(cluster: &Cluster, function: &str) -> Result<u64> {
    parse_lsn(&cluster.value(&format!("select {function}::text"))?).context("not an LSN")
}
