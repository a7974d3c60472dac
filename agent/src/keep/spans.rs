//! Sets of numbers that come in spans: segments, mostly from one to another.

use std::collections::BTreeMap;

/// Numbers, as spans that do not overlap: the first of each and its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(BTreeMap<u64, u64>);

impl Spans {
    /// All numbers from one to another, both included.
    pub fn add(&mut self, mut first: u64, mut last: u64) {
        while let Some((from, to)) = self.last_that_begins_by(last).filter(|(_, to)| *to >= first) {
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        if first <= last {
            self.0.insert(first, last);
        }
    }

    /// What any of these hold.
    pub fn all<K>(spans: BTreeMap<K, Spans>) -> Self {
        let mut all = Self::default();
        spans.into_values().flat_map(|spans| spans.0).for_each(|(first, last)| all.add(first, last));
        all
    }

    /// What of the numbers from one to another is not among them, as spans in their order.
    pub fn others(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut others = Vec::new();
        if first > last {
            return others;
        }
        let mut next = Some(first);
        let begin = self.last_that_begins_by(first).map_or(first, |(from, _)| from);
        for (from, to) in self.0.range(begin..=last) {
            let Some(at) = next else { break };
            if *from > at {
                others.push((at, from - 1));
            }
            if *to >= at {
                next = to.checked_add(1);
            }
        }
        others.extend(next.filter(|at| *at <= last).map(|at| (at, last)));
        others
    }

    /// Whether this number is among them.
    pub fn hold(&self, number: u64) -> bool {
        self.hold_any(number, number)
    }

    /// Whether any number from one to another is among them.
    pub fn hold_any(&self, first: u64, last: u64) -> bool {
        first <= last && self.last_that_begins_by(last).is_some_and(|(_, to)| to >= first)
    }

    fn last_that_begins_by(&self, number: u64) -> Option<(u64, u64)> {
        self.0.range(..=number).next_back().map(|(from, to)| (*from, *to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spans_hold_what_was_added_and_nothing_else(
            added in prop::collection::vec((0u64..40, 0u64..12), 0..8), asked in (0u64..60, 0u64..8),
        ) {
            let mut spans = Spans::default();
            added.iter().for_each(|(first, more)| spans.add(*first, first + more));
            let expected = |number: u64| added.iter().any(|(first, more)| (*first..=first + more).contains(&number));
            for number in 0..60 {
                prop_assert_eq!(spans.hold(number), expected(number), "{} in {:?}", number, spans);
            }
            let (first, last) = (asked.0, asked.0 + asked.1);
            prop_assert_eq!(spans.hold_any(first, last), (first..=last).any(expected));
            let others = spans.others(first, last);
            for number in 0..80 {
                let is_other = others.iter().any(|(from, to)| (*from..=*to).contains(&number));
                prop_assert_eq!(is_other, (first..=last).contains(&number) && !expected(number), "{:?}", others);
            }
        }
    }

    #[test]
    fn a_span_without_an_end_holds_all_that_comes() {
        let mut spans = Spans::default();
        spans.add(5, u64::MAX);
        spans.add(7, 9);
        assert!(spans.hold(5) && spans.hold(u64::MAX) && !spans.hold(4));
        assert_eq!(spans.others(3, u64::MAX), [(3, 4)]);
    }
}
