//! backup: whatever fails, no half of one is ever listed, what is listed restores, and the next one succeeds.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::torture::{Reached, Torture};
use walpoint_tests::walpoint::ArchivePlace;

use crate::breaks::{Breaks, expect_ending};
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::stage::{self, ROWS};
use crate::workplace::{Workplace, remove, text};

/// How often a backup is restored and started; every other time it is only restored.
const STARTS: usize = 3;

struct Backup<B> {
    breaks: B,
    scene: Scene,
    known: BTreeSet<String>,
    started: usize,
}

impl<B: Breaks> Backup<B> {
    fn on(scene: Scene, breaks: B) -> Result<Backup<B>> {
        let known = BTreeSet::from([scene.backup()?]);
        Ok(Backup { breaks, scene, known, started: 0 })
    }

    fn every_point(&mut self, operation: &str, sample: usize) -> Result<()> {
        let (kinds, points) = (self.breaks.kinds(), self.breaks.points());
        Torture { operation, points, kinds, in_turn: false, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&mut self, number: usize, kind: B::Kind) -> Result<Reached> {
        let (outcome, reached) = self.breaks.run(Path::new("/"), &["backup"], number, kind)?;
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
        }

        let id = self.scene.backup().with_context(|| format!("the next backup after\n{outcome}"))?;
        let new = self.new_backups()?;
        ensure!(new.contains(&id), "{id} was acknowledged and is not listed");
        self.forget(new)?;
        Ok(reached)
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
