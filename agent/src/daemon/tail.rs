//! The live tail beside the rest of the agent: it begins with it, begins anew with another configuration, and ends
//! before the agent leaves. What it says of itself goes into the report.

use super::report::Tail;
use crate::config::Settings;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long its last words may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The live tail at work.
#[derive(Debug)]
pub struct LiveTail {
    state: watch::Receiver<Option<Tail>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl LiveTail {
    /// Begins.
    pub fn begin(settings: Arc<Settings>) -> Self {
        let (told, state) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        Self { state, stop, task: tokio::spawn(follow(settings, told, stopped)) }
    }

    /// How it is; none when nothing is shipped.
    pub fn state(&self) -> Option<Tail> {
        self.state.borrow().clone()
    }

    /// Ends.
    pub async fn end(&mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(LAST_WORDS, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Follows the server until it is told to stop. Where the open segment is shipped, `ship::live_tail::follow` runs
/// here, and its state is told as [`Tail`].
async fn follow(settings: Arc<Settings>, told: watch::Sender<Option<Tail>>, mut stop: watch::Receiver<bool>) {
    if settings.agent.live_tail {
        tracing::debug!("the open segment is not shipped by this version");
    }
    let _stopped = stop.wait_for(|stopped| *stopped).await;
    told.send_replace(None);
}
