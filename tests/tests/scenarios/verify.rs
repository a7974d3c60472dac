//! `verify` on archives that real servers filled: what is sound is 0, what is not is 5 and named with what it
//! costs, a store that is away is 1 and costs nothing of what was read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use walpoint_tests::age::Identity;
use walpoint_tests::archive_files::{flip_bit, named, remove};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

/// Two backups, and WAL around them.
fn filled(scene: &Scene) -> Result<(String, String)> {
    scene.cluster.execute("create table t as select n, md5(n::text) from generate_series(1, 20000) n")?;
    let first = scene.backup()?;
    for _ in 0..4 {
        scene.cluster.execute("update t set n = n + 1 where n % 7 = 0")?;
        scene.archive_everything()?;
    }
    let second = scene.backup()?;
    scene.cluster.execute("update t set n = n + 1 where n % 5 = 0")?;
    scene.archive_everything()?;
    Ok((first, second))
}

fn on_directory() -> Result<Option<(Scene, String, String)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    let (first, second) = filled(&scene)?;
    Ok(Some((scene, first, second)))
}

fn verified_at(scene: &Scene) -> Result<Vec<bool>> {
    let (_, listed) = scene.walpoint.json(&["list"])?;
    let backups = listed["backups"].as_array().context("list has no backups")?;
    Ok(backups.iter().map(|backup| !backup["verified_at"].is_null()).collect())
}

fn objects(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().into_iter().flatten();
    findings.filter_map(|finding| finding["object"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_sound_archive_is_0_and_list_says_when_it_was_verified() -> Result<()> {
    let Some((mut scene, _, _)) = on_directory()? else { return Ok(()) };
    assert_eq!(verified_at(&scene)?, [false, false]);
    let quick = scene.walpoint.run(&["verify", "--quick"])?.success()?;
    assert!(quick.stdout.contains("no data were read") && quick.stdout.ends_with("sound\n"), "{quick}");
    assert_eq!(verified_at(&scene)?, [false, false]);
    let (status, report) = scene.walpoint.json(&["verify"])?;
    assert_eq!((status, report["sound"].as_bool()), (0, Some(true)), "{report:#}");
    assert_eq!(verified_at(&scene)?, [true, true]);
    // It measured how fast it reads, and `plan` goes by that.
    let (_, plan) = scene.walpoint.json(&["plan", "--latest"])?;
    assert!(plan["estimate"]["measured_at"].is_string(), "{plan:#}");
    scene.cluster.stop(Stop::Fast)
}

#[test]
fn damage_is_5_and_named_with_what_it_costs() -> Result<()> {
    let Some((mut scene, first, second)) = on_directory()? else { return Ok(()) };
    scene.cluster.stop(Stop::Fast)?;
    let archive = scene.archive_directory()?.to_owned();
    let data = |part: &str| -> Result<PathBuf> {
        let files = named(&archive, part);
        files
            .into_iter()
            .find(|file| !file.ends_with(".meta") && file.extension().is_some_and(|it| it == "zst"))
            .context("a file")
    };
    let (_, listed) = scene.walpoint.json(&["list", "--wal"])?;
    let stop = scene.backup_stop(&first)? >> 20;
    let between = format!("0000000100000000{:08X}", stop + 2);
    assert!(listed["timelines"][0]["first"].as_str().is_some_and(|first| *first < *between));

    // A segment between the backups: costs the moments up to the second.
    let segment = data(&format!("{between}-"))?;
    let good = std::fs::read(&segment)?;
    flip_bit(&segment, 2000)?;
    let (status, report) = scene.walpoint.json(&["verify"])?;
    assert_eq!(status, 5, "{report:#}");
    let finding = &report["findings"][0];
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(1), "{report:#}");
    assert!(finding["object"].as_str().is_some_and(|key| key.contains(&between)), "{finding:#}");
    assert_eq!(finding["costs"][0]["from"]["lsn"], format!("0/{:X}", (stop + 2) << 20));
    let second_stop = scene.backup_stop(&second)?;
    assert_eq!(
        finding["costs"][0]["to"]["lsn"],
        format!("{:X}/{:X}", second_stop >> 32, second_stop & 0xffff_ffff)
    );
    let told = scene.walpoint.run(&["verify"])?.expect(5)?;
    assert!(told.stdout.contains("costs on timeline 1 what lies between"), "{told}");
    std::fs::write(&segment, good)?;
    scene.walpoint.run(&["verify"])?.success()?;

    // A pack, a manifest, and what is gone.
    let pack = data("pack-000000-")?;
    flip_bit(&pack, 5000)?;
    let (status, report) = scene.walpoint.json(&["verify"])?;
    assert_eq!((status, objects(&report).len()), (5, 1), "{report:#}");
    assert!(pack.ends_with(&objects(&report)[0]), "{report:#}");
    assert!(!verified_at(&scene)?.iter().all(|it| *it));
    flip_bit(&pack, 5000)?;
    scene.walpoint.run(&["verify"])?.success()?;
    assert_eq!(verified_at(&scene)?, [true, true]);
    remove(&archive, &between)?;
    let gone = scene.walpoint.run(&["verify", "--quick"])?.expect(5)?;
    assert!(gone.stdout.contains(&format!("missing: {between}")), "{gone}");
    Ok(())
}

/// What verify says cannot be reached is what plan says, and the other way round.
#[test]
fn plan_and_verify_agree_on_what_is_lost() -> Result<()> {
    let Some((mut scene, first, _)) = on_directory()? else { return Ok(()) };
    scene.cluster.stop(Stop::Fast)?;
    let archive = scene.archive_directory()?.to_owned();
    let number = (scene.backup_stop(&first)? >> 20) + 2;
    remove(&archive, &format!("0000000100000000{number:08X}-"))?;
    let (status, report) = scene.walpoint.json(&["verify"])?;
    assert_eq!(status, 5, "{report:#}");
    let (_, window) = scene.walpoint.json(&["window"])?;
    let lsns = |ranges: &Value, end: &str| -> Vec<String> {
        let ranges = ranges.as_array().into_iter().flatten();
        ranges.filter_map(|range| range[end]["lsn"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(lsns(&report["ranges"], "from"), lsns(&window["ranges"], "from"), "{report:#}\n{window:#}");
    let lost = report["findings"][0]["costs"][0]["to"]["lsn"].as_str().context("an LSN")?.to_owned();
    assert!(lsns(&window["ranges"], "from").contains(&lost), "{window:#}");
    Ok(())
}

#[test]
fn rounds_with_a_budget_come_to_everything_and_a_killed_one_costs_nothing() -> Result<()> {
    let Some((mut scene, _, _)) = on_directory()? else { return Ok(()) };
    scene.cluster.stop(Stop::Fast)?;
    let mut rounds = 0;
    while !verified_at(&scene)?.iter().all(|it| *it) {
        rounds += 1;
        assert!(rounds < 60, "rounds that do not come to an end");
        if rounds % 3 == 0 {
            let output = std::fs::File::create(scene.cluster.scratch().path().join("killed.log"))?;
            let mut child = scene.walpoint.spawn(Path::new("/"), &["verify", "--budget", "1MiB"], &output)?;
            std::thread::sleep(std::time::Duration::from_millis(30));
            child.kill()?;
            child.wait()?;
        }
        scene.walpoint.run(&["verify", "--budget", "1MiB"])?.success()?;
    }
    assert!(rounds > 2, "{rounds}");
    Ok(())
}

#[test]
fn a_store_that_is_away_is_1_and_what_was_read_stays_known() -> Result<()> {
    let (Some(postgres), Some(garage)) = (programs::distribution_postgres()?, Garage::start()?) else {
        return Ok(());
    };
    let mut scene = Scene::on_garage(&postgres, &garage, ClusterOptions::default())?;
    filled(&scene)?;
    scene.cluster.stop(Stop::Fast)?;
    let (status, whole) = scene.walpoint.json(&["verify"])?;
    assert_eq!(status, 0, "{whole:#}");
    let two: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..2).map(|_| scope.spawn(|| scene.walpoint.json(&["verify", "--anew"]))).collect();
        runs.into_iter().map(|run| run.join().map_err(|_| anyhow::anyhow!("a panic"))).collect()
    });
    for run in two {
        let (status, report) = run??;
        assert_eq!(status, 0, "{report:#}");
    }
    garage.stop()?;
    let away = scene.walpoint.run(&["verify"])?.expect(1)?;
    assert!(!away.stdout.contains("damaged") && !away.stderr.contains("damaged"), "{away}");
    garage.resume_server()?;
    assert_eq!(verified_at(&scene)?, [true, true]);
    Ok(())
}

/// An archive that is encrypted to an identity which the program does not have.
fn encrypted(
    place: impl FnOnce(&Cluster) -> Result<Option<ArchivePlace>>,
) -> Result<Option<(Scene, Identity)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let Some(place) = place(&cluster)? else { return Ok(None) };
    let archiving = cluster.archive_to(&place)?;
    let Some(identity) = Identity::generate(cluster.scratch().path(), "identity.txt")? else {
        return Ok(None);
    };
    archiving.configure(&format!("[encryption]\nrecipients = [\"{}\"]", identity.recipient))?;
    cluster.start()?;
    let mut scene = Scene::of_parts(cluster, archiving, place);
    filled(&scene)?;
    scene.cluster.stop(Stop::Fast)?;
    Ok(Some((scene, identity)))
}

/// Whether `list` has this field of the first backup.
fn listed(walpoint: &Walpoint, field: &str) -> Result<bool> {
    let (_, listed) = walpoint.json(&["list"])?;
    Ok(!listed["backups"][0][field].is_null())
}

/// A bucket keeps a checksum of each object: the stored bytes can be compared with that, WAL too.
#[test]
fn without_the_key_the_stored_bytes_are_verified_by_the_checksums_of_a_bucket() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some((scene, _)) = encrypted(|_| garage.archive().map(Some))? else { return Ok(()) };
    let (status, report) = scene.walpoint.json(&["verify"])?;
    assert_eq!((status, report["read"]["length_only"].as_u64()), (0, Some(0)), "{report:#}");
    assert!(report["read"]["sealed"].as_u64().is_some_and(|sealed| sealed > 5), "{report:#}");
    assert!(listed(&scene.walpoint, "verified_at")? && !listed(&scene.walpoint, "content_verified_at")?);
    Ok(())
}

/// Without the identity the stored bytes are read, and no more is said. In a directory nothing says of encrypted WAL
/// what was stored.
#[test]
fn without_the_key_the_stored_bytes_are_verified_and_that_is_said() -> Result<()> {
    let directory = |cluster: &Cluster| ArchivePlace::directory(cluster.scratch()).map(Some);
    let Some((scene, identity)) = encrypted(directory)? else { return Ok(()) };
    let without = scene.walpoint.run(&["verify"])?.success()?;
    for words in ["only the stored bytes were read", "only the length was checked"] {
        assert!(without.stdout.contains(words), "{without}");
    }
    assert!(!listed(&scene.walpoint, "verified_at")?);
    let with = scene.walpoint.with_config(|text| {
        text.replace("recipients", &format!("identity_file = \"{}\"\nrecipients", identity.file.display()))
    })?;
    with.run(&["verify", "--anew"])?.success()?;
    assert!(listed(&with, "content_verified_at")?);
    // A flipped bit shows without the key, too.
    let archive = scene.archive_directory()?.to_owned();
    let pack =
        named(&archive, "pack-000000-").into_iter().find(|it| it.extension().is_some_and(|it| it == "age"));
    flip_bit(&pack.context("a pack")?, 9000)?;
    scene.walpoint.run(&["verify", "--anew"])?.expect(5)?;
    Ok(())
}

/// An incremental backup names parts of frames, in packs of its own and in its parents'.
#[test]
fn a_chain_of_incremental_backups_is_verified_with_all_the_packs_that_it_names() -> Result<()> {
    let Some((mut scene, _, full)) = on_directory()? else { return Ok(()) };
    let mut chain = vec![full.clone()];
    for step in 1..=2 {
        scene.cluster.execute(&format!("update t set md5 = 'x' || md5 where n % 1000 = {step}"))?;
        scene.cluster.execute("checkpoint")?;
        let newest: Value = scene.walpoint.ok(&["--json", "backup", "--incremental"])?.json()?;
        assert_eq!((&newest["kind"], &newest["parent"]), (&json!("incr"), &json!(chain[step - 1])));
        chain.push(newest["id"].as_str().context("no id")?.to_owned());
    }
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let (status, report) = scene.walpoint.json(&["verify"])?;
    assert_eq!((status, report["sound"].as_bool()), (0, Some(true)), "{report:#}");
    assert_eq!(verified_at(&scene)?, [true; 4]);

    // A pack of the full one is one of all three; one of the last is its alone.
    let archive = scene.archive_directory()?.to_owned();
    let pack_of = |backup: &str| {
        let packs = named(&archive, "pack-").into_iter();
        let own = |file: &PathBuf| file.parent().is_some_and(|folder| folder.ends_with(backup));
        packs.filter(own).find(|file| file.extension().is_some_and(|it| it == "zst")).context("a pack")
    };
    for (damaged, lost) in [(0, 3), (2, 1)] {
        let pack = pack_of(&chain[damaged])?;
        flip_bit(&pack, 900)?;
        let (status, report) = scene.walpoint.json(&["verify", "--anew"])?;
        assert_eq!(status, 5, "{report:#}");
        let backups = report["findings"][0]["backups"].as_array().context("no backups")?;
        let named = |id: &String| backups.iter().any(|it| it == id.as_str());
        assert_eq!((backups.len(), chain.iter().skip(damaged).all(named)), (lost, true), "{report:#}");
        flip_bit(&pack, 900)?;
    }
    scene.walpoint.run(&["verify", "--anew"])?.success()?;
    Ok(())
}
