//! `archive-push`: one finished WAL file into the archive, durable before the status is 0.
//!
//! The requests of the usual case: one listing for this segment and the one before, one for the facts of the
//! one before, one to put, one to see that nobody else put another content at the same time.

use super::before::{history_in, segment_before};
use super::cluster::HookCluster;
use super::end_of_timeline::{histories_in, is_end_of_timeline};
use super::examine::{Examined, Looked, look, size_of_segment};
use super::histories;
use super::source::Source;
use crate::cli::PushArgs;
use crate::config::{Settings, durations};
use crate::exit::{Ending, Failure};
use crate::open::{self, Patience};
use crate::writer_id;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use walpoint_archive::{
    Archive, ArchiveError, Cluster, Common, ContentHash, FileFacts, PutSource, PutWal, RunFacts,
    SegmentState, Usable, WalFacts, WriterId,
};
use walpoint_wal::{Ending as WalEnding, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

/// Bytes a second that the slowest line is given time for, beside the configured deadline.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// Carries out `archive-push`, from the process's start to the deadline.
///
/// # Errors
/// Status 1 to 4. Whatever it is, the file stays where it is and PostgreSQL offers it again.
pub async fn run(settings: &Settings, args: &PushArgs, started: Instant) -> Result<Ending, Failure> {
    let name = file_name(&args.path)?;
    push_within(settings, args, name, started).await.map_err(|failure| about(name, failure))
}

async fn push_within(
    settings: &Settings,
    args: &PushArgs,
    name: WalFileName,
    started: Instant,
) -> Result<Ending, Failure> {
    let base = settings.archive_push.deadline;
    let ground = within(name, base, started, look_at_the_ground(settings, &args.path)).await?;
    let deadline = base + Duration::from_secs(ground.source.size() / SLOWEST_BYTES_PER_SECOND);
    let left = deadline.saturating_sub(started.elapsed());
    within(name, deadline, started, push(settings, name, ground, left)).await
}

/// The server's log has only this one line of it: it names the file.
fn about(name: WalFileName, failure: Failure) -> Failure {
    if failure.error.contains(&name.to_string()) {
        return failure;
    }
    failure.while_doing(format_args!("archive \"{name}\""))
}

async fn within<T>(
    name: WalFileName,
    deadline: Duration,
    started: Instant,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let done = tokio::time::timeout(deadline.saturating_sub(started.elapsed()), work).await;
    done.unwrap_or_else(|_| {
        Err(Failure::failed(format!("could not archive \"{name}\" within {}", durations::render(deadline)))
            .with_hint("is the archive reachable and fast enough? see deadline in section [archive_push]"))
    })
}

fn file_name(path: &Path) -> Result<WalFileName, Failure> {
    let text = path.file_name().unwrap_or_default().to_string_lossy();
    text.parse().map_err(|error| {
        Failure::usage(format!("could not archive \"{}\": {error}", path.display()))
            .with_hint("archive-push takes finished WAL files from pg_wal, as %p in archive_command")
    })
}

/// What a push finds on this host.
struct Ground {
    source: Source,
    cluster: HookCluster,
    writer: WriterId,
}

/// Reads what a push needs to know of its host, on a thread of its own: a disk that hangs must not outlast
/// the deadline.
async fn look_at_the_ground(settings: &Settings, path: &Path) -> Result<Ground, Failure> {
    let (settings, path) = (settings.clone(), path.to_owned());
    let looking = tokio::task::spawn_blocking(move || {
        let source = Source::open(&path)?;
        let cluster = HookCluster::of(&path, &settings)?;
        let writer = writer_id::of(&cluster.path);
        Ok(Ground { source, cluster, writer })
    });
    looking.await.unwrap_or_else(|error| Err(Failure::failed(format!("could not look at the file: {error}"))))
}

async fn push(
    settings: &Settings,
    name: WalFileName,
    ground: Ground,
    left: Duration,
) -> Result<Ending, Failure> {
    let Ground { source, cluster, writer } = ground;
    let identifier = cluster.system_identifier;
    let archive = open::archive_to_write(settings, identifier, Patience::For(left)).await?;
    let pg_wal = source.path().parent().unwrap_or(Path::new("")).to_owned();
    let push = Push { name, source: Arc::new(source), cluster, pg_wal, archive, writer };
    match name {
        WalFileName::Segment(segment) => push.segment(segment, false).await?,
        WalFileName::Partial(segment) => push.segment(segment, true).await?,
        WalFileName::History(timeline) => push.history(timeline).await?,
        WalFileName::BackupHistory { .. } => push.small_file().await?,
    }
    Ok(Ending::DONE)
}

/// All that a push works with.
#[derive(Clone)]
struct Push {
    name: WalFileName,
    source: Arc<Source>,
    cluster: HookCluster,
    pg_wal: PathBuf,
    archive: Archive,
    writer: WriterId,
}

/// What the archive has of the file that is pushed, and how the segment before leads to it.
struct Seen {
    own: SegmentState,
    previous: Option<WalFacts>,
}

impl Push {
    async fn segment(&self, segment: SegmentName, partial: bool) -> Result<(), Failure> {
        let size = size_of_segment(&self.source, self.cluster.segment_size())?;
        let history = self.history_of(segment.timeline);
        let before = segment_before(segment, size, history.as_ref());
        let (looked, seen) =
            futures::try_join!(self.look(segment, partial, before), self.see(before, segment))?;
        if !partial && self.is_end_of_timeline(&looked).await? {
            let partial = Push { name: WalFileName::Partial(segment), ..self.clone() };
            return Box::pin(partial.segment(segment, true)).await;
        }
        if !partial {
            looked.must_be_complete(&self.source)?;
        }
        let previous = seen.previous.as_ref();
        // The first file of its kind: what later ones count on must be there before it, and be true of it.
        if !previous.is_some_and(|facts| facts.validated && facts.common.plain_size == size.bytes()) {
            self.ensure_cluster(Some(size)).await?;
        }
        let is_first_of_timeline = previous.is_none_or(|facts| facts.timeline != segment.timeline);
        if segment.timeline != TimelineId::FIRST && is_first_of_timeline {
            histories::ensure(&self.archive, &self.pg_wal, segment.timeline, self.writer).await?;
        }
        let facts = FileFacts::Wal(Box::new(self.facts(segment, size, &looked, previous)?));
        let source = match looked.bytes {
            Some(bytes) => PutSource::Bytes(bytes.into()),
            None => PutSource::File(self.source.file()),
        };
        self.put(facts, source, &seen.own).await
    }

    /// Makes sure that the archive knows the cluster, as it is. A PostgreSQL later than this program is not
    /// described: what is guessed wrong would stand against what is known later.
    async fn ensure_cluster(&self, size: Option<SegmentSize>) -> Result<(), Failure> {
        if let Some(directory) = &self.cluster.known {
            return Ok(self.archive.ensure_cluster(&directory.as_cluster()?).await?);
        }
        if let (Some(segment_size), Some(stored)) = (size, self.archive.cluster().await?) {
            self.archive.ensure_cluster(&Cluster { segment_size, ..stored }).await?;
        }
        Ok(())
    }

    async fn look(
        &self,
        segment: SegmentName,
        partial: bool,
        before: Option<SegmentName>,
    ) -> Result<Looked, Failure> {
        let (source, cluster) = (Arc::clone(&self.source), self.cluster.system_identifier);
        let before = before.map(|name| (name, self.pg_wal.join(name.to_string())));
        // On a thread of its own, so that a disk that hangs does not outlast the deadline.
        let looking = tokio::task::spawn_blocking(move || look(&source, segment, partial, cluster, before));
        let looked = looking.await;
        looked
            .unwrap_or_else(|error| Err(Failure::failed(format!("could not look at \"{segment}\": {error}"))))
    }

    /// Whether the file ends where a known history leaves its timeline. The archive is asked only about a
    /// segment that is not whole.
    async fn is_end_of_timeline(&self, looked: &Looked) -> Result<bool, Failure> {
        let Examined::Read(survey) = &looked.examined else { return Ok(false) };
        if matches!(survey.ending, WalEnding::Full | WalEnding::Switched { .. }) {
            return Ok(false);
        }
        if is_end_of_timeline(survey, &histories_in(&self.pg_wal)) {
            return Ok(true);
        }
        match self.archive.histories().await {
            Ok(histories) => Ok(is_end_of_timeline(survey, &histories)),
            Err(error @ ArchiveError::Store(_)) if !error.is_not_found() => Err(error.into()),
            Err(error) => {
                tracing::warn!(
                    "could not tell whether \"{}\" is the end of its timeline: {error}",
                    self.name
                );
                Ok(false)
            }
        }
    }

    fn history_of(&self, timeline: TimelineId) -> Option<TimelineHistory> {
        if timeline == TimelineId::FIRST {
            return None;
        }
        history_in(&self.pg_wal, timeline).map(|(history, _)| history)
    }

    async fn see(&self, before: Option<SegmentName>, segment: SegmentName) -> Result<Seen, Failure> {
        let Some(before) = before else {
            return Ok(Seen { own: self.archive.wal_variants(&self.name).await?, previous: None });
        };
        let neighbours = self.archive.wal_neighbours(before, segment, &self.name).await?;
        let previous = self.previous_facts(before, &neighbours.before).await?;
        Ok(Seen { own: neighbours.own, previous })
    }

    /// What the archive says of the segment before. Where it cannot be understood, a new run of WAL begins:
    /// that costs a request at planning and is no reason to hold this file back.
    async fn previous_facts(
        &self,
        before: SegmentName,
        state: &SegmentState,
    ) -> Result<Option<WalFacts>, Failure> {
        let Usable::One(variant) = state.usable() else { return Ok(None) };
        match self.archive.wal_facts(variant).await {
            Ok(facts) => Ok(Some(facts)),
            Err(error @ ArchiveError::Store(_)) if !error.is_not_found() => Err(error.into()),
            Err(error) => {
                tracing::warn!("could not tell how \"{before}\" leads to \"{}\": {error}", self.name);
                Ok(None)
            }
        }
    }

    fn facts(
        &self,
        segment: SegmentName,
        size: SegmentSize,
        looked: &Looked,
        previous: Option<&WalFacts>,
    ) -> Result<WalFacts, Failure> {
        let common = self.common(looked.content);
        match &looked.examined {
            Examined::Read(survey) => {
                let facts = WalFacts::of_survey(common, survey, RunFacts::continue_from(previous, survey));
                if let WalEnding::Damaged { at, reason } = &survey.ending {
                    tracing::error!(
                        "\"{}\" is damaged at {at}: {reason}; it is archived as it is, and recovery past \
                         {at} needs a backup taken after it",
                        self.name
                    );
                }
                Ok(facts)
            }
            Examined::Unreadable { magic, why } => {
                tracing::warn!("\"{}\" is archived without being validated: {why}", self.name);
                let start = segment
                    .start(size)
                    .map_err(|error| Failure::usage(format!("could not archive \"{segment}\": {error}")))?;
                Ok(WalFacts::unvalidated(common, segment.timeline, start, *magic))
            }
        }
    }

    async fn history(&self, timeline: TimelineId) -> Result<(), Failure> {
        let bytes = self.source.read()?;
        TimelineHistory::parse(timeline, &bytes).map_err(|error| {
            Failure::usage(format!("could not archive \"{}\": {error}", self.name))
                .with_hint("PostgreSQL would not follow it either: find a sound copy of it, on a standby say")
        })?;
        self.ensure_cluster(None).await?;
        histories::ensure_ancestors(&self.archive, &self.pg_wal, timeline, self.writer).await?;
        self.small_file_of(bytes).await
    }

    async fn small_file(&self) -> Result<(), Failure> {
        let bytes = self.source.read()?;
        self.ensure_cluster(None).await?;
        self.small_file_of(bytes).await
    }

    async fn small_file_of(&self, bytes: Vec<u8>) -> Result<(), Failure> {
        let common = self.common(ContentHash::of(&bytes));
        let seen = self.archive.wal_variants(&self.name).await?;
        self.put(FileFacts::Other(common), PutSource::Bytes(bytes.into()), &seen).await
    }

    fn common(&self, content: ContentHash) -> Common {
        Common::new(content, self.source.size(), self.writer, self.cluster.system_identifier)
    }

    async fn put(&self, facts: FileFacts, source: PutSource, seen: &SegmentState) -> Result<(), Failure> {
        // PostgreSQL recycles a segment under another name: what was read must be what the name still means.
        self.source.unchanged()?;
        let outcome = self.archive.put_wal_seen(&PutWal { name: self.name, facts, source }, seen).await?;
        tracing::debug!("\"{}\": {outcome:?}", self.name);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
