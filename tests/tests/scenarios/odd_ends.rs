//! The statuses at the odd ends, in one table: what a cron job, a monitoring system or an operator in a hurry
//! meets, each with the words that say what to do.

use std::os::unix::fs::FileExt;

use anyhow::Result;
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::write_private;
use walpoint_tests::user::User;
use walpoint_tests::walpoint::Walpoint;

/// A call, its status, and something that it says.
type Row<'a> = (&'a Walpoint, &'a [&'a str], i32, &'a str);

fn check(scene: &Scene, rows: &[Row<'_>]) -> Result<()> {
    for (walpoint, args, status, words) in rows {
        let outcome = walpoint.run_in(scene.cluster.data(), args)?;
        assert_eq!(outcome.code(), *status, "{outcome}");
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains(words), "\"{words}\" is not said\n{outcome}");
    }
    Ok(())
}

const UNKNOWN: &str = "20260101T000000Z-full-000000";
const EARLY: &str = "2001-01-01 00:00:00+00";

#[test]
fn every_odd_end_has_its_status_and_says_why() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.configure("wal_keep_size = '1GB'")?;
    scene.cluster.execute("create table t as select g, repeat('x', 100) from generate_series(1, 1000) g")?;
    scene.backup()?;
    let end = scene.walpoint.json(&["list"])?.1["backups"][0]["stop"]["lsn"].as_str().map(str::to_owned);
    let segment = scene.archive_everything()?;
    let occupied = scene.cluster.scratch().make_dir("occupied")?;
    write_private(&occupied.join("precious"), "data")?;
    let (occupied, archive) =
        (occupied.display().to_string(), scene.archive_directory()?.display().to_string());
    let fresh = scene.cluster.scratch().path().join("fresh").display().to_string();
    let mut other = Cluster::init(&postgres, ClusterOptions::default())?;
    other.start()?;

    let ours = &scene.walpoint;
    let away = &ours.with_config(|text| text.replace(&archive, "/nowhere/at/all"))?;
    let connection = (scene.cluster.connection("walpoint"), other.connection("walpoint"));
    let crossed = &ours.with_config(|text| text.replace(&connection.0, &connection.1))?;
    let nobody = &ours.with_config(|text| text.replace(&connection.0, "host=/nowhere user=walpoint"))?;
    let data = other.data().join("pg_wal");
    let wal = scene.cluster.data().join("pg_wal");
    std::fs::copy(wal.join(&segment), data.join(&segment))?;
    let foreign = data.join(&segment).display().to_string();
    let later = format!("{}{:08X}", &segment[..16], 0xF0);
    std::fs::copy(wal.join(&segment), wal.join(&later))?;
    for copy in [data.join(&segment), wal.join(&later)] {
        User::current()?.own(&copy)?;
    }
    let renamed = format!("pg_wal/{later}");
    check(
        &scene,
        &[
            (ours, &["plan"], 2, "exactly one"),
            (ours, &["restore"], 2, "exactly one"),
            (ours, &["plan", "--latest", "--target-immediate"], 2, "exactly one"),
            (ours, &["plan", "--target-name", "x", "--exclusive"], 2, "exclusive"),
            (ours, &["plan", "--target-immediate", "--exclusive"], 2, "exclusive"),
            (ours, &["plan", "--latest", "--exclusive"], 2, "exclusive"),
            (ours, &["plan", "--target-time", "2026-11-20 21:45:00"], 2, "--timezone"),
            (ours, &["plan", "--latest", "--backup", UNKNOWN], 2, UNKNOWN),
            (ours, &["restore", "--latest", "--backup", UNKNOWN, "--data-directory", &fresh], 2, UNKNOWN),
            (ours, &["plan", "--target-xid", "4000000"], 6, "4000000"),
            (ours, &["plan", "--target-name", "nothing of the sort"], 6, "nothing of the sort"),
            (ours, &["plan", "--target-time", EARLY], 6, end.as_deref().unwrap_or("no end is listed")),
            (ours, &["restore", "--target-time", EARLY, "--data-directory", &fresh], 6, "nearest after"),
            (ours, &["restore", "--latest", "--data-directory", &occupied], 7, "empty"),
            (ours, &["list", "--cluster", "7"], 4, "7"),
            (ours, &["archive-push", &foreign], 4, "system identifier"),
            (ours, &["archive-push", &renamed], 2, "named"),
            (away, &["list"], 1, "/nowhere/at/all"),
            (away, &["plan", "--latest"], 1, "/nowhere/at/all"),
            (away, &["backup"], 1, "/nowhere/at/all"),
            (crossed, &["backup"], 4, "system identifier"),
            (nobody, &["backup"], 1, "/nowhere"),
            (ours, &["check", "--bogus"], 3, "--bogus"),
            (away, &["check"], 2, "CRITICAL"),
            (nobody, &["check"], 2, "CRITICAL"),
        ],
    )?;
    assert!(!std::path::Path::new(&fresh).exists(), "a refused restore writes nothing");
    Ok(())
}

#[test]
fn every_odd_end_of_a_backup_has_its_status() -> Result<()> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(()) };
    let mut scene = Scene::on_directory(&postgres, ClusterOptions::default())?;
    scene.cluster.execute("create table t as select g, repeat('x', 100) from generate_series(1, 1000) g")?;
    let file = scene.cluster.value("select pg_relation_filepath('t')")?;
    let archiving = |command: &str| {
        scene.cluster.execute(&format!("alter system set archive_command = '{command}'"))?;
        scene.cluster.execute("select pg_reload_conf()")?;
        // A session sees the settings that were there when it began, or later ones.
        let shown = scene.cluster.value("show archive_command")?;
        anyhow::ensure!(shown == command, "archive_command is {shown}");
        Ok(())
    };
    let wrapper = scene.cluster.scratch().path().join("wrapper.sh");
    write_private(&wrapper, &format!("exec {} archive-push \"$1\"\n", scene.walpoint.hook_prefix()))?;
    archiving(&format!("sh {} %p", wrapper.display()))?;
    check(&scene, &[(&scene.walpoint, &["backup"], 0, "does not look like")])?;
    archiving("")?;
    check(&scene, &[(&scene.walpoint, &["backup"], 2, "archive_command is empty")])?;
    let hasty = scene.walpoint.with_config(|text| format!("{text}\n[backup]\nwal_timeout = \"2s\"\n"))?;
    archiving("false")?;
    check(&scene, &[(&hasty, &["backup"], 1, "not complete")])?;

    archiving(&format!("{} archive-push %p", scene.walpoint.hook_prefix()))?;
    scene.cluster.execute("checkpoint")?;
    scene.cluster.stop(Stop::Fast)?;
    let table = std::fs::File::options().write(true).open(scene.cluster.data().join(&file))?;
    table.write_all_at(b"damage", 2 * 8192 + 4000)?;
    scene.cluster.start()?;
    check(&scene, &[(&scene.walpoint, &["backup"], 5, &file)])?;
    let (_, listing) = scene.walpoint.json(&["list"])?;
    let damaged: Vec<_> = listing["backups"].as_array().into_iter().flatten().collect();
    assert_eq!(damaged.len(), 2, "the damaged one is kept, the one that is not complete is none: {listing}");
    assert_eq!(damaged[1]["damaged_pages"], 1, "{listing}");
    scene.cluster.stop(Stop::Fast)
}
