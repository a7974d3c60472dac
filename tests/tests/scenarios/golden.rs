//! The archive that the first version made restores with this one, and
//! PostgreSQL recovers from it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::stage;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

/// A folder of the golden archives, where the server's user can read it. The copy is kept from run to run: named by the
/// backup, so that it is this one's.
fn staged(name: &str) -> Result<(PathBuf, String)> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).canonicalize()?;
    let backup = std::fs::read_to_string(golden.join("backup_id"))?.trim().to_owned();
    Ok((stage::readable(&golden, &format!("golden-{name}-{backup}"))?, backup))
}

fn scene(like: Cluster, archive: PathBuf, identity: &Path) -> Result<Scene> {
    let place = ArchivePlace::Directory(archive);
    let walpoint = Walpoint::new(like.scratch(), &place, None)?;
    walpoint.configure(&format!("[encryption]\nidentity_file = \"{}\"", identity.display()))?;
    Ok(Scene::of_parts(like, walpoint, place))
}

fn must_restore(scene: &mut Scene, target: &[&str], rows: &str) -> Result<()> {
    let space = scene.fresh_directory();
    let mapping = format!("16384={}", space.display());
    let mut arguments = target.to_vec();
    arguments.extend(["--tablespace", mapping.as_str()]);
    let mut restored = scene.restore(&arguments)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) || ' ' || sum(n) from ledger")?, rows, "{target:?}");
    assert_eq!(restored.value("select count(*) from aside")?, "10");
    restored.stop(Stop::Immediate)
}

#[test]
fn the_golden_archive_restores_to_its_end_and_to_a_restore_point() -> Result<()> {
    // What it holds is a cluster of this major.
    let Some(postgres) = programs::postgres(15)? else { return Ok(()) };
    let (golden, _) = staged("v1")?;
    let like = Cluster::init(&postgres, ClusterOptions::default())?;
    let mut scene = scene(like, golden.join("archive"), &golden.join("identity"))?;
    must_restore(&mut scene, &["--latest"], "301 46150")?;
    must_restore(&mut scene, &["--target-name", "two hundred"], "200 20100")
}

/// It names packs of the full one, and of one in between that has expired.
#[test]
fn the_golden_incremental_backup_restores_to_its_end_and_to_that_of_wal() -> Result<()> {
    let Some(postgres) = programs::postgres(15)? else { return Ok(()) };
    let ((full, _), (added, id)) = (staged("v1")?, staged("v1-incremental")?);
    let like = Cluster::init(&postgres, ClusterOptions::default())?;
    let both = like.scratch().make_dir("both")?;
    for part in [&full, &added] {
        let copied = Command::new("cp").arg("-r").arg(part.join("archive")).arg(&both).status();
        ensure!(copied.context("run cp")?.success(), "could not copy {}", part.display());
    }
    let mut scene = scene(like, both.join("archive"), &full.join("identity"))?;
    must_restore(&mut scene, &["--target-immediate", "--backup", &id], "2302 21983548")?;
    must_restore(&mut scene, &["--latest"], "2303 21986548")
}
