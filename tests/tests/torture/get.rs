//! archive-get: whatever fails, PostgreSQL gets the whole file or none, and hears "no such file" only of one
//! that the archive does not have and that nothing shows to have existed.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use walpoint_tests::scratch::make_private_dir;
use walpoint_tests::torture::{Reached, Torture, Tree};

use crate::breaks::{Breaks, expect_ending};
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::stage::{self, Stage};
use crate::workplace::{Workplace, copy, text};

const DESTINATION: &str = "pg_wal/RECOVERYXLOG";
const HISTORY: &str = "00000002.history";

struct Get<'a, B> {
    breaks: B,
    /// Copied for every trial.
    data: PathBuf,
    args: Vec<&'a str>,
    answer: Answer,
}

/// What PostgreSQL is to hear.
enum Answer {
    /// What is in this file.
    Content(PathBuf),
    /// "No such file", by which it may end recovery.
    None,
    /// Nothing by which it may go on or end: a later segment is there.
    Gap,
}

impl Answer {
    fn status(&self) -> i32 {
        match self {
            Answer::Content(_) => 0,
            Answer::None => 1,
            Answer::Gap => 255,
        }
    }
}

impl<B: Breaks> Get<'_, B> {
    fn every_point(self, operation: &str, sample: usize) -> Result<()> {
        let (kinds, points) = (self.breaks.kinds(), self.breaks.points());
        Torture { operation, points, kinds, in_turn: false, stride: 1, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&self, number: usize, kind: B::Kind) -> Result<Reached> {
        let data = self.breaks.workplace().copy(&self.data, "data")?;
        let before = Tree::of(&data)?;
        let args: Vec<&str> =
            ["archive-get"].iter().chain(&self.args).chain(&[DESTINATION]).copied().collect();
        let answer = self.answer.status();
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
        if answer == 0 {
            self.expect_whole(&there)?;
        }
        // What a killed run left is gone by now.
        before.unchanged(|path| is_pg_wal(path) || path.as_os_str() == DESTINATION)?;
        Ok(reached)
    }

    fn expect_whole(&self, there: &Path) -> Result<()> {
        let Answer::Content(content) = &self.answer else { bail!("a file that the archive does not have") };
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

fn archived(stage: &Stage) -> (&str, Answer) {
    let name = stage.archived[1].as_str();
    (name, Answer::Content(stage.scene.cluster.data().join("pg_wal").join(name)))
}

fn in_steps() -> Result<Option<(&'static Stage, InSteps)>> {
    let Some(stage) = stage::shared()? else { return Ok(None) };
    Ok(InSteps::on(stage.archive()?)?.map(|breaks| (stage, breaks)))
}

/// Files of the stage that are pushed before anything is fetched.
fn push<B: Breaks>(stage: &Stage, breaks: &B, names: &[&str]) -> Result<()> {
    let data = breaks.workplace().copy(&stage.skeleton, "pushing")?;
    for name in names {
        breaks.plain().run_in(&data, &["archive-push", &format!("pg_wal/{name}")])?.success()?;
    }
    Ok(())
}

/// The get of a file from an archive that has these.
fn get_of<B: Breaks>(
    breaks: Option<B>,
    pushed: &[&str],
    (name, answer): (&str, Answer),
    operation: &str,
    sample: usize,
) -> Result<()> {
    let (Some(stage), Some(mut breaks)) = (stage::shared()?, breaks) else { return Ok(()) };
    breaks.empty_archive()?;
    push(stage, &breaks, pushed)?;
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec![name], answer }.every_point(operation, sample)
}

fn get_over_s3(broken: Broken, operation: &str, sample: usize) -> Result<()> {
    let Some(stage) = stage::shared()? else { return Ok(()) };
    let [first, second, _] = waiting(stage);
    let wanted = (first, Answer::Content(stage.wal(first)));
    get_of(OverS3::new(broken)?, &[first, second], wanted, operation, sample)
}

fn get_nothing_over_s3(broken: Broken, operation: &str, sample: usize) -> Result<()> {
    let Some(stage) = stage::shared()? else { return Ok(()) };
    let [first, second, third] = waiting(stage);
    get_of(OverS3::new(broken)?, &[first, second], (third, Answer::None), operation, sample)
}

/// The segment in the middle is not there.
fn get_of_a_gap<B: Breaks>(breaks: Option<B>, operation: &str, sample: usize) -> Result<()> {
    let Some(stage) = stage::shared()? else { return Ok(()) };
    let [first, second, third] = waiting(stage);
    get_of(breaks, &[first, third], (second, Answer::Gap), operation, sample)
}

fn get_of_a_history<B: Breaks>(breaks: Option<B>, operation: &str, sample: usize) -> Result<()> {
    let Some(stage) = stage::shared()? else { return Ok(()) };
    let [first, ..] = waiting(stage);
    let wanted = (HISTORY, Answer::Content(stage.wal(HISTORY)));
    get_of(breaks, &[first, HISTORY], wanted, operation, sample)
}

fn waiting(stage: &Stage) -> [&str; 3] {
    [&stage.waiting[0], &stage.waiting[1], &stage.waiting[2]]
}

#[test]
fn the_get_of_a_segment() -> Result<()> {
    let Some((stage, breaks)) = in_steps()? else { return Ok(()) };
    let (name, answer) = archived(stage);
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec![name], answer }.every_point("get", 8)
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
    let (name, answer) = archived(stage);
    let args = vec!["--contract", "walpoint.recovery.json", name];
    Get { breaks, data, args, answer }.every_point("get with a contract", 8)
}

#[test]
fn the_get_of_a_segment_that_is_not_there() -> Result<()> {
    let Some((stage, breaks)) = in_steps()? else { return Ok(()) };
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec![&stage.waiting[2]], answer: Answer::None }
        .every_point("get past the end", 8)
}

#[test]
fn the_get_of_a_segment_that_is_missing_between_others() -> Result<()> {
    get_of_a_gap(InSteps::new()?, "get of a gap", 6)
}

#[test]
fn the_get_of_a_history() -> Result<()> {
    get_of_a_history(InSteps::new()?, "get of a history", 6)
}

#[test]
fn the_get_of_a_history_that_is_not_there() -> Result<()> {
    let Some((stage, breaks)) = in_steps()? else { return Ok(()) };
    let data = data(stage, breaks.workplace())?;
    Get { breaks, data, args: vec![HISTORY], answer: Answer::None }.every_point("get of no history", 8)
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

#[test]
fn a_get_over_s3_of_a_segment_that_is_missing_between_others() -> Result<()> {
    get_of_a_gap(OverS3::new(Broken::One)?, "get of a gap over S3", 4)
}

#[test]
fn a_get_over_s3_of_a_segment_that_is_missing_between_others_whose_store_goes_away() -> Result<()> {
    get_of_a_gap(OverS3::new(Broken::FromThereOn)?, "get of a gap and S3 goes away", 1)
}

#[test]
fn a_get_over_s3_of_a_history() -> Result<()> {
    get_of_a_history(OverS3::new(Broken::One)?, "get of a history over S3", 4)
}
