//! How the live tail stands, for whoever asks.

use crate::exit::Failure;
use std::time::{Duration, Instant};
use walpoint_wal::{Lsn, TimelineId};

/// How far the tail is shipped, and what keeps it.
#[derive(Debug, Clone, Default)]
pub struct TailState {
    /// The timeline that is written; none before the server was asked.
    pub timeline: Option<TimelineId>,
    /// Everything before it is in the archive.
    pub shipped: Option<Lsn>,
    /// Everything before it is durable on the server.
    pub flushed: Option<Lsn>,
    /// The server is in recovery: there is nothing of its own to ship.
    pub is_in_recovery: bool,
    /// What keeps it now.
    pub error: Option<Failure>,
    /// What must be looked into: bytes that were durable are others now.
    pub alarm: Option<String>,
    /// When the server had nothing that was not shipped.
    caught_up: Option<Instant>,
}

impl TailState {
    /// Bytes that are durable on the server and not in the archive.
    pub fn behind_bytes(&self) -> u64 {
        let between = self.flushed.zip(self.shipped).map(|(to, from)| to.0.saturating_sub(from.0));
        between.unwrap_or_default()
    }

    /// For how long there have been such bytes.
    pub fn behind_for(&self, now: Instant) -> Duration {
        let since = self.caught_up.filter(|_| self.behind_bytes() > 0);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Of a server that writes no WAL of its own.
    pub(super) fn in_recovery(alarm: Option<String>) -> TailState {
        TailState { is_in_recovery: true, alarm, ..TailState::default() }
    }

    pub(super) fn reached(&mut self, shipped: Option<Lsn>, at: Instant) {
        self.shipped = shipped;
        if self.behind_bytes() == 0 || self.caught_up.is_none() {
            self.caught_up = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_behind_since_it_had_all_for_the_last_time() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut state = TailState { flushed: Some(Lsn(100)), ..TailState::default() };
        state.reached(Some(Lsn(100)), at(0));
        assert_eq!((state.behind_bytes(), state.behind_for(at(5))), (0, Duration::ZERO));
        state.flushed = Some(Lsn(150));
        state.reached(Some(Lsn(120)), at(5));
        assert_eq!((state.behind_bytes(), state.behind_for(at(7))), (30, Duration::from_secs(7)));
        state.reached(Some(Lsn(150)), at(8));
        assert_eq!((state.behind_bytes(), state.behind_for(at(9))), (0, Duration::ZERO));
    }
}
