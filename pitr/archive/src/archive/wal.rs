//! The files that PostgreSQL archives: what an archive has of them, storing one and
//! fetching it. What holds when several push at once: [`super::push`].

use std::io::Write;

use walpoint_wal::{SegmentName, WalFileName};

use super::send::{Content, Sent};
use super::{Archive, PutSource};
use crate::catalog::{SegmentState, Variant};
use crate::content::ContentHash;
use crate::envelope::Expected;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::layout::{Entry, Layout};
use crate::object_key::ObjectKey;
use crate::store::{Listed, Metadata, PutOutcome};
use crate::tail::TailFacts;
use crate::wal_facts::WalFacts;

/// A file to be archived.
#[derive(Clone, Debug)]
pub struct PutWal {
    /// Its name.
    pub name: WalFileName,
    /// What its object's metadata will say.
    pub facts: FileFacts,
    /// Its content.
    pub source: PutSource,
}

/// What is known of a file to be archived.
#[derive(Clone, PartialEq, Debug)]
pub enum FileFacts {
    /// Of a segment or a partial segment.
    Wal(Box<WalFacts>),
    /// Of a history or backup history file.
    Other(Common),
}

impl FileFacts {
    /// What all objects have.
    pub fn common(&self) -> &Common {
        match self {
            Self::Wal(facts) => &facts.common,
            Self::Other(common) => common,
        }
    }
}

/// How archiving a file went well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum PutWalOutcome {
    /// It was stored.
    Stored,
    /// The archive had it, with the same content.
    AlreadyThere,
}

/// What the archive has of a segment and of the one before it.
#[derive(Clone, Debug, Default)]
pub struct Neighbours {
    /// Of the segment before.
    pub before: SegmentState,
    /// Of the file itself.
    pub own: SegmentState,
}

/// What the archive has of a segment and of those that follow it, as one listing showed it.
#[derive(Clone, Debug)]
pub struct Onward {
    layout: Layout,
    first: SegmentName,
    /// The first of which not all may have been shown.
    end: Option<SegmentName>,
    listed: Vec<Listed>,
}

impl Onward {
    /// What is stored under the name of this segment, and what of it is refused; none when the listing does not
    /// tell.
    pub fn of(&self, segment: &SegmentName) -> Option<SegmentState> {
        let is_of_folder = (self.first.timeline, self.first.log) == (segment.timeline, segment.log);
        let is_told = *segment >= self.first && self.end.is_none_or(|end| *segment < end);
        let of_name = || SegmentState::of_name(&self.layout, &WalFileName::Segment(*segment), &self.listed);
        (is_of_folder && is_told).then(of_name)
    }
}

impl Archive {
    /// What is stored from this segment on, as far as one listing of at most `limit` objects of its folder shows it.
    pub async fn wal_onward(&self, first: SegmentName, limit: usize) -> Result<Onward, ArchiveError> {
        let after = self.layout.before_segment(&first);
        let listed = self.store.list(&self.layout.wal_dir(&first), Some(&after), Some(limit)).await?;
        let is_cut = listed.len() >= limit;
        let end = listed.last().filter(|_| is_cut).map(|object| self.segment_in(object).unwrap_or(first));
        Ok(Onward { layout: self.layout, first, end, listed })
    }

    /// The segment that an object belongs to, whatever it holds of it.
    fn segment_in(&self, object: &Listed) -> Option<SegmentName> {
        match self.layout.parse(&object.key)? {
            Entry::Wal { name, .. } | Entry::WalRefused { name, .. } => match name {
                WalFileName::Segment(segment) | WalFileName::Partial(segment) => Some(segment),
                WalFileName::BackupHistory { segment, .. } => Some(segment),
                WalFileName::History(_) => None,
            },
            Entry::LiveTail { segment, .. } => Some(segment),
            _ => None,
        }
    }

    /// Everything that is stored under this name, and what of it is refused: one listing.
    pub async fn wal_variants(&self, name: &WalFileName) -> Result<SegmentState, ArchiveError> {
        let listed = self.store.list(&self.layout.variants_prefix(name), None, None).await?;
        Ok(SegmentState::from_listing(&self.layout, &listed))
    }

    /// The same for a file of this segment and for the segment before it: one listing where
    /// they are of one folder.
    ///
    /// `name` is the segment itself or its `.partial`.
    pub async fn wal_neighbours(
        &self,
        before: SegmentName,
        segment: SegmentName,
        name: &WalFileName,
    ) -> Result<Neighbours, ArchiveError> {
        let before_name = WalFileName::Segment(before);
        if (before.timeline, before.log) != (segment.timeline, segment.log) || before >= segment {
            let (before, own) = futures::try_join!(self.wal_variants(&before_name), self.wal_variants(name))?;
            return Ok(Neighbours { before, own });
        }
        let prefix = self.layout.segments_prefix(&before, &segment);
        let after = self.layout.before_segment(&before);
        let listed = self.store.list(&prefix, Some(&after), None).await?;
        Ok(Neighbours {
            before: SegmentState::of_name(&self.layout, &before_name, &listed),
            own: SegmentState::of_name(&self.layout, name, &listed),
        })
    }

    /// Stores the file under this key. What is there already stays.
    pub(super) async fn store_file(&self, key: &ObjectKey, put: &PutWal) -> Result<PutOutcome, ArchiveError> {
        let metadata = self.metadata_for(key, put)?;
        let common = put.facts.common();
        if let WalFileName::History(_) = put.name {
            return self.store_history(key, put, &metadata).await;
        }
        let content = Content { hash: common.content, size: common.plain_size };
        match self.seal_and_put(key, &metadata, content, &put.source).await? {
            Sent::Put(outcome) => Ok(outcome),
            Sent::Changed => Err(ArchiveError::SourceChanged { name: put.name }),
        }
    }

    fn metadata_for(&self, key: &ObjectKey, put: &PutWal) -> Result<Metadata, ArchiveError> {
        let common = put.facts.common();
        if common.system_identifier != self.system_identifier() {
            let what = format!("the file is of the cluster {}", common.system_identifier);
            return Err(ArchiveError::WrongCluster { system_identifier: self.system_identifier(), what });
        }
        match &put.facts {
            FileFacts::Wal(facts) => facts.to_metadata(),
            FileFacts::Other(common) => common.to_metadata(),
        }
        .map_err(|error| ArchiveError::from_metadata(key, error))
    }

    /// What a segment's metadata says; of a tail, that of its last piece, where content and size are the
    /// piece's own.
    pub async fn wal_facts(&self, variant: &Variant) -> Result<WalFacts, ArchiveError> {
        let head = self.store.head(&variant.key()).await?;
        let wrong = |error| ArchiveError::from_facts(variant.key(), error);
        let facts = WalFacts::from_metadata(&head.metadata).map_err(wrong)?;
        match variant.tail.as_ref().and_then(|tail| tail.chunks.last()) {
            Some(last) => {
                let tail = TailFacts::from_metadata(&head.metadata).map_err(wrong)?;
                self.check_chunk(last, &facts.common, &tail)?;
            }
            None => self.check_identity(variant, &facts.common)?,
        }
        Ok(facts)
    }

    /// Fetches a file and writes its content to `out`, in bounded memory. Its
    /// hash is verified against its metadata and its key; what was written
    /// counts only when this returns `Ok`. More than `limit` plain bytes are an error. A tail is
    /// filled up with zeros to `limit`, which is the segment's size then.
    pub async fn fetch_wal(
        &self,
        variant: &Variant,
        out: &mut (impl Write + Send),
        limit: u64,
    ) -> Result<Common, ArchiveError> {
        match &variant.tail {
            Some(tail) => self.fetch_tail(variant, tail, out, limit).await,
            None => self.fetch_whole(variant, out, limit).await.map(|(common, _)| common),
        }
    }

    /// The same for one that is no tail, with its metadata.
    pub(super) async fn fetch_whole(
        &self,
        variant: &Variant,
        out: &mut (impl Write + Send),
        limit: u64,
    ) -> Result<(Common, Metadata), ArchiveError> {
        let key = &variant.key();
        let object = self.store.get(key, None).await?;
        let metadata = object.metadata;
        let common =
            Common::from_metadata(&metadata).map_err(|error| ArchiveError::from_facts(key, error))?;
        self.check_identity(variant, &common)?;
        if common.plain_size > limit {
            return Err(ArchiveError::damaged(key, format!("it holds more than {limit} bytes")));
        }
        let plain_size = common.plain_size;
        if let WalFileName::History(_) = variant.name {
            let found = self.copy_body(key, object.body, plain_size, out).await?;
            return check_hash(key, found, &common).map(|common| (common, metadata));
        }
        let expected = Expected::content(common.content, plain_size);
        let opened = self.open_body(key, object.body, variant.encrypted, expected, out).await?;
        if opened.plain_size != plain_size {
            let what = format!("it holds {} bytes, its metadata says {plain_size}", opened.plain_size);
            return Err(ArchiveError::damaged(key, what));
        }
        Ok((common, metadata))
    }

    pub(super) fn check_identity(&self, variant: &Variant, common: &Common) -> Result<(), ArchiveError> {
        if common.content.id() != variant.content {
            let what = format!("its metadata speaks of the content {}", common.content);
            return Err(ArchiveError::damaged(variant.key(), what));
        }
        if common.system_identifier != self.system_identifier() {
            let what = format!("its metadata speaks of the cluster {}", common.system_identifier);
            return Err(ArchiveError::damaged(variant.key(), what));
        }
        Ok(())
    }
}

fn check_hash(key: &ObjectKey, found: ContentHash, common: &Common) -> Result<Common, ArchiveError> {
    if found == common.content {
        return Ok(*common);
    }
    Err(ArchiveError::damaged(key, format!("its content is {found}, expected was {}", common.content)))
}
