//! Storing and fetching the files that PostgreSQL archives.
//!
//! What holds for every name, also when two servers race and on a store that
//! overwrites what it should not: nothing is overwritten, of two different
//! contents at most one is ever acknowledged, and what was acknowledged stays
//! the one that recovery uses.
//!
//! How: a content's own hash is in its key, so different contents never meet in
//! one object. Whoever comes later sees the other in a listing, before its put
//! or after, and refuses itself by a mark that recovery heeds.
//!
//! One case is left open. When one content is being pushed twice at once (by a
//! primary and a standby, say) and another content is put in the very moment
//! between the two, the second push can refuse what the first was told is safe:
//! a mark speaks of the content, whoever pushed it.

use std::io::Write;
use std::time::Duration;

use walpoint_wal::{SegmentName, WalFileName};

use super::refuse::Stance;
use super::send::{Content, Sent};
use super::{Archive, PutSource};
use crate::catalog::{SegmentState, Variant};
use crate::content::{ContentHash, ContentId};
use crate::envelope::Expected;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::object_key::ObjectKey;
use crate::store::{Metadata, PutOutcome};
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

/// How often, and how long at most each time, a push that met others waits for
/// them to refuse themselves before it does so.
const WAITS_FOR_RIVALS: u32 = 8;
const LONGEST_WAIT: Duration = Duration::from_millis(400);

impl Archive {
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

    /// Archives a file. When this returns `Ok` the file is durable, and it is
    /// the one that recovery will use.
    ///
    /// # Errors
    /// [`ArchiveError::Conflict`] when other content has this name, or this
    /// content was refused under it.
    pub async fn put_wal(&self, put: &PutWal) -> Result<PutWalOutcome, ArchiveError> {
        let before = self.wal_variants(&put.name).await?;
        self.put_wal_seen(put, &before).await
    }

    /// The same for one who has just listed the name: what came since is seen by the listing after
    /// the put.
    ///
    /// # Errors
    /// As [`Archive::put_wal`].
    pub async fn put_wal_seen(
        &self,
        put: &PutWal,
        before: &SegmentState,
    ) -> Result<PutWalOutcome, ArchiveError> {
        match Stance::before_put(before, put.facts.common().content.id()) {
            Stance::Free => self.put_where_free(put).await,
            Stance::Same => self.confirm_same(before, put).await,
            Stance::Taken => {
                self.set_aside(put, before).await?;
                Err(self.conflict(put, before).await)
            }
            Stance::Undecided => Err(self.conflict(put, before).await),
        }
    }

    async fn put_where_free(&self, put: &PutWal) -> Result<PutWalOutcome, ArchiveError> {
        let ours = put.facts.common().content;
        let key = self.layout.wal(&put.name, ours.id(), self.sealer.encrypts());
        let outcome = self.store_file(&key, put).await?;
        let mut after = self.wal_variants(&put.name).await?;
        let mut waits = 0;
        // The other one sees us too. If it was there first it stays, and we refuse
        // ourselves below; if it came later it refuses itself, soon.
        while Stance::after_put(&after, ours.id()) == Stance::Undecided && waits < patience(&after, ours.id())
        {
            tokio::time::sleep(random_wait()).await;
            after = self.wal_variants(&put.name).await?;
            waits += 1;
        }
        match Stance::after_put(&after, ours.id()) {
            Stance::Same if outcome == PutOutcome::Created => Ok(PutWalOutcome::Stored),
            Stance::Same => self.confirm_same(&after, put).await,
            Stance::Free => {
                Err(ArchiveError::damaged(&key, "it was stored, and the listing does not show it"))
            }
            Stance::Taken => Err(self.conflict(put, &after).await),
            Stance::Undecided => {
                // What was there before us may have been acknowledged to somebody.
                if outcome == PutOutcome::Created {
                    self.mark_refused(&put.name, ours.id()).await?;
                }
                Err(self.conflict(put, &after).await)
            }
        }
    }

    /// That what the archive has under our content id is what we have, in full.
    async fn confirm_same(&self, state: &SegmentState, put: &PutWal) -> Result<PutWalOutcome, ArchiveError> {
        let ours = put.facts.common();
        let mut refusal = None;
        for variant in state.variants.iter().filter(|variant| variant.content == ours.content.id()) {
            match self.confirm(variant, ours).await {
                Ok(()) => return Ok(PutWalOutcome::AlreadyThere),
                Err(error) => refusal = Some(error),
            }
        }
        let key = self.layout.wal(&put.name, ours.content.id(), self.sealer.encrypts());
        Err(refusal.unwrap_or_else(|| ArchiveError::damaged(key, "it was listed and is gone")))
    }

    async fn confirm(&self, variant: &Variant, ours: &Common) -> Result<(), ArchiveError> {
        let damaged = |what: String| Err(ArchiveError::damaged(&variant.key, what));
        let head = self.store.head(&variant.key).await?;
        let theirs = Common::from_metadata(&head.metadata)
            .map_err(|error| ArchiveError::from_facts(&variant.key, error))?;
        if (theirs.content, theirs.plain_size) != (ours.content, ours.plain_size) {
            return damaged(format!(
                "its metadata speaks of {} bytes with the hash {}, other than its key",
                theirs.plain_size, theirs.content
            ));
        }
        if head.size == 0 || head.size != variant.stored_size {
            return damaged(format!("it has {} bytes, listed were {}", head.size, variant.stored_size));
        }
        self.store.settle(&variant.key).await?;
        Ok(())
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

    /// What a segment's metadata says.
    pub async fn wal_facts(&self, variant: &Variant) -> Result<WalFacts, ArchiveError> {
        let head = self.store.head(&variant.key).await?;
        let facts = WalFacts::from_metadata(&head.metadata)
            .map_err(|error| ArchiveError::from_facts(&variant.key, error))?;
        self.check_identity(variant, &facts.common)?;
        Ok(facts)
    }

    /// Fetches a file and writes its content to `out`, in bounded memory. Its
    /// hash is verified against its metadata and its key; what was written
    /// counts only when this returns `Ok`. More than `limit` plain bytes are an error.
    pub async fn fetch_wal(
        &self,
        variant: &Variant,
        out: &mut (impl Write + Send),
        limit: u64,
    ) -> Result<Common, ArchiveError> {
        let key = &variant.key;
        let object = self.store.get(key, None).await?;
        let common =
            Common::from_metadata(&object.metadata).map_err(|error| ArchiveError::from_facts(key, error))?;
        self.check_identity(variant, &common)?;
        if common.plain_size > limit {
            return Err(ArchiveError::damaged(key, format!("it holds more than {limit} bytes")));
        }
        let plain_size = common.plain_size;
        if let WalFileName::History(_) = variant.name {
            let found = self.copy_body(key, object.body, plain_size, out).await?;
            return check_hash(key, found, &common);
        }
        let expected = Expected::content(common.content, plain_size);
        let opened = self.open_body(key, object.body, variant.encrypted, expected, out).await?;
        if opened.plain_size != plain_size {
            let what = format!("it holds {} bytes, its metadata says {plain_size}", opened.plain_size);
            return Err(ArchiveError::damaged(key, what));
        }
        Ok(common)
    }

    fn check_identity(&self, variant: &Variant, common: &Common) -> Result<(), ArchiveError> {
        if common.content.id() != variant.content {
            let what = format!("its metadata speaks of the content {}", common.content);
            return Err(ArchiveError::damaged(&variant.key, what));
        }
        if common.system_identifier != self.system_identifier() {
            let what = format!("its metadata speaks of the cluster {}", common.system_identifier);
            return Err(ArchiveError::damaged(&variant.key, what));
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

/// How often a push that met others waits. They would all refuse themselves if they
/// waited alike, and the name were lost to an operator; so one of them, which all
/// can tell, waits far longer.
fn patience(state: &SegmentState, ours: ContentId) -> u32 {
    let lowest = state.standing().iter().map(|variant| variant.content).min();
    if lowest == Some(ours) { WAITS_FOR_RIVALS } else { 1 }
}

/// Somewhere in the second half of the longest wait: two rivals should not wake together.
fn random_wait() -> Duration {
    let share: u8 = rand::random();
    LONGEST_WAIT / 2 + LONGEST_WAIT / 2 * u32::from(share) / 255
}
