//! What stays, for which reasons, and what goes: a pure function over a snapshot of the archive.
//!
//! - What any policy asks for stays. A backup that stays can be restored: all packs that its summary names stay,
//!   those of older backups too, and the WAL up to its end.
//! - No clock is trusted alone. What a policy asks for by the server's clock stays, and what it asks for by the
//!   store's; a backup from the future stays, and takes nobody's place.
//! - What is not whole takes nobody's place either: where the last three backups are to stay and one of them has
//!   damaged pages or lacks a segment, the last three without it stay as well.
//! - The present stays: to every timeline in use, the newest backup that leads there and all WAL from it on.

mod backups;
mod folders;
#[cfg(test)]
mod tests;
mod wal;

use super::policy::{Policy, Unit};
use super::snapshot::Snapshot;
use super::spans::Spans;
use crate::config::durations;
use backups::Chosen;
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::BackupId;
use walpoint_wal::TimelineId;

/// Why a backup stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It is one of the last ones.
    Last,
    /// It serves moments of the window.
    Window,
    /// It stands for a day, a week, a month, a year.
    Stretch(Unit),
    /// It is the newest one that leads to a timeline in use.
    Newest,
    /// Nothing asks for any backup, and there is no newer one.
    Only,
    /// So many verified ones must stay.
    Verified,
    /// Fewer were verified than must stay, so nobody knows which is good.
    TooFewVerified,
    /// Some clock said a time that has not come.
    Future,
    /// No policy says anything of backups.
    NoPolicy,
}

/// Why WAL stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhyWal {
    /// A backup that stays is not consistent without it.
    Backup,
    /// It leads on from one of the last backups.
    Last,
    /// It leads to moments of the window.
    Window,
    /// It leads to the present.
    Present,
    /// It is not older than WAL is to be kept.
    Age,
    /// There is no backup, on the way to this timeline, by which it could be told what is needed.
    NoBackup,
}

/// What is to become of everything.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Why nothing may go at all; none when it may.
    pub obstacles: Vec<String>,
    /// What an operator should know besides.
    pub notes: Vec<String>,
    /// The complete backups, by their ids.
    pub backups: Vec<BackupFate>,
    /// Folders without a backup that stays, as far as something is to be said of them.
    pub folders: Vec<FolderFate>,
    /// Runs of segments with one fate, by timeline, then by number.
    pub wal: Vec<WalFate>,
    /// The packs that backups name which stay, by the backup that stored them.
    pub needed_packs: BTreeMap<BackupId, BTreeSet<u32>>,
    /// The segments that something asks for, listed or not.
    pub asked_wal: BTreeMap<TimelineId, Spans>,
    /// What the newest backup borrows.
    pub borrowed: Borrowed,
}

/// How much of what the newest backup needs lies in packs of backups that have gone, or go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Borrowed {
    /// Stored bytes of all packs that it needs.
    pub needs: u64,
    /// Of these, in folders of backups that do not stay.
    pub of_the_gone: u64,
}

impl Borrowed {
    /// Whether a new full backup is due: more than half of the newest one would have gone long ago.
    pub fn full_is_due(self) -> bool {
        self.of_the_gone > self.needs / 2
    }
}

/// What is to become of a backup.
#[derive(Clone, Debug)]
pub struct BackupFate {
    /// The backup.
    pub id: BackupId,
    /// Why it stays; empty when it goes.
    pub stays: BTreeSet<Why>,
}

/// What is to become of a folder that holds no backup which stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderFate {
    /// The backup that it is named for.
    pub id: BackupId,
    /// Whether there was a summary: whether it is a backup.
    pub is_backup: bool,
    /// It may be being made.
    pub is_young: bool,
    /// Stored bytes of all that is in it.
    pub bytes: u64,
    /// Objects that go.
    pub objects: u64,
    /// Their stored bytes.
    pub frees: u64,
    /// Number of its packs.
    pub packs: u64,
    /// Packs that newer backups need.
    pub needed_packs: u64,
    /// Their stored bytes.
    pub needed_bytes: u64,
}

/// What is to become of some segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalFate {
    /// Their timeline.
    pub timeline: TimelineId,
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// How many there are.
    pub segments: u64,
    /// Stored bytes, with all that is stored under their names.
    pub bytes: u64,
    /// Number of objects.
    pub objects: u64,
    /// Why they stay; empty when they go.
    pub stays: BTreeSet<WhyWal>,
}

impl FolderFate {
    /// Whether anything of it goes.
    pub fn goes(&self) -> bool {
        !self.is_young && self.objects > 0
    }
}

/// Decides.
pub fn decide(snapshot: &Snapshot, policy: &Policy) -> Decision {
    let mut decision = Decision { obstacles: snapshot.obstacles.clone(), ..Decision::default() };
    if policy.is_empty() {
        decision.notes.push("no policy says what to keep, so nothing expires".to_owned());
        return decision;
    }
    let Some(now) = snapshot.now else {
        decision.obstacles.push("the store does not tell what time it is".to_owned());
        return decision;
    };
    note_silences(snapshot, policy, now, &mut decision.notes);
    if policy.has_short_grace() {
        let grace = durations::render(policy.grace);
        decision.notes.push(format!(
            "a grace of {grace} is short: what a running backup or restore needs may go before it is done"
        ));
    }
    let chosen = Chosen::by(snapshot, policy, now);
    let stays = |index: usize| chosen.backups.get(&index).cloned().unwrap_or_default();
    let fate = |(index, backup): (usize, &super::snapshot::Backup)| BackupFate {
        id: backup.id.clone(),
        stays: stays(index),
    };
    decision.backups = snapshot.backups.iter().enumerate().map(fate).collect();
    decision.needed_packs = folders::needed_packs(snapshot, &chosen);
    decision.folders = folders::fates(snapshot, policy, now, &chosen, &decision.needed_packs);
    decision.borrowed = folders::borrowed(snapshot, &decision.folders);
    let asked = wal::asked(snapshot, policy, now, &chosen);
    decision.wal = wal::fates(snapshot, &asked);
    decision.asked_wal = asked.into_iter().map(|(timeline, spans)| (timeline, Spans::all(spans))).collect();
    decision.notes.extend(chosen.notes(snapshot));
    decision
}

fn note_silences(
    snapshot: &Snapshot,
    policy: &Policy,
    now: walpoint_wal::Timestamp,
    notes: &mut Vec<String>,
) {
    let longest = policy.window.max(policy.wal);
    let Some(longest) = longest else { return };
    let since = snapshot.signs.so_long_ago(now, longest);
    for (from, to) in snapshot.signs.silences_since(since, now) {
        notes.push(format!(
            "nothing was stored between {from} and {to} by the store's clock: this time is not counted, as a clock \
             may have jumped"
        ));
    }
}

impl Decision {
    /// The folders that something goes from.
    pub fn doomed_backups(&self) -> BTreeSet<&BackupId> {
        self.folders.iter().filter(|folder| folder.goes()).map(|folder| &folder.id).collect()
    }

    /// The segments that go.
    pub fn doomed_wal(&self) -> impl Iterator<Item = &WalFate> {
        self.wal.iter().filter(|wal| wal.stays.is_empty())
    }

    /// Bytes that go.
    pub fn frees(&self) -> u64 {
        let folders = self.folders.iter().filter(|folder| folder.goes()).map(|folder| folder.frees);
        folders.sum::<u64>() + self.doomed_wal().map(|wal| wal.bytes).sum::<u64>()
    }

    /// Whether anything goes.
    pub fn lets_anything_go(&self) -> bool {
        self.folders.iter().any(FolderFate::goes) || self.doomed_wal().next().is_some()
    }
}
