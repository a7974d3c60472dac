//! A copy of a subscriber takes nothing from the publisher that the original should
//! get, until it takes the original's place.

use std::time::Duration;

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;

const WORKERS: &str = "show max_logical_replication_workers";

fn publisher(postgres: &Postgres) -> Result<Cluster> {
    let options = ClusterOptions { configuration: "wal_level = logical\n".to_owned(), ..Default::default() };
    let mut publisher = Cluster::init(postgres, options)?;
    publisher.start()?;
    publisher.execute("create table orders (n int primary key)")?;
    publisher.execute("create publication orders for table orders")?;
    Ok(publisher)
}

fn wait_rows(cluster: &Cluster, expected: &str) -> Result<()> {
    wait::until_true("the orders to arrive", Duration::from_secs(30), || {
        Ok(cluster.value("select count(*) from orders")? == expected)
    })
}

#[test]
fn a_copy_does_not_drain_the_originals_subscription_until_it_takes_over() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut publisher = publisher(&postgres)?;
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    let subscriber = &scene.cluster;
    subscriber.execute("create table orders (n int primary key)")?;
    subscriber.execute(&format!(
        "create subscription orders connection '{}' publication orders",
        publisher.connection("postgres")
    ))?;
    publisher.execute("insert into orders values (1), (2)")?;
    wait_rows(subscriber, "2")?;
    scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;

    // The original is down; what comes now waits in its slot.
    publisher.execute("insert into orders values (3)")?;
    let (_, plan) = scene.walpoint.json(&["plan", "--latest"])?;
    assert!(plan["notes"].to_string().contains("(orders)"), "{plan}");
    let mut copy = scene.recover(&["--latest"])?;
    assert_eq!(copy.value(WORKERS)?, "0");
    // Nobody connects: with no worker allowed there is not even a launcher that could.
    let launcher =
        "select count(*) from pg_stat_activity where backend_type = 'logical replication launcher'";
    assert_eq!(copy.value(launcher)?, "0");
    assert_eq!(publisher.value("select active::text from pg_replication_slots")?, "false");
    assert_eq!(copy.value("select count(*) from orders")?, "2");

    // ALTER SYSTEM writes the file anew without comments: our marks are gone.
    copy.execute("alter system set work_mem = '5MB'")?;
    let auto_conf = copy.data().join("postgresql.auto.conf");
    assert!(!std::fs::read_to_string(&auto_conf)?.contains("walpoint restore: begin"));
    let walpoint = scene.walpoint_for(&copy)?;
    walpoint.run(&["take-over"])?.expect(1)?;
    let text = std::fs::read_to_string(&auto_conf)?;
    for gone in ["recovery_target", "--contract", "max_logical_replication_workers"] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    assert!(text.contains("work_mem = '5MB'"), "{text}");
    copy.stop(Stop::Fast)?;
    copy.start_expect_ready(RECOVERY_LIMIT)?;
    walpoint.ok(&["take-over"])?;
    assert_ne!(copy.value(WORKERS)?, "0");
    wait_rows(&copy, "3")?;
    copy.stop(Stop::Fast)?;
    publisher.stop(Stop::Fast)
}
