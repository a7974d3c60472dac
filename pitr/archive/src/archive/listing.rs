//! Building the catalog: listings, and the small objects that say what the
//! large ones are, many at a time.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use walpoint_wal::{Lsn, TimelineHistory, TimelineId};

use super::Archive;
use super::PARALLEL;
use crate::backup_id::BackupId;
use crate::catalog::{Catalog, CatalogScope, DamagedObject};
use crate::cluster::Cluster;
use crate::error::ArchiveError;
use crate::idle::IdleProof;
use crate::object_key::Prefix;
use crate::summary::BackupHead;

/// What the folders of backups hold.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BackupListing {
    /// Backups whose summary is there and sound, oldest first.
    pub sound: Vec<BackupHead>,
    /// Summaries that cannot be read.
    pub damaged: Vec<DamagedObject>,
    /// Backups without a summary.
    pub unfinished: Vec<BackupId>,
    /// Folders that are no backup's.
    pub unknown: Vec<String>,
}

/// The folders under `backup/`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct BackupFolders {
    /// Of backups, complete or not.
    pub ids: Vec<BackupId>,
    /// Of nobody we know.
    pub unknown: Vec<String>,
}

/// What the history files say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Timelines {
    /// The histories that can be read; timeline 1 has none.
    pub histories: BTreeMap<TimelineId, TimelineHistory>,
    /// Timelines of whose history several variants stand.
    pub undecided: Vec<TimelineId>,
    /// History files that cannot be read.
    pub damaged: Vec<DamagedObject>,
    /// Keys that are not ours.
    pub unknown: Vec<String>,
}

enum Found {
    Sound(Box<BackupHead>),
    Damaged(DamagedObject),
    Unfinished(BackupId),
}

impl Archive {
    /// All that the archive holds of this cluster.
    ///
    /// # Errors
    /// [`ArchiveError::NoCluster`] when it holds nothing of it.
    pub async fn catalog(&self, scope: CatalogScope) -> Result<Catalog, ArchiveError> {
        let cluster = self.cluster().await?.ok_or(ArchiveError::NoCluster(self.system_identifier()))?;
        let mut catalog = Catalog::new(cluster);
        let (backups, (), wal, idle) = futures::try_join!(
            self.backups(),
            self.add_histories(&mut catalog),
            self.list_wal(scope, cluster),
            self.idle_in(scope)
        )?;
        catalog.idle = idle;
        catalog.backups = backups.sound;
        catalog.damaged.extend(backups.damaged);
        catalog.unfinished = backups.unfinished;
        catalog.unknown.extend(backups.unknown);
        take_wal(&mut catalog, wal);
        Ok(catalog)
    }

    /// The same without WAL, and with backups from the newest on until they are enough: a large archive is not read
    /// whole to see that its end is sound. What is not asked for is neither damaged nor unfinished here.
    ///
    /// # Errors
    /// As [`Archive::catalog`].
    pub async fn catalog_of_newest(
        &self,
        mut are_enough: impl FnMut(&Catalog) -> bool,
    ) -> Result<Catalog, ArchiveError> {
        let cluster = self.cluster().await?.ok_or(ArchiveError::NoCluster(self.system_identifier()))?;
        let mut catalog = Catalog::new(cluster);
        let ((), folders) = futures::try_join!(self.add_histories(&mut catalog), self.backup_folders())?;
        catalog.unknown.extend(folders.unknown);
        let mut unread = folders.ids;
        unread.sort();
        // Mostly the newest is enough, and each may name a hundred thousand packs. By their names the newest is one of
        // two: a clock that was set back names a backup before the one that it follows.
        let mut some = 2;
        while !unread.is_empty() && !are_enough(&catalog) {
            let ids = unread.split_off(unread.len().saturating_sub(some));
            let BackupListing { mut sound, damaged, unfinished, .. } = self.read_backups(ids).await?;
            sound.append(&mut catalog.backups);
            catalog.backups = sound;
            catalog.damaged.extend(damaged);
            catalog.unfinished.extend(unfinished);
            // Whoever needs many is not asked so often.
            some *= 2;
        }
        Ok(catalog)
    }

    /// Looks for all WAL that can lie at or after this position, and puts it in the place of what the catalog has.
    pub async fn look_for_wal(&self, catalog: &mut Catalog, from: Lsn) -> Result<(), ArchiveError> {
        let wal = self.list_wal(CatalogScope::From(from), catalog.cluster).await?;
        take_wal(catalog, wal);
        // It may have been looked for before.
        catalog.unknown.sort();
        catalog.unknown.dedup();
        Ok(())
    }

    /// The backups, by their summaries.
    pub async fn backups(&self) -> Result<BackupListing, ArchiveError> {
        let BackupFolders { ids, unknown } = self.backup_folders().await?;
        let mut listing = BackupListing { unknown, ..self.read_backups(ids).await? };
        // Packs of an expired backup stay while newer ones need them: that is nothing unfinished.
        let lent: BTreeSet<&BackupId> = listing.sound.iter().flat_map(|head| head.packs.owners()).collect();
        listing.unfinished.retain(|id| !lent.contains(id));
        Ok(listing)
    }

    async fn read_backups(&self, ids: Vec<BackupId>) -> Result<BackupListing, ArchiveError> {
        let mut listing = BackupListing::default();
        let mut found = stream::iter(ids.into_iter().map(|id| self.look_at_backup(id))).buffered(PARALLEL);
        while let Some(found) = found.try_next().await? {
            match found {
                Found::Sound(summary) => listing.sound.push(*summary),
                Found::Damaged(damaged) => listing.damaged.push(damaged),
                Found::Unfinished(id) => listing.unfinished.push(id),
            }
        }
        listing.sound.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(listing)
    }

    /// The folders of backups.
    pub async fn backup_folders(&self) -> Result<BackupFolders, ArchiveError> {
        let prefix = self.layout.backup_prefix();
        let mut folders = BackupFolders::default();
        for folder in self.store.list_folders(&prefix).await? {
            match folder.parse::<BackupId>() {
                Ok(id) => folders.ids.push(id),
                Err(_) => folders.unknown.push(format!("{prefix}{folder}/")),
            }
        }
        Ok(folders)
    }

    async fn look_at_backup(&self, id: BackupId) -> Result<Found, ArchiveError> {
        match self.head(&id).await {
            Ok(head) => Ok(Found::Sound(Box::new(head))),
            Err(error) if error.is_not_found() => Ok(Found::Unfinished(id)),
            Err(error) => DamagedObject::by(self.layout.summary(&id), error).map(Found::Damaged),
        }
    }

    async fn add_histories(&self, catalog: &mut Catalog) -> Result<(), ArchiveError> {
        let timelines = self.timelines().await?;
        catalog.histories = timelines.histories;
        catalog.history_conflicts = timelines.undecided;
        catalog.damaged.extend(timelines.damaged);
        catalog.unknown.extend(timelines.unknown);
        Ok(())
    }

    /// What the history files say.
    pub async fn timelines(&self) -> Result<Timelines, ArchiveError> {
        let listing = self.list_histories().await?;
        let mut timelines = Timelines { unknown: listing.unknown, ..Timelines::default() };
        let mut chosen = Vec::new();
        for (timeline, state) in &listing.states {
            match state.standing().as_slice() {
                [] => {}
                [one] => chosen.push((*one).clone()),
                _ => timelines.undecided.push(*timeline),
            }
        }
        let read = chosen.iter().map(|variant| async move { (variant, self.history(variant).await) });
        let mut read = stream::iter(read).buffered(PARALLEL);
        while let Some((variant, history)) = read.next().await {
            match history {
                Ok(history) => {
                    timelines.histories.insert(history.timeline, history);
                }
                Err(error) => timelines.damaged.push(DamagedObject::by(variant.key(), error)?),
            }
        }
        Ok(timelines)
    }

    /// What proves that no WAL came is of use only beside the WAL.
    async fn idle_in(&self, scope: CatalogScope) -> Result<BTreeMap<TimelineId, IdleProof>, ArchiveError> {
        match scope {
            CatalogScope::NoWal => Ok(BTreeMap::new()),
            CatalogScope::All | CatalogScope::From(_) => self.idle_proofs().await,
        }
    }

    /// A catalog of the WAL alone. Each folder is taken in as it comes: all listings together would not fit.
    async fn list_wal(&self, scope: CatalogScope, cluster: Cluster) -> Result<Catalog, ArchiveError> {
        let mut found = Catalog::new(cluster);
        let from = match scope {
            CatalogScope::NoWal => return Ok(found),
            CatalogScope::All => Lsn::ZERO,
            CatalogScope::From(lsn) => lsn,
        };
        let wal = self.layout.wal_prefix();
        let mut prefixes = vec![self.layout.conflict_prefix()];
        for folder in self.store.list_folders(&wal).await? {
            match log_of(&folder).and_then(|log| Some((log, Prefix::new(&format!("{wal}{folder}/")).ok()?))) {
                Some((log, prefix)) if log >= from.0 >> 32 => prefixes.push(prefix),
                Some(_) => {}
                None => found.unknown.push(format!("{wal}{folder}/")),
            }
        }
        let listings = prefixes.iter().map(|prefix| self.store.list(prefix, None, None));
        let mut listings = stream::iter(listings).buffered(PARALLEL);
        while let Some(listed) = listings.try_next().await? {
            found.add_listed(&self.layout, &listed);
        }
        found.complete_wal(&self.layout);
        Ok(found)
    }
}

fn take_wal(catalog: &mut Catalog, found: Catalog) {
    catalog.unknown.extend(found.unknown);
    (catalog.wal, catalog.partials, catalog.conflicts) = (found.wal, found.partials, found.conflicts);
}

/// The log number in the name of a WAL folder: the high half of the addresses in it.
fn log_of(folder: &str) -> Option<u64> {
    let upper = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    if folder.len() != 16 || !folder.bytes().all(upper) {
        return None;
    }
    u64::from_str_radix(folder.get(8..)?, 16).ok()
}
