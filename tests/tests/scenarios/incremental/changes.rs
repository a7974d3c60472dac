//! Whatever happens to files between two backups.

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Sql, Stop};
use walpoint_tests::programs::{self, Postgres};
use walpoint_tests::scene::Scene;

use super::soundness::{database, must_be_sound};
use super::{incremental, incremental_by, recover_backup};

const TABLES: [&str; 6] = ["kept", "updated", "cut", "rewritten", "moved", "grown"];

/// A digest of every table, by content and order.
fn digest(sql: &Sql) -> Result<Vec<String>> {
    let of = |table: &&str| {
        sql.value(&format!(
            "select coalesce(md5(string_agg(t::text, ',' order by n)), '-') || count(*) from {table} t"
        ))
    };
    TABLES.iter().map(of).collect()
}

#[test]
fn a_chain_of_six_comes_back_as_the_cluster_was_at_each_backup() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    let space = scene.cluster.scratch().make_dir("space")?;
    scene.cluster.execute(&format!("create tablespace space location '{}'", space.display()))?;
    for table in TABLES {
        scene.cluster.execute(&format!(
            "create table {table} (n int primary key, filler text);
             insert into {table} select n, repeat(md5(n::text), 5) from generate_series(1, 3000) n"
        ))?;
    }
    scene.cluster.execute("create unlogged table passing as select 1 as n; create sequence numbers")?;
    let mut last = scene.backup()?;
    let mut taken = Vec::new();
    for round in 1..=6 {
        change(&scene.cluster, round)?;
        // Most numbers of a sequence are given out without a word in the WAL.
        let number: u64 =
            scene.cluster.value("select nextval('numbers') from generate_series(1, 3) offset 2")?.parse()?;
        last = incremental_by(&scene.walpoint, &last, "by LSN")?;
        taken.push((last.clone(), digest(&scene.cluster.sql()?)?, number));
    }
    let mapping = |number: usize| format!("{}={}-{number}", space.display(), space.display());
    for (number, (id, expected, given)) in taken.iter().enumerate() {
        let mapping = mapping(number);
        let mut restored =
            scene.recover(&["--target-immediate", "--backup", id, "--tablespace", &mapping])?;
        let found = digest(&restored.sql()?)?;
        ensure!(found == *expected, "{id}: {found:?} instead of {expected:?}");
        must_be_sound(&restored).with_context(|| id.clone())?;
        let next: u64 = restored.value("select nextval('numbers')")?.parse()?;
        ensure!(next > *given, "{id}: {next} is given out again");
        restored.stop(Stop::Immediate)?;
    }
    // And all WAL after the last one.
    scene.cluster.execute("insert into kept values (1000000, 'the last one')")?;
    let expected = digest(&scene.cluster.sql()?)?;
    scene.archive_everything()?;
    let mut restored = scene.recover(&["--latest", "--tablespace", &mapping(taken.len())])?;
    ensure!(digest(&restored.sql()?)? == expected, "not the same at the end of WAL");
    restored.stop(Stop::Immediate)?;
    scene.cluster.stop(Stop::Fast)
}

/// Cut and grown again, rewritten, moved, dropped and made anew.
fn change(cluster: &Cluster, round: u32) -> Result<()> {
    cluster.execute(&format!(
        "update updated set filler = 'round {round}' where n % 97 = {round};
         delete from cut where n > {};
         insert into grown select n, 'grown in round {round}' from generate_series({round}000000, {round}000500) n;
         insert into passing values ({round})",
        3000 - 400 * round
    ))?;
    // Gives the end of the table back, and then it grows again.
    cluster.execute("vacuum cut")?;
    cluster.execute(&format!(
        "insert into cut select n, 'again {round}' from generate_series({round}0000, {round}0100) n"
    ))?;
    match round % 3 {
        0 => cluster.execute("vacuum full rewritten")?,
        1 => cluster.execute(
            "truncate rewritten; insert into rewritten select n, 'new' from generate_series(1, 700) n",
        )?,
        _ => cluster.execute("cluster rewritten using rewritten_pkey; reindex table updated")?,
    }
    let to = if round % 2 == 1 { "space" } else { "pg_default" };
    cluster.execute(&format!(
        "alter table moved set tablespace {to}; drop table if exists passing_by;
         create table passing_by as select n from generate_series(1, {round}000) n"
    ))
}

/// Pages of a database that is made by file copy are older than the parent although the database is younger; under a
/// path that the parent has with other content, no LSN tells.
#[test]
fn a_database_made_anew_under_an_old_oid_is_not_the_parents() -> Result<()> {
    for major in programs::MAJORS {
        let Some(postgres) = programs::postgres(major)? else { continue };
        make_databases_anew(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn make_databases_anew(postgres: &Postgres) -> Result<()> {
    let mut scene = Scene::on_directory(postgres, ClusterOptions::default())?;
    let has_oids = postgres.major >= 15;
    let cluster = &scene.cluster;
    cluster.execute("create database one")?;
    database(cluster, "one")?
        .execute("create table t as select n, 'one' as word from generate_series(1, 3000) n")?;
    cluster.execute("create database two template one")?;
    // The same files, other content.
    database(cluster, "two")?.execute("update t set word = 'two'")?;
    cluster.execute("checkpoint")?;
    let oid = if has_oids { " oid 50000" } else { "" };
    cluster.execute(&format!("create database logged template one{oid}"))?;
    let copied = if has_oids { " oid 50001 strategy file_copy" } else { "" };
    cluster.execute(&format!("create database copied template one{copied}"))?;
    let full = scene.backup()?;

    let cluster = &scene.cluster;
    cluster.execute("drop database logged")?;
    cluster.execute("drop database copied")?;
    cluster.execute(&format!("create database logged template two{oid}"))?;
    cluster.execute(&format!("create database copied template two{copied}"))?;
    let first = incremental(&scene.walpoint, &full)?;
    must_have(&mut scene, &first, "two")?;
    database(&scene.cluster, "copied")?.execute("update t set word = 'three'")?;
    database(&scene.cluster, "logged")?.execute("update t set word = 'three'")?;
    let second = incremental(&scene.walpoint, &first)?;
    must_have(&mut scene, &second, "three")?;
    scene.cluster.stop(Stop::Fast)
}

fn must_have(scene: &mut Scene, id: &str, word: &str) -> Result<()> {
    let mut restored = recover_backup(scene, id)?;
    for name in ["logged", "copied"] {
        let found =
            database(&restored, name)?.value("select string_agg(distinct word, ' ') || count(*) from t")?;
        ensure!(found == format!("{word}3000"), "{name} has {found}");
    }
    if programs::distribution_postgres()?.is_some_and(|it| it.major == scene.cluster.postgres.major) {
        must_be_sound(&restored)?;
    }
    restored.stop(Stop::Immediate)
}
