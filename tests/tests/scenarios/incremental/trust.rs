//! When page LSNs are believed, and when content decides.

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::walpoint::Walpoint;

use super::recover_backup;
use super::soundness::{counts_agree, must_be_sound};

/// What the log says of how pages were compared: `LSN`, or why not.
fn compared(walpoint: &Walpoint) -> Result<(String, String)> {
    let outcome = walpoint.run(&["backup", "--incremental"])?.success()?;
    let id = outcome.last_line()?.to_owned();
    ensure!(id.contains("-incr-"), "not an incremental backup: {outcome}");
    let line = outcome.stderr.lines().find(|line| line.contains("pages are compared"));
    Ok((id, line.context("how pages are compared is not said")?.to_owned()))
}

fn scene(checksums: bool, configuration: &str) -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let configuration = format!("autovacuum = off\n{configuration}\n");
    let options = ClusterOptions { checksums, configuration, ..ClusterOptions::default() };
    let scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute(
        "create table t (n int primary key, filler text);
         insert into t select n, repeat('x', 100) from generate_series(1, 2000) n",
    )?;
    Ok(Some(scene))
}

fn restart(cluster: &mut Cluster) -> Result<()> {
    cluster.stop(Stop::Fast)?;
    cluster.start()
}

#[test]
fn a_restart_leaves_lsns_believed_only_with_wal_log_hints() -> Result<()> {
    for (checksums, hints, expected) in [
        (true, "off", "restarted since"),
        (false, "on", "by LSN"),
        (true, "on", "by LSN"),
        (false, "off", "neither"),
    ] {
        let Some(mut scene) = scene(checksums, &format!("wal_log_hints = {hints}"))? else { return Ok(()) };
        scene.backup()?;
        restart(&mut scene.cluster)?;
        let (_, how) = compared(&scene.walpoint)?;
        ensure!(how.contains(expected), "checksums {checksums}, wal_log_hints {hints}: {how}");
        // Within one run of the server both are enough.
        let (_, how) = compared(&scene.walpoint)?;
        let expected = if checksums || hints == "on" { "by LSN" } else { "neither" };
        ensure!(how.contains(expected), "checksums {checksums}, wal_log_hints {hints}: {how}");
    }
    Ok(())
}

/// Off, a vacuum that nobody logs, and on again: both backups find the setting on.
#[test]
fn a_break_in_between_is_not_overlooked() -> Result<()> {
    let Some(mut hints) = scene(false, "wal_log_hints = on")? else { return Ok(()) };
    hints.backup()?;
    hints.cluster.configure("wal_log_hints = off")?;
    restart(&mut hints.cluster)?;
    hints.cluster.execute("vacuum t")?;
    hints.cluster.configure("wal_log_hints = on")?;
    restart(&mut hints.cluster)?;
    let (id, how) = compared(&hints.walpoint)?;
    ensure!(how.contains("settings were changed"), "{how}");
    sound_after(&mut hints, &id)?;

    let Some(mut checksums) = scene(true, "wal_log_hints = off")? else { return Ok(()) };
    checksums.backup()?;
    for (switch, statement) in [("--disable", "vacuum t"), ("--enable", "checkpoint")] {
        checksums.cluster.stop(Stop::Fast)?;
        let data = checksums.cluster.data().display().to_string();
        checksums.cluster.client_tool(
            "pg_checksums",
            &[switch, "-D", &data],
            walpoint_tests::walpoint::CALL_LIMIT,
        )?;
        checksums.cluster.start()?;
        checksums.cluster.execute(statement)?;
    }
    let (id, how) = compared(&checksums.walpoint)?;
    ensure!(how.contains("restarted since"), "{how}");
    sound_after(&mut checksums, &id)
}

fn sound_after(scene: &mut Scene, id: &str) -> Result<()> {
    let mut restored = recover_backup(scene, id)?;
    let sql = restored.sql()?;
    sql.execute("delete from t where n % 20 = 3")?;
    ensure!(counts_agree(&sql, "t")? == "1900");
    must_be_sound(&restored)?;
    restored.stop(Stop::Immediate)
}

/// The setting changes for good: the first backup after it is full, for the reason.
#[test]
fn checksums_that_are_turned_on_make_the_next_backup_a_full_one() -> Result<()> {
    let Some(mut scene) = scene(false, "")? else { return Ok(()) };
    scene.backup()?;
    scene.cluster.stop(Stop::Fast)?;
    let data = scene.cluster.data().display().to_string();
    scene.cluster.client_tool(
        "pg_checksums",
        &["--enable", "-D", &data],
        walpoint_tests::walpoint::CALL_LIMIT,
    )?;
    scene.cluster.start()?;
    super::full_instead(&scene.walpoint, "checksums were turned on")?;
    Ok(())
}
