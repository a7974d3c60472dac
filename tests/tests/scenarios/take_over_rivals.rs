//! Of two copies only one takes over: the other would archive different WAL
//! under the same names.

use anyhow::{Context, Result};
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::write_private;
use walpoint_tests::wait;

fn restart(cluster: &mut Cluster) -> Result<()> {
    cluster.stop(Stop::Fast)?;
    cluster.start_expect_ready(RECOVERY_LIMIT)
}

#[test]
fn the_second_of_two_copies_is_refused() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.backup()?;
    scene.cluster.execute("create table t as select 1 as n")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut one = scene.recover(&["--latest"])?;
    let mut two = scene.recover(&["--latest"])?;
    let (for_one, for_two) = (scene.walpoint_for(&one)?, scene.walpoint_for(&two)?);

    let first = for_one.run(&["take-over"])?.expect(1)?;
    assert!(first.stderr.contains("restart"), "{first}");
    assert_eq!(one.value("show archive_mode")?, "off");
    // From the first call on the timeline is taken, archiving or not.
    let refused = for_two.run(&["take-over"])?.expect(7)?;
    assert!(refused.stderr.contains("written by"), "{refused}");
    restart(&mut one)?;
    assert_eq!(one.value("show archive_mode")?, "on");
    let id = for_one.ok(&["take-over"])?.last_line()?.to_owned();
    for_one.run(&["check"])?.expect(0)?;

    for_two.run(&["take-over"])?.expect(7)?;
    restart(&mut two)?;
    assert_eq!(two.value("show archive_mode")?, "off", "a refusal changes nothing");
    let (_, list) = for_one.json(&["list"])?;
    let newest = list["backups"].as_array().and_then(|backups| backups.last());
    assert_eq!(newest.and_then(|backup| backup["id"].as_str()), Some(id.as_str()), "{list}");
    Ok(())
}

/// As docs/operating.md has it.
#[test]
fn the_primary_goes_on_where_a_copy_took_over_by_mistake() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.backup()?;
    scene.cluster.execute("create table t as select 'both' as who")?;
    scene.archive_everything()?;
    let mut copy = scene.recover(&["--latest"])?;
    let for_copy = scene.walpoint_for(&copy)?;
    for_copy.run(&["take-over"])?.expect(1)?;
    restart(&mut copy)?;
    for_copy.ok(&["take-over"])?;
    copy.execute("insert into t values ('copy')")?;
    copy.switch_and_wait_archived(RECOVERY_LIMIT)?;
    copy.stop(Stop::Fast)?;

    scene.cluster.execute("insert into t values ('primary')")?;
    scene.archive_everything()?;
    let outcome = scene.walpoint.run(&["check"])?.expect(2)?;
    assert!(outcome.stdout.contains("the archive follows timeline 2"), "{outcome}");

    let primary = &mut scene.cluster;
    primary.stop(Stop::Fast)?;
    let data = primary.data().to_owned();
    write_private(&data.join("recovery.signal"), "")?;
    let settings = std::fs::read_to_string(data.join("postgresql.auto.conf"))?;
    primary.override_settings(&format!(
        "restore_command = '{} archive-get %f %p'\nrecovery_target_timeline = 'current'",
        scene.walpoint.hook_prefix()
    ))?;
    primary.start_expect_ready(RECOVERY_LIMIT)?;
    write_private(&data.join("postgresql.auto.conf"), &settings)?;
    assert_eq!(primary.value("select count(*) from t where who = 'copy'")?, "0");
    scene.backup()?;
    scene.archive_everything()?;
    scene.walpoint.run(&["check"])?.expect(0)?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(who, ',' order by who) from t")?, "both,primary");
    restored.stop(Stop::Fast)
}

/// Both were to archive from their first record on, and their histories are the same to the byte: the first
/// segment behind the fork is where they part.
#[test]
fn of_two_copies_that_take_over_at_one_point_exactly_one_is_acknowledged() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t(who text)")?;
    scene.backup()?;
    scene.cluster.execute("insert into t values ('common')")?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut copies =
        [scene.restore(&["--latest", "--take-over"])?, scene.restore(&["--latest", "--take-over"])?];
    // Neither has archived its history when the other chooses its timeline.
    for copy in &mut copies {
        copy.override_settings("archive_command = 'false'")?;
        copy.launch()?;
    }
    for copy in &mut copies {
        copy.wait_open(RECOVERY_LIMIT)?;
    }
    let history = |copy: &Cluster| std::fs::read(copy.data().join("pg_wal/00000002.history"));
    assert_eq!(history(&copies[0])?, history(&copies[1])?, "the shape was not staged");

    let mut segments = Vec::new();
    for (number, copy) in copies.iter().enumerate() {
        copy.execute(&format!("insert into t values ('copy {number}')"))?;
        segments.push(copy.value("select pg_walfile_name(pg_switch_wal())")?);
    }
    assert_eq!(segments[0], segments[1], "the copies parted elsewhere");
    let push = format!("{} archive-push %p", scene.walpoint.hook_prefix());
    for copy in &copies {
        copy.execute(&format!("alter system set archive_command = '{push}'"))?;
        copy.execute("select pg_reload_conf()")?;
    }
    let acknowledged = |copy: &Cluster| -> Result<bool> {
        let last = copy.value("select coalesce(last_archived_wal, '') from pg_stat_archiver")?;
        Ok(last.as_str() >= segments[0].as_str())
    };
    let refused = |copy: &Cluster| copy.log().contains("walpoint resolve");
    let winner = wait::until("one to be acknowledged and the other refused", ARCHIVING_LIMIT, || {
        let of = |copy| -> Result<(bool, bool)> { Ok((acknowledged(copy)?, refused(copy))) };
        Ok(match (of(&copies[0])?, of(&copies[1])?) {
            ((true, false), (false, true)) => Some(0),
            ((false, true), (true, false)) => Some(1),
            _ => None,
        })
    })
    .with_context(|| format!("{}\n---\n{}", copies[0].log(), copies[1].log()))?;

    copies[winner].execute("insert into t values ('more')")?;
    copies[winner].switch_and_wait_archived(ARCHIVING_LIMIT)?;
    assert!(!acknowledged(&copies[1 - winner])?, "{}", copies[1 - winner].log());
    let histories = archive_files::named(scene.archive_directory()?, "00000002.history");
    assert_eq!(histories.len(), 2, "one, and its metadata: {histories:?}");
    for copy in &mut copies {
        copy.stop(Stop::Immediate)?;
    }
    let mut newest = scene.recover(&["--latest"])?;
    let rows = newest.value("select string_agg(who, ',' order by who) from t")?;
    assert_eq!(rows, format!("common,copy {winner},more"));
    newest.stop(Stop::Immediate)
}

#[test]
fn a_server_in_recovery_cannot_take_over() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut paused = scene.restore(&["--latest", "--target-action", "pause"])?;
    paused.launch()?;
    wait::until_true("recovery to pause", RECOVERY_LIMIT, || {
        Ok(paused.value("select pg_is_wal_replay_paused()::text").is_ok_and(|paused| paused == "true"))
    })?;
    let walpoint = scene.walpoint_for(&paused)?;
    let outcome = walpoint.run(&["take-over"])?.expect(2)?;
    assert!(outcome.stderr.contains("in recovery"), "{outcome}");
    let outcome = walpoint.run(&["backup"])?.expect(2)?;
    assert!(outcome.stderr.contains("in recovery"), "{outcome}");
    Ok(())
}
