//! `init --apply` sets up a cluster that does not archive yet; after the restart that it asks for, it does.

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::ARCHIVING_LIMIT;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

#[test]
fn a_cluster_archives_after_init_apply_and_the_restart_that_it_asks_for() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    cluster.start()?;
    let place = ArchivePlace::Directory(cluster.scratch().path().join("made by init"));
    let walpoint = Walpoint::new(cluster.scratch(), &place, Some(&cluster))?;
    std::fs::remove_file(&walpoint.config)?;
    // ALTER SYSTEM takes a superuser.
    let asked = walpoint.with_environment("WALPOINT_POSTGRES_CONNECTION", &cluster.connection("postgres"));
    let url = format!("file://{}/made by init", cluster.scratch().path().display());
    let data = cluster.data().display().to_string();

    let said = asked.ok(&["init", "--apply", "--url", &url, "--data-directory", &data])?.stdout;
    assert!(said.contains("set in the running cluster"), "{said}");
    assert!(said.contains("archive_mode takes effect when PostgreSQL is restarted"), "{said}");
    let (_, again) = asked.json(&["init", "--apply"])?;
    assert_eq!((&again["applied"], &again["restart_needed"]), (&true.into(), &true.into()), "{again}");
    let set = std::fs::read_to_string(cluster.data().join("postgresql.auto.conf"))?;
    assert!(set.contains("archive_mode = 'on'") && set.contains("archive-push %p"), "by ALTER SYSTEM: {set}");
    assert_eq!(cluster.value("show archive_mode")?, "off");

    cluster.stop(Stop::Fast)?;
    cluster.start()?;
    cluster.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    let (_, now) = asked.json(&["init", "--apply"])?;
    assert_eq!(now["restart_needed"], false, "{now}");
    walpoint.ok(&["backup"])?;
    cluster.stop(Stop::Fast)
}
