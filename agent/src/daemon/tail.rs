//! The live tail beside the rest of the agent: it begins with it, begins anew with another configuration, and ends
//! before the agent leaves. What it says of itself goes into the report.

use super::report::Tail;
use crate::config::Settings;
use crate::ship::live_tail::{Follow, TailState, follow};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use walpoint_wal::TimelineId;

/// How long its last words may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Pause before another try to begin.
const AGAIN: Duration = Duration::from_secs(5);

/// The live tail at work.
#[derive(Debug)]
pub struct LiveTail {
    /// None when it is switched off.
    state: Option<watch::Receiver<TailState>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl LiveTail {
    /// Begins.
    pub fn begin(settings: Arc<Settings>) -> Self {
        let (told, state) = watch::channel(TailState::default());
        let (stop, stopped) = watch::channel(false);
        let state = settings.agent.live_tail.then_some(state);
        let task = match state {
            Some(_) => tokio::spawn(begin_and_follow(settings, told, stopped)),
            None => tokio::spawn(async {}),
        };
        Self { state, stop, task }
    }

    /// How it is; none when nothing is shipped.
    pub fn state(&self) -> Option<Tail> {
        self.state.as_ref().map(|state| told(&state.borrow(), Instant::now()))
    }

    /// Ends.
    pub async fn end(&mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Follows the server until it is told to stop. What cannot be used now may be usable soon.
async fn begin_and_follow(
    settings: Arc<Settings>,
    state: watch::Sender<TailState>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        match Follow::of(&settings).await {
            Ok(wanted) => return follow(wanted, state, stop).await,
            Err(failure) => {
                tracing::warn!(
                    hint = failure.hint.as_deref(),
                    "could not begin with the live tail: {failure}"
                );
                state.send_modify(|state| state.error = Some(failure));
            }
        }
        if tokio::time::timeout(AGAIN, stop.wait_for(|stopped| *stopped)).await.is_ok() {
            return;
        }
    }
}

fn told(state: &TailState, now: Instant) -> Tail {
    let error = state.alarm.clone().or(state.error.as_ref().map(ToString::to_string));
    let standby =
        state.is_in_recovery.then(|| "the server is in recovery and writes no WAL of its own".to_owned());
    Tail {
        timeline: state.timeline.map(TimelineId::get),
        lsn: state.shipped.map(|lsn| lsn.to_string()),
        behind_bytes: state.flushed.map(|_| state.behind_bytes()),
        behind_seconds: state.flushed.map(|_| state.behind_for(now).as_secs_f64()),
        error: error.or(standby),
    }
}
