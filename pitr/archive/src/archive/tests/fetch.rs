use super::*;
use crate::catalog::Variant;
use crate::store::faulty::{Fault, Faulty, Verb};
use crate::store::{PutMode, StoreErrorKind};

async fn only_variant(archive: &Archive) -> Variant {
    archive.wal_variants(&segment()).await.unwrap().variants.remove(0)
}

async fn fetch(archive: &Archive, variant: &Variant) -> Result<Vec<u8>, ArchiveError> {
    let mut content = Vec::new();
    archive.fetch_wal(variant, &mut content, 1 << 20).await.map(|_| content)
}

/// The object replaced by one with other bytes or other metadata.
async fn replace(place: &Place, key: &ObjectKey, bytes: Option<Vec<u8>>, metadata: Option<Metadata>) {
    let (stored_metadata, stored) = read_small(place.store.as_ref(), key, 1 << 20).await.unwrap();
    let bytes = Bytes::from(bytes.unwrap_or(stored));
    let metadata = metadata.unwrap_or(stored_metadata);
    let _ = place.store.put(key, bytes, &metadata, PutMode::Overwrite).await.unwrap();
}

#[tokio::test]
async fn damage_is_named_and_never_handed_out() {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&put("content, content, content")).await.unwrap();
    let variant = only_variant(&archive).await;
    let (metadata, stored) = read_small(place.store.as_ref(), &variant.key(), 1 << 20).await.unwrap();
    for byte in 0..stored.len() {
        let mut flipped = stored.clone();
        flipped[byte] ^= 0x10;
        replace(&place, &variant.key(), Some(flipped), None).await;
        match fetch(&archive, &variant).await {
            Ok(content) => assert_eq!(content, b"content, content, content"),
            Err(ArchiveError::Damaged { key, .. }) => assert_eq!(key, variant.key().to_string()),
            Err(error) => panic!("{error:?}"),
        }
    }
    replace(&place, &variant.key(), Some(stored), None).await;
    assert_eq!(fetch(&archive, &variant).await.unwrap(), b"content, content, content");
    for (name, value) in [
        ("size", "3"),
        ("size", "1000"),
        ("content", &ContentHash::of(b"x").to_string()),
        ("system", "8"),
        ("writer", "?"),
    ] {
        let mut changed = metadata.clone();
        changed.insert(name, value).unwrap();
        replace(&place, &variant.key(), None, Some(changed)).await;
        let fetched = fetch(&archive, &variant).await;
        assert!(matches!(fetched, Err(ArchiveError::Damaged { .. })), "{name}: {fetched:?}");
    }
    let mut later = metadata.clone();
    later.insert("format", "2").unwrap();
    replace(&place, &variant.key(), None, Some(later)).await;
    assert!(matches!(fetch(&archive, &variant).await, Err(ArchiveError::UnknownFormat { version: 2, .. })));
}

/// Its own checksum is right: only the content hash tells.
#[tokio::test]
async fn an_object_that_was_exchanged_is_damaged() {
    let (place, elsewhere) = (Place::new().await, Place::new().await);
    let archive = place.archive();
    let _ = archive.put_wal(&put("content")).await.unwrap();
    let _ = elsewhere.archive().put_wal(&put("CONTENT")).await.unwrap();
    let (variant, other) = (only_variant(&archive).await, only_variant(&elsewhere.archive()).await);
    let (_, bytes) = read_small(elsewhere.store.as_ref(), &other.key(), 1 << 20).await.unwrap();
    replace(&place, &variant.key(), Some(bytes), None).await;
    let fetched = fetch(&archive, &variant).await;
    assert!(matches!(fetched, Err(ArchiveError::Damaged { .. })), "{fetched:?}");
}

#[tokio::test]
async fn more_than_the_limit_is_refused_before_it_is_read() {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&put("content")).await.unwrap();
    let variant = only_variant(&archive).await;
    let fetched = archive.fetch_wal(&variant, &mut Vec::new(), 6).await;
    assert!(matches!(fetched, Err(ArchiveError::Damaged { .. })));
    assert!(archive.fetch_wal(&variant, &mut Vec::new(), 7).await.is_ok());
}

#[tokio::test]
async fn a_broken_line_is_not_damage() {
    let place = Place::new().await;
    let (sealing, opening) = place.encrypted();
    let content = noise(500_000);
    let _ = sealing.put_wal(&file(segment(), &content)).await.unwrap();
    let variant = only_variant(&sealing).await;
    for cut in [0, 50, 300, 250_000, 499_999] {
        let faulty = Faulty::new(Arc::clone(&place.store));
        faulty.fail(Verb::Get, 0, Fault::CutBody(cut));
        let archive = archive_with(Arc::new(faulty), KeyRing::clone(opening.keys()));
        let fetched = fetch(&archive, &variant).await;
        assert!(matches!(&fetched, Err(error) if error.is_transient()), "cut at {cut}: {fetched:?}");
        assert!(fetch(&archive, &variant).await.unwrap() == content);
    }
}

#[tokio::test]
async fn what_is_absent_is_not_found_and_what_cannot_be_had_is_not() {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&put("content")).await.unwrap();
    let variant = only_variant(&archive).await;
    for kind in [StoreErrorKind::Denied, StoreErrorKind::NoArchive, StoreErrorKind::Transient] {
        let faulty = Faulty::new(Arc::clone(&place.store));
        faulty.fail(Verb::Get, 0, Fault::Before(kind));
        let error = fetch(&archive_on(Arc::new(faulty)), &variant).await.unwrap_err();
        assert!(!error.is_not_found());
    }
    place.store.delete(&variant.key()).await.unwrap();
    assert!(fetch(&archive, &variant).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn no_key_and_a_wrong_key_are_told_apart() {
    let place = Place::new().await;
    let (sealing, opening) = place.encrypted();
    let (_, stranger) = place.encrypted();
    let _ = sealing.put_wal(&put("content")).await.unwrap();
    let variant = only_variant(&sealing).await;
    assert!(matches!(fetch(&sealing, &variant).await, Err(ArchiveError::NoKey { .. })));
    assert!(matches!(fetch(&stranger, &variant).await, Err(ArchiveError::WrongKey { .. })));
    assert_eq!(fetch(&opening, &variant).await.unwrap(), b"content");
}

struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_is_named_as_such() {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&file(segment(), &noise(1 << 20))).await.unwrap();
    let fetched = archive.fetch_wal(&only_variant(&archive).await, &mut Full, 1 << 20).await;
    let Err(ArchiveError::Io { verb: "write", source, .. }) = fetched else { panic!("{fetched:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
}

#[tokio::test]
async fn facts_of_a_segment_come_from_its_metadata() {
    let place = Place::new().await;
    let archive = place.archive();
    let survey = crate::run_facts::tests::survey(3);
    let run = crate::run_facts::RunFacts::continue_from(None, &survey);
    let facts = crate::wal_facts::WalFacts::of_survey(common(b"content"), &survey, run);
    let put = PutWal { facts: FileFacts::Wal(Box::new(facts.clone())), ..put("content") };
    let _ = archive.put_wal(&put).await.unwrap();
    assert_eq!(archive.wal_facts(&only_variant(&archive).await).await.unwrap(), facts);
}
