//! One WAL file into the archive, durable when this returns: the one way there is, for the hook and for the agent.
//!
//! The requests of the usual case: one listing for this segment and the one before, one for the facts of the
//! one before where this process does not know them, one to put, one to see that nobody else put another
//! content at the same time.

use super::before::{history_in, segment_before};
use super::cluster::HookCluster;
use super::end_of_timeline::{histories_in, is_end_of_timeline};
use super::examine::{Examined, Looked, look, size_of_segment};
use super::ground::Ground;
use super::histories;
use super::look_once::LookOnce;
use super::recent::{Announcement, Recent};
use super::source::Source;
use crate::config::{Settings, durations};
use crate::exit::{Failure, Status};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use walpoint_archive::{
    Archive, ArchiveError, Cluster, Common, ContentHash, ContentId, FileFacts, PutSource, PutWal, RunFacts,
    SegmentState, Usable, WalFacts, WriterId,
};
use walpoint_wal::{Ending as WalEnding, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

/// Bytes a second that the slowest line is given time for, beside the configured deadline.
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// How long a push of so many bytes may take: a store that only trickles is away, too.
pub fn deadline(settings: &Settings, bytes: u64) -> Duration {
    settings.archive_push.deadline + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
}

/// Does a push's work until so long after `started`, and no longer.
///
/// # Errors
/// Of the work; status 1 when the time is over.
pub async fn within<T>(
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

/// Says which file a failure is about: the server's log has only this one line of it.
pub fn about(name: WalFileName, failure: Failure) -> Failure {
    if failure.error.contains(&name.to_string()) {
        return failure;
    }
    failure.while_doing(format_args!("archive \"{name}\""))
}

/// A segment that was announced; none for other files, which no segment waits for.
pub type Announced = Option<Announcement>;

/// What all pushes of a process share.
#[derive(Debug)]
pub struct Shipper {
    archive: Archive,
    recent: Recent,
    looked: LookOnce,
    /// Threads that compress one file.
    compressing: u32,
}

impl Shipper {
    /// To this archive, which is opened once, one file at a time: what takes longest is done by two processors,
    /// if there are as many.
    pub fn one_by_one(archive: Archive) -> Self {
        let two = std::thread::available_parallelism().is_ok_and(|processors| processors.get() >= 2);
        Self { compressing: if two { 2 } else { 0 }, ..Self::several_at_once(archive) }
    }

    /// To this archive, which is opened once, several files at a time.
    pub fn several_at_once(archive: Archive) -> Self {
        Self { archive, recent: Recent::default(), looked: LookOnce::default(), compressing: 0 }
    }

    /// Where to.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Says that this file comes now, so that a segment which begins after it can wait for what it tells.
    pub fn announce(&self, name: WalFileName) -> Announced {
        match name {
            WalFileName::Segment(segment) => Some(self.recent.announce(segment)),
            _ => None,
        }
    }

    /// Archives a file. When this returns `Ok` it is durable in the archive.
    ///
    /// # Errors
    /// Status 1 to 4. Whatever it is, the file stays where it is.
    pub async fn ship(
        &self,
        name: WalFileName,
        ground: Ground,
        announcement: Announced,
    ) -> Result<(), Failure> {
        let Ground { source, cluster, pg_wal, writer } = ground;
        if cluster.system_identifier != self.archive.system_identifier() {
            return Err(Failure::new(
                Status::WrongCluster,
                format!("\"{}\" holds another cluster now", cluster.path.display()),
            ));
        }
        let push = Push { name, source: Arc::new(source), cluster, pg_wal, shipper: self, writer };
        match name {
            WalFileName::Segment(segment) => push.segment(segment, false, announcement.as_ref()).await?,
            WalFileName::Partial(segment) => push.segment(segment, true, None).await?,
            WalFileName::History(timeline) => push.history(timeline).await?,
            WalFileName::BackupHistory { .. } => push.small_file().await?,
        }
        if let Some(announcement) = announcement {
            announcement.keep();
        }
        Ok(())
    }
}

/// All that a push works with.
#[derive(Clone)]
struct Push<'a> {
    name: WalFileName,
    source: Arc<Source>,
    cluster: HookCluster,
    pg_wal: PathBuf,
    shipper: &'a Shipper,
    writer: WriterId,
}

/// Whether the archive has nothing under this name but, perhaps, this very content.
fn is_free_for(state: &SegmentState, content: ContentId) -> bool {
    !state.refused.contains(&content) && state.standing().iter().all(|variant| variant.content == content)
}

/// What the archive has of the file that is pushed, and how the segment before leads to it.
struct Seen {
    own: SegmentState,
    previous: Option<Arc<WalFacts>>,
}

impl Push<'_> {
    async fn segment(
        &self,
        segment: SegmentName,
        partial: bool,
        announcement: Option<&Announcement>,
    ) -> Result<(), Failure> {
        let size = size_of_segment(&self.source, self.cluster.segment_size())?;
        let history = self.history_of(segment.timeline);
        let before = segment_before(segment, size, history.as_ref());
        let (looked, seen) =
            futures::try_join!(self.look(segment, partial, before), self.see(before, segment))?;
        if !partial && self.is_end_of_timeline(&looked).await? {
            let partial = Push { name: WalFileName::Partial(segment), ..self.clone() };
            return Box::pin(partial.segment(segment, true, None)).await;
        }
        if !partial {
            looked.must_be_complete(&self.source)?;
        }
        let previous = seen.previous.as_deref();
        // The first file of its kind: what later ones count on must be there before it, and be true of it.
        if !previous.is_some_and(|facts| facts.validated && facts.common.plain_size == size.bytes()) {
            self.ensure_cluster(Some(size)).await?;
        }
        let is_first_of_timeline = previous.is_none_or(|facts| facts.timeline != segment.timeline);
        if segment.timeline != TimelineId::FIRST && is_first_of_timeline {
            histories::ensure(&self.shipper.archive, &self.pg_wal, segment.timeline, self.writer).await?;
        }
        let facts = self.facts(segment, size, &looked, previous)?;
        if let Some(announcement) = announcement
            && is_free_for(&seen.own, facts.common.content.id())
        {
            announcement.tell(facts.clone());
        }
        let facts = FileFacts::Wal(Box::new(facts));
        let source = match looked.sealed {
            Some(sealed) => PutSource::Sealed(sealed),
            None => PutSource::File(self.source.file()),
        };
        self.put(facts, source, &seen.own).await
    }

    /// Makes sure that the archive knows the cluster, as it is. A PostgreSQL later than this program is not
    /// described: what is guessed wrong would stand against what is known later.
    async fn ensure_cluster(&self, size: Option<SegmentSize>) -> Result<(), Failure> {
        if let Some(directory) = &self.cluster.known {
            return Ok(self.shipper.archive.ensure_cluster(&directory.as_cluster()?).await?);
        }
        if let (Some(segment_size), Some(stored)) = (size, self.shipper.archive.cluster().await?) {
            self.shipper.archive.ensure_cluster(&Cluster { segment_size, ..stored }).await?;
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
        let (sealer, threads) = (self.shipper.archive.sealer().clone(), self.shipper.compressing);
        let look =
            move || look(&source, segment, partial, cluster, before, |size| sealer.begin(size, threads));
        let looking = tokio::task::spawn_blocking(look);
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
        match self.shipper.archive.histories().await {
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
            return Ok(Seen { own: self.shipper.archive.wal_variants(&self.name).await?, previous: None });
        };
        let announced = self.shipper.recent.of(before);
        if let Some(awaited) = &announced {
            let (own, facts) = futures::join!(self.own(segment), awaited.clone().facts());
            if let Some(facts) = facts {
                return Ok(Seen { own: own?, previous: Some(facts) });
            }
        }
        let neighbours = self.shipper.archive.wal_neighbours(before, segment, &self.name).await?;
        let previous = self.previous_facts(before, &neighbours.before).await?;
        if announced.is_some() && previous.is_none() {
            // What is wrong with that one may well be wrong with all that follows.
            return Err(Failure::failed(format!("\"{before}\" comes before it and could not be archived")));
        }
        Ok(Seen { own: neighbours.own, previous })
    }

    async fn own(&self, segment: SegmentName) -> Result<SegmentState, ArchiveError> {
        match self.name {
            WalFileName::Segment(_) => self.shipper.looked.at(&self.shipper.archive, segment).await,
            _ => self.shipper.archive.wal_variants(&self.name).await,
        }
    }

    /// What the archive says of the segment before. Where it cannot be understood, a new run of WAL begins:
    /// that costs a request at planning and is no reason to hold this file back.
    async fn previous_facts(
        &self,
        before: SegmentName,
        state: &SegmentState,
    ) -> Result<Option<Arc<WalFacts>>, Failure> {
        let Usable::One(variant) = state.usable() else { return Ok(None) };
        match self.shipper.archive.wal_facts(variant).await {
            Ok(facts) => Ok(Some(Arc::new(facts))),
            Err(error @ ArchiveError::Store(_)) if !error.is_not_found() && !error.is_damaged() => {
                Err(error.into())
            }
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
        histories::ensure_ancestors(&self.shipper.archive, &self.pg_wal, timeline, self.writer).await?;
        self.small_file_of(bytes).await
    }

    async fn small_file(&self) -> Result<(), Failure> {
        let bytes = self.source.read()?;
        self.ensure_cluster(None).await?;
        self.small_file_of(bytes).await
    }

    async fn small_file_of(&self, bytes: Vec<u8>) -> Result<(), Failure> {
        let common = self.common(ContentHash::of(&bytes));
        let seen = self.shipper.archive.wal_variants(&self.name).await?;
        self.put(FileFacts::Other(common), PutSource::Bytes(bytes.into()), &seen).await
    }

    fn common(&self, content: ContentHash) -> Common {
        Common::new(content, self.source.size(), self.writer, self.cluster.system_identifier)
    }

    async fn put(&self, facts: FileFacts, source: PutSource, seen: &SegmentState) -> Result<(), Failure> {
        // PostgreSQL recycles a segment under another name: what was read must be what the name still means.
        self.source.unchanged()?;
        let outcome =
            self.shipper.archive.put_wal_seen(&PutWal { name: self.name, facts, source }, seen).await?;
        tracing::debug!("\"{}\": {outcome:?}", self.name);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
