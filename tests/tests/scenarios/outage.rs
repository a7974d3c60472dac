//! The store goes away in the middle of a recovery: PostgreSQL stops and can
//! be started again; it never opens early.

use std::time::Duration;

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};

/// Segments between the backup and the target: enough for a middle.
const SEGMENTS: usize = 6;
const ROWS_EACH: usize = 100;

struct Stage {
    scene: Scene,
    proxy: Proxy,
}

/// A cluster whose archive is behind the proxy, with a backup and then
/// `SEGMENTS` segments of one insert each.
fn stage() -> Result<Option<Stage>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let Some(garage) = Garage::shared()? else { return Ok(None) };
    let proxy = Proxy::start(garage.address())?;
    let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
    let mut scene = Scene::start(Cluster::init(&postgres, ClusterOptions::default())?, place)?;
    scene.cluster.execute("create table t(segment int, g int)")?;
    scene.backup()?;
    for number in 0..SEGMENTS {
        scene
            .cluster
            .execute(&format!("insert into t select {number}, g from generate_series(1, {ROWS_EACH}) g"))?;
        scene.archive_everything()?;
    }
    scene.cluster.stop(Stop::Fast)?;
    Ok(Some(Stage { scene, proxy }))
}

/// Restores with everything in order, breaks the store for the third segment
/// that recovery asks for, expects a refusal, mends it and expects every row.
///
/// Twice: as `restore` sets it up, and as an operator writes it, with no
/// target that would make PostgreSQL itself refuse to open short.
fn refuse_then_recover(fault: Fault) -> Result<()> {
    let Some(Stage { mut scene, proxy }) = stage()? else { return Ok(()) };
    let short =
        scene.walpoint.with_config(|text| text.replace("retry_for = \"20s\"", "retry_for = \"2s\""))?;
    scene.walpoint = short;
    for by_hand in [false, true] {
        let mut restored = match by_hand {
            false => scene.restore(&["--latest"])?,
            true => scene.restore_by_hand("latest")?,
        };
        proxy.forget_requests();
        proxy.add(Rule::new(fault.clone()).target("/wal/").after(6));
        let log = restored.start_expect_fatal(Duration::from_secs(150))?;
        assert!(log.contains("FATAL"), "{log}");
        assert!(proxy.requests().len() > 6, "recovery never came to the fault");

        proxy.clear();
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        let rows = restored.value("select count(*) from t")?;
        assert_eq!(rows, (SEGMENTS * ROWS_EACH).to_string(), "by hand: {by_hand}");
        restored.stop(Stop::Immediate)?;
    }
    Ok(())
}

#[test]
fn errors_of_the_server_stop_recovery() -> Result<()> {
    refuse_then_recover(Fault::status(503, "SlowDown"))
}

#[test]
fn a_denial_in_mid_recovery_stops_it() -> Result<()> {
    refuse_then_recover(Fault::status(403, "AccessDenied"))
}

#[test]
fn a_captive_portal_is_not_an_empty_archive() -> Result<()> {
    refuse_then_recover(Fault::Html)
}

#[test]
fn broken_connections_stop_recovery() -> Result<()> {
    refuse_then_recover(Fault::DropBefore)
}

#[test]
fn flipped_bits_never_reach_postgresql() -> Result<()> {
    refuse_then_recover(Fault::FlipBit(200))
}

#[test]
fn a_missing_bucket_is_not_an_empty_archive() -> Result<()> {
    refuse_then_recover(Fault::status(404, "NoSuchBucket"))
}

#[test]
fn a_store_that_refuses_connections_stops_recovery_and_a_short_outage_is_waited_out() -> Result<()> {
    let Some(Stage { mut scene, proxy }) = stage()? else { return Ok(()) };
    let mut restored = scene.restore(&["--latest"])?;
    proxy.take_down()?;
    restored.launch()?;
    // Within retry_for (20 s) the store comes back: recovery goes on as if
    // nothing had been.
    restored.wait_log("starting point-in-time recovery", RECOVERY_LIMIT)?;
    std::thread::sleep(Duration::from_secs(2));
    assert!(restored.is_running()? && !restored.is_open(), "{}", restored.log());
    proxy.bring_back()?;
    restored.wait_open(RECOVERY_LIMIT)?;
    assert_eq!(restored.value("select count(*) from t")?, (SEGMENTS * ROWS_EACH).to_string());
    Ok(())
}

/// A history that is taken for absent makes PostgreSQL give its number to another timeline. Asked for are the
/// one of the target's timeline, and at the end that of the next, which does not exist.
#[test]
fn a_history_that_cannot_be_had_stops_recovery_and_its_timeline_is_not_used_again() -> Result<()> {
    let Some(Stage { mut scene, proxy }) = stage()? else { return Ok(()) };
    let mut successor = scene.recover(&["--latest", "--take-over"])?;
    successor.execute("insert into t values (-1, -1)")?;
    successor.switch_and_wait_archived(RECOVERY_LIMIT)?;
    successor.stop(Stop::Fast)?;
    scene.walpoint =
        scene.walpoint.with_config(|text| text.replace("retry_for = \"20s\"", "retry_for = \"300ms\""))?;
    let faults = [Fault::status(503, "SlowDown"), Fault::status(403, "AccessDenied"), Fault::Html];
    for by_hand in [false, true] {
        let restore = |scene: &mut Scene| match by_hand {
            false => scene.restore(&["--latest"]),
            true => scene.restore_by_hand("latest"),
        };
        let mut restored = restore(&mut scene)?;
        for fault in &faults {
            for history in ["00000002.history", "00000003.history"] {
                proxy.add(Rule::new(fault.clone()).target(history));
                let log = restored.start_expect_fatal(Duration::from_secs(60))?;
                assert!(log.contains("FATAL"), "{fault:?} for {history}, by hand: {by_hand}\n{log}");
                proxy.clear();
            }
        }
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        let rows = restored.value("select count(*) from t")?;
        assert_eq!(rows, (SEGMENTS * ROWS_EACH + 1).to_string(), "by hand: {by_hand}");
        let writes = restored.value("select pg_walfile_name(pg_current_wal_lsn())")?;
        assert!(writes.starts_with("00000003"), "by hand: {by_hand}: {writes}");
        restored.stop(Stop::Immediate)?;
    }
    Ok(())
}

/// PostgreSQL asks for it again at the very end, when `recovery.signal` is gone: stopped there, it would come up
/// on the old timeline next time.
#[test]
fn the_targets_history_is_asked_of_the_archive_once_and_an_outage_after_that_changes_nothing() -> Result<()> {
    let Some(Stage { mut scene, proxy }) = stage()? else { return Ok(()) };
    let mut successor = scene.recover(&["--latest", "--take-over"])?;
    successor.execute("insert into t values (-1, -1)")?;
    successor.switch_and_wait_archived(RECOVERY_LIMIT)?;
    successor.stop(Stop::Fast)?;
    scene.walpoint =
        scene.walpoint.with_config(|text| text.replace("retry_for = \"20s\"", "retry_for = \"300ms\""))?;
    let mut restored = scene.restore(&["--latest"])?;
    // At the start PostgreSQL asks twice before it keeps the file, and each get is a listing and the object. That
    // there is no 00000003.history is told with a look into the others.
    proxy.add(Rule::new(Fault::status(503, "SlowDown")).target("00000002.history").after(5));
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    let writes = restored.value("select pg_walfile_name(pg_current_wal_lsn())")?;
    assert!(writes.starts_with("00000003"), "{writes}");
    restored.stop(Stop::Immediate)
}
