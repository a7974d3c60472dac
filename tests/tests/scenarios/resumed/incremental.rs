//! An incremental backup that was interrupted goes on while its parent serves, and begins anew when it does not.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::process::Outcome;
use walpoint_tests::scene::Scene;
use walpoint_tests::{archive_files, programs};

use super::super::incremental::soundness::{counts_agree, must_be_sound};
use super::{bytes, interrupt_one, packs};

const ROWS: &str = "select md5(string_agg(n || filler, ',' order by n)) || count(*) from t";

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let options = ClusterOptions {
        wal_segsize_mb: 16,
        configuration: "autovacuum = off\nmax_wal_size = 1GB\n".into(),
        ..ClusterOptions::default()
    };
    let scene = Scene::on_directory(&postgres, options)?;
    scene.cluster.execute(
        "create table t (n int primary key, filler text); alter table t alter filler set storage plain;
         insert into t select n, string_agg(md5(random()::text), '')
         from generate_series(1, 30000) n, generate_series(1, 60) group by n",
    )?;
    scene.cluster.execute("vacuum (freeze) t")?;
    scene.cluster.execute("checkpoint")?;
    Ok(Some(scene))
}

/// Writes two pages of three: more of each MiB than a manifest names piece by piece; and behind them a few pages here
/// and there. Vacuumed, or the first who reads the rows sets hints on every page.
fn change(cluster: &Cluster) -> Result<()> {
    cluster.execute(
        "update t set filler = reverse(filler) where n <= 20000 and n % 12 < 8;
         update t set n = -n where n > 20000 and n % 48 = 0",
    )?;
    cluster.execute("vacuum t")?;
    cluster.execute("checkpoint")
}

fn interrupt(scene: &Scene) -> Result<(String, BTreeSet<String>)> {
    interrupt_one(scene, "--incremental", "walpoint.unfinished-incr")
}

/// Takes an incremental backup: what it said, its id and its parent's.
fn take(scene: &Scene) -> Result<(Outcome, String, String)> {
    let outcome = scene.walpoint.ok(&["--json", "backup", "--incremental"])?;
    let told: serde_json::Value = outcome.json()?;
    let text = |field: &str| told[field].as_str().unwrap_or_default().to_owned();
    let (id, parent) = (text("id"), text("parent"));
    Ok((outcome, id, parent))
}

fn folder(scene: &Scene, backup: &str) -> Result<PathBuf> {
    let cluster = scene.cluster.value("select system_identifier from pg_control_system()")?;
    Ok(scene.archive_directory()?.join(cluster).join("backup").join(backup))
}

/// Which file each pack is: another one when it was stored again.
fn inodes(scene: &Scene, backup: &str, packs: &BTreeSet<String>) -> Result<Vec<u64>> {
    let folder = folder(scene, backup)?;
    packs.iter().map(|pack| Ok(fs::metadata(folder.join(pack))?.ino())).collect()
}

fn packs_of(scene: &Scene, backup: &str) -> Result<BTreeSet<String>> {
    let found = packs(scene)?.into_iter().find(|(folder, _)| folder == backup);
    Ok(found.with_context(|| format!("{backup} has no folder"))?.1)
}

fn must_have(scene: &mut Scene, id: &str, expected: &str) -> Result<()> {
    let mut restored = scene.recover(&["--target-immediate", "--backup", id])?;
    ensure!(restored.value(ROWS)? == expected, "not the rows that were backed up");
    counts_agree(&restored.sql()?, "t")?;
    must_be_sound(&restored)?;
    restored.stop(Stop::Immediate)
}

#[test]
fn a_killed_incremental_backup_goes_on_with_the_packs_that_it_has_stored() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let full = scene.backup()?;
    change(&scene.cluster)?;
    let (id, stored) = interrupt(&scene)?;
    let before = inodes(&scene, &id, &stored)?;
    // Pages that are stored change again, others for the first time.
    scene.cluster.execute(
        "update t set filler = 'changed' || substr(filler, 8) where n between 200 and 203;
         update t set filler = 'changed' || substr(filler, 8) where n = 25001; delete from t where n = 25005; checkpoint",
    )?;
    let expected = scene.cluster.value(ROWS)?;

    let (outcome, again, parent) = take(&scene)?;
    ensure!(again == id && parent == full, "another backup: {outcome}");
    ensure!(outcome.stderr.contains("going on with a backup"), "{outcome}");
    let all = packs_of(&scene, &id)?;
    ensure!(all.is_superset(&stored) && inodes(&scene, &id, &stored)? == before, "packs were stored again");
    let used = bytes(&scene, &id, &stored)?;
    let added = bytes(&scene, &id, &all.difference(&stored).cloned().collect())?;
    must_have(&mut scene, &id, &expected)?;
    // And all WAL after it.
    scene.cluster.execute("update t set filler = 'the last' where n = 1")?;
    let expected = scene.cluster.value(ROWS)?;
    scene.archive_everything()?;
    let mut restored = scene.recover(&["--latest", "--backup", &id])?;
    ensure!(restored.value(ROWS)? == expected, "not the rows at the end of WAL");
    restored.stop(Stop::Immediate)?;

    // Without it the next one has the same parent and begins anew.
    fs::remove_dir_all(folder(&scene, &id)?)?;
    let (outcome, anew, parent) = take(&scene)?;
    ensure!(anew != id && parent == full, "{outcome}");
    let whole = bytes(&scene, &anew, &packs_of(&scene, &anew)?)?;
    println!("{used} bytes were stored before, {added} then; {whole} for one that begins anew");
    ensure!(used + added <= whole + (4 << 20), "what was stored is stored again");
    scene.cluster.stop(Stop::Fast)
}

/// A pack that rotted is not counted on, as with a full backup, nor one beside which something is torn; the others are.
#[test]
fn an_incremental_backup_that_goes_on_counts_on_sound_packs_only() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let mut parent = scene.backup()?;
    for round in 0..2 {
        change(&scene.cluster)?;
        let (id, stored) = interrupt(&scene)?;
        let first = stored.first().context("no pack")?;
        let path = folder(&scene, &id)?.join(first);
        match round {
            0 => archive_files::flip_bit(&path, 4711)?,
            _ => fs::write(format!("{}.meta", path.display()), "{")?,
        }
        let expected = scene.cluster.value(ROWS)?;
        let (outcome, again, its) = take(&scene)?;
        ensure!(its == parent && again == id, "another backup: {outcome}");
        ensure!(outcome.stderr.contains("going on with a backup"), "{outcome}");
        let said = format!("{first}\" is damaged: what is in it is stored again");
        ensure!(outcome.stderr.contains(&said), "{outcome}");
        must_have(&mut scene, &again, &expected)?;
        parent = again;
    }
    scene.cluster.stop(Stop::Fast)
}

/// Neither does an incremental backup go on with another parent, nor one kind with the other; each goes on with its own.
#[test]
fn an_incremental_backup_goes_on_only_with_its_own_parent_and_no_full_one_with_it() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let first = scene.backup()?;
    change(&scene.cluster)?;
    let (interrupted, _) = interrupt(&scene)?;
    let (full, _) = super::interrupt(&scene)?;
    let outcome = scene.walpoint.ok(&["backup", "--full"])?;
    ensure!(outcome.last_line()? == full && outcome.stderr.contains("going on with a backup"), "{outcome}");
    let parents: serde_json::Value = scene.walpoint.json(&["list"])?.1;
    ensure!(parents["backups"].as_array().is_some_and(|all| all.len() == 2), "{parents:#}");

    // The newest is its parent now.
    let (outcome, second, parent) = take(&scene)?;
    ensure!(parent == full && second != interrupted, "{outcome}");
    ensure!(!outcome.stderr.contains("going on with a backup"), "{outcome}");

    // The first one is marked; of what another one stored on the second nothing is used when that goes, too.
    change(&scene.cluster)?;
    let (interrupted, _) = interrupt(&scene)?;
    let expire = ["--json", "expire", "--keep-last", "1", "--apply"];
    let marked: serde_json::Value = scene.walpoint.ok(&expire)?.json()?;
    ensure!(marked["applied"]["marked"]["backups"] == serde_json::json!([first, full]), "{marked:#}");
    fs::remove_file(folder(&scene, &second)?.join("backup.json"))?;
    let (outcome, instead, parent) = take(&scene)?;
    ensure!(instead.contains("-full-") && parent.is_empty() && instead != interrupted, "{outcome}");
    ensure!(outcome.stderr.contains("marked it to go"), "{outcome}");
    ensure!(!outcome.stderr.contains("going on with a backup"), "{outcome}");
    let expected = scene.cluster.value(ROWS)?;
    must_have(&mut scene, &instead, &expected)?;
    scene.cluster.stop(Stop::Fast)
}
