#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::EncryptionConfig;
use walpoint_archive::store::dir::{DirStore, create_dir_archive};
use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
use walpoint_archive::store::{Metadata, PutMode, StoreErrorKind};
use walpoint_archive::{
    Cluster, Common, ContentHash, FileFacts, KeyRing, ObjectKey, PutChunk, PutSource, PutWal, Sealer,
    TailFacts, WalFacts, WriterId,
};
use walpoint_wal::{Lsn, TimelineId};

use super::*;
use crate::testing::contract::forked;

mod spooled;
mod tails;

const MIB: u64 = 1 << 20;
const CLUSTER: SystemIdentifier = SystemIdentifier(7);

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(TimelineId::new(timeline).unwrap(), number, size()).unwrap()
}

/// A segment as far as its header tells, then bytes that say which one it is.
fn content(cluster: SystemIdentifier, timeline: u32, number: u64) -> Vec<u8> {
    let mut bytes = vec![(timeline * 16) as u8 + number as u8; MIB as usize];
    bytes[..40].fill(0);
    bytes[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
    bytes[2] = 2;
    bytes[4..8].copy_from_slice(&timeline.to_le_bytes());
    bytes[8..16].copy_from_slice(&(number * MIB).to_le_bytes());
    bytes[24..32].copy_from_slice(&cluster.0.to_le_bytes());
    bytes[32..36].copy_from_slice(&(MIB as u32).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";

/// With a directory for the key file it encrypts and can open; else neither.
fn sealer(keys: Option<&Path>) -> Sealer {
    let identity_file = keys.map(|directory| directory.join("identity"));
    if let Some(file) = &identity_file {
        std::fs::write(file, IDENTITY).unwrap();
    }
    let recipients = identity_file.iter().map(|_| RECIPIENT.to_owned()).collect();
    let keys = KeyRing::from_config(&EncryptionConfig { recipients, identity_file }).unwrap();
    Sealer::new(CompressionLevel::new(1).unwrap(), Arc::new(keys))
}

/// An archive in a directory, and a place to restore to.
struct Stage {
    scratch: TempDir,
    faulty: Faulty,
    archive: Archive,
    contract: Option<Contract>,
    asker: Asker,
    spool: Option<Spool>,
}

impl Stage {
    /// An archive that knows its cluster and nothing else.
    async fn new() -> Stage {
        let stage = Stage::empty().await;
        let cluster = Cluster {
            system_identifier: CLUSTER,
            segment_size: size(),
            block_size: 8192,
            wal_block_size: 8192,
            major: 15,
        };
        stage.archive.ensure_cluster(&cluster).await.unwrap();
        stage
    }

    async fn empty() -> Stage {
        Stage::empty_with(false).await
    }

    async fn empty_with(encryption: bool) -> Stage {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("archive");
        create_dir_archive(&root).await.unwrap();
        std::fs::create_dir(scratch.path().join("pg_wal")).unwrap();
        let faulty = Faulty::new(Arc::new(DirStore::open(&root).await.unwrap()));
        let keys = encryption.then_some(scratch.path());
        let archive = Archive::new(Arc::new(faulty.clone()), CLUSTER, sealer(keys));
        Stage { scratch, faulty, archive, contract: None, asker: Asker::Recovery, spool: None }
    }

    fn with(mut self, contract: Contract) -> Stage {
        self.contract = Some(contract);
        self
    }

    async fn put(&self, name: &str, content: &[u8]) {
        let common = Common::new(ContentHash::of(content), content.len() as u64, WriterId::random(), CLUSTER);
        let name = name.parse().unwrap();
        let source = PutSource::Bytes(Bytes::copy_from_slice(content));
        let _ =
            self.archive.put_wal(&PutWal { name, facts: FileFacts::Other(common), source }).await.unwrap();
    }

    async fn put_segments(&self, timeline: u32, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.put(&segment(timeline, number).to_string(), &content(CLUSTER, timeline, number)).await;
        }
    }

    fn destination(&self) -> PathBuf {
        self.scratch.path().join("pg_wal/RECOVERYXLOG")
    }

    fn request(&self, name: &str) -> GetRequest {
        GetRequest {
            name: name.parse().unwrap(),
            destination: self.destination(),
            system_identifier: CLUSTER,
            segment_size: size(),
            contract: self.contract.clone(),
            asker: self.asker,
            spool: self.spool.clone(),
        }
    }

    async fn get(&self, name: &str) -> Result<GetOutcome, GetError> {
        get(&self.archive, &self.request(name)).await
    }

    async fn get_segment(&self, timeline: u32, number: u64) -> Result<GetOutcome, GetError> {
        self.get(&segment(timeline, number).to_string()).await
    }

    /// The one object of a file.
    async fn object(&self, name: &str) -> ObjectKey {
        self.archive.wal_variants(&name.parse().unwrap()).await.unwrap().variants[0].key()
    }

    fn path(&self, key: &ObjectKey) -> PathBuf {
        self.scratch.path().join("archive").join(key.as_str())
    }

    /// Nothing but what a successful get leaves is beside the destination.
    fn assert_clean(&self) {
        for entry in std::fs::read_dir(self.scratch.path().join("pg_wal")).unwrap() {
            assert_eq!(entry.unwrap().file_name(), "RECOVERYXLOG");
        }
    }
}

fn is_end(outcome: &Result<GetOutcome, GetError>) -> bool {
    matches!(outcome, Ok(GetOutcome::NoSuchFile { .. }))
}

fn contract() -> Contract {
    forked(CLUSTER)
}

fn is_gap(outcome: &Result<GetOutcome, GetError>) -> bool {
    matches!(outcome, Err(GetError::Gap { .. }))
}

#[tokio::test]
async fn a_file_that_is_there_is_handed_over_whole() {
    let stage = Stage::new().await;
    stage.put_segments(1, [5]).await;
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    assert_eq!(std::fs::read(stage.destination()).unwrap(), content(CLUSTER, 1, 5));
    stage.put("00000002.history", b"1\t0/800098\tx\n").await;
    assert_eq!(stage.get("00000002.history").await.unwrap(), GetOutcome::Delivered);
    assert_eq!(std::fs::read(stage.destination()).unwrap(), b"1\t0/800098\tx\n");
    stage.assert_clean();
}

#[tokio::test]
async fn a_partial_never_stands_in_for_the_segment() {
    let partial = format!("{}.partial", segment(1, 5));
    for stage in [Stage::new().await, Stage::new().await.with(contract())] {
        stage.put(&partial, &content(CLUSTER, 1, 5)).await;
        assert!(is_gap(&stage.get_segment(1, 5).await));
        assert_eq!(stage.get(&partial).await.unwrap(), GetOutcome::Delivered);
    }
}

// With a contract.

#[tokio::test]
async fn a_needed_segment_that_is_absent_is_a_gap_with_nothing_after_it() {
    let stage = Stage::new().await.with(contract());
    for (timeline, number) in [(1, 5), (1, 7), (2, 8), (2, 10)] {
        assert!(is_gap(&stage.get_segment(timeline, number).await), "{timeline} {number}");
    }
}

#[tokio::test]
async fn past_the_target_nothing_is_an_error() {
    let stage = Stage::new().await.with(contract());
    assert!(is_end(&stage.get_segment(2, 11).await), "absent");
    stage.put_segments(2, [12]).await;
    assert!(is_end(&stage.get_segment(2, 11).await), "absent, and a later one is there");
    assert_eq!(stage.get_segment(2, 12).await.unwrap(), GetOutcome::Delivered);
    for verb in [Verb::List, Verb::Get] {
        stage.faulty.fail_every(verb, Some(Fault::Before(StoreErrorKind::Transient)));
        assert!(is_end(&stage.get_segment(2, 12).await), "{verb:?} fails");
        stage.faulty.fail_every(verb, None);
    }
    let object = stage.path(&stage.object(&segment(2, 12).to_string()).await);
    std::fs::write(object, b"rubbish").unwrap();
    assert!(is_end(&stage.get_segment(2, 12).await), "damaged");
}

#[tokio::test]
async fn past_the_target_a_silent_store_is_not_waited_for_for_long() {
    let stage = Stage::new().await.with(contract());
    stage.faulty.fail_every(Verb::List, Some(Fault::Delay(Duration::from_secs(3600))));
    let request = stage.request("00000002000000000000000B");
    assert!(is_end(&Ok(get_beyond(&stage.archive, &request, Duration::from_millis(50)).await)));
}

#[tokio::test]
async fn what_recovery_can_do_without_is_known_without_the_archive() {
    let stage = Stage::empty().await.with(contract());
    for (name, needless) in [
        (segment(2, 10), false),
        (segment(2, 11), true),
        (segment(1, 9), true),
        (segment(1, 8), false),
        (segment(1, 4), false),
    ] {
        let request = stage.request(&name.to_string());
        assert_eq!(can_do_without(&request).is_some(), needless, "{name}");
        assert_eq!(can_do_without(&GetRequest { contract: None, ..request }), None, "{name}");
    }
    assert!(can_do_without(&stage.request("00000001.history")).is_some());
    assert!(can_do_without(&stage.request("00000003.history")).is_none());
}

#[tokio::test]
async fn the_parents_branch_is_not_handed_over_though_it_is_there() {
    let stage = Stage::new().await.with(contract());
    stage.put_segments(1, [9, 10, 11]).await;
    let before = stage.faulty.calls(Verb::Get);
    for number in [9, 10, 11] {
        assert!(is_end(&stage.get_segment(1, number).await), "{number}");
    }
    assert!(!stage.destination().exists());
    assert_eq!(stage.faulty.calls(Verb::Get), before);
}

#[tokio::test]
async fn past_the_fork_a_parents_segment_is_zeros() {
    let stage = Stage::new().await.with(contract());
    stage.put_segments(1, [7, 8]).await;
    assert_eq!(stage.get_segment(1, 8).await.unwrap(), GetOutcome::Delivered);
    let (found, whole) = (std::fs::read(stage.destination()).unwrap(), content(CLUSTER, 1, 8));
    assert_eq!(found[..0x98], whole[..0x98]);
    assert!(found[0x98..].iter().all(|byte| *byte == 0));
    assert_eq!(found.len() as u64, MIB);
    assert_eq!(stage.get_segment(1, 7).await.unwrap(), GetOutcome::Delivered);
    assert_eq!(std::fs::read(stage.destination()).unwrap(), content(CLUSTER, 1, 7));
}

#[tokio::test]
async fn a_history_that_contradicts_the_contract_stops_recovery() {
    let stage = Stage::new().await.with(contract());
    stage.put("00000002.history", b"1\t0/800098\tx\n").await;
    assert_eq!(stage.get("00000002.history").await.unwrap(), GetOutcome::Delivered);
    for other in [&b"1\t0/800100\tx\n"[..], b"rubbish\n"] {
        let stage = Stage::new().await.with(contract());
        stage.put("00000002.history", other).await;
        let outcome = stage.get("00000002.history").await;
        assert!(matches!(outcome, Err(GetError::Contradicted { .. })), "{outcome:?}");
    }
    // One that the path does not end with is none of the contract's business.
    stage.put("00000003.history", b"2\t0/A00098\tx\n").await;
    assert_eq!(stage.get("00000003.history").await.unwrap(), GetOutcome::Delivered);
}

#[tokio::test]
async fn a_contract_of_another_cluster_stops_recovery() {
    let mut foreign = contract();
    foreign.system_identifier = SystemIdentifier(8);
    let stage = Stage::new().await.with(foreign);
    assert!(matches!(stage.get_segment(2, 11).await, Err(GetError::WrongCluster { .. })));
    let mut other_size = contract();
    other_size.segment_size = SegmentSize::new(16 * MIB).unwrap();
    let stage = Stage::new().await.with(other_size);
    assert!(matches!(stage.get("00000002.history").await, Err(GetError::SegmentSize { .. })));
}

// Without a contract.

#[tokio::test]
async fn the_end_of_the_archive_is_the_end() {
    let stage = Stage::new().await;
    assert!(is_end(&stage.get_segment(1, 5).await), "nothing at all");
    stage.put_segments(1, [3, 4]).await;
    // Neither another timeline nor a number that begins alike says anything.
    stage.put_segments(2, [9]).await;
    assert!(is_end(&stage.get_segment(1, 5).await));
    assert!(!stage.destination().exists());
    stage.assert_clean();
}

#[tokio::test]
async fn anything_later_on_the_timeline_proves_a_gap() {
    for witness in [
        segment(1, 6).to_string(),
        segment(1, 5000).to_string(),
        format!("{}.partial", segment(1, 5)),
        format!("{}.partial", segment(1, 9)),
        format!("{}.00000028.backup", segment(1, 6)),
    ] {
        let stage = Stage::new().await;
        stage.put_segments(1, [3, 4]).await;
        stage.put(&witness, &content(CLUSTER, 1, 6)).await;
        assert!(is_gap(&stage.get_segment(1, 5).await), "{witness}");
        assert!(!is_gap(&stage.get_segment(1, 4).await), "{witness}");
    }
}

#[tokio::test]
async fn a_live_tail_proves_a_gap() {
    for number in [5, 6] {
        let stage = Stage::new().await;
        let folder = stage.archive.layout().wal_dir(&segment(1, number));
        let key = format!("{folder}{}.live/0-8192-0123456789abcdef.zst", segment(1, number));
        let key = ObjectKey::new(&key).unwrap();
        let bytes = Bytes::from_static(b"tail");
        let _ = stage.archive.store().put(&key, bytes, &Metadata::new(), PutMode::CreateOnly).await.unwrap();
        assert!(is_gap(&stage.get_segment(1, 5).await), "{number}");
    }
}

#[tokio::test]
async fn a_timeline_that_branched_off_later_proves_a_gap() {
    let stage = Stage::new().await;
    stage.put("00000003.history", b"1\t0/800098\tx\n").await;
    for (number, gap) in [(5, true), (8, true), (9, false)] {
        let outcome = stage.get_segment(1, number).await;
        assert_eq!((is_gap(&outcome), is_end(&outcome)), (gap, !gap), "{number}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_refused_variant_is_not_used_and_proves_a_gap() {
    let stage = Stage::new().await;
    stage.put_segments(1, [5]).await;
    let content_id = ContentHash::of(&content(CLUSTER, 1, 5)).id();
    let mark = stage.archive.layout().refused(&WalFileName::Segment(segment(1, 5)), content_id);
    let (bytes, metadata) = (Bytes::from_static(b"x"), Metadata::new());
    let _ = stage.archive.store().put(&mark, bytes, &metadata, PutMode::CreateOnly).await.unwrap();
    assert!(is_gap(&stage.get_segment(1, 5).await));
}

#[tokio::test]
async fn without_its_archive_nothing_is_known_to_be_absent() {
    let stage = Stage::empty().await;
    for name in ["000000010000000000000005", "00000002.history", "000000010000000000000005.partial"] {
        let outcome = stage.get(name).await;
        assert!(matches!(outcome, Err(GetError::Archive(ArchiveError::NoCluster(_)))), "{name}: {outcome:?}");
    }
    let stage = Stage::new().await;
    std::fs::remove_dir_all(stage.scratch.path().join("archive")).unwrap();
    for name in ["000000010000000000000005", "00000002.history"] {
        assert!(matches!(stage.get(name).await, Err(GetError::Archive(ArchiveError::Store(_)))), "{name}");
    }
}

#[tokio::test]
async fn whichever_request_fails_absence_is_not_claimed() {
    for name in ["000000010000000000000005", "00000002.history", "00000003.history"] {
        for verb in [Verb::List, Verb::Get] {
            let mut index = 0;
            loop {
                let stage = Stage::new().await;
                stage.put("00000003.history", b"1\t0/100098\tx\n").await;
                let first = stage.faulty.calls(verb);
                stage.faulty.fail(verb, first + index, Fault::Before(StoreErrorKind::Denied));
                let outcome = stage.get(name).await;
                if stage.faulty.calls(verb) <= first + index {
                    assert!(outcome.is_ok(), "{name}: {outcome:?}");
                    break;
                }
                assert!(matches!(outcome, Err(GetError::Archive(_))), "{name} {verb:?} {index}: {outcome:?}");
                index += 1;
            }
        }
    }
}

#[tokio::test]
async fn the_first_timelines_history_never_exists_and_nobody_is_asked() {
    let stage = Stage::new().await;
    stage.put_segments(1, [5]).await;
    for verb in [Verb::List, Verb::Get] {
        stage.faulty.fail_every(verb, Some(Fault::Before(StoreErrorKind::Transient)));
    }
    assert!(is_end(&stage.get("00000001.history").await));
    assert!(is_end(&stage.with(contract()).get("00000001.history").await));
}

#[tokio::test]
async fn a_history_is_absent_only_when_its_timeline_left_no_trace() {
    let stage = Stage::new().await;
    stage.put_segments(1, [5, 6]).await;
    assert!(is_end(&stage.get("00000002.history").await));
    // Another history that names it; in a contract's recovery too.
    stage.put("00000005.history", b"1\t0/500098\tx\n3\t0/600098\tx\n").await;
    assert!(is_gap(&stage.get("00000003.history").await));
    assert!(is_end(&stage.get("00000002.history").await));
    let stage = stage.with(contract());
    assert!(is_gap(&stage.get("00000003.history").await));
    // Its own WAL.
    stage.put(&format!("{}.partial", segment(2, 6)), &content(CLUSTER, 2, 6)).await;
    let lost = stage.get("00000002.history").await;
    assert!(is_gap(&lost));
    assert!(lost.unwrap_err().hint().unwrap().contains("push it from the cluster that made it"));
}

// What is handed over.

#[tokio::test]
async fn a_flipped_bit_anywhere_is_damage() {
    let name = segment(1, 5).to_string();
    for place in [0usize, 1, 2] {
        let stage = Stage::new().await;
        stage.put_segments(1, [5]).await;
        let object = stage.path(&stage.object(&name).await);
        let mut bytes = std::fs::read(&object).unwrap();
        let at = (bytes.len() - 1) * place / 2;
        bytes[at] ^= 0x10;
        std::fs::write(&object, bytes).unwrap();
        let outcome = stage.get(&name).await;
        assert!(
            matches!(outcome, Err(GetError::Archive(ArchiveError::Damaged { .. }))),
            "{place}: {outcome:?}"
        );
        assert!(!stage.destination().exists());
        stage.assert_clean();
    }
}

#[tokio::test]
async fn a_segment_under_another_name_is_not_handed_over() {
    let stage = Stage::new().await;
    stage.put(&segment(1, 5).to_string(), &content(CLUSTER, 1, 6)).await;
    stage.put(&segment(1, 6).to_string(), &content(CLUSTER, 2, 6)).await;
    stage.put(&segment(1, 7).to_string(), &content(CLUSTER, 1, 7)[..8192]).await;
    stage.put(&segment(1, 8).to_string(), &vec![0; MIB as usize]).await;
    for number in 5..9 {
        let outcome = stage.get_segment(1, number).await;
        assert!(matches!(outcome, Err(GetError::Contradicted { .. })), "{number}: {outcome:?}");
    }
    stage.put(&segment(1, 9).to_string(), &content(SystemIdentifier(9), 1, 9)).await;
    assert!(matches!(stage.get_segment(1, 9).await, Err(GetError::WrongCluster { .. })));
    assert!(!stage.destination().exists());
    stage.assert_clean();
}

#[tokio::test]
async fn a_child_begins_with_its_parents_pages() {
    let stage = Stage::new().await;
    stage.put(&segment(2, 5).to_string(), &content(CLUSTER, 1, 5)).await;
    assert_eq!(stage.get_segment(2, 5).await.unwrap(), GetOutcome::Delivered);
}

#[tokio::test]
async fn when_one_copy_is_damaged_the_other_is_taken() {
    let name = WalFileName::Segment(segment(1, 5));
    let content_id = ContentHash::of(&content(CLUSTER, 1, 5)).id();
    let (mut stage, encrypting) = (Stage::new().await, Stage::empty_with(true).await);
    stage.put_segments(1, [5]).await;
    encrypting.put_segments(1, [5]).await;
    let encrypted = stage.archive.layout().wal(&name, content_id, true);
    for ending in ["", ".meta"] {
        let file = format!("archive/{}{ending}", encrypted.as_str());
        std::fs::copy(encrypting.scratch.path().join(&file), stage.scratch.path().join(&file)).unwrap();
    }
    let plain = stage.path(&stage.archive.layout().wal(&name, content_id, false));
    let length = std::fs::metadata(&plain).unwrap().len() as usize;
    std::fs::write(&plain, vec![b'x'; length]).unwrap();
    // Without the key both fail, and the first one's reason is told.
    let outcome = stage.get_segment(1, 5).await;
    assert!(matches!(&outcome, Err(GetError::Archive(ArchiveError::Damaged { .. }))), "{outcome:?}");
    stage.archive = Archive::new(Arc::new(stage.faulty.clone()), CLUSTER, sealer(Some(stage.scratch.path())));
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    assert_eq!(std::fs::read(stage.destination()).unwrap(), content(CLUSTER, 1, 5));
}

#[tokio::test]
async fn without_the_key_recovery_stops() {
    let mut stage = Stage::empty_with(true).await;
    stage.put_segments(1, [5]).await;
    assert_eq!(stage.get_segment(1, 5).await.unwrap(), GetOutcome::Delivered);
    stage.archive = Archive::new(Arc::new(stage.faulty.clone()), CLUSTER, sealer(None));
    let outcome = stage.get_segment(1, 5).await;
    assert!(matches!(&outcome, Err(GetError::Archive(ArchiveError::NoKey { .. }))), "{outcome:?}");
}

#[tokio::test]
async fn two_undecided_contents_stop_recovery() {
    let stage = Stage::new().await;
    stage.put_segments(1, [5]).await;
    let other = Stage::new().await;
    other.put(&segment(1, 5).to_string(), &content(CLUSTER, 1, 6)).await;
    let object = other.object(&segment(1, 5).to_string()).await;
    for ending in ["", ".meta"] {
        let name = format!("archive/{}{ending}", object.as_str());
        std::fs::copy(other.scratch.path().join(&name), stage.scratch.path().join(&name)).unwrap();
    }
    let outcome = stage.get_segment(1, 5).await;
    assert!(matches!(outcome, Err(GetError::Archive(ArchiveError::Ambiguous { .. }))), "{outcome:?}");
}

#[tokio::test]
async fn a_destination_that_cannot_be_written_is_an_error() {
    let stage = Stage::new().await;
    stage.put_segments(1, [5]).await;
    std::fs::remove_dir(stage.scratch.path().join("pg_wal")).unwrap();
    assert!(matches!(stage.get_segment(1, 5).await, Err(GetError::Io { .. })));
}

#[tokio::test]
async fn a_full_disk_is_an_error_and_leaves_nothing() {
    // A file system of 512 KiB, where this machine lets us make one.
    let stage = Stage::new().await;
    stage.put_segments(1, [5]).await;
    let pg_wal = stage.scratch.path().join("pg_wal");
    let Some(_mounted) = Mounted::small(&pg_wal) else { return };
    let outcome = stage.get_segment(1, 5).await;
    assert!(matches!(outcome, Err(GetError::Archive(ArchiveError::Io { .. }))), "{outcome:?}");
    stage.assert_clean();
    assert!(!stage.destination().exists());
}

struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn small(at: &Path) -> Option<Mounted<'_>> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(Mounted(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

#[tokio::test]
async fn the_history_that_recovery_has_already_needs_no_archive_and_another_does() {
    let stage = Stage::new().await.with(contract());
    let text = b"1\t0/800098\tno recovery target specified\n";
    let (request, at_hand) =
        (stage.request("00000002.history"), stage.scratch.path().join("pg_wal/00000002.history"));
    assert!(!deliver_own_history(&request).unwrap(), "it is not there");
    std::fs::write(&at_hand, text).unwrap();
    assert!(deliver_own_history(&request).unwrap());
    assert_eq!(std::fs::read(stage.destination()).unwrap(), text);
    std::fs::remove_file(stage.destination()).unwrap();

    std::fs::write(&at_hand, "1\t0/800000\tanother fork\n").unwrap();
    assert!(!deliver_own_history(&request).unwrap(), "not what the contract says");
    std::fs::write(&at_hand, text).unwrap();
    let other = GetRequest { system_identifier: SystemIdentifier(8), ..request.clone() };
    let by_hand = GetRequest { contract: None, ..request };
    let next = stage.request("00000003.history");
    std::fs::write(stage.scratch.path().join("pg_wal/00000003.history"), text).unwrap();
    for request in [other, by_hand, next] {
        assert!(!deliver_own_history(&request).unwrap(), "{request:?}");
    }
    assert!(!stage.destination().exists());
}
