use super::*;
use crate::catalog::{CatalogScope, Usable};
use crate::cluster::tests::cluster;
use crate::run_facts::tests::survey;
use crate::store::PutMode;
use crate::tail::{Chunk, TailFacts};
use crate::wal_facts::WalFacts;
use crate::{Cluster, IdleProof, RunFacts};
use walpoint_wal::{Lsn, SegmentName, TimelineId, Timestamp};

const SIZE: u64 = 1 << 20;

fn name() -> SegmentName {
    "000000010000000000000003".parse().unwrap()
}

/// A piece of the segment that `bytes` are the beginning of.
fn piece(bytes: &[u8], from: usize, to: usize) -> PutChunk {
    let own = &bytes[from..to];
    let (survey, common) = (survey(3), common(own));
    let facts = WalFacts::of_survey(common, &survey, RunFacts::continue_from(None, &survey));
    let (before, after) = (ContentHash::of(&bytes[..from]), ContentHash::of(&bytes[..to]));
    let tail = TailFacts { from: from as u32, before, after };
    PutChunk { segment: name(), tail, facts, bytes: Bytes::copy_from_slice(own) }
}

async fn ship(archive: &Archive, bytes: &[u8], cuts: &[usize]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for pair in cuts.windows(2) {
        chunks.push(archive.put_chunk(&piece(bytes, pair[0], pair[1])).await.unwrap());
    }
    chunks
}

/// What recovery may take of the segment, the tail included.
async fn available(archive: &Archive) -> Result<Option<Vec<u8>>, ArchiveError> {
    let state = archive.segment_state(&name()).await?;
    let Usable::One(variant) = state.available() else { return Ok(None) };
    let mut content = Vec::new();
    archive.fetch_wal(variant, &mut content, SIZE).await.map(|_| Some(content))
}

fn filled(bytes: &[u8]) -> Vec<u8> {
    let mut filled = bytes.to_vec();
    filled.resize(SIZE as usize, 0);
    filled
}

#[tokio::test]
async fn a_tail_reads_as_its_bytes_and_zeros_in_clear_and_encrypted() {
    let bytes = noise(300_000);
    let place = Place::new().await;
    ship(&place.archive(), &bytes, &[0, 8192, 100_001, 300_000]).await;
    assert_eq!(available(&place.archive()).await.unwrap(), Some(filled(&bytes)));
    let other = Place::new().await;
    let (seals, opens) = other.encrypted();
    ship(&seals, &bytes, &[0, 8192, 300_000]).await;
    assert_eq!(available(&opens).await.unwrap(), Some(filled(&bytes)));
    // What it is can be told without the key.
    let state = seals.segment_state(&name()).await.unwrap();
    let facts = seals.wal_facts(state.tail.as_ref().unwrap()).await.unwrap();
    assert_eq!(facts.start, Lsn(3 * SIZE));
    assert!(matches!(available(&seals).await, Err(ArchiveError::NoKey { .. })));
}

#[tokio::test]
async fn the_whole_segment_goes_before_its_pieces_and_a_mark_keeps_them_out_of_use() {
    let (place, bytes) = (Place::new().await, noise(SIZE as usize));
    let archive = place.archive();
    ship(&archive, &bytes, &[0, 8192]).await;
    assert_eq!(usable(&archive).await.unwrap(), None, "a push does not see it");
    let whole = file(segment(), &bytes);
    let _ = archive.put_wal(&whole).await.unwrap();
    assert_eq!(available(&archive).await.unwrap(), Some(bytes.clone()));
    let refused_place = Place::new().await;
    let refused = refused_place.archive();
    ship(&refused, &bytes, &[0, 8192]).await;
    refused.mark_refused(&segment(), ContentHash::of(&bytes).id()).await.unwrap();
    assert_eq!(available(&refused).await.unwrap(), None);
}

#[tokio::test]
async fn two_chains_of_other_bytes_are_a_conflict_and_of_the_same_are_not() {
    let (one, mut other) = (noise(60_000), Vec::new());
    other.extend_from_slice(&one[..40_000]);
    other.extend_from_slice(&noise(10_000));
    other[40_000] ^= 1;
    let archive_place = Place::new().await;
    let archive = archive_place.archive();
    ship(&archive, &one, &[0, 20_000, 60_000]).await;
    // Somebody who did not know what was there ships the same in other pieces.
    ship(&archive, &one, &[0, 30_000, 50_000]).await;
    assert_eq!(available(&archive).await.unwrap(), Some(filled(&one)));
    ship(&archive, &other, &[0, 20_000, 45_000]).await;
    let found = available(&archive).await;
    assert!(matches!(found, Err(ArchiveError::Ambiguous { .. })), "{found:?}");
    // At the same offset as well.
    let same_end_place = Place::new().await;
    let same_end = same_end_place.archive();
    ship(&same_end, &one, &[0, 20_000, 45_000]).await;
    ship(&same_end, &other, &[20_000, 45_000]).await;
    assert!(matches!(available(&same_end).await, Err(ArchiveError::Ambiguous { .. })));
}

#[tokio::test]
async fn a_piece_that_is_not_what_was_stored_is_named_and_never_handed_out() {
    let (place, bytes) = (Place::new().await, noise(50_000));
    let archive = place.archive();
    let chunks = ship(&archive, &bytes, &[0, 10_000, 50_000]).await;
    let key = &chunks[1].key;
    let (metadata, stored) = read_small(place.store.as_ref(), key, 1 << 20).await.unwrap();
    for at in [0, 3, stored.len() / 2, stored.len() - 1] {
        let mut flipped = stored.clone();
        flipped[at] ^= 0x10;
        let _ = place.store.put(key, flipped.into(), &metadata, PutMode::Overwrite).await.unwrap();
        match available(&archive).await {
            Ok(content) => assert_eq!(content, Some(filled(&bytes))),
            Err(ArchiveError::Damaged { key: named, .. }) => assert_eq!(named, key.to_string()),
            Err(error) => panic!("{error:?}"),
        }
    }
    // A sound piece of another segment in its place, metadata and all.
    let elsewhere = Place::new().await;
    let other: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
    let foreign = ship(&elsewhere.archive(), &other, &[0, 10_000, 50_000]).await;
    let (metadata, stored) = read_small(elsewhere.store.as_ref(), &foreign[1].key, 1 << 20).await.unwrap();
    let _ = place.store.put(key, stored.into(), &metadata, PutMode::Overwrite).await.unwrap();
    assert!(matches!(available(&archive).await, Err(ArchiveError::Damaged { .. })));
}

/// A writer that lies about what comes before must not have its bytes stitched to others.
#[tokio::test]
async fn a_piece_behind_other_bytes_than_it_says_is_damage() {
    let (place, one) = (Place::new().await, noise(30_000));
    let other: Vec<u8> = one.iter().map(|byte| byte ^ 1).collect();
    let archive = place.archive();
    ship(&archive, &one, &[0, 10_000]).await;
    let mut lie = piece(&other, 10_000, 30_000);
    lie.tail.before = ContentHash::of(&one[..10_000]);
    let stored = archive.put_chunk(&lie).await.unwrap();
    match available(&archive).await {
        Err(ArchiveError::Damaged { key, .. }) => assert_eq!(key, stored.key.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_piece_that_is_gone_is_not_found_and_what_lies_behind_it_is_lost() {
    let (place, bytes) = (Place::new().await, noise(50_000));
    let archive = place.archive();
    let chunks = ship(&archive, &bytes, &[0, 10_000, 20_000, 50_000]).await;
    let before = archive.segment_state(&name()).await.unwrap();
    place.store.delete(&chunks[1].key).await.unwrap();
    let mut out = Vec::new();
    let fetched = archive.fetch_wal(before.tail.as_ref().unwrap(), &mut out, SIZE).await;
    assert!(fetched.unwrap_err().is_not_found());
    let after = archive.segment_state(&name()).await.unwrap();
    let tail = after.tail.as_ref().unwrap().tail.as_ref().unwrap();
    assert_eq!((tail.end(), tail.lost_to), (10_000, Some(50_000)));
}

#[tokio::test]
async fn the_pieces_go_only_when_the_whole_segment_stands_and_holds_them() {
    let (place, bytes) = (Place::new().await, noise(SIZE as usize));
    let archive = place.archive();
    ship(&archive, &bytes, &[0, 8192, SIZE as usize]).await;
    assert_eq!(archive.remove_tail(&name()).await.unwrap(), TailRemoval::Needed);
    let folders = archive.wal_folders().await.unwrap();
    assert_eq!(folders, ["000000010000000000000000".parse().unwrap()]);
    assert_eq!(archive.tails_in(&folders[0]).await.unwrap(), [name()]);
    let _ = archive.put_wal(&file(segment(), &bytes)).await.unwrap();
    assert_eq!(archive.remove_tail(&name()).await.unwrap(), TailRemoval::Removed(2));
    assert_eq!(archive.tails_in(&name()).await.unwrap(), []);
    assert_eq!(available(&archive).await.unwrap(), Some(bytes.clone()));

    let differs_place = Place::new().await;
    let differs = differs_place.archive();
    ship(&differs, &bytes, &[0, 8192, SIZE as usize]).await;
    let mut other = bytes.clone();
    other[70_000] ^= 1;
    let _ = differs.put_wal(&file(segment(), &other)).await.unwrap();
    let removal = differs.remove_tail(&name()).await.unwrap();
    assert!(matches!(removal, TailRemoval::Contradicted { shipped } if u64::from(shipped.at) == SIZE));
    assert_eq!(differs.segment_state(&name()).await.unwrap().chunks.len(), 2);
}

#[tokio::test]
async fn the_catalog_counts_tails_and_proofs_of_idleness() {
    let place = Place::new().await;
    let archive = archive_with(Arc::clone(&place.store), KeyRing::default());
    let cluster = Cluster { system_identifier: CLUSTER, ..cluster() };
    archive.ensure_cluster(&cluster).await.unwrap();
    let bytes = noise(20_000);
    ship(&archive, &bytes, &[0, 20_000]).await;
    let proof = IdleProof {
        timeline: TimelineId::FIRST,
        flush_lsn: Lsn(3 * SIZE + 20_000),
        time: Timestamp(5),
        writer: WriterId::random(),
    };
    archive.put_idle(&proof).await.unwrap();
    let later = IdleProof { time: Timestamp(9), ..proof };
    archive.put_idle(&later).await.unwrap();
    let catalog = archive.catalog(CatalogScope::All).await.unwrap();
    let state = &catalog.wal[&TimelineId::FIRST][&3];
    assert_eq!(state.usable(), Usable::Nothing);
    assert!(matches!(state.available(), Usable::One(variant) if !variant.reaches(SIZE)));
    assert_eq!(catalog.idle[&TimelineId::FIRST], later);
    assert_eq!(catalog.unknown, [] as [String; 0]);

    // What cannot be read proves nothing and stops nothing.
    let key = archive.layout().idle(TimelineId::FIRST);
    let put = place.store.put(&key, Bytes::from_static(b"{}"), &Metadata::new(), PutMode::Overwrite).await;
    let _ = put.unwrap();
    assert!(archive.catalog(CatalogScope::All).await.unwrap().idle.is_empty());
}
