//! archive-get: whatever fails, PostgreSQL gets the whole file or none, and hears "no such file" only of one
//! that the archive does not have.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use walpoint_tests::scratch::make_private_dir;
use walpoint_tests::torture::{Reached, Torture, Tree};

use crate::breaks::{Breaks, expect_ending};
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::stage::{self, Stage};
use crate::workplace::{Workplace, copy, text};

const DESTINATION: &str = "pg_wal/RECOVERYXLOG";

struct Get<'a, B> {
    breaks: B,
    /// Copied for every trial.
    data: PathBuf,
    args: Vec<&'a str>,
    /// What it must be; none when the archive has no such file.
    content: Option<PathBuf>,
}

impl<B: Breaks> Get<'_, B> {
    fn every_point(self, operation: &str, sample: usize) -> Result<()> {
        let (kinds, points) = (self.breaks.kinds(), self.breaks.points());
        Torture { operation, points, kinds, sample }.run(|number, kind| self.trial(number, kind))
    }

    fn trial(&self, number: usize, kind: B::Kind) -> Result<Reached> {
        let data = self.breaks.workplace().copy(&self.data, "data")?;
        let before = Tree::of(&data)?;
        let args: Vec<&str> =
            ["archive-get"].iter().chain(&self.args).chain(&[DESTINATION]).copied().collect();
        let answer = if self.content.is_some() { 0 } else { 1 };
        let is_pg_wal = |path: &Path| path.as_os_str() == "pg_wal";

        let (outcome, reached) = self.breaks.run(&data, &args, number, kind)?;
        expect_ending(&self.breaks, kind, (&outcome, &reached), answer, &[255])?;
        let there = data.join(DESTINATION);
        ensure!(outcome.code() != 0 || there.exists(), "nothing was fetched\n{outcome}");
        if there.exists() {
            self.expect_whole(&there)?;
            std::fs::remove_file(&there)?;
        }
        if self.breaks.leaves_nothing(kind) {
            before.unchanged(is_pg_wal)?;
        }

        let again = self.breaks.plain().run_in(&data, &args)?;
        ensure!(again.code() == answer, "the next try: {again}\nafter {outcome}");
        if self.content.is_some() {
            self.expect_whole(&there)?;
        }
        // What a killed run left is gone by now.
        before.unchanged(|path| is_pg_wal(path) || path.as_os_str() == DESTINATION)?;
        Ok(reached)
    }

    fn expect_whole(&self, there: &Path) -> Result<()> {
        let content = self.content.as_ref().context("a file that the archive does not have")?;
        ensure!(std::fs::read(there)? == std::fs::read(content)?, "not what was pushed");
        Ok(())
    }
}

/// The part of a data directory that archive-get looks at, with no WAL.
fn data(stage: &Stage, workplace: &Workplace) -> Result<PathBuf> {
    let data = workplace.copy(&stage.skeleton, "template")?;
    std::fs::remove_dir_all(data.join("pg_wal"))?;
    make_private_dir(&data.join("pg_wal"))?;
    Ok(data)
}

fn archived(stage: &Stage) -> (&str, Option<PathBuf>) {
    let name = stage.archived[1].as_str();
    (name, Some(stage.scene.cluster.data().join("pg_wal").join(name)))
}

fn in_steps() -> Result<Option<(&'static Stage, InSteps)>> {
    let Some(stage) = stage::shared()? else { return Ok(None) };
    Ok(InSteps::on(stage.archive()?)?.map(|breaks| (stage, breaks)))
}

/// An archive with two segments.
fn over_s3(broken: Broken) -> Result<Option<(&'static Stage, OverS3)>> {
    let Some(stage) = stage::shared()? else { return Ok(None) };
    let Some(breaks) = OverS3::new(broken)? else { return Ok(None) };
    let data = breaks.workplace().copy(&stage.skeleton, "pushing")?;
    for name in &stage.waiting[..2] {
        breaks.plain().run_in(&data, &["archive-push", &format!("pg_wal/{name}")])?.success()?;
    }
    Ok(Some((stage, breaks)))
}

fn get_over_s3(broken: Broken, operation: &str, sample: usize) -> Result<()> {
    let Some((stage, breaks)) = over_s3(broken)? else { return Ok(()) };
    let data = data(stage, breaks.workplace())?;
    let name = stage.waiting[0].as_str();
    Get { breaks, data, args: vec![name], content: Some(stage.wal(name)) }.every_point(operation, sample)
}

fn get_nothing_over_s3(broken: Broken, operation: &str, sample: usize) -> Result<()> {
    let Some((stage, breaks)) = over_s3(broken)? else { return Ok(()) };
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec![&stage.waiting[2]], content: None }.every_point(operation, sample)
}

#[test]
fn the_get_of_a_segment() -> Result<()> {
    let Some((stage, breaks)) = in_steps()? else { return Ok(()) };
    let (name, content) = archived(stage);
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec![name], content }.every_point("get", 8)
}

#[test]
fn the_get_of_a_segment_by_a_restored_cluster() -> Result<()> {
    let Some((stage, breaks)) = in_steps()? else { return Ok(()) };
    let (restored, tablespace) = (breaks.workplace().path("restored"), breaks.workplace().path("tablespace"));
    let mapping = stage::mapping(&stage.scene, &tablespace)?;
    let restore = ["restore", "--latest", "--data-directory", text(&restored)?, "--tablespace", &mapping];
    breaks.plain().ok(&restore)?;
    let data = data(stage, breaks.workplace())?;
    copy(&restored.join("walpoint.recovery.json"), &data.join("walpoint.recovery.json"))?;
    let (name, content) = archived(stage);
    let args = vec!["--contract", "walpoint.recovery.json", name];
    Get { breaks, data, args, content }.every_point("get with a contract", 8)
}

#[test]
fn the_get_of_a_segment_that_is_not_there() -> Result<()> {
    let Some((stage, breaks)) = in_steps()? else { return Ok(()) };
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec![&stage.waiting[2]], content: None }.every_point("get past the end", 8)
}

#[test]
fn the_get_of_a_history_that_is_not_there() -> Result<()> {
    let Some((stage, breaks)) = in_steps()? else { return Ok(()) };
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec!["00000002.history"], content: None }.every_point("get of no history", 8)
}

#[test]
fn a_get_over_s3_with_one_request_broken() -> Result<()> {
    get_over_s3(Broken::One, "get over S3", 6)
}

#[test]
fn a_get_over_s3_whose_store_goes_away() -> Result<()> {
    get_over_s3(Broken::FromThereOn, "get and S3 goes away", 2)
}

#[test]
fn a_get_over_s3_of_a_segment_that_is_not_there() -> Result<()> {
    get_nothing_over_s3(Broken::One, "get past the end over S3", 5)
}

#[test]
fn a_get_over_s3_of_a_segment_that_is_not_there_whose_store_goes_away() -> Result<()> {
    get_nothing_over_s3(Broken::FromThereOn, "get past the end and S3 goes away", 2)
}
