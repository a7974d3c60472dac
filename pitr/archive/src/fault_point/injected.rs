//! Fails the step that the environment names.
//!
//! `WALPOINT_TEST_FAULT="<n>:<kind>"` fails the n-th step of this process, counted
//! from 1 over all its threads. `WALPOINT_TEST_FAULT_STEPS` names a file that gets
//! a line for every step begun, so that whoever set the fault knows whether it
//! came to it, and which step that was. `WALPOINT_TEST_FAULT_PATIENCE_MS` bounds the
//! time for which a store that has gone is waited for.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

const FAULT: &str = "WALPOINT_TEST_FAULT";
const STEPS: &str = "WALPOINT_TEST_FAULT_STEPS";
const PATIENCE: &str = "WALPOINT_TEST_FAULT_PATIENCE_MS";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// It is not done: an error of the disk, which may pass.
    Error,
    /// It is not done: a refusal that trying again does not help.
    Refused,
    /// It is done, and reported as failed.
    Lost,
    /// The process is killed before it, as by `kill -9`.
    KillBefore,
    /// The process is killed right after it.
    KillAfter,
}

#[derive(Debug)]
struct Script {
    fault: Option<(u64, Kind)>,
    steps: Option<File>,
}

static SCRIPT: OnceLock<Script> = OnceLock::new();
static REACHED: AtomicU64 = AtomicU64::new(0);

/// A step that has come, and the fault that is its own.
#[derive(Debug)]
#[must_use]
pub struct FaultPoint(Option<Kind>);

impl FaultPoint {
    /// Counts the step.
    pub fn reached(name: &str) -> FaultPoint {
        let script = SCRIPT.get_or_init(Script::from_environment);
        let number = REACHED.fetch_add(1, Ordering::SeqCst) + 1;
        if let Some(mut steps) = script.steps.as_ref() {
            // One write, so that the lines of two threads do not mix.
            let _ = steps.write_all(format!("{number} {name}\n").as_bytes());
        }
        FaultPoint(script.fault.filter(|(at, _)| *at == number).map(|(_, kind)| kind))
    }

    /// What happens instead of the step.
    ///
    /// # Errors
    /// The step is to fail without being done.
    pub fn before(&self) -> Result<(), Errno> {
        match self.0 {
            Some(Kind::KillBefore) => die(),
            Some(Kind::Error) => Err(Errno::IO),
            Some(Kind::Refused) => Err(Errno::ROFS),
            _ => Ok(()),
        }
    }

    /// What happens after the step.
    ///
    /// # Errors
    /// Nobody is to know that the step was done.
    pub fn after(&self) -> Result<(), Errno> {
        match self.0 {
            Some(Kind::KillAfter) => die(),
            Some(Kind::Lost) => Err(Errno::IO),
            _ => Ok(()),
        }
    }
}

/// Does one step, or what befalls it.
pub fn step<T, E: From<Errno>>(name: &'static str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    #[cfg(test)]
    super::scripted::next(name)?;
    let point = FaultPoint::reached(name);
    point.before()?;
    let done = work();
    point.after()?;
    done
}

/// How long a store that has gone is waited for: not ten minutes at every point of a torture.
pub fn patience(of_program: Duration) -> Duration {
    match std::env::var(PATIENCE) {
        Ok(text) => {
            of_program.min(Duration::from_millis(text.parse().unwrap_or_else(|_| unusable(PATIENCE))))
        }
        Err(_) => of_program,
    }
}

impl Script {
    fn from_environment() -> Script {
        let fault = std::env::var(FAULT).ok().map(|text| parse(&text).unwrap_or_else(|| unusable(&text)));
        let steps = std::env::var_os(STEPS).map(|path| {
            let opened = OpenOptions::new().append(true).create(true).open(&path);
            opened.unwrap_or_else(|error| unusable(&format!("{STEPS}: {error}")))
        });
        Script { fault, steps }
    }
}

fn parse(text: &str) -> Option<(u64, Kind)> {
    let (number, kind) = text.split_once(':')?;
    let kind = match kind {
        "error" => Kind::Error,
        "refused" => Kind::Refused,
        "lost" => Kind::Lost,
        "kill-before" => Kind::KillBefore,
        "kill-after" => Kind::KillAfter,
        _ => return None,
    };
    Some((number.parse().ok()?, kind))
}

/// A test that is mistaken must not pass for one that found nothing.
fn unusable<T>(what: &str) -> T {
    let _ = writeln!(std::io::stderr(), "walpoint-faults: could not use {what}");
    die()
}

fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_a_number_and_a_kind() {
        assert_eq!(parse("12:lost"), Some((12, Kind::Lost)));
        for text in ["", "12", ":lost", "12:", "12:other", "-1:lost", "12:lost:"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
