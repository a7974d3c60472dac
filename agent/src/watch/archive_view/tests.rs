#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::ObjectStore;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::store::faulty::{Faulty, Verb};
use walpoint_archive::{BackupId, BackupKind, Cluster, ContentHash, KeyRing, Sealer, WriterId};
use walpoint_wal::timestamp::Timestamp;

use walpoint_archive::BackupSummary;

use super::*;

const MIB: u64 = 1 << 20;

struct Stage {
    _root: tempfile::TempDir,
    store: Arc<Faulty>,
    archive: Archive,
}

impl Stage {
    /// With so many backups of the first timeline, each a segment behind the one before.
    async fn with_backups(count: u64, is_good: impl Fn(u64) -> bool) -> Stage {
        let model = summary();
        let root = tempfile::tempdir().unwrap();
        let store = Arc::new(Faulty::new(Arc::new(DirStore::open(root.path()).await.unwrap())));
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive =
            Archive::new(Arc::clone(&store) as Arc<dyn ObjectStore>, model.system_identifier, sealer);
        let cluster = Cluster {
            system_identifier: model.system_identifier,
            segment_size: SegmentSize::new(MIB).unwrap(),
            block_size: 8192,
            wal_block_size: 8192,
            major: 15,
        };
        archive.ensure_cluster(&cluster).await.unwrap();
        for number in 1..=count {
            let mut backup = summary();
            backup.stop.time = Timestamp(800_000_000_000_000 + number as i64 * 3_600_000_000);
            backup.id = BackupId::new(backup.stop.time, BackupKind::Full);
            backup.segment_size = cluster.segment_size;
            backup.redo = Lsn(number * MIB + 40);
            (backup.start.lsn, backup.stop.lsn) = (backup.redo, Lsn(number * MIB + 0x100));
            backup.damaged_pages = u64::from(!is_good(number));
            let content = ContentHash::of(backup.id.as_str().as_bytes());
            backup.manifest.content = content;
            backup.manifest.key = archive.layout().manifest(&backup.id, content.id(), false);
            backup.packs.clear();
            archive.put_summary(&backup).await.unwrap();
        }
        Stage { _root: root, store, archive }
    }

    /// What the archive says, and how many objects were read for it.
    async fn look(&self, look_back: u32) -> (View, u32) {
        let before = self.store.calls(Verb::Get);
        let wanted = Wanted {
            timeline: Some(TimelineId::FIRST),
            position: None,
            ancestry: Vec::new(),
            history: None,
            look_back,
        };
        let view = look(&self.archive, &wanted).await.unwrap();
        (view, self.store.calls(Verb::Get) - before)
    }
}

fn summary() -> BackupSummary {
    serde_json::from_str(include_str!("../../../tests/fixtures/backup.json")).unwrap()
}

/// docs/operating.md counts with these.
#[tokio::test]
async fn the_end_of_a_large_archive_is_judged_by_its_newest_backups() {
    let stage = Stage::with_backups(100, |_| true).await;
    let newest = Timestamp(800_000_000_000_000 + 100 * 3_600_000_000);
    let (view, read) = stage.look(1).await;
    assert_eq!(view.state.last_backup.map(|backup| backup.stopped), Some(newest));
    // Of the newest two, and cluster.json.
    assert_eq!(read, 3);
    // From thirty backups back: each time twice as many as before, until it is enough.
    assert_eq!(stage.look(30).await.1, 1 + 2 + 4 + 8 + 16);
}

#[tokio::test]
async fn older_backups_are_read_when_no_new_one_is_good() {
    let stage = Stage::with_backups(100, |number| number == 7).await;
    let (view, read) = stage.look(1).await;
    let seventh = Timestamp(800_000_000_000_000 + 7 * 3_600_000_000);
    assert_eq!(view.state.last_good_backup.map(|backup| backup.stopped), Some(seventh));
    assert_eq!(read, 101);
}

#[tokio::test]
async fn a_timeline_that_only_an_old_backup_leads_to_is_followed_all_the_same() {
    let stage = Stage::with_backups(100, |_| true).await;
    let two = TimelineId::new(2).unwrap();
    let history = Bytes::from_static(b"1\t0/380000\tbefore 20260101\n");
    let _ = stage.archive.put_history(two, history, WriterId::random()).await.unwrap();
    assert_eq!(stage.look(1).await.0.state.followed, Some(two));
}
