//! restore --delta over a cluster that went on: whatever fails, what is left cannot start, or is what it was or what
//! it was to become; nothing is written elsewhere, and a plain restore --delta goes on with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walpoint_tests::cluster::{Cluster, Stop};
use walpoint_tests::garage::Garage;
use walpoint_tests::scene::{RECOVERY_LIMIT, Scene};
use walpoint_tests::scratch::write_private;
use walpoint_tests::torture::{Reached, StepFault, Torture, Tree};

use crate::breaks::{Breaks, expect_ending};
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::restore::{RestoreArgs, is_of_its_own, places, remove_left_over};
use crate::stage::{self, ROWS};
use crate::workplace::{Workplace, copy, remove};

/// How often PostgreSQL itself is asked whether a directory starts.
const STARTS: usize = 4;

/// What a restore leaves that has changed nothing yet.
const MARKER: &str = "walpoint.restoring";

/// Not the cluster's, in the tablespace's directory and beside the data directory.
const FOREIGN: &str = "foreign";

struct Delta<B> {
    breaks: B,
    went_on: WentOn,
    /// The cluster that is there, data directory and tablespace, to be copied.
    old: PathBuf,
    /// How the old one is, and what it becomes: the data directory, and the cluster's own part of the tablespace.
    before: [Tree; 2],
    after: [Tree; 2],
    /// The archive, where it is a directory.
    archive: Option<Tree>,
    started: usize,
    refused: usize,
}

/// A cluster that was shut down after more was written than its backup has, all of it archived.
struct WentOn {
    scene: Scene,
    backup: String,
    /// What the backup has for [`ROWS`].
    rows: String,
}

impl WentOn {
    /// None, said aloud, without PostgreSQL, or without Garage where that is wanted.
    fn with(garage: Option<&Garage>) -> Result<Option<WentOn>> {
        let Some(mut scene) = stage::small_scene(garage)? else { return Ok(None) };
        let sql = scene.cluster.sql()?;
        sql.execute("create table dropped as select n from generate_series(1, 1000) n")?;
        let rows = sql.value(ROWS)?;
        let backup = scene.backup()?;
        sql.execute("update t set n = n + 1 where n <= 100")?;
        sql.execute("drop table dropped")?;
        sql.execute("create table later tablespace elsewhere as select n from generate_series(1, 1000) n")?;
        scene.archive_everything()?;
        scene.cluster.stop(Stop::Fast)?;
        Ok(Some(WentOn { scene, backup, rows }))
    }

    fn args(&self) -> RestoreArgs<'_> {
        let target = ["--target-immediate", "--backup", &self.backup].map(str::to_owned).to_vec();
        RestoreArgs { scene: &self.scene, target }
    }

    /// Its directories, as if it had always been in the target.
    fn copy_to(&self, old: &Path, target: &Path) -> Result<()> {
        let ([data, tablespace], [_, its_tablespace]) = (places(old), places(target));
        copy(self.scene.cluster.data(), &data)?;
        copy(&self.scene.cluster.scratch().path().join("tablespace"), &tablespace)?;
        for link in std::fs::read_dir(data.join("pg_tblspc"))? {
            let link = link?.path();
            std::fs::remove_file(&link)?;
            std::os::unix::fs::symlink(&its_tablespace, &link)?;
        }
        write_private(&data.join("notes"), "by hand")?;
        write_private(&tablespace.join(FOREIGN), FOREIGN)?;
        write_private(&old.join(FOREIGN), FOREIGN)
    }
}

impl<B: Breaks> Delta<B> {
    /// Restores once to an empty directory, which is what every other one must come to.
    fn prepared(breaks: B, went_on: WentOn) -> Result<Delta<B>> {
        let workplace = breaks.workplace();
        let old = workplace.empty("old")?;
        let target = workplace.empty("target")?;
        run_plain(&breaks, &went_on.args().at(&target)?)?;
        let whole = workplace.path("whole");
        rustix::fs::rename(&target, &whole)?;
        went_on.copy_to(&old, &target)?;
        let archive = went_on.scene.archive_directory().ok().map(Tree::of).transpose()?;
        let (before, after) = (of_cluster(&old)?, of_cluster(&whole)?);
        Ok(Delta { breaks, went_on, old, before, after, archive, started: 0, refused: 0 })
    }

    fn every_point(&mut self, operation: &str, kinds: &[B::Kind], sample: usize) -> Result<()> {
        let points = self.breaks.points();
        // What is every restore's way, too, is failed there in every way.
        // Most of two thousand steps are the same one for another file.
        let stride = if points == "steps" { 3 } else { 1 };
        Torture { operation, points, kinds, in_turn: true, stride, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&mut self, number: usize, kind: B::Kind) -> Result<Reached> {
        let target = self.breaks.workplace().copy(&self.old, "target")?;
        let args = self.args(&target)?;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (outcome, reached) = self.breaks.run(Path::new("/"), &args, number, kind)?;
        expect_ending(&self.breaks, kind, (&outcome, &reached), 0, &[1])?;
        self.expect_nothing_elsewhere(&target)?;
        self.expect_old_or_whole_or_none(&target, outcome.code() == 0)
            .with_context(|| outcome.to_string())?;

        run_plain(&self.breaks, &self.args(&target)?).with_context(|| format!("again, after\n{outcome}"))?;
        self.expect_nothing_elsewhere(&target)?;
        self.expect_is(&self.after, &target).with_context(|| format!("again, after\n{outcome}"))?;
        Ok(reached)
    }

    fn args(&self, target: &Path) -> Result<Vec<String>> {
        let mut args = self.went_on.args().at(target)?;
        args.push("--delta".to_owned());
        Ok(args)
    }

    /// Without `pg_control` nothing starts; with it the cluster is the old one, to the last byte, or the new one.
    fn expect_old_or_whole_or_none(&mut self, target: &Path, is_done: bool) -> Result<()> {
        let [data, _] = places(target);
        if !data.join("global/pg_control").exists() {
            ensure!(!is_done, "no cluster was restored");
            return self.start_in_vain(&data);
        }
        let (marker, aside) = (data.join(MARKER), target.join("aside"));
        if marker.exists() {
            ensure!(!is_done, "it ended before it was done");
            rustix::fs::rename(&marker, &aside)?;
            self.expect_is(&self.before, target)?;
            return Ok(rustix::fs::rename(&aside, &marker)?);
        }
        if !is_done && self.expect_is(&self.before, target).is_ok() {
            return Ok(());
        }
        remove_left_over(&data)?;
        self.expect_is(&self.after, target)?;
        self.start(target)
    }

    fn expect_is(&self, cluster: &[Tree; 2], target: &Path) -> Result<()> {
        let [data, own_part] = directories(target)?;
        cluster[0].same_as(&data, is_of_its_own)?;
        cluster[1].same_as(&own_part, |_| false)
    }

    fn expect_nothing_elsewhere(&self, target: &Path) -> Result<()> {
        self.archive.iter().try_for_each(|archive| archive.unchanged(|_| false))?;
        let [_, tablespace] = places(target);
        for place in [target, &tablespace] {
            ensure!(std::fs::read_to_string(place.join(FOREIGN))? == FOREIGN, "what is not the cluster's");
        }
        let names: Result<Vec<_>, _> =
            std::fs::read_dir(target)?.map(|it| it.map(|it| it.file_name())).collect();
        ensure!(names?.len() == 3, "something was written outside of the target");
        Ok(())
    }

    /// A copy: the directory itself is to be restored over again.
    fn start(&mut self, target: &Path) -> Result<()> {
        self.started += 1;
        if self.started > STARTS {
            return Ok(());
        }
        let kept = self.breaks.workplace().copy(target, "kept")?;
        let mut restored = Cluster::restored(&places(target)[0], &self.went_on.scene.cluster)?;
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        ensure!(restored.value(ROWS)? == self.went_on.rows, "not the rows that were backed up");
        restored.stop(Stop::Immediate)?;
        remove(target)?;
        Ok(rustix::fs::rename(&kept, target)?)
    }

    fn start_in_vain(&mut self, data: &Path) -> Result<()> {
        if !data.join("postgresql.conf").exists() || self.refused >= STARTS {
            return Ok(());
        }
        self.refused += 1;
        let like = &self.went_on.scene.cluster;
        Cluster::restored(data, like)?.start_expect_fatal(RECOVERY_LIMIT).map(drop)
    }
}

fn run_plain<B: Breaks>(breaks: &B, args: &[String]) -> Result<()> {
    breaks.plain().ok(&args.iter().map(String::as_str).collect::<Vec<_>>()).map(drop)
}

/// The data directory, and the tablespace's directory of this server's version.
fn directories(target: &Path) -> Result<[PathBuf; 2]> {
    let [data, tablespace] = places(target);
    let mut own = std::fs::read_dir(&tablespace)?.flatten().filter(|it| it.path().is_dir());
    let own = own.next().context("nothing is in the tablespace")?;
    Ok([data, own.path()])
}

fn of_cluster(target: &Path) -> Result<[Tree; 2]> {
    let [data, own_part] = directories(target)?;
    Ok([Tree::of(&data)?, Tree::of(&own_part)?])
}

#[test]
fn a_delta_restore_whose_step_fails() -> Result<()> {
    let Some(went_on) = WentOn::with(None)? else { return Ok(()) };
    let plain = went_on.scene.walpoint.clone();
    let Some(breaks) = InSteps::of(Workplace::new()?, plain)? else { return Ok(()) };
    let kinds = [StepFault::KillBefore, StepFault::Error, StepFault::Refused, StepFault::Lost];
    Delta::prepared(breaks, went_on)?.every_point("delta restore", &kinds, 3)
}

#[test]
fn a_delta_restore_over_s3_with_one_request_broken() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(went_on) = WentOn::with(Some(garage))? else { return Ok(()) };
    let direct = went_on.scene.walpoint.clone();
    let breaks = OverS3::of(garage, Workplace::new()?, direct, Broken::One)?;
    let kinds = breaks.kinds();
    Delta::prepared(breaks, went_on)?.every_point("delta restore over S3", kinds, 1)
}

#[test]
fn a_delta_restore_over_s3_whose_store_goes_away() -> Result<()> {
    let Some(garage) = Garage::shared()? else { return Ok(()) };
    let Some(went_on) = WentOn::with(Some(garage))? else { return Ok(()) };
    let Some(breaks) = OverS3::gone(garage, went_on.scene.walpoint.clone())? else { return Ok(()) };
    let kinds = breaks.kinds();
    Delta::prepared(breaks, went_on)?.every_point("delta restore and S3 goes away", kinds, 1)
}
