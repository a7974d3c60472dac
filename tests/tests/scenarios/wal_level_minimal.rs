//! A server that ran with `wal_level = minimal` for a while: PostgreSQL does not recover across that, and
//! walpoint says so before anything is written.

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};

const ROWS: &str = "select string_agg(n::text, ' ' order by n) from t";

#[test]
fn a_recovery_across_wal_level_minimal_is_refused_and_postgresql_would_have_ended_it() -> Result<()> {
    // 13 checks it in other words than later ones.
    for major in [13, 15, 18] {
        let Some(postgres) = programs::postgres(major)? else { continue };
        for_a_while(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn for_a_while(postgres: &Postgres) -> Result<()> {
    let mut scene = Scene::on_directory(postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select 1 as n")?;
    let first = scene.backup()?;
    scene.archive_everything()?;
    restart_with(&mut scene, "minimal", "off", "0")?;
    scene.cluster.execute("insert into t values (2)")?;
    // The segment is archived all the same: it is not full yet when archiving is on again.
    restart_with(&mut scene, "replica", "on", "10")?;
    scene.cluster.execute("insert into t values (3)")?;
    let end = scene.cluster.value("select pg_current_wal_insert_lsn()::text")?;
    scene.archive_everything()?;

    let before = refused(&scene, &["--latest"])?;
    ensure!(before == refused(&scene, &["--target-lsn", &end])?, "two places before one record");
    let (_, window) = scene.walpoint.json(&["window"])?;
    ensure!(
        window["ranges"][0]["to"]["lsn"] == before.as_str(),
        "the window goes on behind {before}: {window}"
    );

    let target = ["--target-lsn", &before];
    let restored = scene.recover(&target)?;
    ensure!(restored.value(ROWS)? == "1", "not what there was before");
    let mut run_past = scene.restore(&target)?;
    run_past.override_settings(&format!("recovery_target_lsn = '{end}'"))?;
    let log = run_past.start_expect_fatal(RECOVERY_LIMIT)?;
    let ended = [
        "generated with wal_level=minimal",
        "generated with \"wal_level=minimal\"",
        "wal_level was not set to \"replica\" or higher",
    ];
    ensure!(ended.iter().any(|said| log.contains(said)), "it ended for another reason\n{log}");

    scene.backup()?;
    scene.archive_everything()?;
    ensure!(scene.recover(&["--latest"])?.value(ROWS)? == "1 2 3", "not all that there is");
    ensure!(before == refused(&scene, &["--latest", "--backup", &first])?, "another place before it");
    Ok(())
}

/// The nearest moment before it that can be reached.
fn refused(scene: &Scene, target: &[&str]) -> Result<String> {
    let directory = scene.cluster.scratch().path().join("refused");
    let outcome = scene.restore_into(&directory, target)?.expect(6)?;
    ensure!(outcome.stdout.contains("wal_level = minimal"), "{outcome}");
    ensure!(!directory.exists(), "something was written\n{outcome}");
    let args: Vec<&str> = ["plan"].iter().chain(target).copied().collect();
    let (status, plan) = scene.walpoint.json(&args)?;
    ensure!(status == 6, "{status}: {plan}");
    let before = plan["nearest"]["before"]["lsn"].as_str();
    before.map(str::to_owned).with_context(|| format!("nothing before it: {plan}"))
}

fn restart_with(scene: &mut Scene, wal_level: &str, archive_mode: &str, senders: &str) -> Result<()> {
    let sql = scene.cluster.sql()?;
    for (name, value) in
        [("wal_level", wal_level), ("archive_mode", archive_mode), ("max_wal_senders", senders)]
    {
        sql.execute(&format!("alter system set {name} = '{value}'"))?;
    }
    drop(sql);
    scene.cluster.stop(Stop::Fast)?;
    scene.cluster.start()
}
