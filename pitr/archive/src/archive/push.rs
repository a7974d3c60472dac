//! Archiving a file while others may be archiving under the same name.
//!
//! Promised for every name: nothing is overwritten, of two different contents at most
//! one is ever acknowledged, and what was acknowledged is never refused by a push. But of
//! a partial segment, which no recovery reads, every content may stand.
//!
//! A content's hash is in its key, so different contents never meet in one object, and
//! objects of WAL stay: what one listing shows, every later one shows. Each push puts,
//! then lists. Of two that put, the later listing shows both contents; a content is
//! acknowledged only by a listing in which it stands and no other does. So two contents
//! are acknowledged only if one was marked refused after it was acknowledged. That no
//! push does so:
//!
//! - **The creator** of a content (its put created the object, the only one with this
//!   content) marks it when it stands beside another and nobody else gives way. The
//!   creator acknowledges or marks, never both. Any other who sees the content cannot
//!   tell whether its creator is still about to mark it, so he waits until it cannot:
//!   marks of a creator land within [`MARKING`] of the moment before its put, or, sent
//!   within it, [`SETTLED`] at the latest. An object that is certainly older needs no
//!   wait. A put that took longer than [`MARKING`] leaves the creator no right to mark:
//!   it reports the conflict, both stand, and `resolve` decides, unless the other one
//!   still marks itself.
//! - **Who is refused before its put** marks its content, as a put that it gave up
//!   earlier may still arrive. It saw another content stand and its own absent, in a
//!   listing at most [`MARKING`] before. A creator whose own listing shows no other
//!   content came before that other one, and so knows of no such mark: it acknowledges
//!   at once. One that sees others, all refused by now, first waits until such marks
//!   have landed, like everybody else.
//!
//! This counts on three things. Listings are consistent: what was put before is shown.
//! A request that was sent lands within the half of [`SETTLED`] that is left, or never.
//! And a put says truly whether it created the object: on a store that overwrites and
//! says "created" to both, one gap is left, as two pushes of one content then both take
//! themselves for its creator. It needs a third push, of other content, that lands
//! between the last listings of these two.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use walpoint_wal::{Timestamp, WalFileName};

use super::Archive;
use super::refuse::Stance;
use super::wal::{PutWal, PutWalOutcome};
use crate::catalog::{SegmentState, Variant};
use crate::content::ContentId;
use crate::error::ArchiveError;
use crate::facts::Common;
use crate::store::PutOutcome;

/// After this time nobody marks a content any more whose object was there at its beginning.
pub(super) const SETTLED: Duration = Duration::from_secs(5);

/// How long a push may mark what it put, or was about to put.
pub(super) const MARKING: Duration = Duration::from_millis(2500);

/// An object this old by the store's clock is settled, whatever clocks of others say.
const CERTAINLY_SETTLED: Duration = Duration::from_secs(60);

/// How often, and how long at most each time, a push that met others waits for
/// them to refuse themselves before it does so.
const WAITS_FOR_RIVALS: u32 = 5;
const LONGEST_WAIT: Duration = Duration::from_millis(400);

impl Archive {
    /// Archives a file. When this returns `Ok` the file is durable, and it is
    /// the one that recovery will use.
    ///
    /// # Errors
    /// [`ArchiveError::Conflict`] when other content has this name, or this
    /// content was refused under it.
    pub async fn put_wal(&self, put: &PutWal) -> Result<PutWalOutcome, ArchiveError> {
        let before = self.wal_variants(&put.name).await?;
        self.put_wal_listed(put, &before).await
    }

    /// The same for one who has listed the name: what came since is seen by the listing after the put.
    ///
    /// # Errors
    /// As [`Archive::put_wal`].
    pub async fn put_wal_seen(
        &self,
        put: &PutWal,
        before: &SegmentState,
    ) -> Result<PutWalOutcome, ArchiveError> {
        let ours = put.facts.common().content.id();
        if Stance::before_put(before, ours) == Stance::Same {
            // No put and so no listing follows: what was seen long ago may have been refused since.
            return self.put_wal(put).await;
        }
        self.put_wal_listed(put, before).await
    }

    async fn put_wal_listed(
        &self,
        put: &PutWal,
        before: &SegmentState,
    ) -> Result<PutWalOutcome, ArchiveError> {
        if let WalFileName::Partial(_) = put.name {
            return self.put_beside_others(put, before).await;
        }
        match Stance::before_put(before, put.facts.common().content.id()) {
            Stance::Free => self.put_where_free(put).await,
            Stance::Same => self.acknowledge_seen(before, put).await,
            Stance::Taken => self.refuse_before_put(put).await,
            Stance::Undecided => Err(self.conflict(put, before).await),
        }
    }

    /// No recovery reads a partial segment, and nobody is to decide between two of one name: what lies
    /// behind the fork in each is whatever its file held before. So each is kept.
    async fn put_beside_others(
        &self,
        put: &PutWal,
        before: &SegmentState,
    ) -> Result<PutWalOutcome, ArchiveError> {
        let ours = put.facts.common().content.id();
        if of_content(before, ours).next().is_some() {
            return self.confirm_same(before, put).await;
        }
        let key = self.layout.wal(&put.name, ours, self.sealer.encrypts());
        if self.store_file(&key, put).await? == PutOutcome::Created {
            return Ok(PutWalOutcome::Stored);
        }
        let after = self.wal_variants(&put.name).await?;
        self.confirm_same(&after, put).await
    }

    async fn put_where_free(&self, put: &PutWal) -> Result<PutWalOutcome, ArchiveError> {
        let ours = put.facts.common().content.id();
        let key = self.layout.wal(&put.name, ours, self.sealer.encrypts());
        let began = Instant::now();
        let is_created = self.store_file(&key, put).await? == PutOutcome::Created;
        let mut after = self.wal_variants(&put.name).await?;
        let mut waits = 0;
        // The other one sees us too. If it was there first it stays, and we refuse
        // ourselves below; if it came later it refuses itself, soon.
        while Stance::after_put(&after, ours) == Stance::Undecided && waits < patience(&after, ours) {
            tokio::time::sleep(random_wait()).await;
            after = self.wal_variants(&put.name).await?;
            waits += 1;
        }
        match Stance::after_put(&after, ours) {
            Stance::Same if is_created && is_only_content(&after, ours) => Ok(PutWalOutcome::Stored),
            Stance::Same if is_created => {
                self.acknowledge_seen(&after, put).await.map(|_| PutWalOutcome::Stored)
            }
            Stance::Same => self.acknowledge_seen(&after, put).await,
            Stance::Free => {
                Err(ArchiveError::damaged(&key, "it was stored, and the listing does not show it"))
            }
            Stance::Taken => Err(self.conflict(put, &after).await),
            Stance::Undecided => {
                if is_created && is_only_object(&after, ours) {
                    self.mark_refused_within(put, began).await?;
                }
                Err(self.conflict(put, &after).await)
            }
        }
    }

    /// Acknowledges what is there, put by somebody else or by a push of ours that
    /// nobody remembers, once it cannot be refused any more.
    async fn acknowledge_seen(
        &self,
        seen: &SegmentState,
        put: &PutWal,
    ) -> Result<PutWalOutcome, ArchiveError> {
        let ours = put.facts.common().content.id();
        if self.is_certainly_settled(seen, ours).await? {
            return self.confirm_same(seen, put).await;
        }
        tracing::debug!(name = %put.name, "waiting until nobody can refuse what is there any more");
        tokio::time::sleep(SETTLED).await;
        let settled = self.wal_variants(&put.name).await?;
        match Stance::before_put(&settled, ours) {
            Stance::Same => self.confirm_same(&settled, put).await,
            _ => Err(self.conflict(put, &settled).await),
        }
    }

    /// Whether nobody can refuse this content any more. Beside others, whose marks the age
    /// of an object does not tell, that takes a wait.
    ///
    /// Our own clock may be ahead of the store's, so it only spares asking.
    async fn is_certainly_settled(
        &self,
        state: &SegmentState,
        ours: ContentId,
    ) -> Result<bool, ArchiveError> {
        if !is_only_content(state, ours) {
            return Ok(false);
        }
        for variant in of_content(state, ours).filter(|variant| seems_settled(variant, now())) {
            if self.store.age(&variant.key()).await?.is_some_and(|age| age >= CERTAINLY_SETTLED) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What was seen may be old: a mark is only ever set upon a listing of a moment ago.
    async fn refuse_before_put(&self, put: &PutWal) -> Result<PutWalOutcome, ArchiveError> {
        let asked = Instant::now();
        let seen = self.wal_variants(&put.name).await?;
        let ours = put.facts.common().content.id();
        match Stance::before_put(&seen, ours) {
            Stance::Same => return self.acknowledge_seen(&seen, put).await,
            Stance::Taken => {
                // One that was seen is not put again: an operator may just have taken it away.
                if !seen.refused.contains(&ours) {
                    self.mark_refused_within(put, asked).await?;
                }
                self.set_aside(put).await?;
            }
            Stance::Undecided | Stance::Free => {}
        }
        Err(self.conflict(put, &seen).await)
    }

    /// Marks our content, unless it is later than [`MARKING`] after `since`: then
    /// somebody may have been told that it is safe.
    async fn mark_refused_within(&self, put: &PutWal, since: Instant) -> Result<(), ArchiveError> {
        let ours = put.facts.common().content.id();
        let marking = tokio::time::timeout_at(since + MARKING, self.mark_refused(&put.name, ours));
        let is_late = since.elapsed() >= MARKING;
        match if is_late { None } else { marking.await.ok() } {
            Some(marked) => marked,
            None => {
                tracing::warn!(name = %put.name, "too late to refuse this content; walpoint resolve decides");
                Ok(())
            }
        }
    }

    /// That what the archive has under our content id is what we have, in full.
    async fn confirm_same(&self, state: &SegmentState, put: &PutWal) -> Result<PutWalOutcome, ArchiveError> {
        let ours = put.facts.common();
        let mut refusal = None;
        for variant in of_content(state, ours.content.id()) {
            match self.confirm(variant, ours).await {
                Ok(()) => return Ok(PutWalOutcome::AlreadyThere),
                Err(error) => refusal = Some(error),
            }
        }
        let key = self.layout.wal(&put.name, ours.content.id(), self.sealer.encrypts());
        Err(refusal.unwrap_or_else(|| ArchiveError::damaged(key, "it was listed and is gone")))
    }

    async fn confirm(&self, variant: &Variant, ours: &Common) -> Result<(), ArchiveError> {
        let damaged = |what: String| Err(ArchiveError::damaged(variant.key(), what));
        let head = self.store.head(&variant.key()).await?;
        let theirs = Common::from_metadata(&head.metadata)
            .map_err(|error| ArchiveError::from_facts(variant.key(), error))?;
        if (theirs.content, theirs.plain_size) != (ours.content, ours.plain_size) {
            return damaged(format!(
                "its metadata speaks of {} bytes with the hash {}, other than its key",
                theirs.plain_size, theirs.content
            ));
        }
        if head.size == 0 || head.size != variant.stored_size {
            return damaged(format!("it has {} bytes, listed were {}", head.size, variant.stored_size));
        }
        self.store.settle(&variant.key()).await?;
        Ok(())
    }
}

fn of_content(state: &SegmentState, content: ContentId) -> impl Iterator<Item = &Variant> {
    state.variants.iter().filter(move |variant| variant.content == content)
}

/// No other content is there, refused or not.
fn is_only_content(state: &SegmentState, ours: ContentId) -> bool {
    state.variants.iter().all(|variant| variant.content == ours)
}

/// Nobody else put the same content, in another encryption.
fn is_only_object(state: &SegmentState, ours: ContentId) -> bool {
    of_content(state, ours).count() == 1
}

fn seems_settled(variant: &Variant, now: Timestamp) -> bool {
    let limit = i64::try_from(CERTAINLY_SETTLED.as_micros()).unwrap_or(i64::MAX);
    variant.stored_at.is_some_and(|stored_at| now.0.saturating_sub(stored_at.0) >= limit)
}

#[expect(clippy::disallowed_methods, reason = "how old an object is can be told by a clock only")]
fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since_1970.as_micros()).ok();
    micros.and_then(Timestamp::from_unix_micros).unwrap_or(Timestamp(i64::MIN))
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
