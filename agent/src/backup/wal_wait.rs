//! Waits until the archive holds all WAL that a backup needs: every segment
//! from its start to its stop, whole, undoubted, each continuing the one
//! before it. The server itself waits for the last one only.

mod chain;

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep};
use walpoint_archive::wal_facts::WalEnding;
use walpoint_archive::{Archive, ArchiveError, SegmentState, Usable, WalFacts};
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

/// Said of the last segment of a standby's backup.
const IDLE: &str = "; it comes when the primary has filled it or switches to the next one";

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
    /// Who has the last segment completed.
    pub end: End,
}

/// Whether the last segment was asked to be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server switched to the next one, and archives it whole.
    Switched,
    /// Nobody: the server is a standby, and its primary may write nothing more. What the primary's agent ships of the
    /// open segment counts when it reaches the stop.
    Open,
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
        range,
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
        chain
            .follow(name, &facts, waiting.is_open(name).then_some(range.stop))
            .map_err(|unfit| not_whole(range.purpose, name, unfit))?;
        if !facts.edge_checked && facts.start > range.start {
            tracing::warn!("the record that spans into segment {name} was not verified when it was archived");
        }
    }
    Ok(())
}

struct Waiting<'a> {
    range: &'a Range,
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
                let archiver = self.archiver().await;
                let idle = if self.is_open(name) { IDLE } else { "" };
                tracing::info!(segment = %name, "waiting for WAL to arrive in the archive{archiver}{idle}");
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
            Usable::Nothing if self.is_open(name) => self.look_at_tail(&state).await,
            Usable::Nothing => Ok(None),
            Usable::Ambiguous(variants) => Err(ArchiveError::Ambiguous {
                name: WalFileName::Segment(name),
                contents: variants.iter().map(|variant| variant.content).collect(),
            }),
        }
    }

    /// Whether this is the last segment, which may never be complete.
    fn is_open(&self, name: SegmentName) -> bool {
        let Range { timeline, start, stop, size, end, .. } = *self.range;
        let last = Lsn(stop.0.saturating_sub(1)).max(start);
        end == End::Open && name == SegmentName::containing(timeline, last, size)
    }

    /// What was shipped of the open segment, when that is all that the backup needs of it.
    async fn look_at_tail(&self, state: &SegmentState) -> Result<Option<WalFacts>, ArchiveError> {
        let Usable::One(tail) = state.available() else { return Ok(None) };
        match self.archive.wal_facts(tail).await {
            Ok(facts) => Ok(Some(facts).filter(|facts| reaches(facts, self.range.stop))),
            // The whole segment has come meanwhile.
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn too_late(&self, name: SegmentName) -> Failure {
        let is_open = self.is_open(name);
        let hint = match is_open {
            true => {
                "where the primary writes little, run `select pg_switch_wal()` there, set archive_timeout, or run `walpoint agent` there with [live_tail]; the deadline is set by [backup] wal_timeout"
            }
            false => {
                "see the server's log for what archive_command says; the deadline is set by [backup] wal_timeout, for a probe by [check] probe_timeout"
            }
        };
        Failure::failed(format!(
            "{}: segment {name} did not arrive in the archive within {}{}{}",
            self.range.purpose,
            durations::render(self.deadline),
            self.archiver().await,
            if is_open { IDLE } else { "" },
        ))
        .with_hint(hint)
    }

    fn failed(&self, error: ArchiveError) -> Failure {
        let mut failure = Failure::from(error);
        // The status of a conflict is that of who is refused, and that of
        // damage says that there is a backup.
        if matches!(failure.status, Status::Conflict | Status::Damaged) {
            failure.status = Status::Failed;
        }
        failure.error = format!("{}: {}", self.range.purpose, failure.error);
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

/// Whether what was shipped of a segment holds all WAL before the stop.
fn reaches(facts: &WalFacts, stop: Lsn) -> bool {
    match facts.ending {
        WalEnding::Full | WalEnding::Switched { .. } => true,
        WalEnding::Open { at } => at >= stop,
        WalEnding::Damaged { .. } | WalEnding::Unknown => false,
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
