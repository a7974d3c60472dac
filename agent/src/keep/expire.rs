//! Letting go, in two phases: what nobody wants is marked; a time of grace later it is looked at again, and goes
//! when still nobody wants it.
//!
//! The grace is longer than any backup and any restore takes. A backup that was running when the mark was made,
//! and may name packs of the marked one, is complete by then and is seen; one that begins later must look for marks
//! (FORMAT.md section 10). A restore that began before the mark is done. All this is by the store's clock.
//!
//! Whatever goes is wanted by nobody in two looks at the archive, and was there before the mark. A backup's summary
//! goes first and its packs last, so a run that is killed leaves no backup that is half there, and the next
//! run goes on with what is left.

mod delete;
mod held;
mod marks;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use super::decide::{Decision, decide};
use super::look::{Clock, look};
use super::policy::Policy;
use super::snapshot::Snapshot;
use crate::exit::Failure;
pub use marks::Standing;
use marks::{Ripe, fresh, is_true};
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::{Archive, BackupId, Cluster, ExpiryMark, StandingMark};
use walpoint_wal::Timestamp;

/// Whose archive, and what is to be kept of it.
#[derive(Clone, Copy, Debug)]
pub struct Expiry<'a> {
    /// The archive.
    pub archive: &'a Archive,
    /// Whose it is.
    pub cluster: &'a Cluster,
    /// What is to be kept.
    pub policy: &'a Policy,
    /// What tells the time where the store does not.
    pub clock: Clock,
}

/// What a look at the archive came to.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The archive.
    pub snapshot: Snapshot,
    /// What is to become of it.
    pub decision: Decision,
    /// The marks that stand.
    pub marks: Vec<Standing>,
}

/// What was done.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// What was marked by this run.
    pub marked: ExpiryMark,
    /// How many backups went.
    pub backups: u64,
    /// How many objects went.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// What did not go, and why.
    pub failed: Vec<Stuck>,
    /// Why nothing went although the first look let it; none when all is well.
    pub obstacles: Vec<String>,
    /// What an operator should know besides.
    pub notes: Vec<String>,
}

/// An object that the store did not delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its key.
    pub key: String,
    /// What the store said.
    pub why: String,
}

impl Expiry<'_> {
    /// What would go, and why the rest stays. Changes nothing.
    ///
    /// # Errors
    /// As the archive's listings.
    pub async fn see(self) -> Result<Seen, Failure> {
        // Marks first: what is marked while the archive is looked at waits for the next run.
        let marks = self.archive.expiry_marks().await?;
        let mut snapshot = look(self.archive, self.cluster, self.clock).await?;
        if let Some(now) = snapshot.now {
            // Each run leaves a sign of life, and so does each mark.
            let times = marks.standing.iter().map(|mark| mark.stored_at).chain([marks.clock]).flatten();
            snapshot.signs = snapshot.signs.with(times, now);
        }
        snapshot.unknown.extend(marks.unknown);
        let mut decision = decide(&snapshot, self.policy);
        decision.notes.extend(unreadable(&marks.standing));
        let of = |mark| Standing::of(mark, &snapshot, self.policy.grace);
        let marks = marks.standing.into_iter().map(of).collect();
        Ok(Seen { snapshot, decision, marks })
    }

    /// Marks what is to go, and deletes what was marked for long enough.
    ///
    /// # Errors
    /// As the archive's listings, and when a mark cannot be stored. What cannot be deleted is in the answer.
    pub async fn apply(self, first: &Seen) -> Result<Applied, Failure> {
        let mut applied = Applied::default();
        let readable = first.marks.iter().filter(|mark| mark.is_sound());
        let (standing, untrue): (Vec<&Standing>, Vec<&Standing>) =
            readable.partition(|mark| is_true(mark, &first.snapshot, &first.decision));
        for mark in untrue {
            if let Err(error) = self.archive.store().delete(&mark.key).await {
                applied.failed.push(Stuck { key: mark.key.to_string(), why: error.detail });
                // Should it be true again one day, its time of grace must not be over already.
                self.archive.empty_expiry_mark(&mark.key).await?;
            }
        }
        let mark = fresh(&first.snapshot, &first.decision, &standing);
        if let Some((now, ahead)) = first.ahead() {
            applied.notes.push(format!(
                "something was stored at {ahead} by the store's clock, and by the same clock it is {now}: it was set \
                 back, or had run ahead; until then nothing is marked"
            ));
        } else if !mark.is_empty() {
            self.archive.put_expiry_mark(&mark).await?;
            applied.marked = mark;
        }
        if standing.iter().any(|mark| mark.is_ripe)
            && let Err(failure) = self.delete(first, &standing, &mut applied).await
        {
            // What is gone is gone: it is said, and why it was not more.
            let key = self.archive.layout().system_identifier().to_string();
            applied.failed.push(Stuck { key, why: failure.to_string() });
        }
        // By it the next run knows that time has passed.
        if let Err(error) = self.archive.store_time_of_a_put().await {
            applied.failed.push(Stuck { key: "expire/clock.json".to_owned(), why: error.to_string() });
        }
        Ok(applied)
    }

    async fn delete(self, first: &Seen, marks: &[&Standing], applied: &mut Applied) -> Result<(), Failure> {
        let again = self.see().await?;
        applied.obstacles.extend(again.decision.obstacles.iter().cloned());
        self.look_for_missing(first, &again.snapshot, marks, applied).await?;
        if !applied.obstacles.is_empty() {
            return Ok(());
        }
        // Another run, with another policy, may have taken a mark away, or emptied it.
        let stand = |mark: &&&Standing| again.marks.iter().any(|it| it.is_still(mark));
        let marks: Vec<&Standing> = marks.iter().filter(stand).copied().collect();
        let ripe = Ripe::of(&marks, again.snapshot.segment_size, &first.decision, &again.decision);
        delete::Deletion::new(self, &again.snapshot, &again.decision, &ripe).run(applied).await
    }

    /// A backup that was there and is not listed, though nothing said that it goes, may have been left out. What it
    /// needs would look as if nobody needed it.
    async fn look_for_missing(
        self,
        first: &Seen,
        again: &Snapshot,
        marks: &[&Standing],
        applied: &mut Applied,
    ) -> Result<(), Failure> {
        let there: BTreeSet<&BackupId> = again.backups.iter().map(|backup| &backup.id).collect();
        let leaving: BTreeSet<&BackupId> = marks.iter().flat_map(|mark| &mark.mark.backups).collect();
        let just_seen: BTreeSet<&BackupId> = first.snapshot.backups.iter().map(|backup| &backup.id).collect();
        let seen: BTreeSet<&BackupId> = marks.iter().flat_map(|mark| &mark.mark.seen).collect();
        for id in seen.union(&just_seen).copied().filter(|id| !there.contains(id)) {
            match self.archive.store().head(&self.archive.layout().summary(id)).await {
                // One that was only seen by a mark may have gone by another one.
                Err(error) if error.is_not_found() => {
                    if just_seen.contains(id) && !leaving.contains(id) {
                        applied.notes.push(format!("backup {id} was there, and is gone without an expiry"));
                    }
                }
                _ => applied.obstacles.push(format!("a listing left out backup {id}, which is there")),
            }
        }
        Ok(())
    }
}

/// Marks that a newer version made, or somebody else's: they mark nothing, and are left alone.
fn unreadable(marks: &[StandingMark]) -> Vec<String> {
    let unreadable = marks.iter().filter_map(|mark| Some((&mark.key, mark.mark.as_ref().err()?)));
    unreadable.map(|(key, damage)| format!("\"{key}\" marks nothing: {}", damage.reason)).collect()
}

impl Seen {
    /// What time it is, and a later one at which something was stored.
    fn ahead(&self) -> Option<(Timestamp, Timestamp)> {
        let now = self.snapshot.now?;
        Some((now, self.snapshot.signs.ahead_of(now)?))
    }

    /// The backups that are marked, and since when.
    pub fn marked(&self) -> BTreeMap<&BackupId, Timestamp> {
        let mut marked = BTreeMap::new();
        for (mark, since) in self.marks.iter().filter_map(|mark| Some((mark, mark.stored_at?))) {
            for id in &mark.mark.backups {
                marked
                    .entry(id)
                    .and_modify(|known: &mut Timestamp| *known = since.min(*known))
                    .or_insert(since);
            }
        }
        marked
    }
}
