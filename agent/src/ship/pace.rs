//! How many files are shipped at once, and when to try again: the one place where pushing ahead backs off.
//!
//! A store that answers is given more, one file at a time, up to the limit. One failure, and there is one file
//! under way until one succeeds: what is wrong with the store, or with the oldest file, is wrong with all.

use std::time::{Duration, Instant};

/// The pause after the first failure, at most; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// It grows no further than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The pace of pushing ahead. Knows no clock.
#[derive(Debug)]
pub struct Pace {
    limit: usize,
    at_once: usize,
    failures: u32,
    not_before: Option<Instant>,
    away_since: Option<Instant>,
}

impl Pace {
    /// At most so many files at once.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { limit, at_once: limit, failures: 0, not_before: None, away_since: None }
    }

    /// Another limit, from now on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
        self.at_once = if self.failures == 0 { self.limit } else { 1 };
    }

    /// Whether another file may be begun beside so many.
    pub fn may_begin(&self, under_way: usize, now: Instant) -> bool {
        under_way < self.at_once && self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// When to look again, when it is the pace that holds files back.
    pub fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Since when nothing succeeds.
    pub fn away_since(&self) -> Option<Instant> {
        self.away_since
    }

    /// A file failed. `chance` is between 0 and 1: agents of many servers must not come back together. True when
    /// it is the first.
    pub fn failed(&mut self, now: Instant, chance: f64) -> bool {
        let doubled = 2u32.saturating_pow(self.failures);
        let limit = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
        self.not_before = Some(now + limit / 2 + (limit / 2).mul_f64(chance.clamp(0.0, 1.0)));
        self.failures = self.failures.saturating_add(1);
        self.at_once = 1;
        self.away_since.get_or_insert(now);
        self.failures == 1
    }

    /// A file was archived. Says how long nothing was, when that is over now.
    pub fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        self.failures = 0;
        self.not_before = None;
        self.at_once = (self.at_once + 1).min(self.limit);
        self.away_since.take().map(|since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_leaves_one_under_way_and_success_brings_the_others_back_one_by_one() {
        let (mut pace, now) = (Pace::new(4), Instant::now());
        assert!(pace.may_begin(3, now) && !pace.may_begin(4, now));
        assert!(pace.failed(now, 1.0));
        assert!(!pace.failed(now, 1.0), "an outage begins once");
        assert!(!pace.may_begin(0, now));
        let later = now + Duration::from_secs(1);
        assert!(pace.may_begin(0, later) && !pace.may_begin(1, later));
        assert_eq!(pace.succeeded(later), Some(Duration::from_secs(1)));
        assert_eq!(pace.succeeded(later), None, "and ends once");
        assert!(pace.may_begin(2, later) && !pace.may_begin(3, later));
    }

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        let now = Instant::now();
        let pause = |failures: u32, chance| {
            let mut pace = Pace::new(1);
            for _ in 0..failures {
                pace.failed(now, chance);
            }
            pace.not_before().unwrap() - now
        };
        assert_eq!(pause(1, 1.0), FIRST_PAUSE);
        assert_eq!(pause(2, 1.0), 2 * FIRST_PAUSE);
        assert_eq!(pause(1000, 1.0), LONGEST_PAUSE);
        assert_eq!(pause(1000, 0.0), LONGEST_PAUSE / 2);
    }
}
