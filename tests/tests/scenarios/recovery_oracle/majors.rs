//! The other majors: fewer targets, of every kind, and a transaction that is
//! prepared and still open at some of them.

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, Stop};
use walpoint_tests::ledger::Ledger;
use walpoint_tests::oracle::{Oracle, OracleTarget, TransactionEnd};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;

use super::load::LOAD_LIMIT;
use super::{options, targets};

/// The restore point in the midst of the load, and the transaction that is open there.
const POINT: &str = "in the midst";
const OPEN: &str = "open in the midst";

#[test]
fn every_major_comes_back_exactly() -> Result<()> {
    let distribution = programs::distribution_postgres()?.map(|postgres| postgres.major);
    for major in programs::MAJORS {
        // The distribution's is what the other tests run on.
        if Some(major) == distribution {
            continue;
        }
        let Some(postgres) = programs::postgres(major)? else { continue };
        recover(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

/// A ledger of one client: these majors come without `pg_waldump`, and then
/// the order of times is the order of commits.
fn recover(postgres: &Postgres) -> Result<()> {
    let mut scene = Scene::on_directory(postgres, options(1))?;
    scene.cluster.execute("create table aside(n int)")?;
    let ledger = Ledger::start(&scene.cluster, 1, u64::from(postgres.major))?;
    ledger.wait_for_commits(50, LOAD_LIMIT)?;
    scene.backup()?;
    let before = ledger.notes().acknowledged();
    ledger.wait_for_commits(100, LOAD_LIMIT)?;
    ledger.pause()?;
    let midst = ledger.notes().acknowledged();
    let sql = scene.cluster.sql()?;
    sql.execute(&format!("begin; insert into aside values (1); prepare transaction '{OPEN}'"))?;
    let lsn = sql.value(&format!("select pg_create_restore_point('{POINT}')::text"))?;
    ledger.resume();
    ledger.wait_for_commits(100, LOAD_LIMIT)?;
    sql.execute(&format!("commit prepared '{OPEN}'"))?;
    ledger.wait_for_commits(20, LOAD_LIMIT)?;
    let notes = ledger.finish()?;
    scene.archive_everything()?;
    let oracle = Oracle::from_commit_timestamps(&scene.cluster, notes)?;
    scene.cluster.stop(Stop::Fast)?;

    let commits: Vec<TransactionEnd> = oracle.ledger_commits().into_iter().cloned().collect();
    for (target, open) in [
        (OracleTarget::Time { at: commits[before + 50].time, exclusive: true }, false),
        (OracleTarget::Time { at: commits[midst + 50].time, exclusive: false }, true),
        (OracleTarget::Xid { xid: commits[before + 20].xid, exclusive: true }, false),
        (OracleTarget::Xid { xid: commits[midst + 60].xid, exclusive: false }, true),
    ] {
        recover_and_judge(&mut scene, &oracle, &target, &targets::arguments(&target), open)?;
    }
    // The restore point is the first record behind the last commit before the pause and the PREPARE, and
    // its end, which is what the function returns, is where the next record starts.
    let midst = OracleTarget::Time { at: commits[midst - 1].time, exclusive: false };
    for arguments in [["--target-name", POINT, ""], ["--target-lsn", &lsn, "--exclusive"]] {
        let arguments: Vec<String> =
            arguments.iter().filter(|word| !word.is_empty()).map(ToString::to_string).collect();
        recover_and_judge(&mut scene, &oracle, &midst, &arguments, true)?;
    }
    Ok(())
}

fn recover_and_judge(
    scene: &mut Scene,
    oracle: &Oracle,
    target: &OracleTarget,
    arguments: &[String],
    open: bool,
) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let judge = |scene: &mut Scene| {
        let mut restored = scene.recover(&words)?;
        oracle.judge(&restored, target)?;
        judge_prepared(&restored, open)?;
        restored.stop(Stop::Immediate)?;
        std::fs::remove_dir_all(restored.data()).context("make room")
    };
    judge(scene).with_context(|| format!("restore {}", words.join(" ")))
}

/// What was prepared is there when it is to be, and its rows appear with its commit.
fn judge_prepared(restored: &Cluster, open: bool) -> Result<()> {
    let sql = restored.sql()?;
    let open_then = sql.value(&format!("select count(*) from pg_prepared_xacts where gid = '{OPEN}'"))?;
    let rows = sql.value("select count(*) from aside")?;
    ensure!((open_then.as_str(), rows.as_str()) == (if open { "1" } else { "0" }, "0"), "{open_then} {rows}");
    if open {
        sql.execute(&format!("commit prepared '{OPEN}'"))?;
        let rows = sql.value("select count(*) from aside")?;
        ensure!(rows == "1", "{rows} rows of what was prepared");
    }
    Ok(())
}
