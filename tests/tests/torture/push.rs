//! archive-push: whatever fails, what was acknowledged is there bit for bit, nothing is acknowledged that is
//! not, and the next try succeeds.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use walpoint_tests::archive_files;
use walpoint_tests::torture::{Reached, Torture, Tree};

use crate::breaks::{Breaks, expect_ending, expect_in_archive};
use crate::in_steps::InSteps;
use crate::over_s3::{Broken, OverS3};
use crate::stage::{self, Stage};

/// A file to push, and what was pushed before.
pub struct Push<'a, B> {
    pub breaks: B,
    /// The part of a data directory that archive-push looks at, with the files in it.
    pub skeleton: &'a Path,
    pub before: Vec<&'a str>,
    pub name: &'a str,
    /// Whether it is another content than the one that was pushed under this name.
    pub differs: bool,
}

impl<B: Breaks> Push<'_, B> {
    pub fn every_point(mut self, operation: &str, sample: usize) -> Result<()> {
        let (kinds, points) = (self.breaks.kinds(), self.breaks.points());
        Torture { operation, points, kinds, in_turn: false, stride: 1, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&mut self, number: usize, kind: B::Kind) -> Result<Reached> {
        let data = self.prepare()?;
        let tree = Tree::of(&data)?;
        let file = format!("pg_wal/{}", self.name);
        let done = if self.differs { 3 } else { 0 };

        let (outcome, reached) = self.breaks.run(&data, &["archive-push", &file], number, kind)?;
        expect_ending(&self.breaks, kind, (&outcome, &reached), done, &[1])?;
        if outcome.code() == 0 {
            expect_in_archive(self.breaks.plain(), &data, self.name, &data.join(&file))?;
        }
        self.expect_acknowledged(&data)?;
        if self.breaks.leaves_nothing(kind) {
            let left = archive_files::named(self.breaks.workplace().scratch.path(), ".tmp-");
            ensure!(left.is_empty(), "left behind: {left:?}\n{outcome}");
        }

        self.breaks.age_archive()?;
        let again = self.breaks.plain().run_in(&data, &["archive-push", &file])?;
        ensure!(again.code() == done, "the next try: {again}\nafter {outcome}");
        if !self.differs {
            expect_in_archive(self.breaks.plain(), &data, self.name, &data.join(&file))?;
        }
        self.expect_acknowledged(&data)?;
        tree.unchanged(|path| {
            let name = path.to_string_lossy();
            name == "walpoint.writer" || name == "pg_wal" || name.starts_with(".tmp-")
        })?;
        Ok(reached)
    }

    /// An archive with the files that come before, and a data directory. Its writer is new, as after `initdb`,
    /// unless something was pushed before.
    fn prepare(&mut self) -> Result<PathBuf> {
        self.breaks.empty_archive()?;
        let data = self.breaks.workplace().copy(self.skeleton, "data")?;
        for name in &self.before {
            self.breaks.plain().run_in(&data, &["archive-push", &format!("pg_wal/{name}")])?.success()?;
        }
        if self.differs {
            // Damaged WAL is archived as it is, so this is as good as any other content.
            archive_files::flip_bit(&data.join("pg_wal").join(self.name), 0x2010)?;
        }
        self.breaks.age_archive()?;
        Ok(data)
    }

    fn expect_acknowledged(&self, data: &Path) -> Result<()> {
        let mut before = self.before.iter();
        let wal = self.skeleton.join("pg_wal");
        before.try_for_each(|name| expect_in_archive(self.breaks.plain(), data, name, &wal.join(name)))
    }
}

fn in_steps<'a>(
    before: &[usize],
    name: impl FnOnce(&'a Stage) -> &'a str,
) -> Result<Option<Push<'a, InSteps>>> {
    let Some(stage) = stage::shared()? else { return Ok(None) };
    let Some(breaks) = InSteps::new()? else { return Ok(None) };
    let before = before.iter().map(|&index| stage.waiting[index].as_str()).collect();
    Ok(Some(Push { breaks, skeleton: &stage.skeleton, before, name: name(stage), differs: false }))
}

/// A segment behind another.
fn behind<B>(stage: &Stage, breaks: B) -> Push<'_, B> {
    let before = vec![stage.waiting[0].as_str()];
    Push { breaks, skeleton: &stage.skeleton, before, name: &stage.waiting[1], differs: false }
}

fn over_s3<'a>(broken: Broken) -> Result<Option<Push<'a, OverS3>>> {
    let Some(stage) = stage::shared()? else { return Ok(None) };
    let Some(breaks) = OverS3::new(broken)? else { return Ok(None) };
    Ok(Some(behind(stage, breaks)))
}

#[test]
fn the_first_push_into_an_empty_archive() -> Result<()> {
    let push = in_steps(&[], |stage| &stage.waiting[0])?;
    push.map_or(Ok(()), |push| push.every_point("first push", 8))
}

#[test]
fn the_push_of_a_segment_behind_another() -> Result<()> {
    let push = in_steps(&[0], |stage| &stage.waiting[1])?;
    push.map_or(Ok(()), |push| push.every_point("push", 8))
}

#[test]
fn the_push_of_a_history() -> Result<()> {
    let push = in_steps(&[0], |_| "00000002.history")?;
    push.map_or(Ok(()), |push| push.every_point("push of a history", 6))
}

#[test]
fn the_push_of_a_file_that_is_there_already() -> Result<()> {
    let push = in_steps(&[0], |stage| &stage.waiting[0])?;
    push.map_or(Ok(()), |push| push.every_point("push again", 8))
}

#[test]
fn the_push_of_another_content_under_a_name_that_is_taken() -> Result<()> {
    let Some(mut push) = in_steps(&[0, 1], |stage| &stage.waiting[1])? else { return Ok(()) };
    push.differs = true;
    push.every_point("refused push", 10)
}

#[test]
fn a_push_over_s3_in_steps() -> Result<()> {
    let Some(stage) = stage::shared()? else { return Ok(()) };
    let Some(breaks) = InSteps::in_bucket()? else { return Ok(()) };
    behind(stage, breaks).every_point("push over S3, in steps", 2)
}

#[test]
fn a_push_over_s3_with_one_request_broken() -> Result<()> {
    over_s3(Broken::One)?.map_or(Ok(()), |push| push.every_point("push over S3", 1))
}

#[test]
fn a_push_over_s3_whose_store_goes_away() -> Result<()> {
    over_s3(Broken::FromThereOn)?.map_or(Ok(()), |push| push.every_point("push and S3 goes away", 1))
}

#[test]
fn the_first_push_over_s3() -> Result<()> {
    let Some(mut push) = over_s3(Broken::One)? else { return Ok(()) };
    (push.name, push.before) = (push.before[0], Vec::new());
    push.every_point("first push over S3", 2)
}

#[test]
fn the_push_over_s3_of_another_content_under_a_name_that_is_taken() -> Result<()> {
    let Some(mut push) = over_s3(Broken::One)? else { return Ok(()) };
    push.before.push(push.name);
    push.differs = true;
    push.every_point("refused push over S3", 2)
}
