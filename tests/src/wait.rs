//! Waiting for a condition, with a deadline. Nothing in the harness decides by
//! having slept long enough.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const PAUSE: Duration = Duration::from_millis(20);

/// Calls `probe` until it returns something; fails after `limit`, naming what
/// was waited for.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {:.1} s in vain for: {what}", start.elapsed().as_secs_f64());
        }
        std::thread::sleep(PAUSE);
    }
}

/// As [`until`], for a plain yes or no.
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, limit, || Ok(probe()?.then_some(())))
}
