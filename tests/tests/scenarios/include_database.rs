//! `restore --include-database`: the named database is whole, the others take no room, cannot be used, and can be
//! dropped.

use anyhow::{Context, Result};
use std::os::unix::fs::MetadataExt;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};

#[test]
fn the_named_database_is_whole_and_the_others_can_only_be_dropped() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table kept as select n from generate_series(1, 1000) n")?;
    for name in ["shop", "blog"] {
        scene.cluster.execute(&format!("create database {name}"))?;
        let rows = "create table t as select n, repeat(md5(n::text), 10) from generate_series(1, 20000) n; \
                    create index on t (n)";
        scene.cluster.client_tool("psql", &["-d", name, "-c", rows], RECOVERY_LIMIT)?;
    }
    scene.backup()?;
    for name in ["shop", "blog"] {
        let more = "update t set n = n + 1 where n % 3 = 0; delete from t where n % 7 = 0; vacuum t; \
                    insert into t select n, 'x' from generate_series(1, 5000) n; checkpoint; \
                    update t set n = n + 1 where n % 2 = 0";
        for statement in more.split("; ") {
            scene.cluster.client_tool("psql", &["-d", name, "-c", statement], RECOVERY_LIMIT)?;
        }
    }
    let count = |cluster: &Cluster| -> Result<String> {
        let query = "select count(*) || ' ' || sum(n) from t";
        Ok(cluster.client_tool("psql", &["-d", "shop", "-Atc", query], RECOVERY_LIMIT)?.stdout)
    };
    let before = count(&scene.cluster)?;
    let blog = scene.cluster.value("select oid from pg_database where datname = 'blog'")?;
    scene.archive_everything()?;

    let wrong = scene.restore_into(
        &scene.cluster.scratch().path().join("x"),
        &["--latest", "--include-database", "shpo"],
    )?;
    let wrong = wrong.expect(2)?;
    assert!(wrong.stderr.contains("shpo") && wrong.stderr.contains("shop"), "{wrong}");

    let directory = scene.fresh_directory();
    let restored = scene.restore_into(&directory, &["--latest", "--include-database", "shop"])?.success()?;
    assert!(restored.stdout.contains("not restored: blog"), "{restored}");
    let mut blocks = 0;
    for file in std::fs::read_dir(directory.join("base").join(&blog))? {
        blocks += file?.metadata()?.blocks() * 512;
    }
    assert!(blocks < 128 << 10, "the database that was left out takes {blocks} bytes");
    let mut restored = Cluster::restored(&directory, &scene.cluster)?;
    restored.start_expect_ready(RECOVERY_LIMIT)?;
    assert_eq!(count(&restored)?, before);
    assert_eq!(restored.value("select count(*) from kept")?, "1000");
    let refused = restored.client_tool("psql", &["-d", "blog", "-c", "select 1"], RECOVERY_LIMIT);
    assert!(refused.is_err(), "{refused:?}");
    // As long as it has that one it takes nobody's place, and makes no backup that could be taken for a whole one.
    let walpoint = scene.walpoint_for(&restored)?;
    let refused = walpoint.run(&["take-over"])?.expect(7)?;
    assert!(refused.stderr.contains("still has them: blog"), "{refused}");
    archive_by_hand(&mut restored, true)?;
    let refused = walpoint.run(&["backup"])?.expect(7)?;
    assert!(refused.stderr.contains("still has them: blog"), "{refused}");
    archive_by_hand(&mut restored, false)?;
    restored.execute("drop database blog")?;
    // Archiving is set on now, and waits for a restart.
    walpoint.run(&["take-over"])?.expect(1)?;
    restored.stop(Stop::Fast)?;
    scene.cluster.stop(Stop::Fast).context("the original")
}

/// As an operator may who does not know of `take-over`.
fn archive_by_hand(cluster: &mut Cluster, is_on: bool) -> Result<()> {
    let mode = if is_on { "on" } else { "off" };
    cluster.execute(&format!("alter system set archive_mode = '{mode}'"))?;
    cluster.execute("alter system set archive_command = 'true'")?;
    cluster.stop(Stop::Fast)?;
    cluster.start_expect_ready(RECOVERY_LIMIT)
}
