//! Random histories on a real server: full and incremental backups under load, a segment that is lost, a random policy.
//! After the expiry all that the policy promises comes back row for row, and what nobody asks for is gone.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use walpoint_tests::archive_files::{named, remove};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::ledger::Ledger;
use walpoint_tests::oracle::{Moment, Oracle, OracleTarget, TransactionEnd};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::wal_dump::{format_lsn, parse_lsn};

use super::{backups, deleted, expire};

const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// Longer than the grace of a second.
const WAIT: Duration = Duration::from_millis(1500);
const SECOND: i64 = 1_000_000;
const BACKUPS: usize = 5;
const TARGETS: usize = 2;

/// A backup of the history.
#[derive(Debug, Clone)]
struct Taken {
    id: String,
    stop: u64,
    ended: Moment,
}

/// What to keep, and since when every moment is promised.
#[derive(Debug)]
struct Policy {
    arguments: Vec<String>,
    last: usize,
    window: Option<i64>,
}

#[test]
fn what_a_random_policy_promises_of_a_random_history_comes_back_and_the_rest_is_gone() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    for _ in 0..2 {
        let seed: u64 = rand::random_range(0..1_000_000);
        println!("seed {seed}");
        // The oracle dumps the primary's own WAL, so it has to stay.
        let configuration = "wal_keep_size = '4GB'".into();
        let options = ClusterOptions { configuration, ..ClusterOptions::default() };
        let scene = Scene::on_directory(&postgres, options)?;
        history(scene, seed).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

fn history(mut scene: Scene, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let start = scene.cluster.value("select pg_current_wal_insert_lsn()::text")?;
    let ledger = Ledger::start(&scene.cluster, 2, seed)?;
    let taken = live(&scene, &ledger, &mut random)?;
    let oracle = Oracle::read(&scene.cluster, ledger.finish()?, parse_lsn(&start).context("no LSN")?)?;
    lose_a_segment(&scene, &taken, &mut random)?;
    let policy = Policy::random(&scene, &taken, &mut random)?;
    println!("{policy:?} of {taken:#?}");
    let (reachable, check_before) = (reachable(&scene, &oracle)?, check(&scene)?);

    let mut arguments: Vec<&str> = policy.arguments.iter().map(String::as_str).collect();
    arguments.extend(["--grace", "1s", "--apply"]);
    let marked = expire(&scene, &arguments)?;
    assert_eq!(deleted(&marked, "objects"), 0, "what was not marked went: {marked:#}");
    thread::sleep(WAIT);
    let (said, restored) = beside_a_restore(&mut scene, &arguments)?;
    let now = now(&scene)?;
    assert_eq!(check(&scene)?, check_before, "after {said:#}");
    scene.cluster.stop(Stop::Fast)?;
    judge(restored, &oracle, &OracleTarget::Latest)?;

    let kept = backups(&scene)?;
    let kept: Vec<&Taken> = taken.iter().filter(|backup| kept.contains(&backup.id)).collect();
    println!("{} of {} backups stay", kept.len(), taken.len());
    nothing_is_left_over(&scene, &taken, &kept, &said)?;
    for backup in &kept {
        let restored = scene.recover(&["--target-immediate", "--backup", &backup.id])?;
        let at_its_end = OracleTarget::Lsn { lsn: backup.stop, exclusive: true };
        judge(restored, &oracle, &at_its_end).with_context(|| format!("backup {}", backup.id))?;
    }
    let promised: Vec<&TransactionEnd> =
        reachable.into_iter().filter(|end| policy.promises(&taken, end, now)).collect();
    println!("{} ends of transactions are promised", promised.len());
    ensure!(!promised.is_empty(), "nothing is promised");
    all_are_in_the_window(&scene, &promised)?;
    for end in promised.sample(&mut random, TARGETS) {
        let at = end.time.to_string();
        let restored = scene.recover(&["--target-time", &at])?;
        let target = OracleTarget::Time { at: end.time, exclusive: false };
        judge(restored, &oracle, &target).with_context(|| format!("time {at}"))?;
    }
    Ok(())
}

/// Backups under load, with whole segments between them.
fn live(scene: &Scene, ledger: &Ledger, random: &mut StdRng) -> Result<Vec<Taken>> {
    let mut taken = Vec::new();
    for number in 0..BACKUPS {
        ledger.wait_for_commits(30, LOAD_LIMIT)?;
        let kind: &[&str] = if number > 0 && random.random_bool(0.6) { &["--incremental"] } else { &[] };
        let id = scene.walpoint.ok(&[&["backup"], kind].concat())?.last_line()?.to_owned();
        let (stop, ended) = scene.backup_end(&id)?;
        taken.push(Taken { id, stop, ended });
        for _ in 0..3 {
            ledger.wait_for_commits(20, LOAD_LIMIT)?;
            scene.cluster.execute("select pg_switch_wal()")?;
        }
    }
    ledger.pause()?;
    scene.archive_everything()?;
    Ok(taken)
}

/// One between two backups that neither of them needs.
fn lose_a_segment(scene: &Scene, taken: &[Taken], random: &mut StdRng) -> Result<()> {
    let after = random.random_range(0..taken.len() - 2);
    let lost = (taken[after].stop >> 20) + 1;
    println!("segment {lost} is lost");
    remove(scene.archive_directory()?, &format!("00000001{:08X}{:08X}-", lost >> 12, lost & 0xFFF))
}

impl Policy {
    fn random(scene: &Scene, taken: &[Taken], random: &mut StdRng) -> Result<Policy> {
        let mut policy = Policy { arguments: Vec::new(), last: 0, window: None };
        let kind = random.random_range(0..3);
        if kind != 1 {
            policy.last = random.random_range(1..4);
            policy.arguments.extend(["--keep-last".into(), policy.last.to_string()]);
        }
        if kind != 0 {
            // It begins near one of the older backups.
            let near = &taken[random.random_range(0..taken.len() - 1)];
            let window = ((now(scene)?.0 - near.ended.0) / SECOND).max(1);
            policy.window = Some(window);
            policy.arguments.extend(["--keep-window".into(), format!("{window}s")]);
        }
        if random.random_bool(0.5) {
            policy.arguments.extend(["--keep-daily".into(), "2".into()]);
        }
        Ok(policy)
    }

    /// Whether recovery to this end must be possible.
    fn promises(&self, taken: &[Taken], end: &TransactionEnd, now: Moment) -> bool {
        let of_last = taken.iter().rev().take(self.last).next_back();
        let by_last = of_last.is_some_and(|oldest| end.lsn > oldest.stop && end.time > oldest.ended);
        by_last || self.window.is_some_and(|window| end.time.0 > now.0 - window * SECOND)
    }
}

fn now(scene: &Scene) -> Result<Moment> {
    Moment::parse(&scene.cluster.value("select clock_timestamp() at time zone 'UTC'")?)
}

/// The ends of transactions that a recovery by time reaches before anything went: those that `window` shows, but for
/// the last, behind which no time can be promised.
fn reachable<'o>(scene: &Scene, oracle: &'o Oracle) -> Result<Vec<&'o TransactionEnd>> {
    let ranges = ranges(scene)?;
    let ends = oracle.ends();
    let known = ends[..ends.len().saturating_sub(5)].iter();
    Ok(known.filter(|end| ranges.iter().any(|range| range.holds(end))).collect())
}

/// What `window` shows.
struct Range {
    from: (u64, Moment),
    to: u64,
}

impl Range {
    fn holds(&self, end: &TransactionEnd) -> bool {
        end.lsn > self.from.0 && end.time > self.from.1 && end.lsn < self.to
    }
}

fn ranges(scene: &Scene) -> Result<Vec<Range>> {
    let (_, said) = scene.walpoint.json(&["window"])?;
    let range = |range: &Value| {
        let lsn = |side: &str| parse_lsn(range[side]["lsn"].as_str()?);
        let time = Moment::parse(range["from"]["time"].as_str()?).ok()?;
        Some(Range { from: (lsn("from")?, time), to: lsn("to")? })
    };
    let ranges = said["ranges"].as_array().with_context(|| format!("no ranges in {said:#}"))?;
    ranges.iter().map(|it| range(it).with_context(|| format!("not a range: {it:#}"))).collect()
}

fn all_are_in_the_window(scene: &Scene, promised: &[&TransactionEnd]) -> Result<()> {
    let ranges = ranges(scene)?;
    for end in promised {
        ensure!(ranges.iter().any(|it| it.holds(end)), "{} is in no range", format_lsn(end.lsn));
    }
    Ok(())
}

/// What `check` says of the archive, without its figures.
fn check(scene: &Scene) -> Result<i32> {
    Ok(scene.walpoint.run(&["check"])?.code())
}

/// Lets go while the newest backup is restored.
fn beside_a_restore(scene: &mut Scene, arguments: &[&str]) -> Result<(Value, Cluster)> {
    let directory = scene.fresh_directory();
    let said = thread::scope(|scope| -> Result<Value> {
        let restore = scope.spawn(|| scene.restore_into(&directory, &["--latest"])?.success());
        let said = expire(scene, arguments)?;
        while !restore.is_finished() {
            expire(scene, arguments)?;
        }
        restore.join().map_err(|_| anyhow::anyhow!("the restore panicked"))??;
        Ok(said)
    })?;
    Ok((said, Cluster::restored(&directory, &scene.cluster)?))
}

fn judge(mut restored: Cluster, oracle: &Oracle, target: &OracleTarget) -> Result<()> {
    if !restored.is_running()? {
        restored.start_expect_ready(RECOVERY_LIMIT)?;
    }
    oracle.judge(&restored, target)?;
    restored.stop(Stop::Immediate)?;
    std::fs::remove_dir_all(restored.data()).context("make room")
}

/// Of a backup that went only packs are left that another one names, and no WAL is older than the oldest that stays,
/// but what that one needs.
fn nothing_is_left_over(scene: &Scene, taken: &[Taken], kept: &[&Taken], said: &Value) -> Result<()> {
    let archive = scene.archive_directory()?;
    let summaries =
        named(archive, "backup.json").into_iter().filter(|file| !file.ends_with("backup.json.meta"));
    let mut packs = BTreeSet::new();
    let mut oldest = u64::MAX;
    for file in summaries {
        let summary: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        for pack in summary["packs"].as_array().context("no packs")? {
            packs.insert(pack["key"].as_str().context("no key")?.to_owned());
        }
        oldest = oldest.min(parse_lsn(summary["redo"].as_str().context("no redo")?).context("no LSN")?);
    }
    for backup in taken.iter().filter(|backup| !kept.iter().any(|it| it.id == backup.id)) {
        for file in of_backup(archive, &backup.id) {
            let is_needed = packs.iter().any(|key| file.to_string_lossy().contains(key.as_str()));
            ensure!(is_needed, "{} is left over: {said:#}", file.display());
        }
    }
    let first = format!("00000001{:08X}{:08X}", oldest >> 32, oldest >> 20 & 0xFFF);
    for file in named(archive, "00000001") {
        let name = file.file_name().context("no name")?.to_string_lossy();
        ensure!(name[..24] >= first[..], "{name} is left over, before {first}: {said:#}");
    }
    Ok(())
}

fn of_backup(archive: &Path, id: &str) -> Vec<std::path::PathBuf> {
    let all = ["pack-", "manifest-", "backup.json"].into_iter().flat_map(|part| named(archive, part));
    all.filter(|file| file.parent().is_some_and(|folder| folder.ends_with(id))).collect()
}
