//! The archive outlives the program: an encrypted incremental backup with a tablespace is
//! rebuilt by python3, zstd and age alone, and PostgreSQL recovers from it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use walpoint_tests::age::Identity;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::process::run;
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::write_private;
use walpoint_tests::stage;
use walpoint_tests::user::User;
use walpoint_tests::walpoint::{ArchivePlace, CALL_LIMIT};

#[test]
fn stock_tools_rebuild_an_encrypted_cluster_with_a_tablespace() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    if ["zstd", "age", "age-keygen", "python3"].iter().any(|tool| !Path::new("/usr/bin").join(tool).exists())
    {
        programs::missing::<()>("zstd, age and python3 are not all installed")?;
        return Ok(());
    }
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let walpoint = cluster.archive_to(&place)?;
    let Some(identity) = Identity::generate(cluster.scratch().path(), "identity.txt")? else { return Ok(()) };
    walpoint.configure(&format!("[encryption]\nrecipients = [\"{}\"]", identity.recipient))?;
    cluster.start()?;
    let old = cluster.scratch().make_dir("space")?;
    cluster.execute(&format!("create tablespace space location '{}'", old.display()))?;
    cluster.execute("create table aside tablespace space as select g from generate_series(1, 1000) g")?;
    let mut scene = Scene::of_parts(cluster, walpoint, place);
    scene.backup()?;
    // An incremental one, of which most lies in the packs of the first.
    scene.cluster.execute("update aside set g = g + 10000 where g % 100 = 7")?;
    let backup = scene.walpoint.ok(&["backup", "--incremental"])?.last_line()?.to_owned();
    assert!(backup.contains("-incr-"), "{backup}");
    scene.cluster.execute("insert into aside select g from generate_series(1001, 1500) g")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    let new = scene.cluster.scratch().path().join("new-space");
    let data = scene.fresh_directory();
    let wal = scene.cluster.scratch().path().join("wal");
    let mut rescue = User::current()?.command(&script()?);
    rescue.arg(scene.archive_directory()?).arg(&backup).arg(&data).arg("--identity").arg(&identity.file);
    rescue.arg("--wal").arg(&wal).arg("--tablespace").arg(format!("{}={}", old.display(), new.display()));
    run(rescue, CALL_LIMIT)?.success()?;

    let mut rescued = Cluster::restored(&data, &scene.cluster)?;
    let restore = format!("restore_command = 'cp \"{}/%f\" \"%p\"'\narchive_mode = off\n", wal.display());
    rescued.override_settings(&restore)?;
    write_private(&data.join("recovery.signal"), "")?;
    rescued.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(rescued.value("select count(*) || ' ' || sum(g) from aside")?, "1500 1225750");
    let place =
        rescued.value("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'space'")?;
    assert_eq!(place, new.display().to_string());
    rescued.stop(Stop::Immediate)
}

fn script() -> Result<PathBuf> {
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/rescue").canonicalize()?;
    let digest = std::fs::metadata(&original)?.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_nanos();
    stage::readable(&original, &format!("rescue-{digest}"))
}
