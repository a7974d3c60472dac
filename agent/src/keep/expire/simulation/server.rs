//! A server that archives day after day: WAL, timelines that fork, backups that take days and share packs.

use super::shelf::{Hand, Manner, Shelf};
use crate::backup::last_look::LastLook;
use crate::backup::marked::Marked;
use crate::keep::model::{BEGIN, Branch, DAY, HOUR, MIB, Made, World, size, tli};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::{Metadata, PutMode};
use walpoint_archive::summary::{BackupSummary, StoredObject};
use walpoint_archive::{
    Archive, BackupId, Cluster, ContentHash, KeyRing, ObjectKey, Sealer, StoredHash, WriterId,
};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::{Lsn, SegmentName, Timestamp, WalFileName};

/// What the server does on a day.
#[derive(Clone, Debug)]
pub struct Work {
    /// How many segments it writes.
    pub segments: u64,
    /// The first of them never comes.
    pub loses_one: bool,
    /// It is promoted first, so many segments before its end.
    pub forks_before: Option<u64>,
    /// The server that was left goes on as well.
    pub old_goes_on: bool,
    /// A backup begins, when none is running.
    pub backup: Option<Job>,
    /// What is left of one that was given up is there, too.
    pub leaves_packs: bool,
}

/// A backup that is to be made.
#[derive(Clone, Debug)]
pub struct Job {
    pub is_full: bool,
    /// Which of the packs that its parent names it names, too.
    pub keeps: u16,
    /// How many days it takes, and whether it stores anything in them.
    pub takes: i64,
    pub is_silent: bool,
}

/// A backup that is being made.
#[derive(Debug)]
pub struct Running {
    pub summary: BackupSummary,
    branch: usize,
    redo: u64,
    due: i64,
    is_silent: bool,
    at_begin: Marked,
}

/// The server, and all that it knows of what it did.
#[derive(Debug)]
pub struct Server {
    pub shelf: Arc<Mutex<Shelf>>,
    pub archive: Archive,
    pub cluster: Cluster,
    pub tells_age: bool,
    /// The timelines.
    pub branches: Vec<Branch>,
    /// The backups that were completed at some time, gone ones too, with no packs in them, and their summaries.
    pub made: BTreeMap<BackupId, (Made, BackupSummary)>,
    pub running: Option<Running>,
    /// The next segment of each timeline.
    next: Vec<u64>,
}

fn fixture() -> BackupSummary {
    serde_json::from_str(include_str!("../../../../tests/fixtures/backup.json")).unwrap()
}

fn id(day: i64, kind: &str, number: u32) -> BackupId {
    let (month, day) = (11 + day / 28, day % 28 + 1);
    format!("2026{month:02}{day:02}T000000Z-{kind}-{number:06x}").parse().unwrap()
}

impl Server {
    pub async fn new(tells_age: bool) -> Server {
        let shelf = Arc::new(Mutex::new(Shelf { now: BEGIN - DAY, ..Shelf::default() }));
        let hand = Hand::new(&shelf, Manner::default(), tells_age);
        let summary = fixture();
        let cluster = Cluster {
            system_identifier: summary.system_identifier,
            segment_size: size(),
            block_size: 8192,
            wal_block_size: 8192,
            major: 15,
        };
        let archive = archive_of(hand, &cluster);
        archive.ensure_cluster(&cluster).await.unwrap();
        let branches = vec![Branch { parent: None, first: 1 }];
        let (made, running, next) = (BTreeMap::new(), None, vec![1]);
        Server { shelf, archive, cluster, tells_age, branches, made, running, next }
    }

    /// The archive as somebody else sees it.
    pub fn archive_by(&self, manner: Manner) -> (Archive, Hand) {
        let hand = Hand::new(&self.shelf, manner, self.tells_age);
        (archive_of(hand.clone(), &self.cluster), hand)
    }

    pub fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap()
    }

    /// A day's work, but for the backup that is done on it.
    pub async fn work(&mut self, day: i64, work: &Work) {
        self.shelf().now = BEGIN + day * DAY;
        if let Some(before) = work.forks_before {
            self.fork(before).await;
        }
        let current = self.branches.len() - 1;
        for number in 0..work.segments {
            self.shelf().now += HOUR;
            self.write(current, work.loses_one && number == 0).await;
        }
        if let Some((parent, _)) = self.branches[current].parent.filter(|_| work.old_goes_on) {
            self.write(parent, false).await;
        }
        if let Some(job) = work.backup.as_ref().filter(|_| self.running.is_none()) {
            self.begin(day, job).await;
        }
        if work.leaves_packs {
            self.put(&self.pack(&id(day, "full", 0xdead), 0)).await;
        }
        if let Some(running) = self.running.as_ref().filter(|running| !running.is_silent) {
            let last = running
                .summary
                .packs
                .iter()
                .rfind(|pack| pack.key.as_str().contains(running.summary.id.as_str()));
            self.put(&last.unwrap().key.clone()).await;
        }
    }

    async fn put(&self, key: &ObjectKey) {
        let store = self.archive.store();
        let _ = store.put(key, Bytes::new(), &Metadata::new(), PutMode::Overwrite).await.unwrap();
    }

    async fn write(&mut self, branch: usize, is_lost: bool) {
        let number = self.next[branch];
        self.next[branch] += 1;
        if !is_lost {
            self.put(&self.segment(branch, number)).await;
        }
    }

    pub fn segment(&self, branch: usize, number: u64) -> ObjectKey {
        let name = SegmentName::from_number(tli(branch as u32 + 1), number, size()).unwrap();
        let content = ContentHash::of(format!("{name}").as_bytes()).id();
        self.archive.layout().wal(&WalFileName::Segment(name), content, false)
    }

    fn pack(&self, id: &BackupId, number: u32) -> ObjectKey {
        let content = ContentHash::of(format!("{id} {number}").as_bytes()).id();
        self.archive.layout().pack(id, number, content, false)
    }

    /// A promotion ends the backup that was running.
    async fn fork(&mut self, before: u64) {
        let parent = self.branches.len() - 1;
        let first = self.next[parent].saturating_sub(before).max(self.branches[parent].first + 1);
        self.branches.push(Branch { parent: Some((parent, first * MIB + 100)), first });
        self.next.push(first);
        self.running = None;
        let timeline = tli(self.branches.len() as u32);
        let steps = self.path(self.branches.len() - 1).steps;
        let line = |(number, step): (usize, &walpoint_wal::PathStep)| {
            Some(format!("{}\t{}\tfork {number}\n", step.timeline, step.end?))
        };
        let text: String = steps.iter().enumerate().filter_map(line).collect();
        let _ = self.archive.put_history(timeline, Bytes::from(text), WriterId::random()).await.unwrap();
    }

    fn path(&self, branch: usize) -> TimelinePath {
        let world = World { branches: self.branches.clone(), ..World::default() };
        TimelinePath { timeline: tli(branch as u32 + 1), steps: world.path(branch) }
    }

    async fn begin(&mut self, day: i64, job: &Job) {
        let branch = self.branches.len() - 1;
        if self.next[branch] == self.branches[branch].first {
            return;
        }
        let at_begin = Marked::now(&self.archive).await.unwrap();
        let parent = self.parent(branch, &at_begin).filter(|_| !job.is_full);
        let id = id(day, if parent.is_some() { "incr" } else { "full" }, day as u32);
        let of_parent = parent.iter().flat_map(|parent| &parent.packs).enumerate();
        let of_parent = of_parent.filter(|(index, _)| job.keeps >> (index % 16) & 1 == 1);
        let mut packs: Vec<StoredObject> = of_parent.map(|(_, pack)| pack.clone()).collect();
        for number in 0..3 {
            let key = self.pack(&id, number);
            self.put(&key).await;
            packs.push(StoredObject { key, size: 0, sha256: StoredHash::of(b"") });
        }
        packs.sort_by(|one, other| one.key.cmp(&other.key));
        let mut summary = fixture();
        let content = ContentHash::of(id.as_str().as_bytes());
        summary.manifest.key = self.archive.layout().manifest(&id, content.id(), false);
        (summary.manifest.content, summary.manifest.size) = (content, 0);
        summary.parent = parent.map(|parent| parent.id);
        (summary.kind, summary.id, summary.packs) = (id.kind(), id, packs);
        summary.timeline = tli(branch as u32 + 1);
        let redo = self.next[branch] - 1;
        summary.redo = Lsn(redo * MIB + 40);
        (summary.start.lsn, summary.checkpoint) = (summary.redo, summary.redo);
        let (due, is_silent) = (day + job.takes, job.is_silent);
        self.running = Some(Running { summary, branch, redo, due, is_silent, at_begin });
    }

    /// The newest backup that is there, leads here, and is not about to go.
    fn parent(&self, branch: usize, marked: &Marked) -> Option<BackupSummary> {
        let world = World { branches: self.branches.clone(), ..World::default() };
        let is_there = |id: &BackupId| self.shelf().objects.contains_key(&self.archive.layout().summary(id));
        let fit = self.made.iter().filter(|(id, (made, _))| {
            world.holds(branch, made) && is_there(id) && marked.why_not(id).is_none()
        });
        fit.max_by_key(|(_, (made, _))| made.stop).map(|(_, (_, summary))| summary.clone())
    }

    /// The backup that is done today, if its WAL is there.
    pub async fn done_on(&mut self, day: i64) -> Option<Running> {
        let mut running = self.running.take_if(|running| running.due <= day)?;
        let stop = self.next[running.branch] - 1;
        let mut own = (running.redo..=stop).map(|number| self.segment(running.branch, number));
        if !own.all(|key| self.shelf().objects.contains_key(&key)) {
            return None;
        }
        running.summary.stop.lsn = Lsn(stop * MIB + 50);
        let at = self.shelf().now;
        let store_off = self.shelf().off;
        running.summary.stop.time = Timestamp(at);
        self.put(&running.summary.manifest.key.clone()).await;
        let made = Made {
            branch: running.branch,
            redo: running.redo,
            stop,
            at,
            server_off: 0,
            store_off,
            damaged: false,
            verified: false,
            named: BTreeMap::<usize, BTreeSet<u32>>::new(),
        };
        self.made.insert(running.summary.id.clone(), (made, running.summary.clone()));
        Some(running)
    }

    /// What a backup does last of all.
    pub async fn complete(&self, running: &Running, manner: Manner) -> bool {
        let (archive, _) = self.archive_by(manner);
        let path = self.path(running.branch);
        let look = LastLook {
            archive: &archive,
            summary: &running.summary,
            path: &path,
            at_begin: &running.at_begin,
        };
        if look.before().await.is_err() {
            return false;
        }
        archive.put_summary(&running.summary).await.unwrap();
        look.after().await.is_ok()
    }
}

fn archive_of(hand: Hand, cluster: &Cluster) -> Archive {
    let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
    Archive::new(Arc::new(hand), cluster.system_identifier, sealer)
}
