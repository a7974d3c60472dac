//! Root restores for the owner of the directory above: PostgreSQL starts on it as that user, who can read all
//! of it. Without root there is nothing to try.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::process::run;
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::user::User;
use walpoint_tests::walpoint::CALL_LIMIT;

#[test]
fn what_root_restores_belongs_to_the_owner_of_the_directory_above() -> Result<()> {
    let user = User::current()?;
    if !user.dropped {
        println!("skipped: only root can restore for another user");
        return Ok(());
    }
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select generate_series(1, 1000) n")?;
    scene.backup()?;
    scene.cluster.execute("insert into t values (1001)")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let directory = scene.fresh_directory();
    let mut as_root = Command::new(scene.walpoint.binary());
    as_root.arg("--config").arg(&scene.walpoint.config).args(["restore", "--latest", "--data-directory"]);
    as_root.arg(&directory);
    let said = run(as_root, CALL_LIMIT)?.success()?;
    assert!(said.stdout.contains(&user.name), "the start command is for that user\n{said}");
    assert!(all_belong_to(&directory, user.uid)? > 100);

    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, "1001");
    restored.stop(Stop::Fast)
}

fn all_belong_to(directory: &Path, uid: u32) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata().with_context(|| path.display().to_string())?;
        assert_eq!(metadata.uid(), uid, "{}", path.display());
        count += 1 + if metadata.is_dir() { all_belong_to(&path, uid)? } else { 0 };
    }
    Ok(count)
}
