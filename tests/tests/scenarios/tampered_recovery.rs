//! The archive is damaged between a restore and the start of what it restored: recovery stops, never opens
//! short, and completes when the archive is whole again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walpoint_tests::age::Identity;
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::write_private;
use walpoint_tests::walpoint::ArchivePlace;

const REFUSAL_LIMIT: Duration = Duration::from_secs(90);
const SEGMENTS: usize = 5;

/// The object of a segment in the middle, and the one of the segment after it.
struct Victims {
    object: PathBuf,
    neighbour: PathBuf,
}

/// Damages an archive.
type Damage = fn(&Victims) -> Result<()>;

const DAMAGES: [(&str, Damage); 7] = [
    ("gone", |it| {
        std::fs::remove_file(&it.object)?;
        Ok(std::fs::remove_file(meta(&it.object))?)
    }),
    ("empty", |it| Ok(std::fs::write(&it.object, "")?)),
    ("truncated", |it| {
        let bytes = std::fs::read(&it.object)?;
        Ok(std::fs::write(&it.object, &bytes[..bytes.len() / 2])?)
    }),
    ("one bit flipped", |it| {
        let half = std::fs::metadata(&it.object)?.len() / 2;
        archive_files::flip_bit(&it.object, usize::try_from(half)?)
    }),
    ("content of another segment", |it| swap(&it.object, &it.neighbour)),
    ("object of another segment", |it| {
        swap(&it.object, &it.neighbour)?;
        swap(&meta(&it.object), &meta(&it.neighbour))
    }),
    ("metadata that lie", |it| {
        let text = std::fs::read_to_string(meta(&it.object))?;
        let lie = text.replace("\"commits\":\"", "\"commits\":\"9");
        ensure!(lie != text, "nothing to lie about in {text}");
        Ok(std::fs::write(meta(&it.object), lie)?)
    }),
];

fn meta(object: &Path) -> PathBuf {
    let mut path = object.as_os_str().to_owned();
    path.push(".meta");
    path.into()
}

fn swap(one: &Path, other: &Path) -> Result<()> {
    let (first, second) = (std::fs::read(one)?, std::fs::read(other)?);
    std::fs::write(one, second)?;
    Ok(std::fs::write(other, first)?)
}

#[test]
fn an_archive_that_was_tampered_with_stops_recovery_until_it_is_whole_again() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    let mut segments = Vec::new();
    for n in 1..=SEGMENTS {
        scene.cluster.execute(&format!("insert into t values ({n})"))?;
        segments.push(scene.archive_everything()?);
    }
    scene.cluster.stop(Stop::Fast)?;
    let object = |segment: &str| -> Result<PathBuf> {
        let files = archive_files::named(scene.archive_directory()?, segment);
        let object = files.into_iter().find(|path| path.extension().is_some_and(|it| it == "zst"));
        object.with_context(|| format!("no object of {segment}"))
    };
    let victims = Victims { object: object(&segments[2])?, neighbour: object(&segments[3])? };
    let sound = scene.cluster.scratch().path().join("sound");
    copy(scene.archive_directory()?, &sound)?;
    scene.walpoint =
        scene.walpoint.with_config(|text| text.replace("retry_for = \"20s\"", "retry_for = \"1s\""))?;

    for (name, damage) in DAMAGES {
        for by_hand in [false, true] {
            stops_and_completes(&mut scene, &sound, &|| damage(&victims), by_hand)
                .with_context(|| format!("{name}, by hand: {by_hand}"))?;
        }
    }
    Ok(())
}

/// WAL is sealed for one key and, from a moment on, for another: recovery is in its middle when it comes to
/// what the wrong identity does not open.
#[test]
fn a_wrong_key_in_mid_recovery_stops_it_until_the_right_one_is_back() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let directory = cluster.scratch().path();
    let Some(old) = Identity::generate(directory, "old.txt")? else { return Ok(()) };
    let Some(new) = Identity::generate(directory, "new.txt")? else { return Ok(()) };
    let both = directory.join("identity.txt");
    write_private(&both, &format!("{}{}", old.text(), new.text()))?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let mut scene = Scene::start(cluster, place)?;
    let recipients = |key: &Identity| format!("recipients = [\"{}\"]", key.recipient);
    scene.walpoint.configure(&format!(
        "[encryption]\nidentity_file = \"{}\"\n{}",
        both.display(),
        recipients(&old)
    ))?;
    scene.cluster.execute("create table t(n int)")?;
    scene.backup()?;
    for n in 1..=SEGMENTS {
        if n == SEGMENTS / 2 + 1 {
            let text = std::fs::read_to_string(&scene.walpoint.config)?;
            write_private(&scene.walpoint.config, &text.replace(&recipients(&old), &recipients(&new)))?;
        }
        scene.cluster.execute(&format!("insert into t values ({n})"))?;
        scene.archive_everything()?;
    }
    scene.cluster.stop(Stop::Fast)?;

    for by_hand in [false, true] {
        let mut restored =
            if by_hand { scene.restore_by_hand("latest")? } else { scene.restore(&["--latest"])? };
        write_private(&both, old.text())?;
        let log = restored.start_expect_fatal(REFUSAL_LIMIT)?;
        ensure!(log.contains("restored log file") && log.contains("FATAL"), "not in its middle: {log}");
        ensure!(log.contains("none of the identities opens it"), "that is not why: {log}");
        write_private(&both, &format!("{}{}", old.text(), new.text()))?;
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        let rows = restored.value("select count(*)::text from t")?;
        ensure!(rows == SEGMENTS.to_string(), "{rows} rows, by hand: {by_hand}");
        restored.stop(Stop::Immediate)?;
    }
    Ok(())
}

/// As `restore` sets it up, and with a `restore_command` written by hand and no target that would make
/// PostgreSQL itself refuse to open short.
fn stops_and_completes(
    scene: &mut Scene,
    sound: &Path,
    damage: &dyn Fn() -> Result<()>,
    by_hand: bool,
) -> Result<()> {
    let mut restored =
        if by_hand { scene.restore_by_hand("latest")? } else { scene.restore(&["--latest"])? };
    damage()?;
    let log = restored.start_expect_fatal(REFUSAL_LIMIT)?;
    ensure!(log.contains("FATAL"), "{log}");
    std::fs::remove_dir_all(scene.archive_directory()?)?;
    copy(sound, scene.archive_directory()?)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    let rows = restored.value("select count(*)::text from t")?;
    ensure!(rows == SEGMENTS.to_string(), "{rows} rows");
    restored.stop(Stop::Immediate)?;
    Ok(std::fs::remove_dir_all(restored.data())?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "could not copy {}", from.display());
    Ok(())
}
