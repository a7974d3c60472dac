//! The harness does what the scenarios believe it does.

use std::time::Duration;

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, LayoutKind, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;

#[test]
fn every_major_starts_stops_and_survives_a_kill() -> Result<()> {
    for major in programs::MAJORS {
        let Some(postgres) = programs::postgres(major)? else { continue };
        let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
        cluster.start()?;
        let version = cluster.value("show server_version_num")?;
        assert_eq!(version.parse::<u32>()? / 10000, major);
        cluster.execute("create table t as select 1 as a")?;
        cluster.kill()?;
        cluster.start()?;
        assert_eq!(cluster.value("select a from t")?, "1", "PostgreSQL {major}");
        cluster.stop(Stop::Fast)?;
    }
    Ok(())
}

#[test]
fn a_debian_layout_keeps_its_configuration_outside_the_data_directory() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options = ClusterOptions { layout: LayoutKind::Debian, ..ClusterOptions::default() };
    let mut cluster = Cluster::init(&postgres, options)?;
    cluster.start()?;
    assert!(!cluster.data().join("postgresql.conf").exists());
    assert_eq!(cluster.value("show data_directory")?, cluster.data().display().to_string());
    assert_ne!(
        cluster.value("show config_file")?,
        cluster.data().join("postgresql.conf").display().to_string()
    );
    Ok(())
}

#[test]
fn garage_keeps_a_bucket_across_a_restart() -> Result<()> {
    let Some(garage) = Garage::start()? else { return Ok(()) };
    let bucket = garage.bucket()?;
    garage.stop()?;
    garage.resume_server()?;
    assert!(garage.cli(&["bucket", "list"])?.stdout.contains(&bucket));
    garage.pause()?;
    garage.unpause()?;
    Ok(())
}

#[test]
fn a_server_that_cannot_recover_is_seen_to_refuse() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut cluster = Cluster::init(&postgres, ClusterOptions::default())?;
    std::fs::write(cluster.data().join("recovery.signal"), "")?;
    cluster.configure("restore_command = 'exit 255'")?;
    let log = cluster.start_expect_fatal(Duration::from_secs(60))?;
    assert!(log.contains("FATAL"), "{log}");
    Ok(())
}
