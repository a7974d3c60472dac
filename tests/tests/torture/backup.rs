//! backup: whatever fails, no half of one is ever listed, what is listed restores, and the next one succeeds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::process::Outcome;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::torture::{Reached, StepFault, Torture, Tree};
use walpoint_tests::walpoint::ArchivePlace;

use crate::breaks::{Breaks, expect_ending};
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::stage::{self, ROWS};
use crate::workplace::{Workplace, remove, text};

/// How often a backup is restored and started; every other time it is only restored.
const STARTS: usize = 3;

/// Which backup is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Full,
    Incremental,
}

struct Backup<B> {
    breaks: B,
    scene: Scene,
    kind: Kind,
    known: BTreeSet<String>,
    /// What an incremental one finds in an archive that is a directory: the paths, and how they are.
    before: Option<(BTreeSet<PathBuf>, Tree)>,
    started: usize,
}

impl<B: Breaks> Backup<B> {
    fn on(scene: Scene, breaks: B) -> Result<Backup<B>> {
        let known = BTreeSet::from([scene.backup()?]);
        Ok(Backup { breaks, scene, kind: Kind::Full, known, before: None, started: 0 })
    }

    /// On a full one, which every trial makes anew: as many steps have to be taken each time.
    fn incremental(scene: Scene, breaks: B) -> Result<Backup<B>> {
        // Nothing is to change by itself.
        scene.cluster.execute("alter system set autovacuum = off")?;
        scene.cluster.execute("select pg_reload_conf()")?;
        Ok(Backup {
            breaks,
            scene,
            kind: Kind::Incremental,
            known: BTreeSet::new(),
            before: None,
            started: 0,
        })
    }

    /// Empties the archive, takes a parent, and writes something behind it.
    fn begin_anew(&mut self) -> Result<()> {
        match &self.scene.place {
            ArchivePlace::Directory(archive) => {
                for entry in std::fs::read_dir(archive)? {
                    remove(&entry?.path())?;
                }
            }
            ArchivePlace::S3 { .. } => self.breaks.empty_archive()?,
        }
        self.known = BTreeSet::from([self.scene.backup()?]);
        self.scene.cluster.execute("insert into t select n from generate_series(1, 10) n")?;
        // Whoever reads first leaves hints.
        self.scene.cluster.value(ROWS)?;
        self.scene.archive_everything()?;
        if let ArchivePlace::Directory(archive) = &self.scene.place {
            let tree = Tree::of(archive)?;
            self.before = Some((tree.paths().map(Path::to_owned).collect(), tree));
        }
        Ok(())
    }

    fn every_point(&mut self, operation: &str, sample: usize) -> Result<()> {
        let kinds = self.breaks.kinds();
        self.every_point_by(operation, kinds, sample)
    }

    fn every_point_by(&mut self, operation: &str, kinds: &[B::Kind], sample: usize) -> Result<()> {
        let points = self.breaks.points();
        // What is the full one's way, too, is failed there in every way.
        let in_turn = self.kind == Kind::Incremental;
        Torture { operation, points, kinds, in_turn, stride: 1, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&mut self, number: usize, kind: B::Kind) -> Result<Reached> {
        if self.kind == Kind::Incremental {
            self.begin_anew()?;
        }
        let (outcome, reached) = self.breaks.run(Path::new("/"), self.kind.args(), number, kind)?;
        expect_ending(&self.breaks, kind, (&outcome, &reached), 0, &[1])?;
        let new = self.new_backups()?;
        // One that was stored before anybody was told is whole too.
        ensure!(new.len() <= 1, "more than one backup: {new:?}\n{outcome}");
        if outcome.code() == 0 {
            let said = outcome.last_line()?;
            ensure!(new.contains(said), "{said} was acknowledged and is not listed\n{outcome}");
        }
        for id in &new {
            self.expect_restores(id).with_context(|| format!("{id} is listed\n{outcome}"))?;
            self.expect_said(id, &outcome)?;
        }

        let id = take(&self.scene, self.kind).with_context(|| format!("the next backup after\n{outcome}"))?;
        let new = self.new_backups()?;
        ensure!(new.contains(&id), "{id} was acknowledged and is not listed");
        if self.kind == Kind::Incremental {
            // It may have gone on with what the last one left.
            self.expect_restores(&id).with_context(|| format!("{id}, taken after\n{outcome}"))?;
        }
        self.expect_others_untouched().with_context(|| outcome.to_string())?;
        self.forget(new)?;
        Ok(reached)
    }

    /// One that is there although it was not acknowledged is named, unless nobody could; and one that is not
    /// incremental says why.
    fn expect_said(&self, id: &str, outcome: &Outcome) -> Result<()> {
        let is_killed = outcome.code() == 137;
        ensure!(outcome.code() == 0 || is_killed || outcome.stderr.contains(id), "{id} is there\n{outcome}");
        let is_as_asked = self.kind == Kind::Full || id.contains("-incr-");
        ensure!(
            is_as_asked || is_killed || outcome.stderr.contains("full backup"),
            "{id} is full\n{outcome}"
        );
        Ok(())
    }

    /// The one that it builds on, and all WAL.
    fn expect_others_untouched(&self) -> Result<()> {
        let Some((paths, tree)) = &self.before else { return Ok(()) };
        tree.unchanged(|path| !paths.contains(path))
    }

    fn listed(&self) -> Result<BTreeSet<String>> {
        let (status, list) = self.scene.walpoint.json(&["list"])?;
        let backups = list["backups"].as_array().with_context(|| format!("status {status}: {list}"))?;
        backups.iter().map(|backup| Ok(backup["id"].as_str().context("an id")?.to_owned())).collect()
    }

    fn new_backups(&self) -> Result<BTreeSet<String>> {
        Ok(self.listed()?.difference(&self.known).cloned().collect())
    }

    fn expect_restores(&mut self, id: &str) -> Result<()> {
        let workplace = self.breaks.workplace();
        let (data, tablespace) = (workplace.path("restored"), workplace.path("tablespace"));
        let mapping = stage::mapping(&self.scene, &tablespace)?;
        let target = ["restore", "--target-immediate", "--backup", id, "--data-directory", text(&data)?];
        let args: Vec<&str> = target.into_iter().chain(["--tablespace", &mapping]).collect();
        self.scene.walpoint.ok(&args)?;
        if self.kind == Kind::Incremental {
            // Nobody writes to the table meanwhile.
            Tree::of(&self.scene.cluster.scratch().path().join("tablespace"))?
                .same_as(&tablespace, |_| false)?;
        }
        self.started += 1;
        if self.started <= STARTS {
            let mut restored = Cluster::restored(&data, &self.scene.cluster)?;
            restored.start_expect_ready(RECOVERY_LIMIT)?;
            ensure!(restored.value(ROWS)? == self.scene.cluster.value(ROWS)?, "not the rows that were there");
            restored.stop(Stop::Immediate)?;
        }
        remove(&data)?;
        remove(&tablespace)
    }

    /// Takes everything away from a directory that this trial left, visible or not.
    fn forget(&mut self, new: BTreeSet<String>) -> Result<()> {
        let ArchivePlace::Directory(archive) = &self.scene.place else {
            self.known.extend(new);
            return Ok(());
        };
        for cluster in std::fs::read_dir(archive)? {
            let backups = cluster?.path().join("backup");
            for entry in std::fs::read_dir(&backups).into_iter().flatten() {
                let entry = entry?;
                if !self.known.contains(&*entry.file_name().to_string_lossy()) {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

impl Kind {
    fn args(self) -> &'static [&'static str] {
        match self {
            Kind::Full => &["backup"],
            Kind::Incremental => &["backup", "--incremental"],
        }
    }
}

/// Takes a backup with nothing broken.
fn take(scene: &Scene, kind: Kind) -> Result<String> {
    let id = scene.walpoint.ok(kind.args())?.last_line()?.to_owned();
    ensure!(kind == Kind::Full || id.contains("-incr-"), "{id} is a full one");
    Ok(id)
}

#[test]
fn a_backup() -> Result<()> {
    let Some(scene) = stage::small_scene(None)? else { return Ok(()) };
    let Some(breaks) = InSteps::of(Workplace::new()?, scene.walpoint.clone())? else { return Ok(()) };
    Backup::on(scene, breaks)?.every_point("backup", 5)
}

#[test]
fn a_backup_over_s3_in_steps() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(scene) = stage::small_scene(Some(garage))? else { return Ok(()) };
    let Some(breaks) = InSteps::of(Workplace::new()?, scene.walpoint.clone())? else { return Ok(()) };
    Backup::on(scene, breaks)?.every_point("backup over S3, in steps", 1)
}

#[test]
fn a_backup_over_s3_whose_store_goes_away() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(scene) = stage::small_scene(Some(garage))? else { return Ok(()) };
    let Some(breaks) = OverS3::gone(garage, scene.walpoint.clone())? else { return Ok(()) };
    Backup::on(scene, breaks)?.every_point("backup and S3 goes away", 1)
}

#[test]
fn a_backup_over_s3_with_one_request_broken() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(scene) = stage::small_scene(Some(garage))? else { return Ok(()) };
    let breaks = OverS3::of(garage, Workplace::new()?, scene.walpoint.clone(), Broken::One)?;
    Backup::on(scene, breaks)?.every_point("backup over S3", 2)
}

fn incremental_in_steps(operation: &str, kinds: &[StepFault], sample: usize) -> Result<()> {
    let Some(scene) = stage::small_scene(None)? else { return Ok(()) };
    let Some(breaks) = InSteps::of(Workplace::new()?, scene.walpoint.clone())? else { return Ok(()) };
    Backup::incremental(scene, breaks)?.every_point_by(operation, kinds, sample)
}

#[test]
fn an_incremental_backup_whose_step_fails() -> Result<()> {
    incremental_in_steps("incremental backup", &[StepFault::Lost, StepFault::Refused, StepFault::Error], 2)
}

/// Killed after a step is killed before the next one.
#[test]
fn an_incremental_backup_that_is_killed() -> Result<()> {
    incremental_in_steps("killed incremental backup", &[StepFault::KillBefore], 2)
}

#[test]
fn an_incremental_backup_over_s3_whose_store_goes_away() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(scene) = stage::small_scene(Some(garage))? else { return Ok(()) };
    let Some(breaks) = OverS3::gone(garage, scene.walpoint.clone())? else { return Ok(()) };
    Backup::incremental(scene, breaks)?.every_point("incremental backup and S3 goes away", 1)
}

#[test]
fn an_incremental_backup_over_s3_with_one_request_broken() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(scene) = stage::small_scene(Some(garage))? else { return Ok(()) };
    let breaks = OverS3::of(garage, Workplace::new()?, scene.walpoint.clone(), Broken::One)?;
    Backup::incremental(scene, breaks)?.every_point("incremental backup over S3", 1)
}
