//! Waits until the archive holds all WAL that a backup needs: every segment
//! from its start to its stop, whole, undoubted, each continuing the one
//! before it. The server itself waits for the last one only.

mod chain;

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use walpoint_archive::{Archive, ArchiveError, Usable, WalFacts};
use walpoint_wal::file_name::WalFileName;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::{SegmentName, SegmentSize};
use walpoint_wal::timeline::TimelineId;

use super::patience::pause;
use crate::config::durations;
use crate::exit::{Failure, Status};
use crate::session::{ArchiverStatistics, Session};
use chain::{Chain, Unfit, segments_between};

/// How often the archive is asked for a segment that is not there.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Segments that are asked for side by side.
const AT_A_TIME: usize = 4;

/// How often the log says what is awaited.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// WAL that somebody waits for.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// How a failure begins: `the base backup is not complete`.
    pub purpose: &'static str,
    pub timeline: TimelineId,
    pub start: Lsn,
    pub stop: Lsn,
    pub size: SegmentSize,
}

/// Waits for every segment of the range, `deadline` in all.
///
/// # Errors
/// Status 1 when the deadline passes, a segment is not whole, or one has two
/// contents.
pub async fn wait(
    archive: &Archive,
    session: &Session,
    range: &Range,
    deadline: Duration,
) -> Result<(), Failure> {
    let now = Instant::now();
    let waiting = Waiting {
        purpose: range.purpose,
        archive,
        session,
        since: now,
        until: now + deadline,
        deadline,
        said: Mutex::new(now),
    };
    let mut chain = Chain::new(range.size);
    let names = segments_between(range.timeline, range.start, range.stop, range.size);
    let arrivals = stream::iter(names).map(|name| waiting.arrival(name)).buffered(AT_A_TIME);
    let mut arrivals = pin!(arrivals);
    while let Some(arrived) = arrivals.next().await {
        let (name, facts) = arrived?;
        chain.follow(name, &facts).map_err(|unfit| not_whole(range.purpose, name, unfit))?;
        if !facts.edge_checked && facts.start > range.start {
            tracing::warn!("the record that spans into segment {name} was not verified when it was archived");
        }
    }
    Ok(())
}

struct Waiting<'a> {
    purpose: &'static str,
    archive: &'a Archive,
    session: &'a Session,
    since: Instant,
    until: Instant,
    deadline: Duration,
    /// When the log last said what is awaited.
    said: Mutex<Instant>,
}

impl Waiting<'_> {
    /// What the archive says of the segment, once it is there.
    async fn arrival(&self, name: SegmentName) -> Result<(SegmentName, WalFacts), Failure> {
        loop {
            if let Some(facts) = self.look(name).await.map_err(|error| self.failed(error))? {
                return Ok((name, facts));
            }
            let now = Instant::now();
            if now >= self.until {
                return Err(self.too_late(name).await);
            }
            if self.is_time_to_say(now) {
                tracing::info!(segment = %name, "waiting for WAL to arrive in the archive{}", self.archiver().await);
            }
            let pause = pause(now - self.since, SHORTEST_PAUSE, LONGEST_PAUSE);
            sleep(pause.min(self.until - now)).await;
        }
    }

    /// One of the segments awaited side by side speaks for all.
    fn is_time_to_say(&self, now: Instant) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = now - *said >= SAID_EVERY;
        if is_time {
            *said = now;
        }
        is_time
    }

    async fn look(&self, name: SegmentName) -> Result<Option<WalFacts>, ArchiveError> {
        let state = self.archive.wal_variants(&WalFileName::Segment(name)).await?;
        match state.usable() {
            Usable::One(variant) => self.archive.wal_facts(variant).await.map(Some),
            Usable::Nothing => Ok(None),
            Usable::Ambiguous(variants) => Err(ArchiveError::Ambiguous {
                name: WalFileName::Segment(name),
                contents: variants.iter().map(|variant| variant.content).collect(),
            }),
        }
    }

    async fn too_late(&self, name: SegmentName) -> Failure {
        Failure::failed(format!(
            "{}: segment {name} did not arrive in the archive within {}{}",
            self.purpose,
            durations::render(self.deadline),
            self.archiver().await
        ))
        .with_hint("see the server's log for what archive_command says; the deadline is set by [backup] wal_timeout, for a probe by [check] probe_timeout")
    }

    fn failed(&self, error: ArchiveError) -> Failure {
        let mut failure = Failure::from(error);
        // The status of a conflict is that of who is refused, and that of
        // damage says that there is a backup.
        if matches!(failure.status, Status::Conflict | Status::Damaged) {
            failure.status = Status::Failed;
        }
        failure.error = format!("{}: {}", self.purpose, failure.error);
        failure
    }

    /// What the server says of its archiver, to stand behind a sentence.
    async fn archiver(&self) -> String {
        match self.session.archiver_statistics().await {
            Ok(statistics) => last_failure(&statistics),
            Err(_) => String::new(),
        }
    }
}

fn last_failure(statistics: &ArchiverStatistics) -> String {
    match (&statistics.last_failed_wal, statistics.last_failed_time) {
        (Some(file), Some(time)) if statistics.is_failing() => {
            format!("; the archiver failed {} times, last for {file} at {time}", statistics.failed_count)
        }
        _ => String::new(),
    }
}

fn not_whole(purpose: &str, name: SegmentName, unfit: Unfit) -> Failure {
    // Not the status of damage: that says that there is a backup.
    Failure::failed(format!("{purpose}: segment {name} does not do: {unfit}"))
        .with_hint("take another base backup: it begins after this segment")
}
