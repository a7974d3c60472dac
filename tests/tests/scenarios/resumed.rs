//! A backup that was interrupted goes on where it was, by content and not by time stamps.

mod incremental;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::proxy::Proxy;
use walpoint_tests::scene::Scene;
use walpoint_tests::{archive_files, programs, wait};

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    fill(&scene.cluster)?;
    Ok(Some(scene))
}

fn fill(cluster: &Cluster) -> Result<()> {
    cluster.execute(
        "create table t as select n, string_agg(md5(random()::text), '') as filler
         from generate_series(1, 30000) n, generate_series(1, 60) group by n",
    )?;
    // Else the first who reads the rows sets hints on every page.
    cluster.execute("vacuum (freeze) t")?;
    cluster.execute("checkpoint")
}

/// The folders of backups, and the packs in each.
fn packs(scene: &Scene) -> Result<Vec<(String, BTreeSet<String>)>> {
    let cluster = scene.cluster.value("select system_identifier from pg_control_system()")?;
    let folder = scene.archive_directory()?.join(cluster).join("backup");
    let Ok(backups) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for backup in backups {
        let backup = backup?;
        let names = fs::read_dir(backup.path())?
            .map(|entry| entry.map(|it| it.file_name().to_string_lossy().into_owned()));
        let names: BTreeSet<String> = names.collect::<Result<_, _>>()?;
        let packs = names.into_iter().filter(|name| name.starts_with("pack-") && !name.ends_with(".meta"));
        found.push((backup.file_name().to_string_lossy().into_owned(), packs.collect()));
    }
    found.sort();
    Ok(found)
}

/// Bytes of these packs.
fn bytes(scene: &Scene, backup: &str, packs: &BTreeSet<String>) -> Result<u64> {
    let cluster = scene.cluster.value("select system_identifier from pg_control_system()")?;
    let folder = scene.archive_directory()?.join(cluster).join("backup").join(backup);
    packs.iter().map(|pack| Ok(fs::metadata(folder.join(pack))?.len())).sum()
}

/// Starts a slow backup.
fn spawn(scene: &Scene, flag: &str) -> Result<Child> {
    let output: PathBuf = scene.cluster.scratch().path().join("interrupted.log");
    let args = ["backup", flag, "--max-rate", "12MiB", "--workers", "1"];
    scene.walpoint.spawn(std::path::Path::new("/"), &args, &File::create(output)?)
}

/// Starts a slow full backup and kills it when a few packs are stored and noted: its id and these.
fn interrupt(scene: &Scene) -> Result<(String, BTreeSet<String>)> {
    interrupt_one(scene, "--full", "walpoint.unfinished")
}

/// The same of the kind that this flag asks for, which keeps these notes.
fn interrupt_one(scene: &Scene, flag: &str, notes: &str) -> Result<(String, BTreeSet<String>)> {
    let mut child = spawn(scene, flag)?;
    let notes = scene.cluster.data().join(notes);
    let mut stored = None;
    wait::until_true("two packs to be stored and noted", Duration::from_secs(120), || {
        let noted = String::from_utf8_lossy(&fs::read(&notes).unwrap_or_default()).into_owned();
        let is_noted = |(_, packs): &(String, BTreeSet<String>)| {
            packs.iter().filter(|pack| noted.contains(pack.as_str())).count() >= 2
        };
        stored = packs(scene)?.into_iter().find(is_noted);
        Ok(stored.is_some())
    })?;
    child.kill()?;
    child.wait()?;
    let (backup, _) = stored.context("no folder")?;
    let stored = packs(scene)?.into_iter().find(|(folder, _)| *folder == backup);
    let (backup, stored) = stored.context("no folder")?;
    let noted = String::from_utf8_lossy(&fs::read(&notes)?).into_owned();
    Ok((backup, stored.into_iter().filter(|pack| noted.contains(pack.as_str())).collect()))
}

#[test]
fn a_killed_backup_goes_on_with_the_packs_that_it_has_stored() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let (id, stored) = interrupt(&scene)?;
    // What was stored changes in part, and looks as old as it was.
    let file = scene.cluster.data().join(scene.cluster.value("select pg_relation_filepath('t')")?);
    let before = fs::metadata(&file)?.modified()?;
    scene
        .cluster
        .execute("update t set filler = 'changed' || filler where n between 200 and 210; checkpoint")?;
    File::options().write(true).open(&file)?.set_modified(before)?;
    let expected = scene.cluster.value("select md5(string_agg(n || filler, ',' order by n)) from t")?;

    let outcome = scene.walpoint.ok(&["backup"])?;
    ensure!(outcome.last_line()? == id, "another backup: {outcome}");
    ensure!(outcome.stderr.contains("going on with a backup"), "{outcome}");
    let (_, all) = packs(&scene)?.pop().context("no folder")?;
    ensure!(all.is_superset(&stored), "what was stored is gone");
    let before = bytes(&scene, &id, &stored)?;
    let added = bytes(&scene, &id, &all.difference(&stored).cloned().collect())?;
    let whole = scene.backup()?;
    let (last, anew) = packs(&scene)?.pop().context("no folder")?;
    ensure!(whole == last && whole != id, "a complete backup is not gone on with");
    let anew = bytes(&scene, &whole, &anew)?;
    println!("{before} bytes were stored before, {added} then; {anew} for one that begins anew");
    ensure!(before + added <= anew + (4 << 20), "what was stored is stored again");

    let mut restored = scene.recover(&["--target-immediate", "--backup", &id])?;
    ensure!(restored.value("select md5(string_agg(n || filler, ',' order by n)) from t")? == expected);
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

#[test]
fn packs_that_are_gone_or_damaged_are_not_counted_on() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let (id, stored) = interrupt(&scene)?;
    let cluster = scene.cluster.value("select system_identifier from pg_control_system()")?;
    let folder = scene.archive_directory()?.join(cluster).join("backup").join(&id);
    // Gone, and cut off.
    let mut packs = stored.iter();
    fs::remove_file(folder.join(packs.next().context("no pack")?))?;
    let cut = folder.join(packs.next().context("no second pack")?);
    File::options().write(true).open(&cut)?.set_len(fs::metadata(&cut)?.len() / 2)?;
    scene.backup()?;
    let mut restored = scene.recover(&["--target-immediate"])?;
    ensure!(restored.value("select count(*) from t")? == "30000");
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

/// As large as it was, and other bytes.
#[test]
fn a_pack_that_rotted_is_stored_again() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let (id, stored) = interrupt(&scene)?;
    let cluster = scene.cluster.value("select system_identifier from pg_control_system()")?;
    let folder = scene.archive_directory()?.join(cluster).join("backup").join(&id);
    let rotten = folder.join(stored.first().context("no pack")?);
    let mut bytes = fs::read(&rotten)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&rotten, bytes)?;
    let outcome = scene.walpoint.ok(&["backup"])?;
    ensure!(outcome.last_line()? == id, "another backup: {outcome}");
    ensure!(outcome.stderr.contains("is damaged: what is in it is stored again"), "{outcome}");
    let mut restored = scene.recover(&["--target-immediate"])?;
    ensure!(restored.value("select count(*) from t")? == "30000");
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

/// S3 keeps the SHA-256 of what came to it: a backup of terabytes that goes on does not download them first.
#[test]
fn over_s3_the_packs_that_were_stored_are_counted_on_without_reading_them() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let mut scene = Scene::start(Cluster::init(&postgres, ClusterOptions::default())?, place)?;
    fill(&scene.cluster)?;
    let mut child = spawn(&scene, "--full")?;
    let notes = scene.cluster.data().join("walpoint.unfinished");
    wait::until_true("two packs to be stored and noted", Duration::from_secs(120), || {
        let noted = fs::read(&notes).unwrap_or_default();
        Ok(String::from_utf8_lossy(&noted).matches("pack-").count() >= 2)
    })?;
    child.kill()?;
    child.wait()?;
    let stored = proxy.count("PUT", "pack-");
    proxy.forget_requests();
    let outcome = scene.walpoint.ok(&["backup"])?;
    ensure!(outcome.stderr.contains("going on with a backup"), "{outcome}");
    let (asked, read) = (proxy.count("HEAD", "pack-"), proxy.count("GET", "pack-"));
    ensure!(stored >= 2 && asked >= 2 && read == 0, "{stored} stored, {asked} asked for, {read} read");
    let mut restored = scene.recover(&["--target-immediate"])?;
    ensure!(restored.value("select count(*) from t")? == "30000");
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

/// What it stored may go at any moment, and the backup that went on with it would name it.
#[test]
fn a_backup_that_was_marked_as_given_up_is_not_gone_on_with() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let (id, _) = interrupt(&scene)?;
    let archive = scene.archive_directory()?.to_owned();
    // It was interrupted three days ago.
    let three_days = Duration::from_secs(3 * 24 * 3600);
    for file in archive_files::named(&archive, "pack-") {
        let file = File::options().append(true).open(file)?;
        file.set_modified(file.metadata()?.modified()? - three_days)?;
    }
    let expire = ["--json", "expire", "--keep-last", "1", "--grace", "1s", "--apply"];
    let marked: serde_json::Value = scene.walpoint.ok(&expire)?.json()?;
    ensure!(marked["applied"]["marked"]["backups"] == serde_json::json!([id]), "{marked:#}");
    let outcome = scene.walpoint.ok(&["backup"])?;
    ensure!(outcome.last_line()? != id, "it went on: {outcome}");
    ensure!(outcome.stderr.contains(&format!("not going on with {id}")), "{outcome}");
    std::thread::sleep(Duration::from_secs(2));
    scene.walpoint.ok(&expire)?;
    ensure!(packs(&scene)?.iter().all(|(folder, packs)| *folder != id || packs.is_empty()), "its packs stay");
    let mut restored = scene.recover(&["--target-immediate"])?;
    ensure!(restored.value("select count(*) from t")? == "30000");
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}
