//! After an expiry every moment that the policy promises is restored, on a real server and a real store, whatever
//! happens beside it or in the midst of it.

mod histories;

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use walpoint_tests::archive_files::{flip_bit, named};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::process::Outcome;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::{programs, wait};

const ROWS: &str = "select string_agg(n::text, ',' order by n) from t";

fn on_directory() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t(n int)")?;
    Ok(Some(scene))
}

fn on_garage() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let Some(garage) = Garage::shared()? else { return Ok(None) };
    let scene = Scene::on_garage(&postgres, garage, ClusterOptions::default())?;
    scene.cluster.execute("create table t(n int)")?;
    Ok(Some(scene))
}

/// Inserts a row, has it archived, and says when that was.
fn row(scene: &Scene, n: u32) -> Result<String> {
    scene.cluster.execute(&format!("insert into t values ({n})"))?;
    let time = scene.cluster.value("select clock_timestamp()")?;
    scene.archive_everything()?;
    Ok(time)
}

fn expire(scene: &Scene, args: &[&str]) -> Result<Value> {
    let (status, said) = scene.walpoint.json(&[&["expire"], args].concat())?;
    if status != 0 {
        bail!("status {status}: {said:#}")
    }
    Ok(said)
}

fn backups(scene: &Scene) -> Result<Vec<String>> {
    let (_, list) = scene.walpoint.json(&["list"])?;
    let backups = list["backups"].as_array().with_context(|| format!("no backups in {list}"))?;
    Ok(backups.iter().filter_map(|backup| Some(backup["id"].as_str()?.to_owned())).collect())
}

fn deleted(said: &Value, what: &str) -> u64 {
    said["applied"]["deleted"][what].as_u64().unwrap_or(0)
}

/// Marks, waits for the grace, deletes.
fn mark_and_delete(scene: &Scene, policy: &[&str]) -> Result<Value> {
    let args = [policy, &["--grace", "1s", "--apply"]].concat();
    let marked = expire(scene, &args)?;
    assert_eq!(deleted(&marked, "objects"), 0, "what was not marked went: {marked:#}");
    // The grace, and the second that S3 tells times in.
    thread::sleep(Duration::from_secs(4));
    expire(scene, &args)
}

#[test]
fn the_oldest_moment_of_the_window_is_restored_after_an_expiry() -> Result<()> {
    let Some(mut scene) = on_directory()? else { return Ok(()) };
    scene.backup()?;
    row(&scene, 1)?;
    let base = scene.backup()?;
    let before = row(&scene, 2)?;
    // Time in which both runs have the beginning of their window.
    thread::sleep(Duration::from_secs(15));
    let newest = scene.backup()?;
    row(&scene, 3)?;
    let seconds = |sql: &str| -> Result<u32> { Ok(scene.cluster.value(sql)?.parse()?) };
    let age =
        seconds(&format!("select extract(epoch from clock_timestamp() - '{before}'::timestamptz)::int"))?;
    let window = format!("{}s", age - 2);
    let said = mark_and_delete(&scene, &["--keep-window", &window])?;
    assert_eq!(deleted(&said, "backups"), 1, "{said:#}");
    assert_eq!(backups(&scene)?, [base, newest]);
    let oldest = scene.cluster.value(&format!("select '{before}'::timestamptz + interval '10s'"))?;
    scene.cluster.stop(Stop::Fast)?;
    let restored = scene.recover(&["--target-time", &oldest])?;
    assert_eq!(restored.value(ROWS)?, "1,2");
    drop(restored);
    assert_eq!(scene.recover(&["--latest"])?.value(ROWS)?, "1,2,3");
    Ok(())
}

/// What scripts read.
fn has_its_names(said: &Value) {
    let names = [
        "policy",
        "grace",
        "now",
        "unknown",
        "frees",
        "refused",
        "notes",
        "applied",
        "folders",
        "full_backup/due",
        "full_backup/newest_needs",
        "full_backup/newest_borrows",
        "backups/0/id",
        "backups/0/timeline",
        "backups/0/ended",
        "backups/0/verified_at",
        "backups/0/stays",
        "backups/0/why",
        "backups/0/frees",
        "backups/0/marked_at",
        "wal/0/timeline",
        "wal/0/first",
        "wal/0/last",
        "wal/0/segments",
        "wal/0/objects",
        "wal/0/bytes",
        "wal/0/stays",
        "wal/0/why",
    ];
    for name in names {
        assert!(said.pointer(&format!("/{name}")).is_some(), "{name} is missing: {said:#}");
    }
}

fn only_the_last_stays(mut scene: Scene) -> Result<()> {
    let first = scene.backup()?;
    let lost = row(&scene, 1)?;
    let last = scene.backup()?;
    let kept = row(&scene, 2)?;
    row(&scene, 3)?;
    let policy = ["--keep-last", "1"];
    let dry = expire(&scene, &policy)?;
    assert_eq!(dry["applied"], Value::Null);
    has_its_names(&dry);
    let stays = |id: &str| dry["backups"].as_array()?.iter().find(|it| it["id"] == id)?["stays"].as_bool();
    assert_eq!((stays(&first), stays(&last)), (Some(false), Some(true)), "{dry:#}");
    assert!(dry["frees"].as_u64().is_some_and(|bytes| bytes > 0), "{dry:#}");
    assert_eq!(backups(&scene)?.len(), 2, "a dry run deleted something");
    let said = mark_and_delete(&scene, &policy)?;
    assert_eq!(deleted(&said, "backups"), 1, "{said:#}");
    assert_eq!(backups(&scene)?, [last]);
    // What is lost is said, with what there is instead.
    let plan = scene.walpoint.run(&["plan", "--target-time", &lost])?;
    assert_eq!(plan.code(), 6, "{plan}");
    scene.cluster.stop(Stop::Fast)?;
    let restored = scene.recover(&["--target-time", &kept])?;
    assert_eq!(restored.value(ROWS)?, "1,2");
    drop(restored);
    assert_eq!(scene.recover(&["--latest"])?.value(ROWS)?, "1,2,3");
    let again = expire(&scene, &policy)?;
    assert_eq!(again["frees"], 0, "something was left over: {again:#}");
    Ok(())
}

#[test]
fn an_expiry_in_a_directory_leaves_what_is_promised_and_nothing_else() -> Result<()> {
    on_directory()?.map_or(Ok(()), only_the_last_stays)
}

#[test]
fn an_expiry_in_a_bucket_leaves_what_is_promised_and_nothing_else() -> Result<()> {
    on_garage()?.map_or(Ok(()), only_the_last_stays)
}

#[test]
fn an_expiry_that_is_killed_again_and_again_costs_nothing_that_is_promised() -> Result<()> {
    let Some(mut scene) = on_directory()? else { return Ok(()) };
    // Ids of one second are in no order.
    let mut last = String::new();
    for n in 1..=4 {
        last = scene.backup()?;
        row(&scene, n)?;
    }
    let args = ["expire", "--keep-last", "1", "--grace", "1s", "--apply"];
    scene.walpoint.ok(&args)?;
    thread::sleep(Duration::from_secs(3));
    let log = scene.cluster.scratch().path().join("killed.log");
    for moment in [5, 15, 25, 35, 45, 60, 80, 100] {
        let mut child = scene.walpoint.spawn(Path::new("/"), &args, &File::create(&log)?)?;
        // This sleep is the experiment, and nothing depends on what it hits.
        thread::sleep(Duration::from_millis(moment));
        child.kill()?;
        println!("killed after {moment} ms: {}", child.wait()?);
        // Whatever is still visible is whole.
        for id in backups(&scene)? {
            let plan = scene.walpoint.run(&["plan", "--target-immediate", "--backup", &id])?;
            assert_eq!(plan.code(), 0, "{id}: {plan}");
        }
    }
    // A run that was killed may have taken its marks away.
    for _ in 0..2 {
        scene.walpoint.ok(&args)?;
        thread::sleep(Duration::from_secs(3));
    }
    let said = expire(&scene, &["--keep-last", "1"])?;
    assert_eq!((said["frees"].as_u64(), backups(&scene)?), (Some(0), vec![last]), "{said:#}");
    scene.cluster.stop(Stop::Fast)?;
    assert_eq!(scene.recover(&["--latest"])?.value(ROWS)?, "1,2,3,4");
    Ok(())
}

/// The incremental one builds on what stays until it is there, and goes after that.
#[test]
fn a_backup_beside_an_expiry_comes_back_whole() -> Result<()> {
    for kind in [&["--json", "backup"][..], &["--json", "backup", "--incremental"]] {
        let Some(mut scene) = on_directory()? else { return Ok(()) };
        scene.backup()?;
        row(&scene, 1)?;
        scene.backup()?;
        row(&scene, 2)?;
        let args = ["expire", "--keep-last", "1", "--grace", "6s", "--apply"];
        scene.walpoint.ok(&args)?;
        thread::sleep(Duration::from_secs(7));
        let told = thread::scope(|scope| -> Result<Value> {
            let backup = scope.spawn(|| scene.walpoint.ok(kind)?.json());
            while !backup.is_finished() {
                scene.walpoint.ok(&args)?;
            }
            backup.join().map_err(|_| anyhow::anyhow!("the backup panicked"))?
        })?;
        assert_eq!(told["kind"], if kind.len() > 2 { "incr" } else { "full" }, "{told:#}");
        let taken = told["id"].as_str().unwrap_or_default().to_owned();
        row(&scene, 3)?;
        assert!(backups(&scene)?.contains(&taken));
        // What it came from goes, and it stays whole.
        thread::sleep(Duration::from_secs(7));
        for _ in 0..2 {
            scene.walpoint.ok(&args)?;
            thread::sleep(Duration::from_secs(7));
        }
        scene.walpoint.ok(&args)?;
        assert_eq!(backups(&scene)?, std::slice::from_ref(&taken));
        scene.cluster.stop(Stop::Fast)?;
        assert_eq!(scene.recover(&["--latest", "--backup", &taken])?.value(ROWS)?, "1,2,3");
    }
    Ok(())
}

/// What it reads may go under it when it takes longer than the grace. It never calls that a restore.
#[test]
fn a_restore_of_what_is_being_deleted_is_whole_or_fails() -> Result<()> {
    let Some(mut scene) = on_directory()? else { return Ok(()) };
    let mut whole = 0;
    for round in 0..4u64 {
        let leaving = scene.backup()?;
        row(&scene, 1 + u32::try_from(round)?)?;
        scene.backup()?;
        let args = ["expire", "--keep-last", "1", "--grace", "1s", "--apply"];
        scene.walpoint.ok(&args)?;
        thread::sleep(Duration::from_secs(2));
        let directory = scene.fresh_directory();
        let target = ["--target-immediate", "--backup", leaving.as_str()];
        let restored = thread::scope(|scope| -> Result<Outcome> {
            let restore = scope.spawn(|| scene.restore_into(&directory, &target));
            // What this meets differs from round to round.
            thread::sleep(Duration::from_millis(40 * round));
            scene.walpoint.ok(&args)?;
            restore.join().map_err(|_| anyhow::anyhow!("the restore panicked"))?
        })?;
        assert!(!backups(&scene)?.contains(&leaving), "{leaving} has stayed");
        if restored.code() != 0 {
            println!("restore ended with {}: {}", restored.code(), restored.stderr.trim_end());
            assert!(!directory.join("recovery.signal").exists(), "{restored}");
            continue;
        }
        whole += 1;
        // Its WAL may be gone; its files are those of the backup.
        let files = walk(&directory)?;
        assert!(files > 900 && directory.join("global/pg_control").exists(), "{files} files: {restored}");
    }
    println!("{whole} of 4 restores were faster than the deletion");
    scene.cluster.stop(Stop::Fast)
}

fn walk(directory: &Path) -> Result<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        files += if path.is_dir() { walk(&path)? } else { 1 };
    }
    Ok(files)
}

#[test]
fn a_timeline_that_goes_on_keeps_what_it_came_from() -> Result<()> {
    let Some(mut scene) = on_directory()? else { return Ok(()) };
    scene.backup()?;
    row(&scene, 1)?;
    let last = scene.backup()?;
    row(&scene, 2)?;
    scene.cluster.stop(Stop::Fast)?;
    // Timeline 2, on which no backup is taken.
    let mut second = scene.restore(&["--latest", "--take-over"])?;
    second.start_expect_ready(RECOVERY_LIMIT)?;
    second.execute("insert into t values (3)")?;
    second.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    second.stop(Stop::Fast)?;
    let said = mark_and_delete(&scene, &["--keep-last", "1"])?;
    assert_eq!((deleted(&said, "backups"), backups(&scene)?), (1, vec![last]), "{said:#}");
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value(ROWS)?, "1,2,3");
    // The history is there, so no number is used twice.
    let writes = restored.value("select pg_walfile_name(pg_current_wal_lsn())")?;
    assert!(writes.starts_with("00000003"), "{writes}");
    restored.stop(Stop::Fast)
}

#[test]
fn an_expiry_without_a_policy_lets_nothing_go_and_says_so() -> Result<()> {
    let Some(scene) = on_directory()? else { return Ok(()) };
    scene.backup()?;
    scene.backup()?;
    for args in [&["expire"][..], &["expire", "--apply"]] {
        let said = scene.walpoint.ok(args)?;
        assert!(said.stdout.contains("nothing expires"), "{said}");
    }
    assert_eq!(backups(&scene)?.len(), 2);
    Ok(())
}

/// An incremental backup would name packs that are about to go.
#[test]
fn a_backup_that_is_marked_to_go_is_no_parent_and_the_next_one_is_full_and_says_why() -> Result<()> {
    let Some(mut scene) = on_directory()? else { return Ok(()) };
    let marked = scene.backup()?;
    row(&scene, 1)?;
    let last = scene.backup()?;
    row(&scene, 2)?;
    let policy = ["--keep-last", "1", "--apply"];
    let said = expire(&scene, &policy)?;
    assert_eq!(said["applied"]["marked"]["backups"], serde_json::json!([marked]), "{said:#}");
    // Somebody removes the one that stays, by hand.
    let archive = scene.archive_directory()?.to_owned();
    for file in named(&archive, "backup.json") {
        if file.parent().is_some_and(|folder| folder.ends_with(&last)) {
            std::fs::remove_file(file)?;
        }
    }
    assert_eq!(backups(&scene)?, std::slice::from_ref(&marked));
    let outcome = scene.walpoint.ok(&["--json", "backup", "--incremental"])?;
    let told: Value = outcome.json()?;
    let why = told["instead_of_incremental"].as_str().unwrap_or_default();
    assert!(told["kind"] == "full" && why.contains(&marked) && why.contains("marked it to go"), "{outcome}");
    // That one stands in no mark.
    let told: Value = scene.walpoint.ok(&["--json", "backup", "--incremental"])?.json()?;
    assert_eq!(told["kind"], "incr", "{told:#}");
    row(&scene, 3)?;
    for _ in 0..2 {
        thread::sleep(Duration::from_secs(2));
        expire(&scene, &[&policy[..], &["--grace", "1s"]].concat())?;
    }
    assert_eq!(backups(&scene)?, [told["id"].as_str().context("no id")?]);
    scene.walpoint.ok(&["verify"])?;
    scene.cluster.stop(Stop::Fast)?;
    assert_eq!(scene.recover(&["--latest"])?.value(ROWS)?, "1,2,3");
    Ok(())
}

/// A host that was suspended, say: to others a backup that stores nothing for days looks like one that was given up.
#[test]
fn a_full_backup_that_was_taken_for_given_up_and_lost_its_packs_is_not_completed() -> Result<()> {
    let Some(mut scene) = on_directory()? else { return Ok(()) };
    scene.cluster.execute("alter system set archive_command = 'exit 1 # walpoint archive-push %p'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    let said = scene.cluster.scratch().path().join("said");
    let mut child = scene.walpoint.spawn(Path::new("/"), &["backup"], &File::create(&said)?)?;
    wait::until_true("the backup to wait for its WAL", ARCHIVING_LIMIT, || {
        Ok(std::fs::read_to_string(&said)?.contains("waiting for WAL to arrive"))
    })?;
    let archive = scene.archive_directory()?.to_owned();
    let three_days = Duration::from_secs(3 * 24 * 3600);
    for file in named(&archive, "pack-") {
        let file = File::options().append(true).open(file)?;
        file.set_modified(file.metadata()?.modified()? - three_days)?;
    }
    let said_by_expire = mark_and_delete(&scene, &["--keep-last", "1"])?;
    assert!(deleted(&said_by_expire, "objects") > 0, "{said_by_expire:#}");
    assert!(named(&archive, "pack-").is_empty(), "its packs stay");
    scene.cluster.execute("alter system reset archive_command")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    let status = child.wait()?;
    let said = std::fs::read_to_string(&said)?;
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(
        said.contains("could not complete the base backup") && said.contains("marked it to go"),
        "{said}"
    );
    assert_eq!(backups(&scene)?.len(), 0);
    // The next one uses nothing of it.
    scene.backup()?;
    row(&scene, 1)?;
    scene.walpoint.ok(&["verify"])?;
    scene.cluster.stop(Stop::Fast)?;
    assert_eq!(scene.recover(&["--latest"])?.value(ROWS)?, "1");
    Ok(())
}

/// Only a backup that was read back counts, and none of which something was found damaged.
#[test]
fn nothing_goes_while_too_few_backups_are_verified() -> Result<()> {
    let Some(scene) = on_directory()? else { return Ok(()) };
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(scene.backup()?);
        row(&scene, n)?;
    }
    scene.walpoint.configure("[retention]\nlast = 1\nmin_verified = 2")?;
    let goes = || -> Result<Vec<String>> {
        let said = expire(&scene, &[])?;
        let backups = said["backups"].as_array().context("no backups")?;
        let gone = backups.iter().filter(|it| it["stays"] == false);
        Ok(gone.filter_map(|it| Some(it["id"].as_str()?.to_owned())).collect())
    };
    assert_eq!(goes()?, Vec::<String>::new());
    scene.walpoint.ok(&["verify"])?;
    assert_eq!(goes()?, ids[..1]);
    // The last but one is damaged: the first is good, and stays.
    let archive = scene.archive_directory()?.to_owned();
    let pack = named(&archive, "pack-").into_iter().find(|file| {
        file.parent().is_some_and(|folder| folder.ends_with(&ids[1]))
            && file.extension().is_some_and(|it| it == "zst")
    });
    flip_bit(&pack.context("a pack")?, 900)?;
    scene.walpoint.run(&["verify", "--anew"])?.expect(5)?;
    assert_eq!(goes()?, ids[1..2]);
    Ok(())
}
