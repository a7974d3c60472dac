//! restore: whatever fails, what is left cannot start or is whole, nothing is written elsewhere, and after it
//! is removed a plain restore succeeds.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use walpoint_tests::cluster::{Cluster, Stop};
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::torture::{Reached, StepFault, Torture, Tree};

use crate::breaks::{Breaks, expect_ending};
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::stage::{self, StageOverS3};
use crate::workplace::{Workplace, remove, text};

/// How often PostgreSQL itself is asked whether a directory starts; every other time only
/// its files are looked at.
const STARTS: usize = 4;

struct Restore<'a, B> {
    breaks: B,
    /// For its programs and its environment.
    like: &'a Cluster,
    args: RestoreArgs<'a>,
    /// What a restored cluster answers to [`stage::ROWS`].
    rows: String,
    /// What a restore makes: the data directory and the tablespace.
    whole: [Tree; 2],
    /// The archive, where it is a directory.
    archive: Option<Tree>,
    started: usize,
    refused: usize,
}

impl<'a, B: Breaks> Restore<'a, B> {
    /// Restores once with nothing broken. Under the same name as later, which the settings of a restored
    /// cluster repeat.
    fn prepared(breaks: B, args: RestoreArgs<'a>, archive: Option<&Path>) -> Result<Restore<'a, B>> {
        let target = breaks.workplace().empty("target")?;
        breaks.plain().ok(&args.at(&target)?.iter().map(String::as_str).collect::<Vec<_>>())?;
        let whole = breaks.workplace().path("whole");
        rustix::fs::rename(&target, &whole)?;
        let [data, tablespace] = places(&whole);
        Ok(Restore {
            breaks,
            like: &args.scene.cluster,
            args,
            rows: String::new(),
            whole: [Tree::of(&data)?, Tree::of(&tablespace)?],
            archive: archive.map(Tree::of).transpose()?,
            started: 0,
            refused: 0,
        })
    }

    fn every_point(&mut self, operation: &str, kinds: &[B::Kind], sample: usize) -> Result<()> {
        let points = self.breaks.points();
        // A step and its repetition for the next file: there are two thousand of them, and few requests.
        let in_turn = points == "steps";
        Torture { operation, points, kinds, in_turn, stride: 1, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&mut self, number: usize, kind: B::Kind) -> Result<Reached> {
        let target = self.breaks.workplace().empty("target")?;
        let [data, tablespace] = places(&target);
        let args = self.args.at(&target)?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();

        let (outcome, reached) = self.breaks.run(Path::new("/"), &args, number, kind)?;
        expect_ending(&self.breaks, kind, (&outcome, &reached), 0, &[1])?;
        self.expect_nothing_elsewhere(&target)?;
        if data.join("global/pg_control").exists() {
            remove_left_over(&data)?;
            self.expect_whole(&data, &tablespace)?;
            self.start(&data)?;
        } else {
            ensure!(outcome.code() != 0, "no cluster was restored\n{outcome}");
            self.start_in_vain(&data)?;
        }
        self.retry(&target, &args)?;
        Ok(reached)
    }

    /// What is in the way is said to be; when it is gone, the next one succeeds.
    fn retry(&self, target: &Path, args: &[&str]) -> Result<()> {
        let [data, tablespace] = places(target);
        let plain = self.breaks.plain();
        let is_empty =
            |path: &Path| std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
        if !is_empty(&data) || !is_empty(&tablespace) {
            let again = plain.run(args)?;
            ensure!(again.code() == 7 && again.stderr.contains("hint: "), "{again}");
            remove(&data)?;
            remove(&tablespace)?;
        }
        plain.ok(args)?;
        self.expect_nothing_elsewhere(target)?;
        self.expect_whole(&data, &tablespace)
    }

    fn expect_nothing_elsewhere(&self, target: &Path) -> Result<()> {
        self.archive.iter().try_for_each(|archive| archive.unchanged(|_| false))?;
        for entry in std::fs::read_dir(target)? {
            let name = entry?.file_name();
            ensure!(name == "data" || name == "tablespace", "written outside of the target: {name:?}");
        }
        Ok(())
    }

    fn expect_whole(&self, data: &Path, tablespace: &Path) -> Result<()> {
        self.whole[0].same_as(data, is_of_its_own)?;
        self.whole[1].same_as(tablespace, |_| false)
    }

    fn start(&mut self, data: &Path) -> Result<()> {
        self.started += 1;
        if self.started > STARTS {
            return Ok(());
        }
        let mut restored = Cluster::restored(data, self.like)?;
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        ensure!(restored.value(stage::ROWS)? == self.rows, "not the rows that were archived");
        restored.stop(Stop::Immediate)
    }

    fn start_in_vain(&mut self, data: &Path) -> Result<()> {
        if !data.join("postgresql.conf").exists() || self.refused >= STARTS {
            return Ok(());
        }
        self.refused += 1;
        Cluster::restored(data, self.like)?.start_expect_fatal(RECOVERY_LIMIT).map(drop)
    }
}

/// What to restore.
pub struct RestoreArgs<'a> {
    pub scene: &'a Scene,
    pub target: Vec<String>,
}

impl RestoreArgs<'_> {
    pub fn at(&self, place: &Path) -> Result<Vec<String>> {
        let [data, tablespace] = places(place);
        let mapping = stage::mapping(self.scene, &tablespace)?;
        let place = ["--data-directory", text(&data)?, "--tablespace", &mapping].map(str::to_owned);
        Ok(["restore".to_owned()].into_iter().chain(self.target.iter().cloned()).chain(place).collect())
    }
}

/// Files that say which restore wrote them, when, and by which build of the program.
pub fn is_of_its_own(path: &Path) -> bool {
    let own = ["walpoint.writer", "walpoint.recovery.json", "postgresql.auto.conf"];
    own.iter().any(|name| path.as_os_str() == *name)
}

/// One that was killed while it wrote a small file of its own, beside a whole cluster, leaves what it had of it.
pub fn remove_left_over(data: &Path) -> Result<()> {
    for entry in std::fs::read_dir(data)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(".tmp-") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

pub fn places(target: &Path) -> [PathBuf; 2] {
    [target.join("data"), target.join("tablespace")]
}

/// By far the most steps: its kinds of faults are shared out.
fn restore_in_steps(operation: &str, kinds: &[StepFault], sample: usize) -> Result<()> {
    let Some(stage) = stage::shared()? else { return Ok(()) };
    let Some(breaks) = InSteps::on(stage.archive()?)? else { return Ok(()) };
    let args = RestoreArgs { scene: &stage.scene, target: vec!["--latest".to_owned()] };
    let mut restore = Restore::prepared(breaks, args, Some(stage.archive()?))?;
    restore.rows = stage.rows.clone();
    restore.every_point(operation, kinds, sample)
}

#[test]
fn a_restore_whose_step_fails() -> Result<()> {
    restore_in_steps("restore", &[StepFault::Error, StepFault::Refused, StepFault::Lost], 5)
}

/// Killed after a step is killed before the next one: of two thousand steps once is enough.
#[test]
fn a_restore_that_is_killed() -> Result<()> {
    restore_in_steps("killed restore", &[StepFault::KillBefore], 4)
}

fn restore_over_s3(
    breaks: impl FnOnce(&StageOverS3) -> Result<Option<OverS3>>,
    operation: &str,
    sample: usize,
) -> Result<()> {
    let Some(stage) = stage::over_s3()? else { return Ok(()) };
    let Some(breaks) = breaks(&stage)? else { return Ok(()) };
    let kinds = breaks.kinds();
    let target = ["--target-immediate", "--backup", &stage.backup].map(str::to_owned).to_vec();
    let args = RestoreArgs { scene: &stage.scene, target };
    let mut restore = Restore::prepared(breaks, args, None)?;
    restore.rows = stage.rows.clone();
    restore.every_point(operation, kinds, sample)
}

#[test]
fn a_restore_over_s3_with_one_request_broken() -> Result<()> {
    let one = |stage: &StageOverS3| {
        let direct = stage.scene.walpoint.clone();
        OverS3::of(stage.garage, Workplace::new()?, direct, Broken::One).map(Some)
    };
    restore_over_s3(one, "restore over S3", 3)
}

#[test]
fn a_restore_over_s3_whose_store_goes_away() -> Result<()> {
    let gone = |stage: &StageOverS3| OverS3::gone(stage.garage, stage.scene.walpoint.clone());
    restore_over_s3(gone, "restore and S3 goes away", 1)
}
