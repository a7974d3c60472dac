use super::*;
use crate::content::StoredHash;
use crate::pack::{PackWriter, open_pack, read_piece};
use crate::store::faulty::{Fault, Faulty, Verb};
use crate::store::{PutMode, StoreErrorKind};
use crate::summary::tests::summary;
use crate::summary::{BackupSummary, StoredObject};

fn summary_of(packs: Vec<StoredObject>, manifest: crate::summary::ManifestObject) -> BackupSummary {
    BackupSummary { packs, manifest, ..summary() }
}

#[tokio::test]
async fn a_backup_exists_when_its_summary_does_and_not_before() {
    let place = Place::new().await;
    let (sealing, opening) = place.encrypted();
    let id = summary().id;
    let mut pack = PackWriter::new(CompressionLevel::default());
    let piece = pack.append(b"a page").unwrap();
    let sealed = pack.finish(sealing.sealer()).unwrap();
    let pack = sealing.put_pack(&id, 0, &sealed).await.unwrap();
    assert_eq!(pack.sha256, sealing.stored_hash(&pack.key).await.unwrap());
    let manifest = sealing.put_manifest(&id, &b"the manifest"[..]).await.unwrap();
    let listing = sealing.backups().await.unwrap();
    assert_eq!((listing.sound.len(), listing.unfinished), (0, vec![id.clone()]));

    let summary = summary_of(vec![pack.clone()], manifest);
    sealing.put_summary(&summary).await.unwrap();
    let head = summary.clone().into_head(sealing.layout());
    assert_eq!(sealing.backups().await.unwrap().sound, [head]);
    assert_eq!(sealing.summary(&id).await.unwrap(), summary);

    let mut found = Vec::new();
    opening.fetch_manifest(&summary, &mut found).await.unwrap();
    assert_eq!(found, b"the manifest");
    assert!(matches!(
        sealing.fetch_manifest(&summary, &mut Vec::new()).await,
        Err(ArchiveError::NoKey { .. })
    ));
    let (_, stored) = read_small(opening.store().as_ref(), &pack.key, 1 << 20).await.unwrap();
    let frames = open_pack(opening.keys(), stored, true).unwrap();
    assert_eq!(read_piece(&frames, &piece).unwrap(), b"a page");
}

#[tokio::test]
async fn a_put_whose_reply_was_lost_is_recognised_by_its_bytes() {
    let place = Place::new().await;
    let (sealing, _) = place.encrypted();
    let id = summary().id;
    let faulty = Faulty::new(Arc::clone(&place.store));
    faulty.fail(Verb::Put, 0, Fault::After(StoreErrorKind::Transient));
    let mut pack = PackWriter::new(CompressionLevel::default());
    let _ = pack.append(b"a page").unwrap();
    let sealed = pack.finish(sealing.sealer()).unwrap();
    let archive = archive_on(Arc::new(faulty));
    assert!(archive.put_pack(&id, 0, &sealed).await.unwrap_err().is_transient());
    assert_eq!(archive.put_pack(&id, 0, &sealed).await.unwrap().sha256, sealed.stored);

    // The same content sealed anew has other bytes: the summary would name the wrong ones.
    let mut pack = PackWriter::new(CompressionLevel::default());
    let _ = pack.append(b"a page").unwrap();
    let anew = pack.finish(sealing.sealer()).unwrap();
    assert_ne!(anew.stored, sealed.stored);
    assert!(matches!(archive.put_pack(&id, 0, &anew).await, Err(ArchiveError::Damaged { .. })));
}

#[tokio::test]
async fn a_summary_is_stored_once() {
    let place = Place::new().await;
    let archive = place.archive();
    let first = summary();
    archive.put_summary(&first).await.unwrap();
    archive.put_summary(&first).await.unwrap();
    let other = BackupSummary { files: first.files + 1, ..first.clone() };
    assert!(matches!(archive.put_summary(&other).await, Err(ArchiveError::Damaged { .. })));
    assert_eq!(archive.summary(&first.id).await.unwrap(), first);
    let foreign = BackupSummary { system_identifier: SystemIdentifier(8), ..first };
    assert!(matches!(archive.put_summary(&foreign).await, Err(ArchiveError::Undescribable { .. })));
}

/// A large backup names a hundred thousand packs, so what they are is read again, where it is needed.
#[tokio::test]
async fn a_summary_that_is_read_again_is_the_same_or_an_error() {
    let place = Place::new().await;
    let archive = place.archive();
    let sound = summary();
    archive.put_summary(&sound).await.unwrap();
    let head = archive.head(&sound.id).await.unwrap();
    assert_eq!(archive.whole(&head).await.unwrap(), sound);

    // As many packs of the same numbers and sizes, and one of them another.
    let mut other = sound.clone();
    other.packs[0].sha256 = StoredHash::of(b"other");
    let key = archive.layout().summary(&sound.id);
    place.store.delete(&key).await.unwrap();
    assert!(archive.whole(&head).await.unwrap_err().is_not_found());
    archive.put_summary(&other).await.unwrap();
    assert!(matches!(archive.whole(&head).await, Err(ArchiveError::Damaged { .. })));
}

/// One that is larger than the room there is has all of it, and nobody waits for ever.
#[tokio::test]
async fn summaries_that_do_not_fit_in_memory_together_are_read_one_after_the_other() {
    let place = Place::new().await;
    let archive = place.archive();
    let sound = summary();
    archive.put_summary(&sound).await.unwrap();
    let all = archive.summaries.acquire_many(super::super::backup::SUMMARIES_KIB).await.unwrap();
    let (mut one, mut other) = (Box::pin(archive.head(&sound.id)), Box::pin(archive.head(&sound.id)));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), &mut one).await;
    assert!(waited.is_err(), "it was read where there was no room");
    drop(all);
    assert_eq!(one.await.unwrap(), other.as_mut().await.unwrap());
}

#[tokio::test]
async fn a_manifest_that_is_not_what_the_summary_says_is_damaged() {
    let place = Place::new().await;
    let archive = place.archive();
    let id = summary().id;
    let manifest = archive.put_manifest(&id, &b"the manifest"[..]).await.unwrap();
    let sound = summary_of(Vec::new(), manifest);
    let mut shorter = sound.clone();
    shorter.manifest.plain_size -= 1;
    let mut other_size = sound.clone();
    other_size.manifest.size += 1;
    let mut other_key = sound.clone();
    other_key.manifest.key = archive.layout().summary(&id);
    for summary in [shorter, other_size, other_key] {
        let fetched = archive.fetch_manifest(&summary, &mut Vec::new()).await;
        assert!(matches!(fetched, Err(ArchiveError::Damaged { .. })), "{fetched:?}");
    }
    let bytes = Bytes::from_static(b"something else!!");
    let metadata = common(b"x").to_metadata().unwrap();
    let _ = place.store.put(&sound.manifest.key, bytes, &metadata, PutMode::Overwrite).await.unwrap();
    assert!(archive.fetch_manifest(&sound, &mut Vec::new()).await.is_err());
    assert_ne!(archive.stored_hash(&sound.manifest.key).await.unwrap(), sound.manifest.sha256);
    assert_eq!(StoredHash::of(b"something else!!"), archive.stored_hash(&sound.manifest.key).await.unwrap());
}
