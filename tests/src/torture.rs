//! Fails an operation at every one of its points in turn: the n-th step or the
//! n-th request, n = 1, 2, 3 … until a run passes untouched.
//!
//! The whole of it is `scripts/torture`. A test run tries a sample, whose seed
//! is printed; `WALPOINT_TEST_TORTURE_SEED` chooses it again. What failed is
//! printed as the variable that tries it alone.

mod extent;
mod steps;
mod tally;
mod tree;

use std::fmt::Display;

use anyhow::{Context, Result, bail};

use extent::Extent;
pub use steps::{KINDS, StepFault, Steps};
use tally::{ENOUGH_FAILURES, Tally};
pub use tree::Tree;

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
    /// Of thousands of points each fails in one of the ways, which take turns; else in every one.
    pub in_turn: bool,
    /// Of those that take turns every so many-th fails, and every one at both ends.
    pub stride: usize,
    /// How many points a sample has.
    pub sample: usize,
}

impl<K: Copy + Display> Torture<'_, K> {
    /// Tries all points, a sample, or the one that the environment names. `trial`
    /// prepares everything anew, runs the operation with this fault at the point
    /// of this number (none has number 0), and checks what must hold whatever
    /// happened.
    pub fn run(&self, mut trial: impl FnMut(usize, K) -> Result<Reached>) -> Result<()> {
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
                let count = self.count(&mut trial)?;
                self.sample(seed, count, &mut trial)
            }
        }
    }

    /// How many points there are.
    fn count(&self, trial: &mut impl FnMut(usize, K) -> Result<Reached>) -> Result<usize> {
        let first = *self.kinds.first().context("no kinds of faults")?;
        match trial(0, first)? {
            Reached::Untouched(count) => Ok(count),
            Reached::Hit(_) => bail!("{}: a fault where none was ordered", self.operation),
        }
    }

    fn all(&self, trial: &mut impl FnMut(usize, K) -> Result<Reached>) -> Result<()> {
        if self.in_turn {
            return self.all_in_turn(trial);
        }
        let mut tally = Tally::new(self.operation);
        let mut tried = Vec::new();
        for kind in self.kinds {
            if tally.failures() >= ENOUGH_FAILURES {
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

    fn all_in_turn(&self, trial: &mut impl FnMut(usize, K) -> Result<Reached>) -> Result<()> {
        let mut tally = Tally::new(self.operation);
        let count = if self.stride > 1 { self.count(trial)? } else { 0 };
        let mut tried = 0;
        let numbers = (1..).filter(|number| is_tried(*number, count, self.stride));
        for (number, kind) in numbers.zip(self.kinds.iter().cycle()) {
            if tally.failures() >= ENOUGH_FAILURES || !tally.goes_on(number, kind, || trial(number, *kind)) {
                break;
            }
            tried += 1;
        }
        let kinds: Vec<String> = self.kinds.iter().map(K::to_string).collect();
        println!("{}: {tried} {} tried, in turn: {}", self.operation, self.points, kinds.join(", "));
        tally.end()
    }

    fn sample(
        &self,
        seed: u64,
        count: usize,
        trial: &mut impl FnMut(usize, K) -> Result<Reached>,
    ) -> Result<()> {
        let mut tally = Tally::new(self.operation);
        // One more request or fewer in another run: a point that is not met is replaced by another.
        for index in extent::order(seed, count * self.kinds.len()) {
            if tally.tried() >= self.sample {
                break;
            }
            let kind = self.kinds[index % self.kinds.len()];
            let number = index / self.kinds.len() + 1;
            tally.goes_on(number, &kind, || trial(number, kind));
        }
        println!(
            "{}: {} of {count} {} x {} kinds tried, seed {seed}",
            self.operation,
            tally.tried(),
            self.points,
            self.kinds.len()
        );
        tally.end()
    }
}

/// How many points at each end are all tried.
const ENDS: usize = 150;

/// Whether the point of this number is, of so many.
fn is_tried(number: usize, count: usize, stride: usize) -> bool {
    number <= ENDS || number + ENDS > count || number.is_multiple_of(stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_tried_and_every_third_point_in_between() {
        let tried: Vec<usize> = (1..=400).filter(|number| is_tried(*number, 400, 3)).collect();
        assert_eq!(tried.len(), 300 + 33);
        assert!((1..=150).chain(251..=400).chain([153, 249]).all(|number| tried.contains(&number)));
        assert!((1..=400).all(|number| is_tried(number, 0, 1)));
    }
}
