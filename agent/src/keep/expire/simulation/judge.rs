//! What must be so after every day, whatever happened on it.

use super::server::Server;
use super::shelf::Stored;
use crate::keep::elapsed::MOST_OF_A_SILENCE;
use crate::keep::model::{Made, Promised, Segment, There, World, size};
use crate::keep::policy::Policy;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use walpoint_archive::{BackupId, Entry, ObjectKey};
use walpoint_wal::WalFileName;

/// Objects, as the model has them.
#[derive(Debug)]
pub struct View {
    pub world: World,
    pub there: There,
    /// The backups of the world.
    pub ids: Vec<BackupId>,
}

/// What was wanted when, and how the clock went.
#[derive(Debug, Default)]
pub struct Judge {
    wanted: BTreeMap<ObjectKey, i64>,
    /// When the store's clock jumped ahead.
    jumps: Vec<i64>,
}

impl View {
    /// The world that these objects show. By `now` the store's clock says what time it is.
    pub fn of<'o>(
        server: &Server,
        objects: impl Iterator<Item = (&'o ObjectKey, &'o Stored)>,
        now: i64,
    ) -> View {
        let layout = server.archive.layout();
        let (mut segments, mut packs, mut summaries) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (key, stored) in objects {
            match layout.parse(key) {
                Some(Entry::Wal { name: WalFileName::Segment(name), .. }) => {
                    let branch = name.timeline.get() as usize - 1;
                    let segment = Segment { at: stored.at, store_off: stored.shown - stored.at };
                    segments.insert((branch, name.number(size()).unwrap()), segment);
                }
                Some(Entry::Pack { backup, number, .. }) => {
                    packs.insert((backup, number));
                }
                Some(Entry::Summary { backup }) => {
                    summaries.insert(backup);
                }
                _ => {}
            }
        }
        let mut ids: Vec<BackupId> = summaries.into_iter().collect();
        ids.sort_by_key(|id| server.made[id].0.at);
        // Those that have gone come after those that are there.
        let gone = packs.iter().map(|(id, _)| id).chain(server.made.keys()).filter(|id| !ids.contains(id));
        let gone: BTreeSet<BackupId> = gone.cloned().collect();
        let places = ids.iter().chain(&gone).enumerate();
        let places: BTreeMap<BackupId, usize> = places.map(|(place, id)| (id.clone(), place)).collect();
        let named = |id: &BackupId| {
            let mut named: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
            for pack in &server.made[id].1.packs {
                let Some(Entry::Pack { backup, number, .. }) = layout.parse(&pack.key) else { continue };
                let place = places.get(&backup).copied().unwrap_or(usize::MAX);
                named.entry(place).or_default().insert(number);
            }
            named
        };
        let backups = ids.iter().map(|id| Made { named: named(id), ..server.made[id].0.clone() }).collect();
        let there = There {
            backups: (0..ids.len()).collect(),
            packs: packs.iter().map(|(id, number)| (places[id], *number)).collect(),
            segments: segments.keys().copied().collect(),
        };
        View { world: World { branches: server.branches.clone(), backups, segments, now }, there, ids }
    }

    /// The keys of all that is promised.
    fn keys(&self, server: &Server, promised: &Promised) -> BTreeSet<ObjectKey> {
        let mut keys: BTreeSet<ObjectKey> = promised
            .needed(&self.world)
            .into_iter()
            .map(|(branch, number)| server.segment(branch, number))
            .collect();
        for id in promised.backups.iter().map(|index| &self.ids[*index]) {
            let summary = &server.made[id].1;
            keys.extend(summary.packs.iter().map(|pack| pack.key.clone()));
            keys.extend([summary.manifest.key.clone(), server.archive.layout().summary(id)]);
        }
        keys
    }
}

impl Judge {
    /// The store's clock is other than it was.
    pub fn jumped(&mut self, at: i64, ahead: bool) {
        if ahead {
            self.jumps.push(at);
        }
    }

    /// After one or more runs with this policy. `before` is what they found. A backup may have come meanwhile, so what
    /// counts is what was promised both without it and with it. Where no run got to its end, none may have seen what is
    /// wanted.
    pub fn judge(
        &mut self,
        server: &Server,
        before: &View,
        policy: &Policy,
        counts: bool,
    ) -> Result<(), TestCaseError> {
        let deleted = std::mem::take(&mut server.shelf().deleted);
        let gone = deleted.iter().map(|(key, stored)| (key, stored));
        let objects = server.shelf().objects.clone();
        let with = View::of(server, objects.iter().chain(gone), before.world.now);
        let after = View::of(server, objects.iter(), before.world.now);
        self.every_backup_is_whole(server, &objects)?;
        let promised = Promised::by(&before.world, policy, 0);
        let still = Promised::by(&with.world, policy, 0);
        for (branch, number) in promised.moments.intersection(&still.moments) {
            if before.world.can_reach(&before.there, *branch, *number) {
                prop_assert!(
                    after.world.can_reach(&after.there, *branch, *number),
                    "segment {number} of timeline {} cannot be reached any more",
                    branch + 1
                );
            }
        }
        let wanted: BTreeSet<ObjectKey> = before.keys(server, &promised);
        let wanted: Vec<ObjectKey> = wanted.intersection(&with.keys(server, &still)).cloned().collect();
        for key in wanted {
            let is_gone = deleted.iter().any(|(it, _)| *it == key);
            prop_assert!(!is_gone, "{key} went, which {policy:?} asks for");
            if counts {
                self.wanted.insert(key, server.shelf().now);
            }
        }
        for (key, stored) in &deleted {
            self.has_waited(server, key, stored, policy)?;
        }
        Ok(())
    }

    /// Nothing goes sooner than the grace after it was last wanted, or came.
    fn has_waited(
        &self,
        server: &Server,
        key: &ObjectKey,
        stored: &Stored,
        policy: &Policy,
    ) -> Result<(), TestCaseError> {
        match server.archive.layout().parse(key) {
            Some(Entry::ExpiryMark(_)) => return Ok(()),
            // Taken back by who made it.
            Some(Entry::Summary { .. }) if stored.at == server.shelf().now => return Ok(()),
            _ => {}
        }
        let since = self.wanted.get(key).copied().unwrap_or(stored.at).max(stored.at);
        let now = server.shelf().now;
        let jumps = self.jumps.iter().filter(|at| **at > since).count() as i64;
        let grace = policy.grace.as_micros() as i64 - jumps * MOST_OF_A_SILENCE.as_micros() as i64;
        prop_assert!(
            now - since >= grace,
            "{key} went within its grace: wanted at {since}, and now it is {now}"
        );
        Ok(())
    }

    fn every_backup_is_whole(
        &self,
        server: &Server,
        objects: &BTreeMap<ObjectKey, Stored>,
    ) -> Result<(), TestCaseError> {
        for (id, (made, summary)) in &server.made {
            if !objects.contains_key(&server.archive.layout().summary(id)) {
                continue;
            }
            let packs = summary.packs.iter().map(|pack| pack.key.clone());
            let own = (made.redo..=made.stop).map(|number| server.segment(made.branch, number));
            for key in packs.chain(own).chain([summary.manifest.key.clone()]) {
                prop_assert!(objects.contains_key(&key), "{id} lacks {key}");
            }
        }
        Ok(())
    }
}
