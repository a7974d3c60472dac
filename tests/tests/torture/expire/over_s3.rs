//! Over S3, where nothing can be made old: every trial takes a backup, so that the one before it goes.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use walpoint_tests::garage::Garage;
use walpoint_tests::scene::Scene;
use walpoint_tests::torture::{Reached, Torture};

use super::{
    NOT_DONE, Phase, apply, expect_finished, expect_marked, expect_recovers, listed, restored,
    row_and_backup, run_expire,
};
use crate::breaks::{Breaks, expect_ending};
use crate::over_s3::{Broken, OverS3};
use crate::requests::RequestFault;
use crate::stage::{self, ROWS};
use crate::workplace::Workplace;

/// The second that S3 tells times in.
const LATER: Duration = Duration::from_millis(1200);

/// How often the newest moment is recovered to.
const STARTS: usize = 2;

struct ExpireOverS3 {
    breaks: OverS3,
    scene: Scene,
    phase: Phase,
    goes: String,
    stays: String,
    started: usize,
}

impl ExpireOverS3 {
    fn prepared(phase: Phase) -> Result<Option<ExpireOverS3>> {
        let Some(garage) = Garage::shared()? else { return Ok(None) };
        let Some(scene) = stage::small_scene(Some(garage))? else { return Ok(None) };
        let breaks = OverS3::of(garage, Workplace::new()?, scene.walpoint.clone(), Broken::One)?;
        let goes = row_and_backup(&scene, &["backup"])?;
        let stays = row_and_backup(&scene, &["backup"])?;
        Ok(Some(ExpireOverS3 { breaks, scene, phase, goes, stays, started: 0 }))
    }

    /// Of its hundred requests each is broken in one way.
    fn every_point(&mut self, operation: &str, sample: usize) -> Result<()> {
        let (kinds, points) = (self.breaks.kinds(), self.breaks.points());
        Torture { operation, points, kinds, in_turn: true, stride: 1, sample }
            .run(|number, kind| self.trial(number, kind))
    }

    fn trial(&mut self, number: usize, kind: RequestFault) -> Result<Reached> {
        let grace = self.grace();
        if self.phase == Phase::Delete {
            run_expire(self.breaks.plain(), grace)?;
            thread::sleep(LATER);
        }
        let (outcome, reached) = self.breaks.run(Path::new("/"), &apply(grace), number, kind)?;
        expect_ending(&self.breaks, kind, (&outcome, &reached), 0, &NOT_DONE)?;
        self.expect_promises().with_context(|| outcome.to_string())?;
        if outcome.code() == 0 {
            self.expect_done().with_context(|| outcome.to_string())?;
        }
        run_expire(self.breaks.plain(), grace).with_context(|| format!("again, after\n{outcome}"))?;
        if self.phase == Phase::Delete && outcome.code() != 0 {
            // A backup of today that has no summary any more may be one that is being made: its mark was taken away,
            // and the rest of what it named has a new one.
            thread::sleep(LATER);
            run_expire(self.breaks.plain(), grace)?;
        }
        self.expect_done().with_context(|| format!("again, after\n{outcome}"))?;
        self.begin_anew()?;
        Ok(reached)
    }

    /// Nothing is to go while it is marked; then what one run marks the next one deletes.
    fn grace(&self) -> &'static str {
        match self.phase {
            Phase::Mark => "1d",
            Phase::Delete => "0s",
        }
    }

    /// What is listed restores, and the newest moment can be recovered to.
    fn expect_promises(&mut self) -> Result<()> {
        let plain = self.breaks.plain();
        let listed = listed(plain)?;
        ensure!(listed.contains(&self.stays), "{} is not listed any more", self.stays);
        if self.phase == Phase::Mark {
            return self.expect_both();
        }
        for id in listed {
            restored(&self.scene, plain, self.breaks.workplace(), &id)?;
        }
        plain.ok(&["plan", "--latest"])?;
        self.started += 1;
        if self.started <= STARTS {
            let rows = self.scene.cluster.value(ROWS)?;
            self.scene.archive_everything()?;
            expect_recovers(&self.scene, plain, self.breaks.workplace(), &rows)?;
        }
        Ok(())
    }

    fn expect_done(&self) -> Result<()> {
        match self.phase {
            Phase::Mark => expect_marked(self.breaks.plain()).and_then(|()| self.expect_both()),
            Phase::Delete => expect_finished(self.breaks.plain(), &self.stays),
        }
    }

    /// Nothing goes that was not marked.
    fn expect_both(&self) -> Result<()> {
        let both = BTreeSet::from([self.goes.clone(), self.stays.clone()]);
        ensure!(listed(self.breaks.plain())? == both, "what was not marked went");
        self.breaks.plain().ok(&["verify", "--quick"]).map(drop)
    }

    /// Takes the marks away, or a backup for the next trial.
    fn begin_anew(&mut self) -> Result<()> {
        if self.phase == Phase::Mark {
            return self.breaks.plain().ok(&["expire", "--keep-last", "9", "--apply"]).map(drop);
        }
        let next = row_and_backup(&self.scene, &["backup"])?;
        self.goes = std::mem::replace(&mut self.stays, next);
        Ok(())
    }
}

#[test]
fn an_expire_over_s3_that_marks() -> Result<()> {
    let Some(mut expire) = ExpireOverS3::prepared(Phase::Mark)? else { return Ok(()) };
    expire.every_point("expire marks over S3", 1)
}

#[test]
fn an_expire_over_s3_that_deletes() -> Result<()> {
    let Some(mut expire) = ExpireOverS3::prepared(Phase::Delete)? else { return Ok(()) };
    expire.every_point("expire deletes over S3", 1)
}
