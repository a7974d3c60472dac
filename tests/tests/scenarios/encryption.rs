//! The host that archives holds public keys only; the one that restores holds
//! the identity. Without it nothing comes out, and nothing is called absent.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::process::run;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::write_private;
use walpoint_tests::walpoint::{ArchivePlace, CALL_LIMIT};

#[test]
fn an_encrypted_archive_comes_back_with_the_identity_and_only_with_it() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(keygen) = age_keygen()? else { return Ok(()) };
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let archiving = cluster.archive_to(&place)?;
    let (identity, recipient) = new_identity(&keygen, cluster.scratch().path())?;
    archiving.configure(&format!("[encryption]\nrecipients = [\"{recipient}\"]"))?;
    cluster.start()?;
    cluster.execute("create table t as select 'a secret that must not lie about' as words")?;
    archiving.ok(&["backup"])?;
    cluster.execute("insert into t values ('another one')")?;
    let segment = cluster.switch_and_wait_archived(walpoint_tests::scene::ARCHIVING_LIMIT)?;
    cluster.stop(Stop::Fast)?;

    // Listing needs no key; handing over WAL does, and says 255, never 1.
    archiving.ok(&["list"])?;
    archiving.run_in(cluster.data(), &["archive-get", &segment, "pg_wal/GOT"])?.expect(255)?;

    let restoring = archiving.with_config(|text| {
        let line = format!("recipients = [\"{recipient}\"]");
        text.replace(&line, &format!("{line}\nidentity_file = \"{}\"", identity.display()))
    })?;
    let mut scene = Scene::of_parts(cluster, restoring, place);
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select count(*) from t")?, "2");
    restored.stop(Stop::Immediate)
}

fn age_keygen() -> Result<Option<PathBuf>> {
    let path = Path::new("/usr/bin/age-keygen");
    if path.exists() { Ok(Some(path.to_owned())) } else { programs::missing("age is not installed") }
}

/// An identity file and its public key, by the stock tool.
fn new_identity(keygen: &Path, directory: &Path) -> Result<(PathBuf, String)> {
    let outcome = run(std::process::Command::new(keygen), CALL_LIMIT)?.success()?;
    let public = outcome.stdout.lines().find_map(|line| line.strip_prefix("# public key: "));
    let recipient = public.context("age-keygen printed no public key")?.to_owned();
    let file = directory.join("identity.txt");
    write_private(&file, &outcome.stdout)?;
    Ok((file, recipient))
}
