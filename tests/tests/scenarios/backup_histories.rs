//! A backup on a later timeline is none as long as the archive lacks the history that leads there.

use anyhow::Result;
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};

#[test]
fn a_backup_whose_timeline_nobody_can_find_is_not_complete() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let promoted = scene.recover(&["--latest", "--take-over"])?;
    let walpoint = scene.walpoint_for(&promoted)?;
    promoted.switch_and_wait_archived(RECOVERY_LIMIT)?;
    let archive = scene.archive_directory()?.to_path_buf();

    // It went astray after the timeline's first segment was pushed: pg_wal has it.
    archive_files::remove(&archive, "00000002.history")?;
    walpoint.ok(&["backup"])?;
    archive_files::remove(&archive, "00000002.history")?;

    // Nobody has it.
    let history = promoted.data().join("pg_wal/00000002.history");
    let aside = promoted.data().join("kept");
    std::fs::hard_link(&history, &aside)?;
    std::fs::remove_file(&history)?;
    let refused = walpoint.run(&["backup"])?.expect(1)?;
    assert!(refused.stderr.contains("lacks \"00000002.history\""), "{refused}");
    let (_, listing) = walpoint.json(&["list"])?;
    assert_eq!(listing["backups"].as_array().map(Vec::len), Some(2), "{listing}");

    std::fs::hard_link(&aside, &history)?;
    walpoint.ok(&["backup"])?;
    walpoint.ok(&["plan", "--latest", "--target-timeline", "2"])?;
    Ok(())
}
