use walpoint_wal::{Lsn, SegmentName, SegmentSize, TimelineId};

use super::*;
use crate::backup_id::BackupId;
use crate::catalog::CatalogScope;
use crate::cluster::Cluster;
use crate::object_key::ObjectKey;
use crate::store::faulty::{Faulty, Verb};
use crate::store::{Metadata, PutMode};
use crate::summary::tests::summary;

/// Folders of 0 to 9 objects, and what is nobody's at both ends and between.
async fn stage() -> (Place, Arc<Faulty>, Archive) {
    let place = Place::new().await;
    let counting = Arc::new(Faulty::new(Arc::clone(&place.store)));
    let archive = archive_on(Arc::clone(&counting) as Arc<dyn ObjectStore>);
    let mut keys = Vec::new();
    for day in 1..=40_u32 {
        let id: BackupId =
            format!("202601{:02}T0{}0000Z-full-00000a", 1 + day % 28, day / 28).parse().unwrap();
        for number in 0..day % 10 {
            keys.push(archive.layout().pack(&id, number, ContentHash::of(&number.to_le_bytes()).id(), false));
        }
        keys.extend((day % 3 == 0).then(|| archive.layout().summary(&id)));
    }
    let foreign = ["backup/0/x", "backup/20260115T000000Z-full-00000a-", "backup/z", "backup/zz/y"];
    keys.extend(foreign.map(|path| ObjectKey::new(&format!("{}/{path}", CLUSTER.0)).unwrap()));
    for key in keys {
        let put =
            place.store.put(&key, Bytes::from_static(b"x"), &Metadata::new(), PutMode::CreateOnly).await;
        let _ = put.unwrap();
    }
    (place, counting, archive)
}

#[tokio::test]
async fn backups_are_listed_whole_whatever_parts_they_are_listed_in() {
    let (_place, _, archive) = stage().await;
    let whole = archive.backup_inventory().await.unwrap();
    let objects: u64 = whole.folders.values().map(|folder| folder.objects).sum();
    assert_eq!(
        (objects, whole.unknown.len()),
        ((1..=40).map(|day| day % 10 + u64::from(day % 3 == 0)).sum(), 4)
    );
    for page in [1, 2, 3, 7, 50, 190, 1000] {
        let mut parts = archive.backup_inventory_by(page).await.unwrap();
        parts.unknown.sort();
        assert_eq!(parts, whole, "{page} at a time");
    }
}

/// docs/operating.md counts with these.
#[tokio::test]
async fn parts_cost_no_more_than_a_list_each() {
    let (_place, counting, archive) = stage().await;
    let objects = 4 + (1..=40_u32).map(|day| day % 10 + u32::from(day % 3 == 0)).sum::<u32>();
    for page in [10, 50] {
        let before = counting.calls(Verb::List);
        archive.backup_inventory_by(page).await.unwrap();
        let lists = counting.calls(Verb::List) - before;
        let most = objects.div_ceil(u32::try_from(page).unwrap()) + 2 * 16;
        assert!(lists <= most, "{lists} lists of {page} for {objects} objects");
    }
}

/// docs/operating.md counts with these.
#[tokio::test]
async fn a_catalog_asks_once_for_each_backup_and_history_and_lists_each_folder_of_wal_once() {
    let place = Place::new().await;
    let counting = Arc::new(Faulty::new(Arc::clone(&place.store)));
    let archive = archive_on(Arc::clone(&counting) as Arc<dyn ObjectStore>);
    let cluster = Cluster {
        system_identifier: CLUSTER,
        segment_size: SegmentSize::new(16 << 20).unwrap(),
        block_size: 8192,
        wal_block_size: 8192,
        major: 15,
    };
    archive.ensure_cluster(&cluster).await.unwrap();
    archive.put_summary(&summary()).await.unwrap();
    let two = TimelineId::new(2).unwrap();
    let _ =
        archive.put_history(two, Bytes::from_static(b"1\t0/3000000\tx\n"), WriterId::random()).await.unwrap();
    for folder in 0..3 {
        for seg in 0..2 {
            let name = WalFileName::Segment(SegmentName { timeline: two, log: folder, seg });
            let key = archive.layout().wal(&name, ContentHash::of(b"x").id(), false);
            let _ = place.store.put(&key, Bytes::new(), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
        }
    }
    let counts = async |scope| {
        let count = || (counting.calls(Verb::List), counting.calls(Verb::Get), counting.calls(Verb::Head));
        let before = count();
        archive.catalog(scope).await.unwrap();
        let after = count();
        (after.0 - before.0, after.1 - before.1, after.2 - before.2)
    };
    // Folders of backups, histories; cluster.json, a summary, a history.
    assert_eq!(counts(CatalogScope::NoWal).await, (2, 3, 0));
    // And WAL's folders, each of the three, conflicts, proofs of rest.
    assert_eq!(counts(CatalogScope::All).await, (2 + 6, 3, 0));
    assert_eq!(counts(CatalogScope::From(Lsn(2 << 32))).await, (2 + 4, 3, 0));
}
