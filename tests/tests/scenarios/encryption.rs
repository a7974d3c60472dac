//! The host that archives holds public keys only; the one that restores holds
//! the identity. Without it nothing comes out, and nothing is called absent.

use anyhow::Result;
use walpoint_tests::age::Identity;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::walpoint::ArchivePlace;

#[test]
fn an_encrypted_archive_comes_back_with_the_identity_and_only_with_it() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let archiving = cluster.archive_to(&place)?;
    let directory = cluster.scratch().path();
    let Some(identity) = Identity::generate(directory, "identity.txt")? else { return Ok(()) };
    let recipient = &identity.recipient;
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
        text.replace(&line, &format!("{line}\nidentity_file = \"{}\"", identity.file.display()))
    })?;
    let mut scene = Scene::of_parts(cluster, restoring, place);
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select count(*) from t")?, "2");
    restored.stop(Stop::Immediate)
}
