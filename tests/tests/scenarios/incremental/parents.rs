//! Which backup is the parent, and when none is.

use std::fs;

use anyhow::{Context, Result, ensure};
use walpoint_tests::age::Identity;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::scene::{ARCHIVING_LIMIT, Scene};
use walpoint_tests::walpoint::ArchivePlace;
use walpoint_tests::{archive_files, programs};

use super::soundness::must_be_sound;
use super::{full_instead, incremental, incremental_by, stored};

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select n, 'first' as word from generate_series(1, 5000) n")?;
    Ok(Some(scene))
}

#[test]
fn without_a_backup_the_first_one_is_full_and_a_plain_one_always() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    full_instead(&scene.walpoint, "no complete backup")?;
    ensure!(scene.backup()?.contains("-full-"), "a backup without a flag is not a full one");
    let configured = scene.walpoint.with_config(|text| format!("{text}\n[backup]\nincremental = true\n"))?;
    ensure!(configured.ok(&["backup"])?.last_line()?.contains("-incr-"));
    ensure!(configured.ok(&["backup", "--full"])?.last_line()?.contains("-full-"));
    configured.run(&["backup", "--full", "--incremental"])?.expect(2)?;
    // The time for a full one has come; who asks for an incremental one by name gets it.
    let due = scene
        .walpoint
        .with_config(|text| format!("{text}\n[backup]\nincremental = true\nfull_every = \"1ms\"\n"))?;
    let outcome = due.ok(&["backup"])?;
    ensure!(outcome.last_line()?.contains("-full-") && outcome.stderr.contains("full_every"), "{outcome}");
    ensure!(due.ok(&["backup", "--incremental"])?.last_line()?.contains("-incr-"));
    Ok(())
}

#[test]
fn a_parent_with_a_gap_or_a_conflict_behind_it_or_a_pack_missing_is_none() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let first = scene.backup()?;
    let second = incremental(&scene.walpoint, &first)?;
    scene.cluster.execute("update t set word = 'third' where n < 100")?;
    let lost = scene.archive_everything()?;
    remove(&scene, &format!("wal/{}", &lost[..16]), &lost)?;
    let fourth = full_instead(&scene.walpoint, &format!("segment {lost} is missing"))?;
    let fifth = incremental(&scene.walpoint, &fourth)?;

    // Somebody archived other WAL under one of the names since, and was refused.
    scene.cluster.execute("update t set word = 'fifth' where n < 100")?;
    let contested = scene.archive_everything()?;
    let mark = folder(&scene, &format!("wal/{}", &contested[..16]))?;
    let mark = mark.join(format!("{contested}-0123456789abcdef.refused"));
    for (path, text) in [(mark.with_extension("refused.meta"), r#"{"size":2,"metadata":{}}"#), (mark, "{}")] {
        fs::write(path, text)?;
    }
    let sixth = full_instead(&scene.walpoint, &format!("another content of segment {contested}"))?;
    let seventh = incremental(&scene.walpoint, &sixth)?;

    // A pack of the full one, which the incremental names too.
    remove(&scene, &format!("backup/{sixth}"), "pack-000000")?;
    full_instead(&scene.walpoint, &format!("packs of {seventh}"))?;
    ensure!(second != fifth);
    Ok(())
}

/// Nothing of what such a parent stored can be named, and with a full backup all is well again.
#[test]
fn a_parent_whose_manifest_or_wal_is_damaged_or_torn_or_gone_is_none() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let mut last = scene.backup()?;
    let manifest = |backup: &str| -> Result<std::path::PathBuf> {
        let files = archive_files::named(&folder(&scene, &format!("backup/{backup}"))?, "manifest-");
        files.into_iter().find(|file| file.extension().is_some_and(|it| it == "zst")).context("no manifest")
    };
    let tear = |file: &std::path::Path| -> Result<()> {
        let length = fs::metadata(file)?.len();
        Ok(fs::File::options().write(true).open(file)?.set_len(length / 2)?)
    };
    archive_files::flip_bit(&manifest(&last)?, 900)?;
    last = full_instead(&scene.walpoint, &format!("the manifest of {last} is damaged"))?;
    tear(&manifest(&last)?)?;
    last = full_instead(&scene.walpoint, &format!("the manifest of {last} is damaged"))?;
    fs::remove_file(manifest(&last)?)?;
    full_instead(&scene.walpoint, &format!("the manifest of {last} is not in the archive"))?;
    // Neither what is known of WAL since.
    let segment = scene.archive_everything()?;
    let beside = archive_files::named(scene.archive_directory()?, &segment);
    let beside = beside.iter().find(|file| file.extension().is_some_and(|it| it == "meta"));
    let beside = beside.context("no metadata")?;
    let sound = fs::read(beside)?;
    tear(beside)?;
    last = full_instead(&scene.walpoint, &segment)?;
    fs::write(beside, sound)?;
    incremental(&scene.walpoint, &last)?;
    Ok(())
}

/// What it found damaged an incremental backup would name again.
#[test]
fn a_parent_that_verify_found_damaged_is_none_and_an_older_good_one_is() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let first = scene.backup()?;
    scene.archive_everything()?;
    let second = scene.backup()?;
    scene.archive_everything()?;
    let damage = |backup: &str| -> Result<()> {
        let pack = archive_files::named(&folder(&scene, &format!("backup/{backup}"))?, "pack-");
        let pack = pack.into_iter().find(|file| file.extension().is_some_and(|it| it == "zst"));
        archive_files::flip_bit(&pack.context("no pack")?, 900)?;
        scene.walpoint.run(&["verify", "--anew"])?.expect(5)?;
        Ok(())
    };
    damage(&second)?;
    let third = incremental(&scene.walpoint, &first)?;
    damage(&first)?;
    let fourth = full_instead(&scene.walpoint, &format!("{third} cannot be its parent: verify found"))?;
    incremental(&scene.walpoint, &fourth)?;
    Ok(())
}

/// Nobody need read all of a cluster again for what is wrong with one backup.
#[test]
fn where_packs_of_the_newest_are_missing_an_older_one_is_the_parent() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let first = scene.backup()?;
    // On pages that nothing touches later: what is changed since the second backup alone would be too little.
    scene.cluster.execute("update t set word = 'second' where n > 3000")?;
    scene.cluster.execute("vacuum t")?;
    scene.cluster.execute("checkpoint")?;
    let second = scene.backup()?;
    scene.cluster.execute("update t set word = 'third' where n < 100")?;
    remove(&scene, &format!("backup/{second}"), "pack-000000")?;
    let third = incremental_by(&scene.walpoint, &first, "by LSN")?;
    let expected = content(&scene.cluster)?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--target-immediate", "--backup", &third])?;
    ensure!(content(&restored)? == expected, "not what the cluster had");
    must_be_sound(&restored)?;
    restored.stop(Stop::Immediate)
}

/// What `verify` found damaged is not named again, so where that is not known nothing is named.
#[test]
fn while_a_note_of_verify_cannot_be_read_backups_are_full() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let first = scene.backup()?;
    scene.archive_everything()?;
    scene.walpoint.ok(&["verify"])?;
    incremental(&scene.walpoint, &first)?;
    let notes = archive_files::named(&folder(&scene, "verify")?, "");
    let note = notes.into_iter().find(|file| file.extension().is_some_and(|it| it == "json"));
    let note = note.context("no note")?;
    archive_files::flip_bit(&note, 20)?;
    let second = full_instead(&scene.walpoint, "nobody knows what verify found damaged")?;
    let name = note.file_name().context("no name")?.to_string_lossy().into_owned();
    remove(&scene, "verify", &name)?;
    incremental(&scene.walpoint, &second)?;
    Ok(())
}

fn folder(scene: &Scene, path: &str) -> Result<std::path::PathBuf> {
    let cluster = scene.cluster.value("select system_identifier from pg_control_system()")?;
    Ok(scene.archive_directory()?.join(cluster).join(path))
}

fn remove(scene: &Scene, path: &str, name: &str) -> Result<()> {
    let folder = folder(scene, path)?;
    let mut removed = 0;
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)) {
            fs::remove_file(path)?;
            removed += 1;
        }
    }
    ensure!(removed > 0, "nothing begins with {name}");
    Ok(())
}

/// Of two backups the newer ended behind the fork: its pages from there are of a branch that was left.
#[test]
fn after_a_promotion_the_parent_is_a_backup_that_ended_before_the_fork() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let before = scene.backup()?;
    scene.cluster.execute("update t set word = 'branch' where n % 7 = 0")?;
    let fork = scene.cluster.value("select pg_current_wal_lsn()")?;
    scene.cluster.execute("update t set word = 'left' where n % 5 = 0; checkpoint")?;
    let abandoned = incremental(&scene.walpoint, &before)?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let mut promoted = scene.recover(&["--target-lsn", &fork, "--take-over", "--backup", &before])?;
    let walpoint = scene.walpoint_for(&promoted)?;
    promoted.execute("update t set word = 'after' where n % 11 = 0")?;
    let expected = content(&promoted)?;
    let child = incremental(&walpoint, &before)?;
    promoted.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    promoted.stop(Stop::Fast)?;
    ensure!(child != abandoned);

    let mut restored = scene.recover(&["--target-immediate", "--backup", &child])?;
    ensure!(content(&restored)? == expected, "not what the promoted cluster had");
    must_be_sound(&restored)?;
    restored.stop(Stop::Immediate)
}

fn content(cluster: &Cluster) -> Result<String> {
    cluster.value("select md5(string_agg(n || word, ',' order by n)) from t")
}

/// A host that only encrypts cannot read its own manifests. It keeps a copy of the last one.
#[test]
fn with_public_keys_only_the_copy_of_the_last_manifest_decides() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let archiving = cluster.archive_to(&place)?;
    let Some(identity) = Identity::generate(cluster.scratch().path(), "identity.txt")? else { return Ok(()) };
    let line = format!("recipients = [\"{}\"]", identity.recipient);
    archiving.configure(&format!("[encryption]\n{line}"))?;
    cluster.start()?;
    cluster.execute("create table t as select n, md5(n::text) as word from generate_series(1, 20000) n")?;
    let full = archiving.ok(&["backup"])?.last_line()?.to_owned();
    let copy = cluster.data().join("walpoint.manifest.zst");
    let copy_of_full = cluster.scratch().path().join("copy");
    fs::copy(&copy, &copy_of_full)?;
    cluster.execute("update t set word = 'other' where n % 997 = 0")?;
    let first = incremental(&archiving, &full)?;
    ensure!(stored(&archiving, &first)? * 4 < stored(&archiving, &full)?, "nearly all of it is stored again");
    // As if the last one had been taken on another host: what this one has is the manifest of the one before.
    fs::copy(&copy_of_full, &copy)?;
    let beside = incremental(&archiving, &full)?;
    ensure!(beside != first);
    fs::remove_file(&copy)?;
    let again = full_instead(&archiving, "nor a copy of the manifest")?;
    // A damaged one is none.
    let mut bytes = fs::read(&copy)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&copy, bytes)?;
    let third = full_instead(&archiving, "nor a copy of the manifest")?;
    ensure!(again != third);
    cluster.execute("update t set word = 'last' where n % 991 = 0")?;
    let fourth = incremental(&archiving, &third)?;
    let restoring = archiving.with_config(|text| {
        text.replace(&line, &format!("{line}\nidentity_file = \"{}\"", identity.file.display()))
    })?;
    // Who has the key needs no copy.
    fs::remove_file(&copy)?;
    let last = incremental(&restoring, &fourth)?;
    let expected = content(&cluster)?;
    cluster.stop(Stop::Fast)?;

    let mut scene = Scene::of_parts(cluster, restoring, place);
    let mut restored = scene.recover(&["--target-immediate", "--backup", &last])?;
    ensure!(content(&restored)? == expected);
    ensure!(!restored.data().join("walpoint.manifest.zst").exists(), "the copy was backed up");
    restored.stop(Stop::Immediate)
}
