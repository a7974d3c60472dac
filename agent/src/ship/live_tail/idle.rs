//! When it is proven that nothing was written. Pure.

use crate::session::Flushed;
use std::time::{Duration, Instant};
use walpoint_wal::Lsn;
use walpoint_wal::Timestamp;

/// How often the proof is renewed while nothing is written.
const RENEWED_EVERY: Duration = Duration::from_secs(10);

/// Watches whether anything is written.
#[derive(Debug, Default)]
pub struct IdleWatch {
    before: Option<Flushed>,
    renewed: Option<Instant>,
}

impl IdleWatch {
    /// What the server says now. Gives the moment at which nothing had been written past the position,
    /// when that is proven and was not said a moment ago: that of the look before, for a commit takes its
    /// time before it is written.
    pub fn look(&mut self, now: Flushed, shipped: Option<Lsn>, at: Instant) -> Option<Timestamp> {
        let before = self.before.replace(now)?;
        let unchanged = (before.flush, before.timeline) == (now.flush, now.timeline);
        let is_idle = before.is_quiet() && now.is_quiet() && unchanged && shipped == Some(now.flush);
        let is_due = self.renewed.is_none_or(|renewed| at.duration_since(renewed) >= RENEWED_EVERY);
        (is_idle && is_due).then_some(before.time)
    }

    /// The proof is in the archive.
    pub fn renewed(&mut self, at: Instant) {
        self.renewed = Some(at);
    }

    /// Nothing is known of what was between.
    pub fn forget(&mut self) {
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_wal::TimelineId;

    fn at(flush: u64, insert: u64, second: i64) -> Flushed {
        let time = Timestamp(second * 1_000_000);
        Flushed { flush: Lsn(flush), insert: Lsn(insert), timeline: TimelineId::FIRST, time }
    }

    #[test]
    fn only_two_looks_that_saw_the_same_end_of_all_that_was_written_prove_it() {
        let start = Instant::now();
        let idle = at(0x300_0028, 0x300_0028, 5);
        let later = Flushed { time: Timestamp(6_000_000), ..idle };
        let shipped = Some(idle.flush);
        for (before, now, shipped, proven) in [
            (idle, later, shipped, Some(Timestamp(5_000_000))),
            (idle, later, Some(Lsn(0x300_0020)), None),
            (idle, later, None, None),
            (at(0x300_0020, 0x300_0020, 5), later, shipped, None),
            (at(0x300_0028, 0x300_0040, 5), later, shipped, None),
            (idle, at(0x300_0028, 0x300_0040, 6), shipped, None),
            (Flushed { timeline: TimelineId::new(2).unwrap(), ..idle }, later, shipped, None),
        ] {
            let mut watch = IdleWatch::default();
            assert_eq!(watch.look(before, shipped, start), None, "one look proves nothing");
            assert_eq!(watch.look(now, shipped, start), proven, "{before:?} {now:?}");
        }
    }

    #[test]
    fn the_proof_is_renewed_now_and_then_and_never_across_a_lost_connection() {
        let start = Instant::now();
        let (mut watch, idle) = (IdleWatch::default(), at(0x300_0028, 0x300_0028, 5));
        let look = |watch: &mut IdleWatch, second| {
            watch.look(idle, Some(idle.flush), start + Duration::from_secs(second)).is_some()
        };
        assert!(!look(&mut watch, 0) && look(&mut watch, 1));
        assert!(look(&mut watch, 2), "it was not stored");
        watch.renewed(start + Duration::from_secs(2));
        assert!(!look(&mut watch, 11) && look(&mut watch, 12));
        watch.forget();
        assert!(!look(&mut watch, 30));
    }
}
