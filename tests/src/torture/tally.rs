//! What was tried of an operation, and what came of it.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Reached;

/// Names the file that gets a line for every operation: its name, points, failures, seconds.
const TALLY: &str = "WALPOINT_TEST_TORTURE_TALLY";

/// After so many failures there is no sense in going on.
pub(super) const ENOUGH_FAILURES: usize = 12;

/// How many points of an operation were tried, and which failed.
pub(super) struct Tally<'a> {
    operation: &'a str,
    begun: Instant,
    tried: usize,
    slowest: (Duration, String),
    failures: Vec<String>,
}

impl Tally<'_> {
    pub(super) fn new(operation: &str) -> Tally<'_> {
        Tally {
            operation,
            begun: Instant::now(),
            tried: 0,
            slowest: Default::default(),
            failures: Vec::new(),
        }
    }

    pub(super) fn tried(&self) -> usize {
        self.tried
    }

    pub(super) fn failures(&self) -> usize {
        self.failures.len()
    }

    /// Tries a point; false when there is none of this number.
    pub(super) fn goes_on(
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

    pub(super) fn end(self) -> Result<()> {
        let (tried, seconds) = (self.tried, self.begun.elapsed().as_secs_f64());
        println!(
            "{}: {tried} points in {seconds:.1} s, the slowest {} in {:.1} s, {} failed",
            self.operation,
            self.slowest.1,
            self.slowest.0.as_secs_f64(),
            self.failures.len()
        );
        self.note(seconds)?;
        ensure!(tried > 0, "{}: nothing was tried", self.operation);
        ensure!(self.failures.is_empty(), "{}: failed at\n{}", self.operation, self.failures.join("\n"));
        Ok(())
    }

    /// Adds a line to the file that `scripts/torture` and `scripts/test` sum up: what a test prints is
    /// not seen when it passes.
    fn note(&self, seconds: f64) -> Result<()> {
        let Some(path) = std::env::var_os(TALLY) else { return Ok(()) };
        let mut file = OpenOptions::new().create(true).append(true).open(&path).context("open the tally")?;
        let (tried, failed) = (self.tried, self.failures.len());
        // One write, so that the lines of two tests do not mix.
        let line = format!("{}\t{tried}\t{failed}\t{seconds:.1}\n", self.operation);
        file.write_all(line.as_bytes()).context("write the tally")
    }
}
