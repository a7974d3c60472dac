//! What lies in the spool is handed out when it is what the archive has, or was seen to have a moment ago, and never
//! else.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use walpoint_tests::archive_files;
use walpoint_tests::cluster::Cluster;
use walpoint_tests::prefetch::{self, Spools};
use walpoint_tests::process::Outcome;
use walpoint_tests::scene::Scene;
use walpoint_tests::scratch::write_private;
use walpoint_tests::user::User;
use walpoint_tests::wait;
use walpoint_tests::walpoint::Walpoint;

use super::{END_LIMIT, on_directory, spools};

const DESTINATION: &str = "pg_wal/RECOVERYXLOG";

/// Asks as PostgreSQL does, in a directory that is about to recover, without a contract.
pub(super) fn get(walpoint: &Walpoint, restored: &Cluster, segment: &str) -> Result<Outcome> {
    walpoint.run_in(restored.data(), &["--log-level", "debug", "archive-get", segment, DESTINATION])
}

/// The archive's segments, ascending.
fn segments(scene: &Scene) -> Result<Vec<String>> {
    let files = archive_files::named(scene.archive_directory()?, ".zst");
    let names = files.iter().filter_map(|path| path.file_name()?.to_str()?.split_once('-'));
    let mut names: Vec<String> = names
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.len() == 24 && name.starts_with("00000001"))
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The first segment behind the backup: 5 of them have a row each.
pub(super) fn first_segment(scene: &Scene) -> Result<String> {
    let all = segments(scene)?;
    all.iter().rev().nth(4).cloned().context("too few segments")
}

fn object(scene: &Scene, segment: &str) -> Result<PathBuf> {
    let files = archive_files::named(scene.archive_directory()?, segment);
    files.into_iter().find(|path| path.extension().is_some_and(|it| it == "zst")).context("no object")
}

/// A restored directory, the segments behind the backup, and the second of them in the spool, with nobody there
/// who would replace it.
struct Stage {
    scene: Scene,
    spools: Spools,
    restored: Cluster,
    segments: Vec<String>,
    spooled: PathBuf,
    content: Vec<u8>,
}

impl Stage {
    fn new() -> Result<Option<Stage>> {
        let Some(scene) = on_directory(5)? else { return Ok(None) };
        let spools = spools(&scene, "")?;
        Self::of(scene, spools).map(Some)
    }

    fn of(mut scene: Scene, spools: Spools) -> Result<Stage> {
        let all = segments(&scene)?;
        let segments = all[all.len() - 5..].to_vec();
        let restored = scene.restore(&["--latest"])?;
        get(&scene.walpoint, &restored, &segments[0])?.success()?;
        let wanted = object(&scene, &segments[1])?;
        let spooled =
            wait::until("the next segment to be fetched", END_LIMIT, || Ok(spools.segment(&wanted)))?;
        let content = std::fs::read(&spooled)?;
        std::fs::remove_file(restored.data().join(DESTINATION))?;
        Ok(Stage { scene, spools, restored, segments, spooled, content })
    }

    /// Kills whoever fetches ahead, and lets nobody else begin.
    fn hold(&self) -> Result<File> {
        prefetch::signal(self.restored.data(), Signal::KILL)?;
        wait::until_true("it to be dead", END_LIMIT, || {
            Ok(prefetch::processes(self.restored.data()).is_empty())
        })?;
        let lock = File::open(self.spools.only()?.join("lock"))?;
        lock.lock()?;
        Ok(lock)
    }

    fn asked(&self, segment: &str) -> Result<Outcome> {
        get(&self.scene.walpoint, &self.restored, segment)
    }

    fn destination(&self) -> PathBuf {
        self.restored.data().join(DESTINATION)
    }

    fn expect_whole(&self) -> Result<()> {
        ensure!(std::fs::read(self.destination())? == self.content, "other bytes were handed out");
        Ok(std::fs::remove_file(self.destination())?)
    }
}

/// Puts something in the place of a sound file.
type Damage = fn(&Path, &[u8]) -> Result<()>;

const DAMAGES: [(&str, Damage); 7] = [
    ("a bit", |path, content| {
        write(path, content)?;
        archive_files::flip_bit(path, content.len() / 2)
    }),
    ("the last bit", |path, content| {
        write(path, content)?;
        archive_files::flip_bit(path, content.len() - 1)
    }),
    ("truncated", |path, content| write(path, &content[..content.len() - 1])),
    ("empty", |path, _| write(path, b"")),
    ("longer", |path, content| write(path, &[content, b"x"].concat())),
    // Another recovery's, or another cluster's.
    ("another content", |path, content| write(path, &content.iter().map(|it| !it).collect::<Vec<u8>>())),
    ("shared with somebody", |path, content| {
        write(path, content)?;
        Ok(std::fs::hard_link(path, path.with_extension("shared"))?)
    }),
];

fn write(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content)?;
    User::current()?.own(path)
}

#[test]
fn what_is_damaged_in_the_spool_is_not_handed_out() -> Result<()> {
    let Some(stage) = Stage::new()? else { return Ok(()) };
    expect_only_sound_ones(&stage)
}

/// There it is copied and not moved.
#[test]
fn what_is_damaged_in_a_spool_on_another_file_system_is_not_handed_out() -> Result<()> {
    let Some(scene) = on_directory(5)? else { return Ok(()) };
    let memory = tempfile::Builder::new().prefix("walpoint-spools-").tempdir_in("/dev/shm")?;
    User::current()?.own(memory.path())?;
    let device = |path: &Path| Ok::<_, std::io::Error>(std::fs::metadata(path)?.dev());
    if device(memory.path())? == device(scene.cluster.data())? {
        println!("skipped: the data directory lies in memory, too");
        return Ok(());
    }
    let spools = Spools::configure(&scene.walpoint, &memory.path().join("spools"), "")?;
    expect_only_sound_ones(&Stage::of(scene, spools)?)
}

fn expect_only_sound_ones(stage: &Stage) -> Result<()> {
    let _nobody_else = stage.hold()?;
    let second = &stage.segments[1];
    for (what, damage) in DAMAGES {
        let _ = std::fs::remove_file(&stage.spooled);
        damage(&stage.spooled, &stage.content)?;
        let asked = stage.asked(second)?.success()?;
        stage.expect_whole().with_context(|| what.to_owned())?;
        ensure!(asked.stderr.contains("is of no use"), "{what}: {asked}");
        ensure!(!stage.spooled.exists(), "{what}: it is still there");
    }
    // A sound one is taken, and PostgreSQL's alone then.
    write(&stage.spooled, &stage.content)?;
    let asked = stage.asked(second)?.success()?;
    ensure!(asked.stderr.contains("was fetched ahead"), "{asked}");
    stage.expect_whole()?;
    ensure!(!stage.spooled.exists(), "it is shared with PostgreSQL");
    Ok(())
}

/// As if the archive had been looked at so long ago.
#[expect(clippy::disallowed_methods, reason = "as another process notes it")]
fn seen(path: &Path, ago: Duration) -> Result<()> {
    Ok(File::options().write(true).open(path)?.set_modified(SystemTime::now() - ago)?)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn absence_is_the_archives_word_and_never_the_spools() -> Result<()> {
    let Some(stage) = Stage::new()? else { return Ok(()) };
    let last = stage.segments.last().context("no segments")?;
    let hidden = stage.scene.cluster.scratch().path().join("hidden");
    let archived = object(&stage.scene, last)?;
    wait::until_true("the last one to be fetched", END_LIMIT, || {
        // Asked for one after the other, as replay does.
        for segment in &stage.segments[1..stage.segments.len() - 1] {
            stage.asked(segment)?.success()?;
        }
        Ok(stage.spools.segment(&archived).is_some())
    })?;
    // It is in the spool since long ago, and the archive has it no more: nothing is invented.
    let spooled = stage.spools.segment(&archived).context("it is not in the spool")?;
    seen(&spooled, LONG)?;
    rustix::fs::rename(&archived, &hidden)?;
    let _ = std::fs::remove_file(stage.destination());
    let asked = stage.asked(last)?.expect(1)?;
    ensure!(!stage.destination().exists(), "{asked}");
    ensure!(stage.spools.segment(&archived).is_some(), "it was not in the spool");
    // It comes after all, when whoever fetches ahead has looked already.
    rustix::fs::rename(&hidden, &archived)?;
    stage.asked(last)?.success()?;
    ensure!(stage.destination().exists(), "what is archived is not handed out");
    Ok(())
}

#[test]
fn a_rival_that_came_since_stops_recovery_whatever_was_fetched_ahead() -> Result<()> {
    let Some(stage) = Stage::new()? else { return Ok(()) };
    let _nobody_else = stage.hold()?;
    seen(&stage.spooled, LONG)?;
    let archived = object(&stage.scene, &stage.segments[1])?;
    let name = archived.file_name().and_then(|name| name.to_str()).context("a name")?;
    let rival = archived.with_file_name(format!("{}-0123456789abcdef.zst", &name[..24]));
    std::fs::copy(&archived, &rival)?;
    let meta = |path: &Path| PathBuf::from(format!("{}.meta", path.display()));
    std::fs::copy(meta(&archived), meta(&rival))?;
    for file in [rival.clone(), meta(&rival)] {
        User::current()?.own(&file)?;
    }
    stage.asked(&stage.segments[1])?.expect(255)?;
    ensure!(!stage.destination().exists() && stage.spooled.exists(), "it was handed out");
    Ok(())
}

/// A recovery that catches up costs the archive no question for each segment, and goes on while it is away.
#[test]
fn what_was_seen_in_the_archive_a_moment_ago_is_handed_out_without_it() -> Result<()> {
    let Some(stage) = Stage::new()? else { return Ok(()) };
    let _somebody_tends_it = stage.hold()?;
    let root = stage.scene.archive_directory()?;
    let away = root.with_extension("away");
    rustix::fs::rename(root, &away)?;
    seen(&stage.spooled, Duration::ZERO)?;
    stage.asked(&stage.segments[1])?.success()?;
    stage.expect_whole()?;
    rustix::fs::rename(&away, root)?;
    Ok(())
}

/// A name says which file it is, and a link would lead elsewhere.
#[test]
fn nothing_is_taken_from_a_directory_that_others_can_reach() -> Result<()> {
    let Some(stage) = Stage::new()? else { return Ok(()) };
    let lock = stage.hold()?;
    let spool = stage.spools.only()?;
    let elsewhere = spool.with_extension("elsewhere");
    rustix::fs::rename(&spool, &elsewhere)?;
    std::os::unix::fs::symlink(&elsewhere, &spool)?;
    let asked = stage.asked(&stage.segments[1])?.success()?;
    ensure!(!asked.stderr.contains("was fetched ahead"), "{asked}");
    ensure!(asked.stderr.contains("nothing can be fetched ahead"), "{asked}");
    stage.expect_whole()?;
    ensure!(elsewhere.join(stage.spooled.file_name().context("a name")?).exists(), "it was taken");
    write_private(&elsewhere.join("asked"), "")?;
    drop(lock);
    Ok(())
}
