//! How fast files are read at most: all workers of a backup together.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest sleep at a time, so that a worker notices soon that the backup was given up.
const NAP: Duration = Duration::from_millis(100);

/// A limit in bytes for each second, or none.
#[derive(Debug)]
pub struct Pace {
    limit: Option<NonZeroU64>,
    /// When what was read so far is paid for.
    due: Mutex<Instant>,
}

impl Pace {
    pub fn new(limit: Option<NonZeroU64>) -> Pace {
        Pace { limit, due: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes more may be read, or nobody wants them any more.
    pub fn wait(&self, bytes: usize, is_given_up: impl Fn() -> bool) {
        let Some(limit) = self.limit else { return };
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = (*due).max(Instant::now());
            *due = begin + time_of(bytes, limit);
            begin
        };
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || is_given_up() {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }
}

/// How long reading so many bytes takes at this rate.
fn time_of(bytes: usize, limit: NonZeroU64) -> Duration {
    let nanos = (bytes as u128).saturating_mul(1_000_000_000) / u128::from(limit.get());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn all_workers_together_keep_the_limit() {
        let pace = Pace::new(NonZeroU64::new(10_000));
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| pace.wait(100, || false)));
            }
        });
        // 2000 bytes; the last 100 of them are not waited for.
        assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
    }

    #[test]
    fn without_a_limit_and_for_nobody_there_is_no_wait() {
        let begun = Instant::now();
        Pace::new(None).wait(usize::MAX, || false);
        let slow = Pace::new(NonZeroU64::new(1));
        slow.wait(1_000_000, || true);
        slow.wait(1_000_000, || true);
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_rate_is_bytes_in_a_second() {
        assert_eq!(time_of(1 << 20, NonZeroU64::new(1 << 20).unwrap()), Duration::from_secs(1));
        assert_eq!(time_of(usize::MAX, NonZeroU64::new(1).unwrap()), Duration::from_nanos(u64::MAX));
    }
}
