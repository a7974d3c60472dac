//! archive-push and archive-get, called as PostgreSQL calls them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::write_private;
use walpoint_tests::user::User;

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    Scene::on_directory(&postgres, ClusterOptions::default()).map(Some)
}

/// A finished segment that is archived, and a copy of its bytes.
fn archived_segment(scene: &Scene) -> Result<(String, Vec<u8>)> {
    scene.cluster.configure("wal_keep_size = '1GB'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    scene.cluster.execute("create table t as select g from generate_series(1, 1000) g")?;
    let segment = scene.archive_everything()?;
    let bytes = std::fs::read(scene.cluster.data().join("pg_wal").join(&segment))?;
    Ok((segment, bytes))
}

fn get(scene: &Scene, name: &str, to: &Path) -> Result<i32> {
    let to = to.to_str().unwrap();
    Ok(scene.walpoint.run_in(scene.cluster.data(), &["archive-get", name, to])?.code())
}

fn push(scene: &Scene, path: &Path) -> Result<walpoint_tests::process::Outcome> {
    scene.walpoint.run_in(scene.cluster.data(), &["archive-push", path.to_str().unwrap()])
}

/// A file in a `pg_wal` beside the cluster's own, so that the cluster is not
/// disturbed; the control file makes it the same cluster.
fn copy_of_cluster(scene: &Scene) -> Result<PathBuf> {
    let clone = scene.cluster.scratch().make_dir("clone")?;
    for directory in ["global", "pg_wal"] {
        walpoint_tests::scratch::make_private_dir(&clone.join(directory))?;
    }
    let control = clone.join("global/pg_control");
    std::fs::copy(scene.cluster.data().join("global/pg_control"), &control)?;
    User::current()?.own(&control)?;
    Ok(clone)
}

fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write_private(path, "")?;
    Ok(std::fs::write(path, bytes)?)
}

#[test]
fn what_was_pushed_comes_back_byte_for_byte() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let (segment, bytes) = archived_segment(&scene)?;
    let target = scene.cluster.data().join("pg_wal/RECOVERYXLOG");
    assert_eq!(get(&scene, &segment, Path::new("pg_wal/RECOVERYXLOG"))?, 0);
    assert_eq!(std::fs::read(&target)?, bytes);
    Ok(())
}

#[test]
fn what_never_existed_is_not_found_and_nothing_is_left_at_the_path() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let (segment, _) = archived_segment(&scene)?;
    let later = format!("{}{:08X}", &segment[..16], 0xF0);
    assert_eq!(get(&scene, &later, Path::new("pg_wal/RECOVERYXLOG"))?, 1);
    // Timeline 1 has no history file, ever; PostgreSQL asks for it all the same.
    assert_eq!(get(&scene, "00000001.history", Path::new("pg_wal/RECOVERYHISTORY"))?, 1);
    assert_eq!(get(&scene, "00000002.history", Path::new("pg_wal/RECOVERYHISTORY"))?, 1);
    assert!(!scene.cluster.data().join("pg_wal/RECOVERYXLOG").exists());
    Ok(())
}

#[test]
fn a_gap_is_not_the_end_of_the_archive() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let (segment, _) = archived_segment(&scene)?;
    scene.archive_everything()?;
    archive_files::remove(scene.archive_directory()?, &segment)?;
    assert_eq!(get(&scene, &segment, Path::new("pg_wal/RECOVERYXLOG"))?, 255);
    Ok(())
}

#[test]
fn the_same_file_again_is_success_and_another_content_is_refused() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    let (segment, bytes) = archived_segment(&scene)?;
    let clone = copy_of_cluster(&scene)?;
    let path = clone.join("pg_wal").join(&segment);
    write_bytes(&path, &bytes)?;
    push(&scene, &path)?.expect(0)?;

    // The same segment after a switch, with one byte of the unused rest set:
    // other content under a known name.
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    write_bytes(&path, &other)?;
    let refused = push(&scene, &path)?.expect(3)?;
    assert!(refused.stderr.contains("walpoint resolve"), "{refused}");

    // What was acknowledged first is what comes back, now and later.
    assert_eq!(get(&scene, &segment, Path::new("pg_wal/RECOVERYXLOG"))?, 0);
    assert_eq!(std::fs::read(scene.cluster.data().join("pg_wal/RECOVERYXLOG"))?, bytes);
    Ok(())
}

/// The mark of the content that was to be kept is back, or still there, after the decision: somebody else
/// decided too. Nothing is called decided that is not.
#[test]
fn a_decision_that_somebody_else_undid_is_3() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let scene = Scene::start(Cluster::init(&postgres, ClusterOptions::default())?, place)?;
    let (segment, mut bytes) = archived_segment(&scene)?;
    let path = copy_of_cluster(&scene)?.join("pg_wal").join(&segment);
    *bytes.last_mut().unwrap() ^= 1;
    write_bytes(&path, &bytes)?;
    push(&scene, &path)?.expect(3)?;
    let (_, listing) = scene.walpoint.json(&["list", "--wal", &segment])?;
    let contents = listing["contents"].as_array().context("no contents")?;
    let refused = contents.iter().find(|content| content["state"] == "refused");
    let keep = refused.and_then(|content| content["content"].as_str()).context("none is refused")?;

    proxy.add(Rule::new(Fault::status(204, "")).method("DELETE"));
    let outcome = scene.walpoint.run(&["resolve", &segment, "--keep", keep])?.expect(3)?;
    assert!(outcome.stderr.contains("refused again"), "{outcome}");
    proxy.clear();
    scene.walpoint.ok(&["resolve", &segment, "--keep", keep])?;
    assert_eq!(get(&scene, &segment, Path::new("pg_wal/RECOVERYXLOG"))?, 0);
    assert_eq!(std::fs::read(scene.cluster.data().join("pg_wal/RECOVERYXLOG"))?, bytes);
    Ok(())
}

#[test]
fn another_clusters_segment_and_a_wrong_name_are_refused() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let (segment, bytes) = archived_segment(&scene)?;
    let clone = copy_of_cluster(&scene)?;

    let wrong_name = format!("{}{:08X}", &segment[..16], 0xE0);
    let path = clone.join("pg_wal").join(&wrong_name);
    write_bytes(&path, &bytes)?;
    push(&scene, &path)?.expect(2)?;

    let mut foreign = Cluster::init(&scene.cluster.postgres, ClusterOptions::default())?;
    foreign.start()?;
    foreign.stop(Stop::Fast)?;
    let name = archive_files::named(&foreign.data().join("pg_wal"), "00000001").swap_remove(0);
    let theirs = std::fs::read(&name)?;
    let path = clone.join("pg_wal").join(name.file_name().unwrap());
    write_bytes(&path, &theirs)?;
    push(&scene, &path)?.expect(4)?;
    scene.cluster.stop(Stop::Fast)
}

#[test]
fn s3_keeps_the_same_promises() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let scene = Scene::on_garage(&postgres, garage, ClusterOptions::default())?;
    let (segment, bytes) = archived_segment(&scene)?;
    assert_eq!(get(&scene, &segment, Path::new("pg_wal/RECOVERYXLOG"))?, 0);
    assert_eq!(std::fs::read(scene.cluster.data().join("pg_wal/RECOVERYXLOG"))?, bytes);
    let later = format!("{}{:08X}", &segment[..16], 0xF0);
    assert_eq!(get(&scene, &later, Path::new("pg_wal/RECOVERYXLOG"))?, 1);
    Ok(())
}
