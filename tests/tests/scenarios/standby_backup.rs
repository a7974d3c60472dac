//! A base backup of a standby: what its primary archives makes it whole, and a promotion in its midst ends it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, SUPERUSER, Stop};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::walpoint::Walpoint;
use walpoint_tests::{programs, wait};

use crate::incremental::incremental_by;
use crate::incremental::soundness::{counts_agree, must_be_sound};

/// A primary with a table, and its standby, which streams.
fn pair() -> Result<Option<(Scene, Cluster, Walpoint)>> {
    pair_of(true, "", "")
}

/// With lines for both, and more for the standby.
fn pair_of(checksums: bool, both: &str, own: &str) -> Result<Option<(Scene, Cluster, Walpoint)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let configuration = format!("wal_keep_size = '1GB'\narchive_timeout = 2\n{both}\n");
    let options = ClusterOptions { checksums, configuration, ..ClusterOptions::default() };
    let mut scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute(
        "create table t as select n, repeat(md5(n::text), 20) as filler from generate_series(1, 20000) n;
         create index by_n on t (n)",
    )?;
    scene.backup()?;
    let primary = format!("host={} port=5432 user={SUPERUSER}", scene.cluster.socket_directory().display());
    let mut standby = scene.restore(&["--standby", "--primary-conninfo", &primary])?;
    standby.override_settings(own)?;
    standby.launch()?;
    wait::until_true("the standby to serve", RECOVERY_LIMIT, || {
        Ok(standby.value("select pg_is_in_recovery()::text").is_ok_and(|it| it == "true"))
    })
    .with_context(|| standby.log())?;
    let walpoint = scene.walpoint_for(&standby)?;
    Ok(Some((scene, standby, walpoint)))
}

/// Keeps WAL coming, as a primary in use does.
fn busy<T>(scene: &Scene, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let sql = scene.cluster.sql()?;
    let is_done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = sql.execute("update t set filler = 'busy' where n = 1; select pg_switch_wal()");
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let done = work();
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        done
    })
}

/// Waits until the standby has all that the primary has.
fn replayed(scene: &Scene, standby: &Cluster) -> Result<()> {
    let target = scene.cluster.value("select pg_current_wal_flush_lsn()")?;
    wait::until_true("the standby to replay", RECOVERY_LIMIT, || {
        Ok(standby.value(&format!("select (pg_last_wal_replay_lsn() >= '{target}')::text"))? == "true")
    })
}

/// Its primary logs hints at both backups and not between them, in one run of the standby.
#[test]
fn a_standby_whose_primary_did_not_log_hints_for_a_while_is_compared_by_content() -> Result<()> {
    for (own, why) in [("off", "neither data checksums nor"), ("on", "settings were changed")] {
        let both = "wal_log_hints = on\nautovacuum = off";
        let Some((mut scene, mut standby, walpoint)) =
            pair_of(false, both, &format!("wal_log_hints = {own}"))?
        else {
            return Ok(());
        };
        let full = busy(&scene, || Ok(walpoint.ok(&["backup"])?.last_line()?.to_owned()))?;
        for (hints, statement) in [("off", "vacuum t"), ("on", "checkpoint")] {
            scene.cluster.configure(&format!("wal_log_hints = {hints}"))?;
            scene.cluster.stop(Stop::Fast)?;
            scene.cluster.start()?;
            scene.cluster.execute(statement)?;
        }
        replayed(&scene, &standby)?;
        let child = busy(&scene, || incremental_by(&walpoint, &full, why))?;
        scene.archive_everything()?;
        standby.stop(Stop::Fast)?;
        let mut restored = scene.recover(&["--target-immediate", "--backup", &child])?;
        restored.execute("delete from t where n % 20 = 3")?;
        ensure!(counts_agree(&restored.sql()?, "t")? == "19000");
        must_be_sound(&restored)?;
        restored.stop(Stop::Immediate)?;
        scene.cluster.stop(Stop::Fast)?;
    }
    Ok(())
}

#[test]
fn a_backup_of_a_standby_comes_back_and_has_incremental_children() -> Result<()> {
    let Some((mut scene, mut standby, walpoint)) = pair()? else { return Ok(()) };
    let full = busy(&scene, || Ok(walpoint.ok(&["backup"])?.last_line()?.to_owned()))?;
    // The standby begins where its last restartpoint was.
    scene.cluster.execute("update t set filler = 'later' where n % 100 = 5")?;
    scene.cluster.execute("vacuum t")?;
    // As nearly always on a busy primary a record spans into the segment in which the backup will start.
    scene.cluster.execute(
        "select pg_logical_emit_message(false, 'walpoint', repeat('x', 100000 +
           (1048576 - (pg_current_wal_insert_lsn() - '0/0')::bigint % 1048576)::int))",
    )?;
    scene.cluster.execute("checkpoint")?;
    replayed(&scene, &standby)?;
    // Checksums are on, and no setting has changed.
    let child = busy(&scene, || incremental_by(&walpoint, &full, "by LSN"))?;
    scene.archive_everything()?;
    standby.stop(Stop::Fast)?;
    for id in [&full, &child] {
        let mut restored = scene.recover(&["--target-immediate", "--backup", id])?;
        ensure!(restored.value("select count(*) from t")? == "20000");
        if *id == child {
            ensure!(restored.value("select count(*) from t where filler = 'later'")? == "200");
            // What comes later relies on the pages' words, which the standby set by replay.
            restored.execute("delete from t where n % 20 = 3")?;
            ensure!(counts_agree(&restored.sql()?, "t")? == "19000");
        }
        must_be_sound(&restored)?;
        restored.stop(Stop::Immediate)?;
    }
    scene.cluster.stop(Stop::Fast)
}

#[test]
fn a_standby_that_is_promoted_during_its_backup_leaves_none() -> Result<()> {
    let Some((scene, standby, walpoint)) = pair()? else { return Ok(()) };
    let log = scene.cluster.scratch().path().join("promoted.log");
    let mut child =
        walpoint.spawn(Path::new("/"), &["backup", "--max-rate", "8MiB"], &File::create(&log)?)?;
    wait::until_true("the backup to read", Duration::from_secs(60), || {
        Ok(standby.value("select count(*) from pg_stat_activity where usename = 'walpoint'")? == "1"
            && std::fs::read_to_string(&log)?.contains("starts with a checkpoint"))
    })?;
    std::thread::sleep(Duration::from_secs(1));
    standby.execute("select pg_promote()")?;
    let status = child.wait()?;
    let said = std::fs::read_to_string(&log)?;
    ensure!(status.code() == Some(1) && said.contains("promoted"), "{status}: {said}");
    let (_, listing) = walpoint.json(&["list"])?;
    ensure!(listing["backups"].as_array().is_some_and(|backups| backups.len() == 1), "{listing}");
    Ok(())
}
