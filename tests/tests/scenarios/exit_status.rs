//! Every row of the exit status table, and every way in which standard error
//! can fail while it is decided.

use anyhow::Result;
use walpoint_tests::archive_files;
use walpoint_tests::cluster::{ClusterOptions, Stop};
use walpoint_tests::process::Outcome;
use walpoint_tests::programs;
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::write_private;
use walpoint_tests::wal_dump::format_lsn;
use walpoint_tests::walpoint::{Stderr, Walpoint};

const EVERY_STDERR: [Stderr; 4] = [Stderr::Captured, Stderr::Full, Stderr::Closed, Stderr::BrokenPipe];

/// A call and the status it must have, whatever standard error is.
struct Row<'a> {
    about: &'a str,
    walpoint: &'a Walpoint,
    args: &'a [&'a str],
    status: i32,
}

fn check(scene: &Scene, rows: &[Row<'_>]) -> Result<()> {
    for row in rows {
        for stderr in EVERY_STDERR {
            let outcome: Outcome = row.walpoint.run_with_stderr(scene.cluster.data(), stderr, row.args)?;
            assert_eq!(outcome.code(), row.status, "{} with stderr {stderr:?}\n{outcome}", row.about);
        }
    }
    Ok(())
}

fn scene() -> Result<Option<Scene>> {
    let Some(postgres) = programs::distribution_postgres()? else { return Ok(None) };
    Scene::on_directory(&postgres, ClusterOptions::default()).map(Some)
}

/// A configuration whose archive nobody answers for.
fn unreachable(scene: &Scene) -> Result<Walpoint> {
    let url = format!("file://{}", scene.archive_directory()?.display());
    scene.walpoint.with_config(|text| {
        text.replace(&url, "file:///nowhere/at/all").replace("retry_for = \"20s\"", "retry_for = \"200ms\"")
            + "\n[archive_push]\ndeadline = \"1s\"\n"
    })
}

fn broken(scene: &Scene) -> Result<Walpoint> {
    scene.walpoint.with_config(|text| text + "\n[archve]\nurl = \"file:///tmp\"\n")
}

#[test]
fn archive_get_says_1_only_for_what_is_not_there() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let segment = scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let later = format!("{}{:08X}", &segment[..16], 0xF0);
    let (unreachable, broken) = (unreachable(&scene)?, broken(&scene)?);
    let row = |about, walpoint, args, status| Row { about, walpoint, args, status };
    check(
        &scene,
        &[
            row("there", &scene.walpoint, &["archive-get", &segment, "pg_wal/GOT"], 0),
            row("not there", &scene.walpoint, &["archive-get", &later, "pg_wal/GOT"], 1),
            row("first history", &scene.walpoint, &["archive-get", "00000001.history", "pg_wal/GOT"], 1),
            row("unreachable", &unreachable, &["archive-get", &segment, "pg_wal/GOT"], 255),
            row("unreachable history", &unreachable, &["archive-get", "00000002.history", "pg_wal/GOT"], 255),
            row("unknown key", &broken, &["archive-get", &segment, "pg_wal/GOT"], 255),
            row("no arguments", &scene.walpoint, &["archive-get"], 255),
            row("one argument", &scene.walpoint, &["archive-get", &segment], 255),
            row("unknown option", &scene.walpoint, &["archive-get", "--bogus", &segment, "pg_wal/GOT"], 255),
            row(
                "help among arguments",
                &scene.walpoint,
                &["archive-get", &segment, "pg_wal/GOT", "--help"],
                255,
            ),
            row(
                "not a WAL file's name",
                &scene.walpoint,
                &["archive-get", "../etc/passwd", "pg_wal/GOT"],
                255,
            ),
            row("nowhere to put it", &scene.walpoint, &["archive-get", &segment, "no/such/dir/GOT"], 255),
            row(
                "no contract",
                &scene.walpoint,
                &["archive-get", "--contract", "none.json", &segment, "pg_wal/GOT"],
                255,
            ),
        ],
    )
}

#[test]
fn a_panic_chooses_no_status() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let segment = scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let panicking = |command| scene.walpoint.with_environment("WALPOINT_TEST_PANIC", command);
    let (get, push) = (panicking("archive-get"), panicking("archive-push"));
    let (watch, other) = (panicking("check"), panicking("command"));
    let path = format!("pg_wal/{segment}");
    let row = |about, walpoint, args, status| Row { about, walpoint, args, status };
    check(
        &scene,
        &[
            row("panic", &get, &["archive-get", &segment, "pg_wal/GOT"], 255),
            row("panic", &push, &["archive-push", &path], 1),
            row("panic", &watch, &["check"], 3),
            row("panic", &other, &["list"], 1),
        ],
    )
}

/// Of the threads that do the work none chooses a status by falling over.
#[test]
fn a_panic_in_a_task_is_a_failure_of_what_was_asked_for() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.cluster.configure("wal_keep_size = '1GB'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    scene.backup()?;
    let segment = scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let panicking = |place| scene.walpoint.with_environment("WALPOINT_TEST_PANIC", place);
    let (opening, sealing, writing) = (panicking("opening"), panicking("sealing"), panicking("writing"));
    let (path, fresh) = (format!("pg_wal/{segment}"), scene.cluster.scratch().path().join("fresh"));
    archive_files::remove(scene.archive_directory()?, &segment)?;
    let restore = fresh.display().to_string();
    let restore: &[&str] = &["restore", "--target-immediate", "--data-directory", &restore];
    let row = |about, walpoint, args, status| Row { about, walpoint, args, status };
    let push = ["archive-push", path.as_str()];
    check(&scene, &[row("sealing", &sealing, &push, 1)])?;
    assert!(archive_files::named(scene.archive_directory()?, &segment).is_empty(), "it was not pushed");
    scene.walpoint.run_in(scene.cluster.data(), &push)?.expect(0)?;
    let get = ["archive-get", segment.as_str(), "pg_wal/GOT"];
    check(&scene, &[row("opening", &opening, &get, 255), row("opening the manifest", &opening, restore, 1)])?;
    assert!(!scene.cluster.data().join("pg_wal/GOT").exists() && !fresh.exists());
    for stderr in EVERY_STDERR {
        let outcome = writing.run_with_stderr(scene.cluster.data(), stderr, restore)?;
        assert_eq!(outcome.code(), 1, "with stderr {stderr:?}\n{outcome}");
        assert!(!fresh.join("global/pg_control").exists(), "it could be started");
        std::fs::remove_dir_all(&fresh)?;
    }
    Ok(())
}

#[test]
fn a_damaged_object_is_never_handed_over() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let segment = scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let stored = archive_files::named(scene.archive_directory()?, &segment);
    let object = stored.iter().find(|path| path.extension().is_some_and(|extension| extension == "zst"));
    archive_files::flip_bit(object.unwrap(), 60)?;
    let args: &[&str] = &["archive-get", &segment, "pg_wal/GOT"];
    check(&scene, &[Row { about: "damaged", walpoint: &scene.walpoint, args, status: 255 }])?;
    assert!(!scene.cluster.data().join("pg_wal/GOT").exists());
    Ok(())
}

/// A bit in each thing that a restore stands on, one after the other.
#[test]
fn a_damaged_pack_manifest_or_history_is_5() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let id = scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let history = format!("1\t{}\tbefore a failover\n", format_lsn(scene.backup_stop(&id)?));
    write_private(&scene.cluster.data().join("pg_wal/00000002.history"), &history)?;
    scene.walpoint.run_in(scene.cluster.data(), &["archive-push", "pg_wal/00000002.history"])?.expect(0)?;
    let fresh = scene.cluster.scratch().path().join("fresh");
    let path = fresh.display().to_string();
    let plan: &[&str] = &["plan", "--latest"];
    let restore: &[&str] = &["restore", "--latest", "--target-timeline", "1", "--data-directory", &path];
    let newest: &[&str] = &["restore", "--latest", "--data-directory", &path];
    for (object, calls) in
        [("pack-", &[restore][..]), ("manifest-", &[restore]), ("00000002.history", &[plan, newest])]
    {
        let files = archive_files::named(scene.archive_directory()?, object);
        let victim = files.iter().find(|path| path.extension().is_none_or(|it| it != "meta")).unwrap();
        let middle = usize::try_from(std::fs::metadata(victim)?.len() / 2)?;
        archive_files::flip_bit(victim, middle)?;
        for (args, stderr) in calls.iter().flat_map(|args| EVERY_STDERR.map(|stderr| (args, stderr))) {
            let outcome = scene.walpoint.run_with_stderr(scene.cluster.data(), stderr, args)?;
            assert_eq!(outcome.code(), 5, "{object} damaged, stderr {stderr:?}\n{outcome}");
            assert!(!fresh.join("global/pg_control").exists(), "{object}: it could be started");
            if fresh.exists() {
                std::fs::remove_dir_all(&fresh)?;
            }
        }
        archive_files::flip_bit(victim, middle)?;
    }
    scene.walpoint.ok(restore).map(drop)
}

#[test]
fn check_keeps_its_level_whatever_standard_error_is() -> Result<()> {
    let Some(scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    let age = |lines: &str| scene.walpoint.with_config(|text| format!("{text}\n[check]\n{lines}\n"));
    let warned = age("backup_age_warning = \"1ms\"\nbackup_age_critical = \"2h\"")?;
    let alarmed = age("backup_age_warning = \"1ms\"\nbackup_age_critical = \"2ms\"")?;
    let (unreachable, broken) = (unreachable(&scene)?, broken(&scene)?);
    let row = |about, walpoint, status| Row { about, walpoint, args: &["check"], status };
    check(
        &scene,
        &[
            row("well", &scene.walpoint, 0),
            row("warned", &warned, 1),
            row("alarmed", &alarmed, 2),
            row("unreachable", &unreachable, 2),
            row("unknown key", &broken, 3),
        ],
    )
}

#[test]
fn a_standby_is_told_to_ask_again() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    let segment = scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let unreachable = unreachable(&scene)?
        .with_config(|text| text.replace("standby_retry_for = \"2s\"", "standby_retry_for = \"200ms\""))?;
    let stopping = unreachable
        .with_config(|text| text.replace("[archive_get]", "[archive_get]\nstandby_on_outage = \"stop\""))?;
    write_private(&scene.cluster.data().join("standby.signal"), "")?;
    let args: &[&str] = &["archive-get", &segment, "pg_wal/GOT"];
    check(
        &scene,
        &[
            Row { about: "retry", walpoint: &unreachable, args, status: 1 },
            Row { about: "stop", walpoint: &stopping, args, status: 255 },
        ],
    )
}

#[test]
fn archive_push_never_exits_above_125() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.cluster.configure("wal_keep_size = '1GB'")?;
    scene.cluster.execute("select pg_reload_conf()")?;
    let segment = scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let path = format!("pg_wal/{segment}");
    let (unreachable, broken) = (unreachable(&scene)?, broken(&scene)?);
    let row = |about, walpoint, args, status| Row { about, walpoint, args, status };
    check(
        &scene,
        &[
            row("again", &scene.walpoint, &["archive-push", &path], 0),
            row("unreachable", &unreachable, &["archive-push", &path], 1),
            row("unknown key", &broken, &["archive-push", &path], 2),
            row("no arguments", &scene.walpoint, &["archive-push"], 2),
            row("unknown option", &scene.walpoint, &["archive-push", "--bogus", &path], 2),
            row("not a WAL file's name", &scene.walpoint, &["archive-push", "PG_VERSION"], 2),
        ],
    )
}

#[test]
fn the_other_commands_keep_to_the_table() -> Result<()> {
    let Some(mut scene) = scene()? else { return Ok(()) };
    scene.backup()?;
    scene.archive_everything()?;
    scene.cluster.stop(Stop::Fast)?;
    let occupied = scene.cluster.scratch().make_dir("occupied")?;
    write_private(&occupied.join("precious"), "data")?;
    let occupied = occupied.to_str().unwrap().to_owned();
    let (unreachable, broken) = (unreachable(&scene)?, broken(&scene)?);
    let row = |about, walpoint, args, status| Row { about, walpoint, args, status };
    check(
        &scene,
        &[
            row("list", &scene.walpoint, &["list"], 0),
            row("window", &scene.walpoint, &["window"], 0),
            row("plan", &scene.walpoint, &["plan", "--latest"], 0),
            row("unreachable list", &unreachable, &["list"], 1),
            row("unreachable plan", &unreachable, &["plan", "--latest"], 1),
            row("unknown key", &broken, &["list"], 2),
            row("no target", &scene.walpoint, &["plan"], 2),
            row("two targets", &scene.walpoint, &["plan", "--latest", "--target-xid", "1"], 2),
            row("no offset", &scene.walpoint, &["plan", "--target-time", "2026-11-20 21:45:00"], 2),
            row(
                "unknown backup",
                &scene.walpoint,
                &["plan", "--latest", "--backup", "20260101T000000Z-full-000000"],
                2,
            ),
            row("unknown command", &scene.walpoint, &["frobnicate"], 2),
            row("xid not found", &scene.walpoint, &["plan", "--target-xid", "4000000"], 6),
            row("name not found", &scene.walpoint, &["plan", "--target-name", "nothing"], 6),
            row(
                "before the backup",
                &scene.walpoint,
                &["plan", "--target-time", "2001-01-01 00:00:00+00"],
                6,
            ),
            row("not empty", &scene.walpoint, &["restore", "--latest", "--data-directory", &occupied], 7),
        ],
    )?;
    assert_eq!(std::fs::read_to_string(format!("{occupied}/precious"))?, "data");
    Ok(())
}
