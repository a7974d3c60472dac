//! In a directory, whose files can be made as old as they have to be, and put back for every trial.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walpoint_tests::archive_files::named;
use walpoint_tests::cluster::Stop;
use walpoint_tests::scene::Scene;
use walpoint_tests::torture::{Reached, StepFault, Torture, Tree};

use super::{
    NOT_DONE, Phase, Whole, apply, expect_finished, expect_marked, expect_recovers, row_and_backup,
    run_expire,
};
use crate::breaks::{Breaks, expect_ending};
use crate::in_steps::InSteps;
use crate::stage::{self, ROWS};
use crate::workplace::{Workplace, text};

/// Longer than a backup that was given up is taken for one that is being made.
const LATER: Duration = Duration::from_secs(3 * 24 * 3600);
const GRACE: &str = "1d";

/// How often the newest moment is recovered to; every other time its plan is looked at.
const STARTS: usize = 2;

struct Expire {
    breaks: InSteps,
    scene: Scene,
    phase: Phase,
    /// The archive before, to be copied.
    template: PathBuf,
    before: BTreeSet<PathBuf>,
    /// What is left when all is done.
    after: BTreeSet<PathBuf>,
    stays: String,
    whole: Whole,
    rows: String,
    /// Archives of which all has been restored already.
    restored: BTreeSet<BTreeSet<PathBuf>>,
    started: usize,
}

impl Expire {
    /// A chain and a full backup that go, one more whose packs stay with the incremental one that needs them, packs of
    /// one that was never completed, and WAL before and after all of these.
    fn prepared(phase: Phase) -> Result<Option<Expire>> {
        let Some(mut scene) = stage::small_scene(None)? else { return Ok(None) };
        let archive = scene.archive_directory()?.to_owned();
        let given_up = row_and_backup(&scene, &["backup"])?;
        for file in named(&archive, "backup.json") {
            std::fs::remove_file(file)?;
        }
        row_and_backup(&scene, &["backup"])?;
        row_and_backup(&scene, &["backup", "--incremental"])?;
        row_and_backup(&scene, &["backup"])?;
        let stays = row_and_backup(&scene, &["backup", "--incremental"])?;
        ensure!(stays.contains("-incr-"), "{stays} is a full one");
        scene.cluster.execute("insert into t select n from generate_series(1, 10) n")?;
        scene.archive_everything()?;
        let rows = scene.cluster.value(ROWS)?;
        scene.cluster.stop(Stop::Fast)?;

        let workplace = Workplace::new()?;
        let template = workplace.copy(&archive, "template")?;
        grow_old(named(&template, ""))?;
        let is_given_up =
            |path: &PathBuf| path.components().any(|part| part.as_os_str() == given_up.as_str());
        grow_old(named(&template, "").into_iter().filter(is_given_up))?;
        let own = workplace.copy(&template, "archive")?;
        let (theirs, own) = (text(&archive)?.to_owned(), text(&own)?.to_owned());
        let plain = scene.walpoint.with_config(|config| config.replace(&theirs, &own))?;
        let Some(breaks) = InSteps::of(workplace, plain)? else { return Ok(None) };
        let whole = Whole::of(&scene, breaks.plain(), breaks.workplace())?;
        let (before, after) = (BTreeSet::new(), BTreeSet::new());
        let mut expire = Expire {
            breaks,
            scene,
            phase,
            template,
            before,
            after,
            stays,
            whole,
            rows,
            restored: BTreeSet::new(),
            started: 0,
        };
        expire.rehearse()?;
        Ok(Some(expire))
    }

    /// Goes through both phases once, with nothing broken.
    fn rehearse(&mut self) -> Result<()> {
        let archive = self.archive();
        self.before = kept_objects(&archive)?;
        run_expire(self.breaks.plain(), GRACE)?;
        ensure!(kept_objects(&archive)? == self.before, "what was not marked went");
        grow_old(named(&archive, ""))?;
        if self.phase == Phase::Delete {
            self.template = self.breaks.workplace().copy(&archive, "marked")?;
        }
        run_expire(self.breaks.plain(), GRACE)?;
        expect_finished(self.breaks.plain(), &self.stays)?;
        self.after = kept_objects(&archive)?;
        let went = self.before.difference(&self.after);
        let is_wal = |path: &&PathBuf| path.components().any(|part| part.as_os_str() == "wal");
        let (wal, packs): (Vec<_>, Vec<_>) = went.partition(is_wal);
        ensure!(wal.len() > 2 && packs.len() > 6, "what went: {wal:?} {packs:?}");
        Ok(())
    }

    fn every_point(&mut self, operation: &str, sample: usize) -> Result<()> {
        let points = self.breaks.points();
        // Killed after a step is killed before the next one.
        let kinds = &[StepFault::KillBefore, StepFault::Error, StepFault::Refused, StepFault::Lost];
        Torture { operation, points, kinds, in_turn: false, stride: 1, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&mut self, number: usize, kind: StepFault) -> Result<Reached> {
        let archive = self.breaks.workplace().copy(&self.template, "archive")?;
        let (outcome, reached) = self.breaks.run(Path::new("/"), &apply(GRACE), number, kind)?;
        expect_ending(&self.breaks, kind, (&outcome, &reached), 0, &NOT_DONE)?;
        self.expect_promises().with_context(|| outcome.to_string())?;
        if outcome.code() == 0 {
            self.expect_done().with_context(|| outcome.to_string())?;
        }

        let plain = self.breaks.plain();
        run_expire(plain, GRACE).with_context(|| format!("again, after\n{outcome}"))?;
        self.expect_done().with_context(|| format!("again, after\n{outcome}"))?;
        if self.phase == Phase::Mark {
            grow_old(named(&archive, ""))?;
            run_expire(plain, GRACE).with_context(|| format!("a grace later, after\n{outcome}"))?;
            self.expect_deleted().with_context(|| format!("a grace later, after\n{outcome}"))?;
        }
        self.expect_promises().with_context(|| format!("again, after\n{outcome}"))?;
        Ok(reached)
    }

    /// What holds at every moment.
    fn expect_promises(&mut self) -> Result<()> {
        let objects = kept_objects(&self.archive())?;
        ensure!(self.after.is_subset(&objects), "what stays is gone: {:?}", self.after.difference(&objects));
        let (scene, plain, workplace) = (&self.scene, self.breaks.plain(), self.breaks.workplace());
        if self.restored.contains(&objects) {
            return Ok(());
        }
        self.whole.expect_listed_restores(scene, plain, workplace, &self.stays)?;
        self.started += 1;
        if self.started <= STARTS {
            expect_recovers(scene, plain, workplace, &self.rows)?;
        }
        self.restored.insert(objects);
        Ok(())
    }

    fn expect_done(&self) -> Result<()> {
        match self.phase {
            Phase::Mark => {
                ensure!(kept_objects(&self.archive())? == self.before, "what was not marked went");
                expect_marked(self.breaks.plain())
            }
            Phase::Delete => self.expect_deleted(),
        }
    }

    fn expect_deleted(&self) -> Result<()> {
        let objects = kept_objects(&self.archive())?;
        ensure!(objects == self.after, "left: {:?}", objects.difference(&self.after));
        expect_finished(self.breaks.plain(), &self.stays)
    }

    fn archive(&self) -> PathBuf {
        self.breaks.workplace().path("archive")
    }
}

/// Time passes for these.
fn grow_old(files: impl IntoIterator<Item = PathBuf>) -> Result<()> {
    for path in files {
        let file = File::options().write(true).open(&path).with_context(|| format!("open {path:?}"))?;
        file.set_modified(file.metadata()?.modified()? - LATER)?;
    }
    Ok(())
}

/// The objects of an archive but for marks: files with metadata beside them.
fn kept_objects(archive: &Path) -> Result<BTreeSet<PathBuf>> {
    let tree = Tree::of(archive)?;
    let paths: BTreeSet<&Path> = tree.paths().collect();
    let has_metadata = |path: &&&Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        paths.contains(path.with_file_name(format!("{name}.meta")).as_path())
    };
    let is_mark = |path: &Path| path.components().any(|part| part.as_os_str() == "expire");
    Ok(paths
        .iter()
        .filter(has_metadata)
        .filter(|path| !is_mark(path))
        .map(|path| path.to_path_buf())
        .collect())
}

#[test]
fn an_expire_that_marks() -> Result<()> {
    let Some(mut expire) = Expire::prepared(Phase::Mark)? else { return Ok(()) };
    expire.every_point("expire marks", 3)
}

#[test]
fn an_expire_that_deletes() -> Result<()> {
    let Some(mut expire) = Expire::prepared(Phase::Delete)? else { return Ok(()) };
    expire.every_point("expire deletes", 5)
}
