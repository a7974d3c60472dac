//! Runs the build of walpoint whose steps can be made to fail.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::Reached;
use crate::process::Outcome;
use crate::programs;
use crate::walpoint::Walpoint;

/// How a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepFault {
    /// It is not done: an error of the disk, which the program may try again.
    Error,
    /// It is not done: a refusal, which it may not.
    Refused,
    /// It is done and reported as failed: a reply that was lost.
    Lost,
    /// `kill -9` before it.
    KillBefore,
    /// `kill -9` right after it.
    KillAfter,
}

pub const KINDS: [StepFault; 5] =
    [StepFault::Error, StepFault::Refused, StepFault::Lost, StepFault::KillBefore, StepFault::KillAfter];

impl StepFault {
    pub fn kills(self) -> bool {
        matches!(self, StepFault::KillBefore | StepFault::KillAfter)
    }
}

impl fmt::Display for StepFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StepFault::Error => "error",
            StepFault::Refused => "refused",
            StepFault::Lost => "lost",
            StepFault::KillBefore => "kill-before",
            StepFault::KillAfter => "kill-after",
        })
    }
}

/// The program with fault points, and where it notes its steps.
#[derive(Debug)]
pub struct Steps {
    walpoint: Walpoint,
    notes: PathBuf,
}

impl Steps {
    /// The same configuration for the build with fault points. `notes` is a file
    /// that the user may make. `None` where that build is missing.
    pub fn of(walpoint: &Walpoint, notes: PathBuf) -> Result<Option<Steps>> {
        let Some(binary) = programs::walpoint_faults()? else { return Ok(None) };
        Ok(Some(Steps { walpoint: walpoint.with_binary(binary), notes }))
    }

    /// Runs with a fault at the step of this number. Of the status only that is
    /// checked which is the fault's own: a run that is killed ends by that.
    pub fn run(
        &self,
        directory: &Path,
        args: &[&str],
        number: usize,
        fault: StepFault,
    ) -> Result<(Outcome, Reached)> {
        if self.notes.exists() {
            std::fs::remove_file(&self.notes).context("remove the last run's notes")?;
        }
        let notes = self.notes.to_str().context("a path")?;
        let outcome = self
            .walpoint
            .with_environment("WALPOINT_TEST_FAULT", &format!("{number}:{fault}"))
            .with_environment("WALPOINT_TEST_FAULT_STEPS", notes)
            .run_in(directory, args)?;
        let steps = std::fs::read_to_string(&self.notes).unwrap_or_default();
        let mark = format!("{number} ");
        let reached = match steps.lines().find_map(|line| line.strip_prefix(&mark)) {
            Some(name) => Reached::Hit(name.to_owned()),
            None => Reached::Untouched(steps.lines().count()),
        };
        let is_killed = outcome.code() == 137;
        let is_to_be = fault.kills() && matches!(reached, Reached::Hit(_));
        ensure!(is_killed == is_to_be, "{reached:?}\n{outcome}");
        ensure!(steps.lines().count() > 0, "no step was counted\n{outcome}");
        Ok((outcome, reached))
    }
}
