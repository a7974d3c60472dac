#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
//! Shipping without a server: what is flushed is said by the test.

mod wal;

use super::shipment::{More, Shipment};
use super::*;
use std::sync::Arc;
use tempfile::TempDir;
use wal::{SEGMENT, SYSTEM, Wal, name, size};
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
use walpoint_archive::{
    Common, ContentHash, FileFacts, KeyRing, PutSource, PutWal, Sealer, SegmentState, Usable,
};
use walpoint_wal::{Lsn, SystemIdentifier, TimelineId, Timestamp, WalFileName};

struct Stage {
    _scratch: TempDir,
    faulty: Faulty,
    ground: Ground,
    wal: Wal,
}

impl Stage {
    async fn new(first: u64) -> Stage {
        let scratch = tempfile::tempdir().unwrap();
        let pg_wal = scratch.path().join("pg_wal");
        std::fs::create_dir_all(pg_wal.join("archive_status")).unwrap();
        let archive = scratch.path().join("archive");
        std::fs::create_dir(&archive).unwrap();
        let faulty = Faulty::new(Arc::new(DirStore::open(&archive).await.unwrap()));
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(Arc::new(faulty.clone()), SystemIdentifier(SYSTEM), sealer);
        let cluster = Cluster {
            system_identifier: SystemIdentifier(SYSTEM),
            segment_size: size(),
            block_size: 8192,
            wal_block_size: 8192,
            major: 15,
        };
        let ground = Ground { archive, cluster, pg_wal, size: size(), writer: WriterId::random() };
        Stage { _scratch: scratch, faulty, ground, wal: Wal::new(first) }
    }

    fn shipment(&self) -> Shipment {
        Shipment::new(self.ground.clone())
    }

    /// All that was written is flushed, and is shipped.
    async fn ship(&self, shipment: &mut Shipment) -> Result<(), Failure> {
        self.wal.save(&self.ground.pg_wal);
        self.ship_to(shipment, self.wal.end()).await
    }

    async fn ship_to(&self, shipment: &mut Shipment, flush: Lsn) -> Result<(), Failure> {
        let now = Flushed { flush, insert: flush, timeline: TimelineId::FIRST, time: Timestamp(0) };
        while shipment.advance(now).await? == More::Yes {}
        Ok(())
    }

    async fn state(&self, number: u64) -> SegmentState {
        self.ground.archive.segment_state(&name(1, number)).await.unwrap()
    }

    /// What the archive gives of a segment, and how far that goes.
    async fn stored(&self, number: u64) -> Option<(Vec<u8>, u64)> {
        let state = self.state(number).await;
        let Usable::One(variant) = state.available() else { return None };
        let mut bytes = Vec::new();
        self.ground.archive.fetch_wal(variant, &mut bytes, SEGMENT).await.unwrap();
        Some((bytes, variant.tail.as_ref().map_or(SEGMENT, |tail| u64::from(tail.end()))))
    }

    /// The archive has the server's WAL up to here, without a hole, and no other.
    async fn shipped_to(&self, first: u64) -> u64 {
        let mut at = first * SEGMENT;
        for number in first.. {
            let Some((bytes, end)) = self.stored(number).await else { break };
            assert_eq!(at, number * SEGMENT, "segment {number} is behind one that is not complete");
            assert_eq!(bytes[..end as usize], self.wal.bytes(number)[..end as usize], "segment {number}");
            assert!(bytes[end as usize..].iter().all(|byte| *byte == 0));
            at = number * SEGMENT + end;
        }
        at
    }

    async fn push(&self, number: u64) {
        let bytes = self.wal.bytes(number).to_vec();
        let system = SystemIdentifier(SYSTEM);
        let common = Common::new(ContentHash::of(&bytes), SEGMENT, WriterId::random(), system);
        let put = PutWal {
            name: WalFileName::Segment(name(1, number)),
            facts: FileFacts::Other(common),
            source: PutSource::Bytes(bytes.into()),
        };
        let _ = self.ground.archive.put_wal(&put).await.unwrap();
    }

    fn offer(&self, number: u64) {
        let ready = self.ground.pg_wal.join("archive_status").join(format!("{}.ready", name(1, number)));
        std::fs::write(ready, "").unwrap();
    }
}

#[tokio::test]
async fn what_is_flushed_is_in_the_archive_piece_by_piece_and_segment_by_segment() {
    let mut stage = Stage::new(3).await;
    let mut shipment = stage.shipment();
    for step in 1..40 {
        stage.wal.fill_to(3 * SEGMENT + step * 70_000);
        stage.ship(&mut shipment).await.unwrap();
        assert_eq!(shipment.shipped(), Some(stage.wal.end()));
        assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);
    }
    assert_eq!(shipment.alarm(), None);
    // Its metadata are those of the segment as far as it goes, and its run goes on over segments.
    let state = stage.state(5).await;
    let facts = stage.ground.archive.wal_facts(state.tail.as_ref().unwrap()).await.unwrap();
    assert_eq!((facts.start, facts.end), (Lsn(5 * SEGMENT), stage.wal.end()));
    assert_eq!(facts.run.unwrap().run_start, Lsn(3 * SEGMENT));
    assert!(facts.edge_checked);
}

/// Whichever put fails, before or after it was done: what is there is a beginning of the WAL without a
/// hole, and after the outage all of it, in one chain.
#[tokio::test]
async fn an_outage_at_any_put_leaves_a_beginning_without_a_hole_and_no_rival() {
    for kind in [Fault::Before(StoreErrorKind::Transient), Fault::After(StoreErrorKind::Transient)] {
        for index in 0..9 {
            let mut stage = Stage::new(3).await;
            let mut shipment = stage.shipment();
            stage.faulty.fail(Verb::Put, index, kind.clone());
            let mut failures = 0;
            for step in 1..9 {
                stage.wal.fill_to(3 * SEGMENT + step * 300_000);
                failures += usize::from(stage.ship(&mut shipment).await.is_err());
                let shipped = stage.shipped_to(3).await;
                assert!(shipped <= stage.wal.end().0 && shipment.shipped().is_none_or(|it| it.0 <= shipped));
            }
            stage.ship(&mut shipment).await.unwrap();
            assert_eq!((failures, stage.shipped_to(3).await), (1, stage.wal.end().0), "put {index}");
            for number in 3..6 {
                let state = stage.state(number).await;
                let tail = state.tail.unwrap().tail.unwrap();
                assert_eq!((tail.others, tail.lost_to), (Vec::new(), None), "put {index}, segment {number}");
            }
        }
    }
}

#[tokio::test]
async fn who_begins_again_goes_on_behind_what_is_there() {
    let mut stage = Stage::new(3).await;
    for step in 1..20 {
        stage.wal.fill_to(3 * SEGMENT + step * 130_000);
        stage.ship(&mut stage.shipment()).await.unwrap();
        assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);
    }
    let tail = stage.state(3).await.tail.unwrap().tail.unwrap();
    assert_eq!((tail.others, tail.lost_to), (Vec::new(), None));
}

#[tokio::test]
async fn wal_that_was_durable_and_is_other_wal_now_is_an_alarm() {
    let mut stage = Stage::new(3).await;
    stage.wal.fill_to(3 * SEGMENT + 100_000);
    let before = stage.wal.clone();
    stage.wal.fill_to(3 * SEGMENT + 200_000);
    let mut shipment = stage.shipment();
    stage.ship(&mut shipment).await.unwrap();
    // The disk took back what it had, and the server wrote on from there.
    stage.wal = before;
    stage.wal.record(300, 99);
    for mut shipment in [shipment, stage.shipment()] {
        stage.ship(&mut shipment).await.unwrap();
        assert!(shipment.alarm().unwrap().contains("took back"), "{:?}", shipment.alarm());
    }
    let state = stage.state(3).await;
    let mut out = Vec::new();
    let read = stage.ground.archive.fetch_wal(state.tail.as_ref().unwrap(), &mut out, SEGMENT).await;
    assert!(read.is_err(), "nobody knows which is right");
}

#[tokio::test]
async fn a_segment_that_changed_before_its_end_is_an_alarm() {
    let mut stage = Stage::new(3).await;
    let mut shipment = stage.shipment();
    stage.wal.fill_to(3 * SEGMENT + 500_000);
    stage.ship(&mut shipment).await.unwrap();
    stage.wal.fill_to(4 * SEGMENT + 1000);
    stage.wal.save(&stage.ground.pg_wal);
    let path = stage.ground.pg_wal.join(name(1, 3).to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    stage.ship_to(&mut shipment, stage.wal.end()).await.unwrap();
    assert!(shipment.alarm().unwrap().contains(&name(1, 3).to_string()), "{:?}", shipment.alarm());
}

#[tokio::test]
async fn at_a_border_the_next_file_need_not_be_there() {
    let mut stage = Stage::new(3).await;
    let mut shipment = stage.shipment();
    stage.wal.fill_to(3 * SEGMENT + 900_000);
    stage.ship(&mut shipment).await.unwrap();
    stage.wal.fill_to(4 * SEGMENT + 10);
    stage.wal.save(&stage.ground.pg_wal);
    std::fs::remove_file(stage.ground.pg_wal.join(name(1, 4).to_string())).unwrap();
    for flush in [Lsn(4 * SEGMENT), stage.wal.end()] {
        stage.ship_to(&mut shipment, flush).await.unwrap();
        assert_eq!(stage.shipped_to(3).await, 4 * SEGMENT);
    }
    stage.ship(&mut shipment).await.unwrap();
    assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);
}

#[tokio::test]
async fn a_file_that_is_another_segment_is_not_shipped() {
    let mut stage = Stage::new(3).await;
    stage.wal.fill_to(4 * SEGMENT + 500_000);
    stage.wal.save(&stage.ground.pg_wal);
    let [three, four] = [3, 4].map(|number| stage.ground.pg_wal.join(name(1, number).to_string()));
    std::fs::copy(&three, &four).unwrap();
    let shipped = stage.ship_to(&mut stage.shipment(), stage.wal.end()).await;
    assert!(shipped.is_err());
    assert_eq!(stage.stored(4).await, None);
    // Also when only its later pages are another's: it was being reused.
    let mut mixed = stage.wal.bytes(4).to_vec();
    mixed[16384..].copy_from_slice(&stage.wal.bytes(3)[16384..]);
    std::fs::write(&four, mixed).unwrap();
    assert!(stage.ship_to(&mut stage.shipment(), stage.wal.end()).await.is_err());
    assert_eq!(stage.stored(4).await, None);
}

/// The server that answers has more than this directory: it is another one.
#[tokio::test]
async fn zeros_where_the_server_has_wal_are_not_shipped() {
    let mut stage = Stage::new(3).await;
    stage.wal.fill_to(3 * SEGMENT + 100_000);
    stage.wal.save(&stage.ground.pg_wal);
    let mut shipment = stage.shipment();
    for more in [8, 5_000, 700_008] {
        let ahead = Lsn(stage.wal.end().0 + more);
        let refused = stage.ship_to(&mut shipment, ahead).await.unwrap_err();
        assert!(refused.hint.unwrap().contains("connection"), "{more}");
        assert_eq!(stage.stored(3).await, None, "{more}");
    }
    stage.ship(&mut shipment).await.unwrap();
    assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);
}

#[tokio::test]
async fn a_server_that_stands_at_the_end_of_a_pushed_segment_is_no_alarm_and_costs_nothing() {
    let mut stage = Stage::new(3).await;
    stage.wal.fill_to(4 * SEGMENT + 10);
    stage.wal.save(&stage.ground.pg_wal);
    stage.push(3).await;
    let (mut shipment, border) = (stage.shipment(), Lsn(4 * SEGMENT));
    stage.ship_to(&mut shipment, border).await.unwrap();
    assert_eq!((shipment.shipped(), shipment.alarm()), (Some(border), None));
    let asked = stage.faulty.calls(Verb::List);
    stage.ship_to(&mut shipment, border).await.unwrap();
    assert_eq!(stage.faulty.calls(Verb::List), asked);
    stage.ship(&mut shipment).await.unwrap();
    assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);
}

#[tokio::test]
async fn a_segment_before_that_waits_to_be_archived_is_shipped_first_or_waited_for() {
    let mut stage = Stage::new(3).await;
    stage.wal.fill_to(6 * SEGMENT + 50_000);
    (3..6).for_each(|number| stage.offer(number));
    stage.ship(&mut stage.shipment()).await.unwrap();
    assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);

    let mut stage = Stage::new(3).await;
    stage.wal.fill_to(20 * SEGMENT + 50_000);
    (3..20).for_each(|number| stage.offer(number));
    let mut shipment = stage.shipment();
    let waits = stage.ship(&mut shipment).await.unwrap_err();
    assert!(waits.error.contains("is not in the archive"), "{waits}");
    assert_eq!(stage.stored(20).await, None);
    stage.push(19).await;
    stage.ship(&mut shipment).await.unwrap();
    assert_eq!(stage.stored(20).await.unwrap().1, stage.wal.end().0 - 20 * SEGMENT);
}

#[tokio::test]
async fn a_segment_that_was_never_to_be_archived_is_not_waited_for() {
    let mut stage = Stage::new(3).await;
    stage.wal.fill_to(9 * SEGMENT + 50_000);
    stage.ship(&mut stage.shipment()).await.unwrap();
    assert_eq!(stage.stored(8).await, None);
    assert_eq!(stage.stored(9).await.unwrap().1, stage.wal.end().0 - 9 * SEGMENT);
}

#[tokio::test]
async fn what_a_push_brought_first_is_not_shipped() {
    let mut stage = Stage::new(3).await;
    let mut shipment = stage.shipment();
    stage.wal.fill_to(3 * SEGMENT + 50_000);
    stage.ship(&mut shipment).await.unwrap();
    stage.wal.fill_to(6 * SEGMENT + 50_000);
    for number in 3..6 {
        stage.push(number).await;
    }
    stage.ship(&mut shipment).await.unwrap();
    assert_eq!(shipment.shipped(), Some(stage.wal.end()));
    assert_eq!((stage.state(4).await.chunks.len(), stage.state(5).await.chunks.len()), (0, 0));
    assert_eq!(stage.stored(6).await.unwrap().1, stage.wal.end().0 - 6 * SEGMENT);
}

#[tokio::test]
async fn a_segment_that_is_written_to_for_long_does_not_become_a_thousand_pieces() {
    let mut stage = Stage::new(3).await;
    let mut shipment = stage.shipment();
    for _ in 0..400 {
        stage.wal.record(10, 1);
        stage.ship(&mut shipment).await.unwrap();
    }
    let state = stage.state(3).await;
    assert!(state.chunks.len() < 64, "{} pieces", state.chunks.len());
    assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);
}

#[tokio::test]
async fn pieces_go_a_minute_after_the_whole_segment_was_seen_and_leftovers_too() {
    let mut stage = Stage::new(3).await;
    let mut shipment = stage.shipment();
    stage.wal.fill_to(5 * SEGMENT + 50_000);
    (3..5).for_each(|number| stage.offer(number));
    stage.ship(&mut shipment).await.unwrap();
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    // Segment 3 is this agent's, and a leftover to the other one.
    let mut other = stage.shipment();
    stage.ship(&mut other).await.unwrap();
    for shipment in [&mut shipment, &mut other] {
        shipment.sweep(at(0)).await.unwrap();
    }
    stage.push(3).await;
    for shipment in [&mut shipment, &mut other] {
        shipment.sweep(at(40)).await.unwrap();
        shipment.sweep(at(90)).await.unwrap();
        assert!(!stage.state(3).await.chunks.is_empty(), "too early");
    }
    for shipment in [&mut shipment, &mut other] {
        shipment.sweep(at(101)).await.unwrap();
        assert!(stage.state(3).await.chunks.is_empty());
    }
    assert!(!stage.state(4).await.chunks.is_empty(), "its whole is not there");
    assert_eq!(stage.shipped_to(3).await, stage.wal.end().0);
}
