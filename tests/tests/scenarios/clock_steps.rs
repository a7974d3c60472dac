//! A server's clock that goes back gives a time two readings: the plan names both and takes neither, and what
//! has one reading is recovered to as PostgreSQL would. And archiving goes on through every step.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walpoint_tests::agent::Agent;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Sql, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::programs;
use walpoint_tests::scene::{ARCHIVING_LIMIT, Scene};
use walpoint_tests::scratch::Scratch;
use walpoint_tests::wait;
use walpoint_tests::walpoint::{ArchivePlace, Walpoint};

/// The time of a server, set while it runs.
struct Clock {
    offset: PathBuf,
    /// What makes a server go by it.
    environment: Vec<(String, String)>,
    _scratch: Scratch,
}

impl Clock {
    /// None, said aloud, where libfaketime is not installed.
    fn new() -> Result<Option<Clock>> {
        let Some(library) = library()? else {
            return programs::missing(
                "libfaketime is not installed (package faketime; scripts/install tools)",
            );
        };
        let scratch = Scratch::new("clock")?;
        let offset = scratch.path().join("offset");
        let environment = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let clock = Clock { offset, environment, _scratch: scratch };
        clock.set("+0")?;
        Ok(Some(clock))
    }

    fn set(&self, offset: &str) -> Result<()> {
        let new = self.offset.with_extension("new");
        walpoint_tests::scratch::write_private(&new, &format!("{offset}\n"))?;
        rustix::fs::rename(&new, &self.offset).context("set the clock")
    }
}

fn library() -> Result<Option<PathBuf>> {
    for directory in std::fs::read_dir("/usr/lib").context("read /usr/lib")? {
        let library = directory?.path().join("faketime/libfaketime.so.1");
        if library.exists() {
            return Ok(Some(library));
        }
    }
    Ok(Some(PathBuf::from("/usr/lib/faketime/libfaketime.so.1")).filter(|it: &PathBuf| Path::exists(it)))
}

/// Inserts the number; returns when it was committed, by the server's clock.
fn commit(sql: &Sql, number: u32) -> Result<String> {
    sql.execute(&format!("insert into t values ({number})"))?;
    sql.value(&format!("select pg_xact_commit_timestamp(xmin)::text from t where n = {number}"))
}

#[test]
fn a_clock_that_went_back_gives_two_readings_and_neither_is_guessed() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let environment = clock.environment.clone();
    let cluster = Cluster::init(&postgres, ClusterOptions { environment, ..Default::default() })?;
    let place = ArchivePlace::directory(cluster.scratch())?;
    let mut scene = Scene::start(cluster, place)?;
    scene.cluster.execute("create table t (n int)")?;
    scene.backup()?;
    let sql = scene.cluster.sql()?;
    let before = commit(&sql, 1)?;
    clock.set("+2h")?;
    commit(&sql, 2)?;
    let highest = commit(&sql, 3)?;
    clock.set("+1h")?;
    let lower = commit(&sql, 4)?;
    let lsn = sql.value("select pg_current_wal_insert_lsn()")?;
    commit(&sql, 5)?;
    clock.set("+3h")?;
    commit(&sql, 6)?;
    drop(sql);
    scene.cluster.switch_and_wait_archived(ARCHIVING_LIMIT)?;
    assert!(before < lower && lower < highest, "the clock did not step: {before} {lower} {highest}");

    // PostgreSQL would stop before 2 or before 5, by the backup that it begins with.
    let ambiguous = scene.walpoint.run(&["plan", "--target-time", &lower])?.expect(6)?;
    let said = format!("{}{}", ambiguous.stdout, ambiguous.stderr);
    assert!(said.contains("came twice") && said.matches("--target-lsn").count() >= 2, "{said}");
    for (target, rows) in [
        (["--target-time", before.as_str()], "1"),
        (["--target-time", highest.as_str()], "1,2,3,4,5"),
        (["--target-lsn", lsn.as_str()], "1,2,3,4"),
    ] {
        let mut restored = scene.recover(&target)?;
        let found = restored.value("select string_agg(n::text, ',' order by n) from t")?;
        assert_eq!(found, rows, "{target:?}");
        restored.stop(Stop::Fast)?;
    }
    scene.cluster.stop(Stop::Fast)
}

/// An hour forth and two back, which is more than any store accepts of a signature.
#[test]
fn an_agent_archives_whatever_its_clock_does() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(clock) = Clock::new()? else { return Ok(()) };
    let environment = clock.environment.clone();
    let cluster = Cluster::init(&postgres, ClusterOptions { environment, ..Default::default() })?;
    let place = garage.archive_in(&garage.bucket()?, &garage.endpoint());
    let mut scene = Scene::start(cluster, place)?;
    scene.cluster.execute("create table t (n int)")?;
    scene.backup()?;
    let by_clock =
        |walpoint: Walpoint, (name, value): &(String, String)| walpoint.with_environment(name, value);
    let walpoint = clock.environment.iter().fold(scene.walpoint.clone(), by_clock);
    let agent = Agent::start(&walpoint, &scene.cluster)?;
    for (number, offset) in ["+0", "+1h", "-1h", "+0"].into_iter().enumerate() {
        clock.set(offset)?;
        scene.cluster.execute(&format!("insert into t values ({number})"))?;
        let segment = scene.cluster.value("select pg_walfile_name(pg_switch_wal())")?;
        let done = scene.cluster.data().join(format!("pg_wal/archive_status/{segment}.done"));
        wait::until_true("the segment to be archived", ARCHIVING_LIMIT, || Ok(done.exists()))
            .with_context(|| format!("{offset}\n{}", agent.log()))?;
        agent.wait_status("the agent to be well", ARCHIVING_LIMIT, |report| {
            report["failing_seconds"].is_null() && report["waiting"]["files"] == 0
        })?;
    }
    agent.kill()?;
    scene.cluster.stop(Stop::Fast)?;
    let mut restored = scene.recover(&["--latest"])?;
    assert_eq!(restored.value("select string_agg(n::text, ' ' order by n) from t")?, "0 1 2 3");
    restored.stop(Stop::Immediate)
}
