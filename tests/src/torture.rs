//! Fails an operation at every one of its points in turn: the n-th step or the
//! n-th request, n = 1, 2, 3 … until a run passes untouched.
//!
//! The whole of it is `scripts/torture`. A test run tries a sample, whose seed
//! is printed; `WALPOINT_TEST_TORTURE_SEED` chooses it again. What failed is
//! printed as the variable that tries it alone.

mod extent;
mod steps;
mod tree;

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use extent::Extent;
pub use steps::{KINDS, StepFault, Steps};
pub use tree::Tree;

/// After so many failures there is no sense in going on.
const ENOUGH_FAILURES: usize = 12;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// The fault befell this.
    Hit(String),
    /// The run had so many points, and the one to fail was not among them.
    Untouched(usize),
}

/// An operation and the ways in which each of its points can fail.
#[derive(Debug)]
pub struct Torture<'a, K> {
    /// A few words without a slash.
    pub operation: &'a str,
    /// What are numbered: "steps", "requests".
    pub points: &'a str,
    pub kinds: &'a [K],
    /// How many points a sample has.
    pub sample: usize,
}

impl<K: Copy + Display> Torture<'_, K> {
    /// Tries all points, a sample, or the one that the environment names. `trial`
    /// prepares everything anew, runs the operation with this fault at the point
    /// of this number (none has number 0), and checks what must hold whatever
    /// happened.
    pub fn run(&self, mut trial: impl FnMut(usize, K) -> Result<Reached>) -> Result<()> {
        let first = *self.kinds.first().context("no kinds of faults")?;
        match Extent::of(self.operation)? {
            Extent::Other => Ok(()),
            Extent::Only { number, kind } => {
                let kind = self.kinds.iter().find(|known| known.to_string() == kind);
                let kind = *kind.with_context(|| format!("{} has no such kind of fault", self.operation))?;
                let reached = trial(number, kind)?;
                println!("{} {number}:{kind}: {reached:?}", self.operation);
                Ok(())
            }
            Extent::All => self.all(&mut trial),
            Extent::Sample { seed } => {
                let Reached::Untouched(count) = trial(0, first)? else {
                    bail!("{}: a fault where none was ordered", self.operation);
                };
                self.sample(seed, count, &mut trial)
            }
        }
    }

    fn all(&self, trial: &mut impl FnMut(usize, K) -> Result<Reached>) -> Result<()> {
        let mut tally = Tally::new(self.operation);
        let mut tried = Vec::new();
        for kind in self.kinds {
            if tally.failures.len() >= ENOUGH_FAILURES {
                break;
            }
            let mut number = 1;
            while tally.goes_on(number, kind, || trial(number, *kind)) {
                number += 1;
            }
            tried.push(format!("{} {kind}", number - 1));
        }
        println!("{}: {} tried: {}", self.operation, self.points, tried.join(", "));
        tally.end()
    }

    fn sample(
        &self,
        seed: u64,
        count: usize,
        trial: &mut impl FnMut(usize, K) -> Result<Reached>,
    ) -> Result<()> {
        let mut tally = Tally::new(self.operation);
        let chosen = extent::choose(seed, count * self.kinds.len(), self.sample);
        for index in chosen {
            let kind = self.kinds[index % self.kinds.len()];
            let number = index / self.kinds.len() + 1;
            tally.goes_on(number, &kind, || trial(number, kind));
        }
        println!(
            "{}: {} of {count} {} x {} kinds tried, seed {seed}",
            self.operation,
            tally.tried,
            self.points,
            self.kinds.len()
        );
        tally.end()
    }
}

struct Tally<'a> {
    operation: &'a str,
    begun: Instant,
    tried: usize,
    slowest: (Duration, String),
    failures: Vec<String>,
}

impl Tally<'_> {
    fn new(operation: &str) -> Tally<'_> {
        Tally {
            operation,
            begun: Instant::now(),
            tried: 0,
            slowest: Default::default(),
            failures: Vec::new(),
        }
    }

    /// Tries a point; false when there is none of this number.
    fn goes_on(
        &mut self,
        number: usize,
        kind: &impl Display,
        trial: impl FnOnce() -> Result<Reached>,
    ) -> bool {
        let begun = Instant::now();
        let result = trial();
        if begun.elapsed() > self.slowest.0 {
            self.slowest = (begun.elapsed(), format!("{number}:{kind}"));
        }
        match result {
            Ok(Reached::Untouched(_)) => return false,
            Ok(Reached::Hit(_)) => {}
            Err(error) => {
                let point = format!("WALPOINT_TEST_TORTURE='{}/{number}:{kind}'", self.operation);
                println!("failed: {point}\n{error:?}");
                self.failures.push(point);
            }
        }
        self.tried += 1;
        self.failures.len() < ENOUGH_FAILURES
    }

    fn end(self) -> Result<()> {
        let (tried, seconds) = (self.tried, self.begun.elapsed().as_secs_f64());
        println!(
            "{}: {tried} points in {seconds:.1} s, the slowest {} in {:.1} s, {} failed",
            self.operation,
            self.slowest.1,
            self.slowest.0.as_secs_f64(),
            self.failures.len()
        );
        ensure!(tried > 0, "{}: nothing was tried", self.operation);
        ensure!(self.failures.is_empty(), "{}: failed at\n{}", self.operation, self.failures.join("\n"));
        Ok(())
    }
}
