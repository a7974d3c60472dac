//! The two ways in which the operations are broken: their own steps, and the
//! requests that they send to a store.

use std::fmt::Display;
use std::path::Path;

use anyhow::{Result, bail, ensure};
use walpoint_tests::process::Outcome;
use walpoint_tests::torture::Reached;
use walpoint_tests::walpoint::Walpoint;

use crate::workplace::Workplace;

/// Where a file is fetched to that was pushed, in the data directory.
const FETCHED: &str = "pg_wal/FETCHED";

pub trait Breaks {
    type Kind: Copy + Display + 'static;

    fn kinds(&self) -> &'static [Self::Kind];

    /// What is numbered: "steps", "requests".
    fn points(&self) -> &'static str;

    fn workplace(&self) -> &Workplace;

    /// The program as it is shipped, with a sound way to the archive.
    fn plain(&self) -> &Walpoint;

    /// An archive that is empty again.
    fn empty_archive(&mut self) -> Result<()>;

    /// Lets time pass for what is in the archive, as far as that can be done: a push waits five seconds
    /// before it acknowledges what somebody else has just put.
    fn age_archive(&self) -> Result<()>;

    /// Runs with a fault at the point of this number.
    fn run(
        &self,
        directory: &Path,
        args: &[&str],
        number: usize,
        kind: Self::Kind,
    ) -> Result<(Outcome, Reached)>;

    /// How a run may end that this befell.
    fn endings(&self, kind: Self::Kind) -> Endings;

    /// Whether a run that this befell cleans up behind itself.
    fn leaves_nothing(&self, kind: Self::Kind) -> bool;
}

/// How a run may end that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endings {
    /// By `kill -9`.
    Killed,
    /// As if nothing had been, because it tried again, or with an error.
    Either,
    /// With an error.
    Failed,
    /// With an error, unless it says why that is none.
    FailedOrSaid,
}

/// How a run says that it goes on without what it was refused.
const SAID: [&str; 2] = ["; trying again", "could not keep the writer's id"];

/// Checks the status of a run: `done` when nothing befell it.
pub fn expect_ending<B: Breaks>(
    breaks: &B,
    kind: B::Kind,
    (outcome, reached): (&Outcome, &Reached),
    done: i32,
    failed: &[i32],
) -> Result<()> {
    let code = outcome.code();
    let fits = match reached {
        Reached::Untouched(_) => code == done,
        Reached::Hit(_) => match breaks.endings(kind) {
            Endings::Killed => code == 137,
            Endings::Either => code == done || failed.contains(&code),
            Endings::Failed => failed.contains(&code),
            Endings::FailedOrSaid => {
                let is_said = SAID.iter().any(|said| outcome.stderr.contains(said));
                // A conflict is an error already.
                failed.contains(&code) || code == done && (is_said || done == 3)
            }
        },
    };
    if !fits {
        bail!("{reached:?}: status {code}, not {done} nor {failed:?}\n{outcome}");
    }
    Ok(())
}

/// Fetches a WAL file as PostgreSQL would, and compares it with what was pushed.
pub fn expect_in_archive(plain: &Walpoint, data: &Path, name: &str, content: &Path) -> Result<()> {
    let outcome = plain.run_in(data, &["archive-get", name, FETCHED])?;
    ensure!(outcome.code() == 0, "{name} was acknowledged and cannot be had\n{outcome}");
    let fetched = data.join(FETCHED);
    let same = std::fs::read(&fetched)? == std::fs::read(content)?;
    std::fs::remove_file(&fetched)?;
    ensure!(same, "{name} was acknowledged and is another file now");
    Ok(())
}
