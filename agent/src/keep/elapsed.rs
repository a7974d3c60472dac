//! How much time has passed, as the archive itself shows it.
//!
//! A clock can jump, and a directory's clock is that of a host like any other: set a year ahead, it would make
//! everything a year old. So time passes only while something is stored. A silence that is longer than any
//! archive in use keeps is not counted: it may be a clock that jumped, or a server that was off, and both times
//! nothing is lost by keeping for longer what there is.

use std::time::Duration;
use walpoint_wal::Timestamp;

/// Longest time between two stored objects that is counted as time that passed: somewhat more than a week,
/// as a cluster at rest may store no more than a weekly backup.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(8 * 24 * 3600);

/// Most that a silence adds to the age of what is about to go: a day, for one who expires daily, and somewhat more. So
/// a clock that jumps adds no more than a day would.
pub const MOST_OF_A_SILENCE: Duration = Duration::from_secs(26 * 3600);

/// What is stored while somebody looks is later than now by less.
const LONGEST_LOOK: Duration = Duration::from_secs(3600);

/// When something was stored.
#[derive(Clone, Debug, Default)]
pub struct SignsOfLife {
    /// In order, none later than now.
    past: Vec<i64>,
    /// The first that is later than now.
    ahead: Option<i64>,
}

impl SignsOfLife {
    /// From times in any order. Those later than `now` say nothing: some clock was wrong.
    pub fn new(times: impl IntoIterator<Item = Timestamp>, now: Timestamp) -> Self {
        let times = times.into_iter().map(|time| time.0);
        let (mut past, ahead): (Vec<i64>, Vec<i64>) = times.partition(|time| *time <= now.0);
        past.sort_unstable();
        past.dedup();
        let is_ahead = |time: &i64| time.saturating_sub(now.0) > micros(LONGEST_LOOK);
        Self { past, ahead: ahead.into_iter().filter(is_ahead).min() }
    }

    /// More of them.
    pub fn with(self, times: impl IntoIterator<Item = Timestamp>, now: Timestamp) -> Self {
        Self::new(self.past.into_iter().chain(self.ahead).map(Timestamp).chain(times), now)
    }

    /// When something was stored that is later than now, but not by more than a silence that is counted. The clock was
    /// set back: what is marked now would be as old as that when it is set right again, by signs that were there before.
    pub fn ahead_of(&self, now: Timestamp) -> Option<Timestamp> {
        self.ahead.filter(|time| time.saturating_sub(now.0) <= micros(LONGEST_SILENCE)).map(Timestamp)
    }

    /// The last one.
    pub fn last(&self) -> Option<Timestamp> {
        self.past.last().copied().map(Timestamp)
    }

    /// The moment from which on so much time has passed until now, silences left out.
    pub fn so_long_ago(&self, now: Timestamp, how_long: Duration) -> Timestamp {
        let mut left = micros(how_long);
        let mut later = now.0;
        for earlier in self.past.iter().rev().copied() {
            let between = later.saturating_sub(earlier);
            if between <= micros(LONGEST_SILENCE) {
                if between >= left {
                    return Timestamp(later - left);
                }
                left -= between;
            }
            later = earlier;
        }
        Timestamp(later.saturating_sub(left))
    }

    /// Whether so much time has passed since then, however a clock may have jumped in the silences.
    pub fn has_passed(&self, since: Timestamp, now: Timestamp, how_long: Duration) -> bool {
        let begin = self.past.partition_point(|time| *time <= since.0);
        let mut earlier = since.0;
        let mut passed: i64 = 0;
        for later in self.past.iter().skip(begin).copied().chain([now.0]) {
            let between = later.saturating_sub(earlier);
            if between <= micros(LONGEST_SILENCE) {
                passed = passed.saturating_add(between.clamp(0, micros(MOST_OF_A_SILENCE)));
            }
            earlier = later;
        }
        passed >= micros(how_long)
    }

    /// The silences after this moment that are not counted.
    pub fn silences_since(&self, since: Timestamp, now: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let ends = self.past.iter().copied().skip(1).chain([now.0]);
        let pairs = self.past.iter().copied().zip(ends);
        let long = pairs.filter(|(from, to)| to - from > micros(LONGEST_SILENCE) && *to > since.0);
        long.map(|(from, to)| (Timestamp(from), Timestamp(to))).collect()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600 * 1_000_000;

    fn days(days: u64) -> Duration {
        Duration::from_secs(days * 24 * 3600)
    }

    fn at(days: &[i64], now: i64) -> SignsOfLife {
        SignsOfLife::new(days.iter().map(|day| Timestamp(day * DAY)), Timestamp(now * DAY))
    }

    fn ago(signs: &SignsOfLife, now: i64, how_long: u64) -> i64 {
        signs.so_long_ago(Timestamp(now * DAY), days(how_long)).0 / DAY
    }

    #[test]
    fn time_passes_while_something_is_stored_now_and_then() {
        let signs = at(&[0, 1, 3, 10, 11], 12);
        for (how_long, expected) in [(0, 12), (1, 11), (2, 10), (5, 7), (9, 3), (12, 0), (20, -8)] {
            assert_eq!(ago(&signs, 12, how_long), expected, "{how_long}");
        }
        assert!(signs.silences_since(Timestamp(0), Timestamp(12 * DAY)).is_empty());
    }

    #[test]
    fn a_clock_that_jumps_a_year_ahead_makes_nothing_a_year_old() {
        // Before the jump; after it, without and with something stored since.
        assert_eq!(ago(&at(&[0, 1, 2, 3], 3), 3, 2), 1);
        let signs = at(&[0, 1, 2, 3], 368);
        assert_eq!(ago(&signs, 368, 2), 1);
        assert_eq!(ago(&at(&[0, 1, 2, 3, 367], 368), 368, 2), 2);
        let silence = signs.silences_since(Timestamp(DAY), Timestamp(368 * DAY));
        assert_eq!(silence, [(Timestamp(3 * DAY), Timestamp(368 * DAY))]);
    }

    #[test]
    fn what_was_stored_later_than_now_is_no_sign_of_life() {
        assert_eq!(ago(&at(&[0, 1, 2, 3, 367, 368], 4), 4, 2), 2);
        assert_eq!(at(&[0, 367], 4).last(), Some(Timestamp(0)));
    }

    #[test]
    fn a_clock_that_was_set_back_is_noticed_by_what_was_stored_before() {
        let ahead =
            |signs: &[i64], now| at(signs, now).ahead_of(Timestamp(now * DAY)).map(|time| time.0 / DAY);
        assert_eq!(ahead(&[0, 1, 2, 3], 3), None);
        assert_eq!(ahead(&[0, 1, 2, 3], 1), Some(2));
        // One that ran ahead for an hour, a year ago, stands in nobody's way.
        assert_eq!(ahead(&[0, 1, 367], 1), None);
        // Stored while somebody looks.
        let now = Timestamp(DAY);
        assert_eq!(SignsOfLife::new([Timestamp(DAY + 1)], now).ahead_of(now), None);
        let signs = at(&[0, 1, 2, 3], 1).with([Timestamp(0)], now);
        assert_eq!(signs.ahead_of(now), Some(Timestamp(2 * DAY)));
    }

    #[test]
    fn without_any_sign_time_passes_as_the_clock_says() {
        assert_eq!(ago(&at(&[], 12), 12, 2), 10);
    }

    #[test]
    fn a_grace_counts_from_the_mark_on() {
        let signs = at(&[0, 1, 2, 3, 367], 368);
        let passed = |since: i64, how_long| {
            signs.has_passed(Timestamp(since * DAY), Timestamp(368 * DAY), days(how_long))
        };
        // Two days since then: one before the jump, one behind it.
        assert!(passed(2, 2) && !passed(2, 3) && passed(367, 1) && !passed(367, 2) && !passed(368, 1));
        assert!(passed(368, 0) && !passed(400, 1));
    }

    #[test]
    fn a_clock_that_jumps_three_days_ahead_ends_no_grace() {
        let jumped = |signs: &[i64]| at(signs, 4).has_passed(Timestamp(DAY), Timestamp(4 * DAY), days(2));
        assert!(!jumped(&[0, 1]));
        // With a sign a day: what an expiry leaves that is run daily.
        assert!(jumped(&[0, 1, 2, 3]));
    }
}
