//! What happens on the way into the archive: files that are offered again, two
//! that archive one history, a store that stumbles.

use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::cluster::{Cluster, ClusterOptions, SUPERUSER, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::proxy::{Fault, Proxy, Rule};
use walpoint_tests::scene::{ARCHIVING_LIMIT, RECOVERY_LIMIT, Scene};
use walpoint_tests::wait;
use walpoint_tests::{archive_files, programs};

fn options() -> ClusterOptions {
    ClusterOptions { configuration: "wal_keep_size = '1GB'".into(), ..ClusterOptions::default() }
}

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    let scene = Scene::on_directory(&postgres, options())?;
    scene.cluster.execute("create table t(who text, n int)")?;
    Ok(Some(scene))
}

#[test]
fn what_is_offered_again_after_a_crash_is_acknowledged_again() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let mut segments = Vec::new();
    for n in 1..=3 {
        scene.cluster.execute(&format!("insert into t values ('primary', {n})"))?;
        segments.push(scene.archive_everything()?);
    }
    scene.cluster.kill()?;
    // What the server knew of them went down with the machine.
    let status = scene.cluster.data().join("pg_wal/archive_status");
    for segment in &segments {
        rustix::fs::rename(status.join(format!("{segment}.done")), status.join(format!("{segment}.ready")))?;
    }
    scene.cluster.start()?;
    for segment in &segments {
        let done = status.join(format!("{segment}.done"));
        wait::until_true(&format!("{segment} to be archived again"), ARCHIVING_LIMIT, || Ok(done.exists()))?;
    }
    assert_eq!(scene.cluster.value("select failed_count::text from pg_stat_archiver")?, "0");
    Ok(())
}

/// A disk tore them: the next segment begins a new run, and waits for nobody to mend them.
#[test]
fn torn_metadata_of_a_segment_do_not_hold_back_the_next() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    scene.cluster.execute("insert into t values ('primary', 1)")?;
    let torn = scene.archive_everything()?;
    let beside = archive_files::named(scene.archive_directory()?, &torn);
    let metadata = beside.iter().find(|file| file.extension().is_some_and(|it| it == "meta"));
    std::fs::write(metadata.context("no metadata")?, "{")?;
    scene.cluster.execute("insert into t values ('primary', 2)")?;
    let next = scene.archive_everything()?;
    anyhow::ensure!(next > torn, "{next} is not behind {torn}");
    Ok(())
}

#[test]
fn a_standby_that_archives_too_is_no_conflict() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    let primary = format!("host={} port=5432 user={SUPERUSER}", scene.cluster.socket_directory().display());
    let mut standby = scene.restore(&["--standby", "--primary-conninfo", &primary])?;
    standby.override_settings(&format!(
        "archive_mode = always\narchive_command = '{} archive-push %p'",
        scene.walpoint.hook_prefix()
    ))?;
    standby.launch()?;
    let streams = "select count(*)::text from pg_stat_wal_receiver where status = 'streaming'";
    wait::until_true("the standby to stream", RECOVERY_LIMIT, || {
        Ok(standby.value(streams).is_ok_and(|receivers| receivers == "1"))
    })
    .with_context(|| standby.log())?;
    let mut last = String::new();
    for n in 1..=4 {
        scene.cluster.execute(&format!("insert into t values ('primary', {n})"))?;
        last = scene.archive_everything()?;
    }
    wait::until_true("the standby to archive it as well", ARCHIVING_LIMIT, || {
        let query = "select coalesce(last_archived_wal, '') from pg_stat_archiver";
        Ok(standby.value(query)?.get(..24).is_some_and(|name| name >= last.as_str()))
    })
    .with_context(|| standby.log())?;
    for cluster in [&scene.cluster, &standby] {
        assert_eq!(
            cluster.value("select failed_count::text from pg_stat_archiver")?,
            "0",
            "{}",
            cluster.log()
        );
    }
    let (_, listing) = scene.walpoint.json(&["list", "--wal"])?;
    assert_eq!(listing["timelines"][0]["conflicts"].as_array().map(Vec::len), Some(0), "{listing}");
    standby.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select count(*)::text from t")?, "4");
    restored.stop(Stop::Immediate)
}

/// Two clusters of one history, of which now this one archived and now that one: every name has one
/// content only, and still they are no history that anybody wrote.
#[test]
fn segments_of_two_clusters_in_turn_are_never_replayed_as_one() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.cluster.stop(Stop::Fast)?;
    let directory = scene.fresh_directory();
    let copied =
        std::process::Command::new("cp").arg("-a").arg(scene.cluster.data()).arg(&directory).status()?;
    assert!(copied.success());
    let mut clone = Cluster::restored(&directory, &scene.cluster)?;
    clone.override_settings("archive_command = 'false'")?;

    scene.cluster.start()?;
    clone.start_expect_ready(RECOVERY_LIMIT)?;
    scene.cluster.execute("insert into t values ('primary', 1)")?;
    let first = scene.archive_everything()?;
    // More than the primary wrote, so that the records do not lie at the same places.
    clone.execute("insert into t select 'clone', g from generate_series(1, 50) g")?;
    assert_eq!(clone.value("select pg_walfile_name(pg_switch_wal())")?, first, "they diverged elsewhere");
    clone.execute("insert into t values ('clone', 2)")?;
    let second = clone.value("select pg_walfile_name(pg_switch_wal())")?;
    clone.stop(Stop::Immediate)?;
    let walpoint = scene.walpoint_for(&clone)?;
    let file = format!("pg_wal/{second}");
    walpoint.run_in(clone.data(), &["archive-push", &file])?.expect(0)?;

    // Both names are there once, and the plan ends where the primary's own WAL does.
    let (status, plan) = scene.walpoint.json(&["plan", "--latest"])?;
    assert_eq!(status, 6, "{plan}");
    assert!(plan["reason"].as_str().is_some_and(|reason| reason.contains(&second)), "{plan}");
    // The primary's own is refused by then, and the operator decides for it.
    scene.cluster.execute("insert into t values ('primary', 2)")?;
    let own = scene.cluster.value("select pg_walfile_name(pg_switch_wal())")?;
    assert_eq!(own, second);
    scene.cluster.wait_log("walpoint resolve", ARCHIVING_LIMIT)?;
    let (_, listing) = scene.walpoint.json(&["list", "--wal", &second])?;
    let contents = listing["contents"].as_array().context("no contents")?;
    let ours = contents.iter().find(|content| content["state"] == "refused");
    let keep = ours.and_then(|ours| ours["content"].as_str()).context("ours is not listed as refused")?;
    scene.walpoint.ok(&["resolve", &second, "--keep", keep])?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(who || n, ',' order by n) from t")?, "primary1,primary2");
    restored.stop(Stop::Immediate)
}

/// A finished segment of a cluster that does not archive by itself, before a store behind a proxy.
struct Stage {
    scene: Scene,
    proxy: Proxy,
    segment: String,
}

impl Stage {
    fn new(deadline: &str) -> Result<Option<Stage>> {
        let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
        let Some(garage) = Garage::shared()? else { return Ok(None) };
        let proxy = Proxy::start(garage.address())?;
        let place = garage.archive_in(&garage.bucket()?, &proxy.endpoint());
        let mut scene = Scene::start(Cluster::init(&postgres, options())?, place)?;
        scene.walpoint = scene.walpoint.with_config(|text| {
            text.replace("[archive]\n", "[archive]\nrequest_timeout = \"1s\"\n")
                + &format!("[archive_push]\ndeadline = \"{deadline}\"\n")
        })?;
        scene.cluster.execute("alter system set archive_command = 'false'")?;
        scene.cluster.execute("select pg_reload_conf()")?;
        scene.cluster.execute("create table t as select g from generate_series(1, 1000) g")?;
        let segment = scene.cluster.value("select pg_walfile_name(pg_switch_wal())")?;
        scene.cluster.stop(Stop::Immediate)?;
        proxy.forget_requests();
        Ok(Some(Stage { scene, proxy, segment }))
    }

    fn push(&self) -> Result<walpoint_tests::process::Outcome> {
        let file = format!("pg_wal/{}", self.segment);
        self.scene.walpoint.run_in(self.scene.cluster.data(), &["archive-push", &file])
    }

    /// What is fetched is what lies in `pg_wal`.
    fn assert_archived(&self) -> Result<()> {
        let data = self.scene.cluster.data();
        let there = self.scene.walpoint.run_in(data, &["archive-get", &self.segment, "pg_wal/fetched"])?;
        there.expect(0)?;
        let pg_wal = data.join("pg_wal");
        let fetched = std::fs::read(pg_wal.join("fetched"))?;
        assert!(fetched == std::fs::read(pg_wal.join(&self.segment))?, "other bytes than were pushed");
        Ok(())
    }
}

#[test]
fn a_put_that_lands_after_its_retry_is_one_object_and_no_conflict() -> Result<()> {
    let Some(stage) = Stage::new("20s")? else { return Ok(()) };
    // Given up after a second, it is on its way all the same.
    stage.proxy.add(Rule::new(Fault::Delay(Duration::from_secs(3))).method("PUT").target("/wal/").times(1));
    stage.push()?.expect(0)?;
    stage.assert_archived()?;
    std::thread::sleep(Duration::from_secs(3));
    stage.assert_archived()?;
    stage.push()?.expect(0)?;
    let (_, listing) = stage.scene.walpoint.json(&["list", "--wal", &stage.segment])?;
    assert_eq!(listing["contents"].as_array().map(Vec::len), Some(1), "{listing}");
    Ok(())
}

#[test]
fn a_storm_of_errors_ends_at_the_deadline_and_the_next_try_succeeds() -> Result<()> {
    let Some(stage) = Stage::new("4s")? else { return Ok(()) };
    for (status, code) in [(503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError")] {
        stage.proxy.add(Rule::new(Fault::status(status, code)));
        let refused = stage.push()?.expect(1)?;
        assert!(refused.stderr.contains(&stage.segment), "{refused}");
        stage.proxy.clear();
    }
    // A few errors are waited out.
    stage.proxy.add(Rule::new(Fault::status(503, "SlowDown")).times(3));
    stage.push()?.expect(0)?;
    stage.assert_archived()
}

#[test]
fn a_token_that_ran_out_is_a_refusal_that_says_so_and_a_skewed_clock_is_tried_again() -> Result<()> {
    let Some(stage) = Stage::new("4s")? else { return Ok(()) };
    stage.proxy.add(Rule::new(Fault::status(403, "ExpiredToken")));
    let refused = stage.push()?.expect(1)?;
    assert!(refused.stderr.contains("ExpiredToken") && refused.stderr.contains("hint:"), "{refused}");
    stage.proxy.clear();
    stage.proxy.add(Rule::new(Fault::status(403, "RequestTimeTooSkewed")).times(1));
    stage.push()?.expect(0)?;
    stage.assert_archived()
}
