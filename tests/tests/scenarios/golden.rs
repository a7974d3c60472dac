//! The archive that the first version made restores with this one, and
//! PostgreSQL recovers from it.

use std::path::Path;

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::stage;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

#[test]
fn the_golden_archive_restores_to_its_end_and_to_a_restore_point() -> Result<()> {
    // What it holds is a cluster of this major.
    let Some(postgres) = programs::postgres(15)? else { return Ok(()) };
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1").canonicalize()?;
    // The copy is kept from run to run: named by the backup, so that it is this one's.
    let backup = std::fs::read_to_string(golden.join("backup_id"))?;
    let golden = stage::readable(&golden, &format!("golden-v1-{}", backup.trim()))?;
    let like = Cluster::init(&postgres, ClusterOptions::default())?;
    let place = ArchivePlace::Directory(golden.join("archive"));
    let walpoint = Walpoint::new(like.scratch(), &place, None)?;
    let identity = golden.join("identity");
    walpoint.configure(&format!("[encryption]\nidentity_file = \"{}\"", identity.display()))?;
    let mut scene = Scene::of_parts(like, walpoint, place);
    for (target, rows) in [(&["--latest"][..], "301 46150"), (&["--target-name", "two hundred"], "200 20100")]
    {
        let space = scene.fresh_directory();
        let mapping = format!("16384={}", space.display());
        let mut arguments = target.to_vec();
        arguments.extend(["--tablespace", mapping.as_str()]);
        let mut restored = scene.restore(&arguments)?;
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        assert_eq!(restored.value("select count(*) || ' ' || sum(n) from ledger")?, rows, "{target:?}");
        assert_eq!(restored.value("select count(*) from aside")?, "10");
        restored.stop(Stop::Immediate)?;
    }
    Ok(())
}
