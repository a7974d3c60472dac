//! What happened, for those who ask: totals, rates, the last failure, and whether what waits grows.

use super::clock;
use super::report::{LastError, ShippedFacts};
use crate::exit::Failure;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use walpoint_wal::WalFileName;

/// Over this time rates are averaged.
const MINUTE: Duration = Duration::from_secs(60);
/// Over this time growth is.
const GROWTH: Duration = Duration::from_secs(600);
/// Growth of a shorter time says nothing.
const SHORTEST: Duration = Duration::from_secs(20);
/// No more than so many files or moments are kept for that.
const KEPT: usize = 4096;

/// The agent's account.
#[derive(Debug, Default)]
pub struct Account {
    files: u64,
    bytes: u64,
    last: Option<WalFileName>,
    lately: VecDeque<Instant>,
    waiting: VecDeque<(Instant, u64)>,
    last_error: Option<LastError>,
}

impl Account {
    /// A file was archived.
    pub fn archived(&mut self, name: WalFileName, bytes: u64, now: Instant) {
        self.files += 1;
        self.bytes += bytes;
        self.last = Some(name);
        self.lately.push_back(now);
        self.forget_before(now);
    }

    /// A file was not.
    pub fn failed(&mut self, failure: &Failure) {
        let Failure { error, hint, .. } = failure.clone();
        self.last_error = Some(LastError { time: clock::now(), error, hint });
    }

    /// So much waits now.
    pub fn waits(&mut self, bytes: u64, now: Instant) {
        self.waiting.push_back((now, bytes));
        while self.waiting.len() > KEPT
            || self.waiting.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > GROWTH)
        {
            self.waiting.pop_front();
        }
    }

    /// Hours until so many bytes are full, if what waits grows as it did.
    pub fn hours_left(&self, free: u64) -> Option<f64> {
        let ((first, less), (last, more)) = (self.waiting.front()?, self.waiting.back()?);
        let time = last.saturating_duration_since(*first);
        let grown = more.checked_sub(*less).filter(|grown| *grown > 0 && time >= SHORTEST)?;
        let per_second = grown as f64 / time.as_secs_f64();
        Some(free as f64 / per_second / 3600.0)
    }

    /// For a report.
    pub fn shipped(&mut self, ahead: usize, now: Instant) -> ShippedFacts {
        self.forget_before(now);
        let files_per_second = self.lately.len() as f64 / MINUTE.as_secs_f64();
        ShippedFacts {
            files: self.files,
            bytes: self.bytes,
            last: self.last.map(|name| name.to_string()),
            ahead,
            files_per_second,
        }
    }

    /// The last failure.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.clone()
    }

    fn forget_before(&mut self, now: Instant) {
        while self.lately.len() > KEPT
            || self.lately.front().is_some_and(|at| now.saturating_duration_since(*at) > MINUTE)
        {
            self.lately.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fills_is_seen_in_time_and_one_that_does_not_is_not() {
        let (mut account, start) = (Account::default(), Instant::now());
        for minute in 0..=5 {
            account.waits(minute * 600, start + Duration::from_secs(60 * minute));
        }
        // 10 bytes a second.
        assert_eq!(account.hours_left(36_000), Some(1.0));
        for minute in 6..=20 {
            account.waits(3000, start + Duration::from_secs(60 * minute));
        }
        assert_eq!(account.hours_left(36_000), None, "it has not grown for ten minutes");
    }

    #[test]
    fn a_moment_says_nothing_of_growth() {
        let (mut account, start) = (Account::default(), Instant::now());
        account.waits(0, start);
        assert_eq!(account.hours_left(1), None);
        account.waits(1 << 30, start + Duration::from_secs(1));
        assert_eq!(account.hours_left(1), None);
    }

    #[test]
    fn what_is_kept_for_rates_is_bounded() {
        let (mut account, now) = (Account::default(), Instant::now());
        for _ in 0..3 * KEPT {
            account.archived("00000002.history".parse().unwrap(), 1, now);
            account.waits(1, now);
        }
        assert!(account.lately.len() <= KEPT && account.waiting.len() <= KEPT);
        assert_eq!(account.shipped(0, now).files, 3 * KEPT as u64);
    }
}
