//! The harness does what the scenarios believe it does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, LayoutKind, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::ledger::Ledger;
use walpoint_tests::oracle::{Oracle, OracleTarget};
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::{programs, wal_dump};

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

#[test]
fn the_ledger_and_the_wal_agree_after_a_crash() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let options =
        ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() };
    let mut cluster = Cluster::init(&postgres, options)?;
    cluster.start()?;
    let start = wal_dump::parse_lsn(&cluster.value("select pg_current_wal_insert_lsn()::text")?).unwrap();
    let ledger = Ledger::start(&cluster, 4, 7)?;
    ledger.wait_for_commits(300, Duration::from_secs(60))?;
    cluster.kill()?;
    let notes = ledger.abandon()?;
    // Before it runs again: the number of a transaction that left nothing in the WAL may be given to another one.
    let oracle = Oracle::read(&cluster, notes, start)?;
    cluster.start()?;
    oracle.judge(&cluster, &OracleTarget::Latest)?;
    // A judge that accepts everything would be worse than none.
    let middle = oracle.ledger_commits()[100].time;
    let earlier = OracleTarget::Time { at: middle, exclusive: false };
    assert!(oracle.judge(&cluster, &earlier).is_err());
    Ok(())
}

#[test]
fn the_proxy_breaks_what_it_is_told_to_and_nothing_else() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let proxy = Proxy::start(garage.address())?;
    let status = |target: &str| http_get(&proxy, target).map(|reply| reply.0);
    // Garage itself refuses an unsigned request.
    assert_eq!(status("/bucket/one")?, 403);
    proxy.add(Rule::new(Fault::status(503, "SlowDown")).target("/one").after(1).times(1));
    proxy.add(Rule::new(Fault::DropAfter).target("/two"));
    proxy.add(Rule::new(Fault::Truncate(10)).target("/three"));
    proxy.add(Rule::new(Fault::FlipBit(0)).target("/four"));
    assert_eq!(status("/bucket/one")?, 403);
    assert_eq!(status("/bucket/one")?, 503);
    assert_eq!(status("/bucket/one")?, 403);
    assert!(status("/bucket/two").is_err());
    assert_eq!(http_get(&proxy, "/bucket/three")?.1.len(), 10);
    let (_, whole) = http_get(&proxy, "/bucket/five")?;
    let (_, flipped) = http_get(&proxy, "/bucket/four")?;
    assert_eq!(whole.as_bytes()[0] ^ 0x10, flipped.as_bytes()[0]);
    assert_eq!(proxy.count("GET", "/one"), 4);

    proxy.take_down()?;
    assert!(status("/bucket/one").is_err());
    proxy.bring_back()?;
    assert_eq!(status("/bucket/one")?, 403);
    Ok(())
}

/// Status and body of an unsigned request on a connection of its own.
fn http_get(proxy: &Proxy, target: &str) -> Result<(u16, String)> {
    let address = proxy.endpoint();
    let address = address.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply).into_owned();
    let status = reply.split(' ').nth(1).context("no status line")?.parse()?;
    Ok((status, reply.split_once("\r\n\r\n").context("no body")?.1.to_owned()))
}
