//! An archive in a temporary directory, filled as pushes and backups fill one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::ObjectStore;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::{
    Archive, ArchiveError, BackupSummary, Catalog, CatalogScope, Common, ContentHash, ContentId, FileFacts,
    KeyRing, PutChunk, PutSource, PutWal, RunFacts, Sealer, TailFacts, Variant, WalFacts, WriterId,
};
use walpoint_wal::{Carry, SegmentName, Survey, SurveyOf, Surveyor, TimelineId, WalFileName};

use super::wal::WalWriter;
use super::{SYSTEM, cluster, history, size, tli};

/// What a push knows of the segment before its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Knows {
    /// Its content and its metadata.
    All,
    /// Its metadata only: a record that spans in goes unchecked.
    Metadata,
    /// Nothing: a new run begins.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct TestArchive {
    pub archive: Archive,
    /// Kept: with it the archive goes.
    root: TempDir,
    writer: WriterId,
    pushed: HashMap<SegmentName, (WalFacts, Survey)>,
    parents: HashMap<TimelineId, (TimelineId, u64)>,
}

impl TestArchive {
    pub async fn new() -> TestArchive {
        let root = TempDir::new().unwrap();
        let store: Arc<dyn ObjectStore> = Arc::new(DirStore::open(root.path()).await.unwrap());
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(store, SYSTEM, sealer);
        archive.ensure_cluster(&cluster()).await.unwrap();
        TestArchive {
            archive,
            root,
            writer: WriterId::random(),
            pushed: HashMap::new(),
            parents: HashMap::new(),
        }
    }

    /// The directory that the archive is.
    pub fn root(&self) -> &std::path::Path {
        self.root.path()
    }

    /// Archives a history: `(parent, fork)`, oldest first.
    pub async fn history(&mut self, timeline: u32, forks: &[(u32, u64)]) {
        let history = history(timeline, forks);
        let lines =
            history.ancestors.iter().map(|it| format!("{}\t{}\t{}\n", it.timeline, it.fork, it.reason));
        let text: String = lines.collect();
        let put = self.archive.put_history(tli(timeline), Bytes::from(text), self.writer).await;
        let _ = put.unwrap();
        let (parent, fork) = *forks.last().unwrap();
        self.parent(timeline, parent, fork);
    }

    /// Says where a timeline comes from without archiving that.
    pub fn parent(&mut self, timeline: u32, parent: u32, fork: u64) {
        self.parents.insert(tli(timeline), (tli(parent), fork));
    }

    /// Archives all of a writer's segments with numbers that `wanted` takes.
    pub async fn push_all(&mut self, writer: &WalWriter, wanted: impl Fn(u64) -> Option<Knows>) {
        let segments: Vec<_> = writer.segments().map(|(name, bytes)| (name, bytes.to_vec())).collect();
        for (name, bytes) in segments {
            if let Some(knows) = wanted(name.number(size()).unwrap()) {
                self.push(name, bytes, knows).await;
            }
        }
    }

    pub async fn push(&mut self, name: SegmentName, bytes: Vec<u8>, knows: Knows) {
        let facts = self.survey(name, &bytes, knows);
        self.store(WalFileName::Segment(name), facts, bytes).await;
    }

    /// Ships the beginning of a segment in pieces, as an agent does while it is being written.
    /// Whoever pushes the next segment knows all of it.
    pub async fn ship(&mut self, name: SegmentName, bytes: &[u8], knows: Knows, ends: &[usize]) {
        let run = {
            let before = self.before(name).filter(|_| knows != Knows::Nothing);
            let carry =
                before.and_then(|(_, survey)| survey.carry_out.clone()).filter(|_| knows == Knows::All);
            (before.map(|(facts, _)| facts.clone()), carry)
        };
        let (previous, carry) = run;
        let mut surveyor = Surveyor::new(SurveyOf {
            name,
            partial: false,
            file_size: bytes.len() as u64,
            expected: Some(SYSTEM),
            carry: carry.map_or(Carry::Unknown, Carry::Known),
        });
        let mut from = 0;
        for to in ends {
            let own = &bytes[from..*to];
            surveyor.feed(own);
            let survey = surveyor.so_far().unwrap();
            let common = Common::new(ContentHash::of(own), own.len() as u64, self.writer, SYSTEM);
            let facts =
                WalFacts::of_survey(common, &survey, RunFacts::continue_from(previous.as_ref(), &survey));
            let (before, after) = (ContentHash::of(&bytes[..from]), ContentHash::of(&bytes[..*to]));
            let tail = TailFacts { from: from as u32, before, after };
            let bytes = Bytes::copy_from_slice(own);
            self.archive.put_chunk(&PutChunk { segment: name, tail, facts, bytes }).await.unwrap();
            from = *to;
        }
        self.survey(name, bytes, knows);
    }

    /// Archives content with metadata that need not be true.
    pub async fn store(&mut self, name: WalFileName, facts: WalFacts, bytes: Vec<u8>) {
        let source = PutSource::Bytes(Bytes::from(bytes));
        let put = PutWal { name, facts: FileFacts::Wal(Box::new(facts)), source };
        let _ = self.archive.put_wal(&put).await.unwrap();
    }

    /// Tries to archive other content under a name that is taken, and says which it was.
    pub async fn push_refused(&mut self, name: SegmentName, bytes: Vec<u8>) -> ContentId {
        let facts = self.survey(name, &bytes, Knows::All);
        let content = facts.common.content.id();
        let source = PutSource::Bytes(Bytes::from(bytes));
        let (name, facts) = (WalFileName::Segment(name), FileFacts::Wal(Box::new(facts)));
        let put = self.archive.put_wal(&PutWal { name, facts, source }).await;
        assert!(matches!(put, Err(ArchiveError::Conflict { .. })), "{put:?}");
        content
    }

    pub fn survey(&mut self, name: SegmentName, bytes: &[u8], knows: Knows) -> WalFacts {
        let before = self.before(name).filter(|_| knows != Knows::Nothing);
        let carry = before.and_then(|(_, survey)| survey.carry_out.clone()).filter(|_| knows == Knows::All);
        let mut surveyor = Surveyor::new(SurveyOf {
            name,
            partial: false,
            file_size: bytes.len() as u64,
            expected: Some(SYSTEM),
            carry: carry.map_or(Carry::Unknown, Carry::Known),
        });
        surveyor.feed(bytes);
        let survey = surveyor.finish().unwrap();
        let run = RunFacts::continue_from(before.map(|(facts, _)| facts), &survey);
        let common = Common::new(ContentHash::of(bytes), bytes.len() as u64, self.writer, SYSTEM);
        let facts = WalFacts::of_survey(common, &survey, run);
        self.pushed.insert(name, (facts.clone(), survey));
        facts
    }

    /// What was pushed of the segment before: on the same timeline or, before the segment
    /// that the fork is in, on the parent's.
    fn before(&self, name: SegmentName) -> Option<&(WalFacts, Survey)> {
        let mut previous = name.previous(size())?;
        loop {
            if let Some(pushed) = self.pushed.get(&previous) {
                return Some(pushed);
            }
            let (parent, fork) = self.parents.get(&previous.timeline)?;
            if previous.number(size()).unwrap() >= fork / super::MIB {
                return None;
            }
            previous.timeline = *parent;
        }
    }

    /// Takes a segment out of the archive.
    pub async fn delete(&self, name: SegmentName) {
        let state = self.archive.segment_state(&name).await.unwrap();
        let keys =
            state.variants.iter().map(Variant::key).chain(state.chunks.iter().map(|it| it.key.clone()));
        for key in keys {
            self.archive.store().delete(&key).await.unwrap();
        }
    }

    pub async fn backup(&self, summary: &BackupSummary) {
        self.archive.put_summary(summary).await.unwrap();
    }

    pub async fn catalog(&self) -> Catalog {
        self.archive.catalog(CatalogScope::All).await.unwrap()
    }
}
