//! `check` looks into the archive too: holes, damage and doubt among the WAL
//! since the last backup are critical, however fresh everything is.

use anyhow::{Context, Result};
use walpoint_tests::archive_files;
use walpoint_tests::cluster::ClusterOptions;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;

/// A cluster with a backup and three segments after it; the middle one is
/// named.
fn scene() -> Result<Option<(Scene, String)>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.backup()?;
    scene.archive_everything()?;
    let middle = scene.archive_everything()?;
    scene.archive_everything()?;
    scene.walpoint.run(&["check"])?.expect(0)?;
    Ok(Some((scene, middle)))
}

#[test]
fn a_segment_that_is_gone_is_a_gap_unless_it_may_be_on_its_way() -> Result<()> {
    let Some((scene, middle)) = scene()? else { return Ok(()) };
    archive_files::remove(scene.archive_directory()?, &middle)?;
    let patient = scene.walpoint.with_config(|text| format!("{text}\n[check]\nin_flight = \"1h\"\n"))?;
    patient.run(&["check"])?.expect(0)?;
    let sharp = scene.walpoint.with_config(|text| format!("{text}\n[check]\nin_flight = \"0s\"\n"))?;
    let outcome = sharp.run(&["check"])?.expect(2)?;
    assert!(outcome.stdout.contains(&format!("segment {middle} is missing")), "{outcome}");
    assert!(outcome.stdout.contains("gaps=1"), "{outcome}");
    let (status, report) = sharp.json(&["check"])?;
    assert_eq!((status, report["gaps"][0]["first"].as_str()), (2, Some(middle.as_str())), "{report}");
    assert_eq!(report["status"], "CRITICAL");
    Ok(())
}

#[test]
fn wal_that_was_damaged_before_it_was_archived_is_named() -> Result<()> {
    let Some((scene, _)) = scene()? else { return Ok(()) };
    let cluster = &scene.cluster;
    // Held back while a disk damages it.
    cluster.execute("alter system set archive_command = 'exit 1'")?;
    cluster.execute("select pg_reload_conf()")?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    cluster.execute("create table t as select n, repeat('x', 100) from generate_series(1, 3000) n")?;
    let segment = cluster.value("select pg_walfile_name(pg_switch_wal())")?;
    archive_files::flip_bit(&cluster.data().join("pg_wal").join(&segment), 100_000)?;
    cluster.execute("alter system reset archive_command")?;
    cluster.execute("select pg_reload_conf()")?;
    scene.archive_everything()?;
    scene.archive_everything()?;
    let outcome = scene.walpoint.run(&["check"])?.expect(2)?;
    assert!(outcome.stdout.contains(&format!("segment {segment} is damaged at 0/")), "{outcome}");
    assert!(outcome.stdout.contains("damaged_segments=1"), "{outcome}");
    let (_, wal) = scene.walpoint.json(&["list", "--wal"])?;
    let damaged = &wal["timelines"][0]["damaged"];
    assert_eq!(damaged[0]["segment"], segment.as_str(), "{wal:#}");
    assert!(damaged[0]["lsn"].as_str().is_some_and(|lsn| lsn.starts_with("0/")), "{wal:#}");
    let (_, window) = scene.walpoint.json(&["window"])?;
    let gap = &window["gaps"][0];
    assert_eq!(
        (&gap["timeline"], &gap["first"], &gap["last"]),
        (&1.into(), &segment.as_str().into(), &segment.as_str().into()),
        "{window:#}"
    );
    // A backup taken now begins behind the damage, and that is the way out.
    scene.backup()?;
    scene.walpoint.run(&["check"])?.expect(0)?;
    // Who wants to know of the WAL since the backup before that one still sees it.
    let further = scene.walpoint.with_config(|text| format!("{text}\n[check]\nlook_back = 2\n"))?;
    let outcome = further.run(&["check"])?.expect(2)?;
    assert!(outcome.stdout.contains(&format!("segment {segment} is damaged at 0/")), "{outcome}");
    Ok(())
}

#[test]
fn two_contents_without_a_decision_are_doubt() -> Result<()> {
    let Some((scene, middle)) = scene()? else { return Ok(()) };
    // A second variant, as two servers that raced could have left it.
    for object in archive_files::named(scene.archive_directory()?, &middle) {
        let name = object.file_name().and_then(|name| name.to_str()).context("a key is not UTF-8")?;
        let (segment, rest) = name.split_once('-').context("a key without a content id")?;
        let twin = format!("{segment}-0123456789abcdef{}", rest.get(16..).unwrap_or_default());
        std::fs::copy(&object, object.with_file_name(twin))?;
    }
    let outcome = scene.walpoint.run(&["check"])?.expect(2)?;
    for said in [middle.as_str(), "two contents", "conflicts=1"] {
        assert!(outcome.stdout.contains(said), "{said} is not said\n{outcome}");
    }
    let (_, wal) = scene.walpoint.json(&["list", "--wal"])?;
    assert_eq!(wal["timelines"][0]["conflicts"], serde_json::json!([middle]), "{wal:#}");
    Ok(())
}

#[test]
fn metadata_that_were_changed_in_the_archive_are_critical_and_name_the_object() -> Result<()> {
    let Some((scene, _)) = scene()? else { return Ok(()) };
    let newest = scene.archive_everything()?;
    let files = archive_files::named(scene.archive_directory()?, &newest);
    let metadata = files.iter().find(|file| file.to_string_lossy().ends_with(".zst.meta"));
    let metadata = metadata.with_context(|| format!("no metadata of {newest}: {files:?}"))?;
    let sound = std::fs::read_to_string(metadata)?;
    let changed = sound.replace("\"steps-back\":\"0\"", "\"steps-back\":\"1\"");
    assert_ne!(changed, sound);
    std::fs::write(metadata, changed)?;
    let outcome = scene.walpoint.run(&["check"])?.expect(2)?;
    assert!(outcome.stdout.contains(&newest), "{outcome}");
    assert!(outcome.stdout.contains("its metadata are not what was stored"), "{outcome}");
    let (_, report) = scene.walpoint.json(&["check"])?;
    let unreadable = &report["unreadable"][0];
    assert!(unreadable["object"].as_str().is_some_and(|object| object.contains(&newest)), "{report:#}");
    assert!(unreadable["reason"].as_str().is_some_and(|reason| reason.contains("metadata")), "{report:#}");
    let said = scene.walpoint.run(&["plan", "--latest"])?.expect(6)?;
    assert!(said.stderr.contains(&newest) || said.stdout.contains(&newest), "{said}");
    std::fs::write(metadata, sound)?;
    scene.walpoint.run(&["check"])?.expect(0)?;
    Ok(())
}
