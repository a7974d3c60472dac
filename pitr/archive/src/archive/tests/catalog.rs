use walpoint_wal::{Lsn, SegmentSize, TimelineId};

use super::cluster::plain_metadata;
use super::*;
use crate::archive::ClusterListing;
use crate::catalog::{Catalog, CatalogScope};
use crate::cluster::Cluster;
use crate::cluster::tests::cluster;
use crate::store::faulty::{Fault, Faulty, Verb};
use crate::store::{PutMode, StoreErrorKind};
use crate::summary::BackupHead;
use crate::summary::tests::summary;

async fn put_raw(place: &Place, key: &str, bytes: &'static [u8]) {
    let (key, metadata) = (ObjectKey::new(key).unwrap(), plain_metadata(bytes).unwrap());
    let _ = place.store.put(&key, Bytes::from_static(bytes), &metadata, PutMode::Overwrite).await.unwrap();
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// What a catalog holds of the backup.
fn head() -> BackupHead {
    summary().into_head(&Layout::new(CLUSTER))
}

#[tokio::test]
async fn whoever_comes_first_says_what_the_cluster_is() {
    let place = Place::new().await;
    let archive = place.archive();
    assert_eq!(archive.cluster().await.unwrap(), None);
    assert_eq!(Archive::clusters(place.store.as_ref()).await.unwrap(), ClusterListing::default());
    archive.ensure_cluster(&cluster()).await.unwrap();
    archive.ensure_cluster(&cluster()).await.unwrap();
    assert_eq!(archive.cluster().await.unwrap(), Some(cluster()));
    let resized = Cluster { segment_size: SegmentSize::new(1 << 24).unwrap(), ..cluster() };
    let error = archive.ensure_cluster(&resized).await.unwrap_err();
    assert!(matches!(error, ArchiveError::WrongCluster { .. }));
    assert!(error.hint().unwrap().contains("archive url of its own"));
    assert_eq!(archive.cluster().await.unwrap(), Some(cluster()), "nothing was overwritten");
}

#[tokio::test]
async fn the_clusters_of_an_archive_are_listed_and_other_folders_are_not() {
    let place = Place::new().await;
    for identifier in [7, 11, 5] {
        let identifier = SystemIdentifier(identifier);
        let sealer = place.archive().sealer().clone();
        let archive = Archive::new(Arc::clone(&place.store), identifier, sealer);
        archive.ensure_cluster(&Cluster { system_identifier: identifier, ..cluster() }).await.unwrap();
    }
    for key in ["notes/cluster.json", "0013/cluster.json", "12/README"] {
        put_raw(&place, key, b"{}").await;
    }
    let clusters = Archive::clusters(place.store.as_ref()).await.unwrap();
    let identifiers: Vec<_> = clusters.sound.iter().map(|cluster| cluster.system_identifier.0).collect();
    assert_eq!((identifiers.as_slice(), clusters.unreadable.as_slice()), (&[5, 7, 11][..], &[][..]));
}

#[tokio::test]
async fn a_cluster_that_cannot_be_read_hides_no_other_one() {
    let place = Place::new().await;
    place.archive().ensure_cluster(&cluster()).await.unwrap();
    put_raw(&place, "13/cluster.json", b"{}").await;
    put_raw(&place, "5/cluster.json", b"{\"format\": 99}").await;
    let clusters = Archive::clusters(place.store.as_ref()).await.unwrap();
    assert_eq!(clusters.sound, [cluster()]);
    let unreadable: Vec<_> =
        clusters.unreadable.iter().map(|(id, object)| (id.0, object.key.as_str())).collect();
    assert_eq!(unreadable, [(5, "5/cluster.json"), (13, "13/cluster.json")]);
    // Whose rights do not reach another cluster still sees its own; an outage hides any.
    for (kind, is_listed) in [(StoreErrorKind::Denied, true), (StoreErrorKind::Transient, false)] {
        let faulty = Faulty::new(Arc::clone(&place.store));
        faulty.fail(Verb::Get, 0, Fault::Before(kind));
        assert_eq!(Archive::clusters(&faulty).await.is_ok(), is_listed, "{kind:?}");
    }
}

#[tokio::test]
async fn a_cluster_that_lies_in_anothers_folder_is_damage() {
    let place = Place::new().await;
    let json = Cluster { system_identifier: SystemIdentifier(8), ..cluster() }.to_json().unwrap();
    let key = place.archive().layout().cluster();
    let metadata = plain_metadata(&json).unwrap();
    let _ = place.store.put(&key, json.into(), &metadata, PutMode::CreateOnly).await.unwrap();
    let error = place.archive().cluster().await.unwrap_err();
    assert!(matches!(error, ArchiveError::Damaged { .. }) && error.to_string().contains("cluster 8"));
}

#[tokio::test]
async fn a_digit_that_changed_in_a_small_object_is_damage() {
    let place = Place::new().await;
    let archive = place.archive();
    archive.ensure_cluster(&cluster()).await.unwrap();
    archive.put_summary(&summary()).await.unwrap();
    let key = archive.layout().summary(&summary().id);
    for (key, from, to) in [
        (archive.layout().cluster(), "\"major\": 15", "\"major\": 16"),
        (key.clone(), "\"timeline\": 1", "\"timeline\": 2"),
    ] {
        let file = place.dir.path().join(key.as_str());
        let sound = std::fs::read_to_string(&file).unwrap();
        assert!(sound.contains(from), "{sound}");
        std::fs::write(&file, sound.replace(from, to)).unwrap();
        let read = match key == archive.layout().cluster() {
            true => archive.cluster().await.map(drop),
            false => archive.summary(&summary().id).await.map(drop),
        };
        let error = read.unwrap_err().to_string();
        assert!(error.contains(key.as_str()) && error.contains("expected was"), "{error}");
        std::fs::write(&file, sound).unwrap();
    }
    assert_eq!(archive.catalog(CatalogScope::NoWal).await.unwrap().backups, [head()]);
}

#[tokio::test]
async fn an_archive_that_knows_nothing_of_a_cluster_has_no_catalog() {
    let place = Place::new().await;
    let catalog = place.archive().catalog(CatalogScope::All).await;
    assert!(matches!(catalog, Err(ArchiveError::NoCluster(CLUSTER))));
}

#[tokio::test]
async fn the_catalog_shows_all_there_is_and_what_is_wrong_with_it() {
    let place = Place::new().await;
    let archive = place.archive();
    archive.ensure_cluster(&cluster()).await.unwrap();
    let _ = archive.put_wal(&put("content")).await.unwrap();
    archive.put_wal(&put("late")).await.unwrap_err();
    let _ = archive.put_wal(&file("000000020000000100000000".parse().unwrap(), b"x")).await.unwrap();
    let _ = archive.put_wal(&file("000000010000000000000004.partial".parse().unwrap(), b"p")).await.unwrap();
    let writer = WriterId::random();
    let _ = archive
        .put_history(timeline(2), Bytes::from_static(b"1\t0/3000000\tno reason\n"), writer)
        .await
        .unwrap();
    let _ = archive.put_history(timeline(3), Bytes::from_static(b"nonsense"), writer).await.unwrap();
    for content in [&b"1\t0/1\tx\n"[..], b"1\t0/2\ty\n"] {
        let name = WalFileName::History(timeline(4));
        let key = archive.layout().history(timeline(4), ContentHash::of(content).id());
        let _ = archive.store_file(&key, &file(name, content)).await.unwrap();
    }
    archive.put_summary(&summary()).await.unwrap();
    let other = "20261121T214500Z-full-000000";
    put_raw(&place, &format!("7/backup/{other}/backup.json"), b"{\"format\": 1}").await;
    put_raw(&place, "7/backup/20261122T214500Z-full-000000/pack-000000-0123456789abcdef.zst", b"x").await;
    put_raw(&place, "7/backup/notes/x", b"x").await;
    put_raw(&place, "7/wal/notes/x", b"x").await;
    put_raw(&place, "7/wal/0000000100000000/x", b"x").await;
    put_raw(&place, "7/timeline/x", b"x").await;

    let catalog = archive.catalog(CatalogScope::All).await.unwrap();
    assert_eq!(catalog.cluster, cluster());
    assert_eq!(catalog.wal[&timeline(1)].keys().collect::<Vec<_>>(), [&3]);
    assert_eq!(catalog.wal[&timeline(2)].keys().collect::<Vec<_>>(), [&4096]);
    assert_eq!(catalog.wal[&timeline(1)][&3].standing()[0].content, id("content"));
    assert_eq!(catalog.partials.len(), 1);
    assert_eq!(catalog.conflicts.len(), 1);
    assert_eq!(catalog.histories.keys().collect::<Vec<_>>(), [&timeline(2)]);
    assert_eq!(catalog.history_conflicts, [timeline(4)]);
    assert_eq!(catalog.backups, [head()]);
    assert_eq!(
        catalog.unfinished.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        ["20261122T214500Z-full-000000"]
    );
    let damaged: Vec<_> = catalog.damaged.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(damaged.len(), 2, "{damaged:?}");
    assert!(damaged.iter().any(|key| key.contains("00000003.history")));
    assert!(damaged.iter().any(|key| key.contains(other)));
    let mut unknown = catalog.unknown.clone();
    unknown.sort();
    assert_eq!(unknown, ["7/backup/notes/", "7/timeline/x", "7/wal/0000000100000000/x", "7/wal/notes/"]);

    let later = archive.catalog(CatalogScope::From(Lsn(0x1_0000_0000))).await.unwrap();
    assert_eq!(later.wal.keys().collect::<Vec<_>>(), [&timeline(2)]);
    assert_eq!(later.backups, [head()]);
    let without = archive.catalog(CatalogScope::NoWal).await.unwrap();
    assert!(without.wal.is_empty());
    let mut with_wal = without;
    for _ in 0..2 {
        archive.look_for_wal(&mut with_wal, Lsn(0x1_0000_0000)).await.unwrap();
        let unknown = later.unknown.iter().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(with_wal, Catalog { unknown: unknown.into_iter().collect(), ..later.clone() });
    }
}

#[tokio::test]
async fn histories_are_evidence_also_when_two_stand() {
    let place = Place::new().await;
    let archive = place.archive();
    assert!(archive.histories().await.unwrap().is_empty());
    let name = WalFileName::History(timeline(2));
    for content in ["1\t0/1000000\tone\n", "1\t0/2000000\tother\n", "1\t0/3000000\trefused\n"] {
        let hash = ContentHash::of(content.as_bytes());
        let _ = archive
            .store_file(&archive.layout().history(timeline(2), hash.id()), &file(name, content.as_bytes()))
            .await
            .unwrap();
        if content.contains("refused") {
            archive.mark_refused(&name, hash.id()).await.unwrap();
        }
    }
    let mut forks: Vec<_> =
        archive.histories().await.unwrap().iter().map(|it| it.ancestors[0].fork.0).collect();
    forks.sort_unstable();
    assert_eq!(forks, [0x100_0000, 0x200_0000]);
}

#[tokio::test]
async fn an_outage_is_never_an_empty_or_a_shorter_catalog() {
    let place = Place::new().await;
    let archive = place.archive();
    archive.ensure_cluster(&cluster()).await.unwrap();
    let _ = archive.put_wal(&put("content")).await.unwrap();
    let _ = archive
        .put_history(timeline(2), Bytes::from_static(b"1\t0/3000000\tx\n"), WriterId::random())
        .await
        .unwrap();
    archive.put_summary(&summary()).await.unwrap();
    for verb in [Verb::Get, Verb::List] {
        for call in 0.. {
            let faulty = Faulty::new(Arc::clone(&place.store));
            faulty.fail(verb, call, Fault::Before(StoreErrorKind::Transient));
            let catalog = archive_on(Arc::new(faulty.clone())).catalog(CatalogScope::All).await;
            if faulty.calls(verb) <= call {
                assert!(catalog.is_ok() && call >= 3, "{verb:?} {call}");
                break;
            }
            assert!(matches!(catalog, Err(ArchiveError::Store(_))), "{verb:?} {call}");
        }
    }
}

#[tokio::test]
async fn a_torn_object_hides_no_other_one() {
    let place = Place::new().await;
    let archive = place.archive();
    archive.ensure_cluster(&cluster()).await.unwrap();
    archive.put_summary(&summary()).await.unwrap();
    let torn = "7/backup/20261121T214500Z-full-000000/backup.json";
    put_raw(&place, torn, b"{}").await;
    std::fs::write(place.dir.path().join(torn), b"").unwrap();
    let catalog = archive.catalog(CatalogScope::NoWal).await.unwrap();
    assert_eq!(catalog.backups, [head()]);
    assert_eq!(catalog.damaged.iter().map(|it| it.key.to_string()).collect::<Vec<_>>(), [torn]);
}
