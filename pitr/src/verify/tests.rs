#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]
//! Archives of real WAL and real packs in a directory, and what disks and people do to them.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::config::EncryptionConfig;
use walpoint_archive::manifest::{EntryKind, ManifestEntry, ManifestHeader, ManifestWriter, Piece, Windows};
use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
use walpoint_archive::{
    Archive, ArchiveError, BackupHead, BackupSummary, KeyRing, PackWriter, RelativePath, Sealer, StoredHash,
};
use walpoint_wal::Lsn;

use super::*;
use crate::testing::archive::{Knows, TestArchive};
use crate::testing::wal::WalWriter;
use crate::testing::{MIB, SYSTEM, at_second, backup, segment, size, tli};

mod damage;
mod rounds;

/// Bytes that do not compress, other ones for each `seed`.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ (seed + 1).wrapping_mul(0x2545_F491_4F6C_DD1D);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A cluster that archived eight segments, 3 to 10, with a backup at each end of them.
struct Stage {
    test: TestArchive,
    first: BackupSummary,
    second: BackupSummary,
    wal: WalWriter,
}

impl Stage {
    async fn new() -> Stage {
        let mut wal = WalWriter::new(size(), SYSTEM, 3);
        let start = wal.filler(100).lsn;
        let first = backup(1, 1, start, wal.backup_end(start).end, at_second(10));
        for second in 1..=5 {
            // Over the edge of the segment.
            wal.fill_until((3 + second as u64) * MIB - 200);
            wal.filler(3000);
            wal.commit(1000 + second, at_second(100 * i64::from(second)), &[]);
        }
        let start = wal.filler(100).lsn;
        let second = backup(2, 1, start, wal.backup_end(start).end, at_second(550));
        wal.commit(2000, at_second(600), &[]);
        wal.switch();
        wal.commit(2001, at_second(700), &[]);
        wal.switch();
        let mut test = TestArchive::new().await;
        test.push_all(&wal, |_| Some(Knows::All)).await;
        let first = stored(&test.archive, first, &[]).await;
        let second = stored(&test.archive, second, &[&first]).await;
        Stage { test, first, second, wal }
    }

    fn archive(&self) -> &Archive {
        &self.test.archive
    }

    /// What a catalog holds of a backup.
    fn head(&self, summary: &BackupSummary) -> BackupHead {
        summary.clone().into_head(self.archive().layout())
    }

    async fn verify(&self, extent: Extent) -> Verified {
        verify_with(self.archive(), extent).await.unwrap()
    }

    /// The file that an object is.
    fn file(&self, key: &walpoint_archive::ObjectKey) -> PathBuf {
        self.test.root().join(key.as_str())
    }

    /// The file of a segment.
    async fn segment_file(&self, number: u64) -> PathBuf {
        let state = self.archive().segment_state(&segment(1, number)).await.unwrap();
        self.file(&state.variants[0].key())
    }
}

fn request(extent: Extent) -> VerifyRequest {
    VerifyRequest { extent, workers: NonZeroUsize::new(3).unwrap(), now: at_second(0) }
}

async fn verify_with(archive: &Archive, extent: Extent) -> Result<Verified, ArchiveError> {
    verify(archive, &request(extent), &Arc::new(Progress::new())).await
}

/// Puts a backup: some files in two packs of its own, and whatever `parents` have in theirs.
async fn stored(archive: &Archive, mut summary: BackupSummary, parents: &[&BackupSummary]) -> BackupSummary {
    let level = CompressionLevel::default();
    let header = ManifestHeader { backup: summary.id.clone(), system_identifier: SYSTEM };
    let mut manifest = ManifestWriter::new(Vec::new(), &header).unwrap();
    let seed = u64::try_from(summary.stop.time.0).unwrap();
    let mut files = [
        ("PG_VERSION".to_owned(), b"15\n".to_vec()),
        ("backup_label".to_owned(), b"START WAL LOCATION: x\n".to_vec()),
        ("base/1".to_owned(), noise(seed, 300_000)),
        ("global/pg_control".to_owned(), noise(seed + 1, 8192)),
    ];
    files.sort();
    summary.packs.clear();
    let mut entries = std::collections::BTreeMap::new();
    for directory in ["base", "global"] {
        entries.insert(directory.to_owned(), (EntryKind::Dir, Vec::new(), 0));
    }
    for (number, chunk) in files.chunks(2).enumerate() {
        let number = u32::try_from(number).unwrap();
        let mut pack = PackWriter::new(level);
        for (path, content) in chunk {
            let place = pack.append(content).unwrap();
            let pieces = vec![Piece::new(0, number, place)];
            entries.insert(path.clone(), (EntryKind::File, pieces, content.len() as u64));
        }
        let sealed = pack.finish(archive.sealer()).unwrap();
        summary.packs.push(archive.put_pack(&summary.id, number, &sealed).await.unwrap());
    }
    for parent in parents {
        // As an incremental does: the piece lies in the pack of an older backup.
        let name = format!("base/2-{}", parent.id.as_str().to_lowercase());
        let mut text = Vec::new();
        archive.fetch_manifest(parent, &mut text).await.unwrap();
        let mut old = walpoint_archive::ManifestReader::new(text.as_slice()).unwrap();
        while let Some(entry) = old.next_entry().unwrap() {
            if entry.path.as_str() == Some("base/1") {
                let piece = Piece { backup: Some(parent.id.clone()), ..entry.pieces[0].clone() };
                let number = piece.pack as usize;
                entries.insert(name.clone(), (EntryKind::File, vec![piece], entry.size));
                summary.packs.push(parent.packs[number].clone());
            }
        }
    }
    for (path, (kind, pieces, size)) in entries {
        let path = RelativePath::new(&path).unwrap();
        let windows = Windows::default();
        manifest.entry(&ManifestEntry { path, kind, mode: 0o600, size, pieces, windows }).unwrap();
    }
    let (text, totals) = manifest.finish().unwrap();
    summary.files = totals.files;
    summary.bytes.data = totals.bytes;
    summary.manifest = archive.put_manifest(&summary.id, text).await.unwrap();
    archive.put_summary(&summary).await.unwrap();
    summary
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_archive_is_sound_and_its_backups_are_known_to_have_been_verified() {
    let stage = Stage::new().await;
    let before = stage.archive().verification().await.unwrap();
    assert!(before.is_empty());
    let quick = stage.verify(Extent::Listings).await;
    assert_eq!(quick.findings, []);
    assert!(stage.archive().verification().await.unwrap().is_empty(), "who reads no data proves nothing");
    let all = stage.verify(Extent::Everything).await;
    assert_eq!(all.findings, []);
    assert_eq!((all.left, all.read.sealed, all.read.undecoded), (Left::default(), 0, 0));
    let [range] = all.ranges.as_slice() else { panic!("{:?}", all.ranges) };
    assert_eq!(
        (range.from.lsn, range.to.lsn),
        (stage.first.stop.lsn, Lsn(stage.wal.end().0.next_multiple_of(MIB)))
    );
    assert_eq!(range.backup, stage.first.id);
    let known = stage.archive().verification().await.unwrap();
    for summary in [&stage.first, &stage.second] {
        let proof = known.of_backup(stage.archive().layout(), &stage.head(summary)).unwrap();
        assert_eq!(proof.content_at, Some(proof.stored_at));
        assert!(all.backups.contains(&(summary.id.clone(), Some(proof))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_push_left_unchecked_is_checked_here() {
    let mut wal = WalWriter::new(size(), SYSTEM, 3);
    wal.fill_until(4 * MIB - 200);
    wal.filler(3000);
    // One that goes through whole segments.
    wal.fill_until(5 * MIB - 200);
    wal.filler(2_500_000);
    wal.switch();
    let mut test = TestArchive::new().await;
    test.push_all(&wal, |_| Some(Knows::Metadata)).await;
    let verified = verify_with(&test.archive, Extent::Everything).await.unwrap();
    assert_eq!(verified.findings, []);
    assert_eq!(verified.read.edges_closed, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_goes_on_where_its_parent_was_left() {
    let mut old = WalWriter::new(size(), SYSTEM, 3);
    let start = old.filler(100).lsn;
    let first = backup(1, 1, start, old.backup_end(start).end, at_second(10));
    old.fill_until(4 * MIB - 200);
    old.filler(3000);
    old.commit(1000, at_second(100), &[]);
    let fork = old.end();
    let mut new = old.clone();
    new.promote(tli(2));
    new.end_of_recovery(tli(1), at_second(200));
    new.commit(2000, at_second(210), &[]);
    new.switch();
    old.commit(1001, at_second(220), &[]);
    old.switch();
    let mut test = TestArchive::new().await;
    test.push_all(&old, |_| Some(Knows::All)).await;
    test.history(2, &[(1, fork.0)]).await;
    test.push_all(&new, |_| Some(Knows::Metadata)).await;
    stored(&test.archive, first, &[]).await;
    let verified = verify_with(&test.archive, Extent::Everything).await.unwrap();
    assert_eq!(verified.findings, []);
    assert_eq!(
        verified.read.edges_closed, 1,
        "the child's first segment begins within a record of its parent's"
    );
    assert_eq!(verified.ranges.iter().map(|range| range.timeline).collect::<Vec<_>>(), [tli(1), tli(2)]);

    // Without the child's history nobody knows where it branches off.
    let second = backup(2, 2, fork, Lsn(fork.0 + 8192), at_second(210));
    let second = stored(&test.archive, second, &[]).await;
    let verified = verify_with(&test.archive, Extent::Everything).await.unwrap();
    assert_eq!(verified.backups.iter().filter(|(_, proof)| proof.is_some()).count(), 2);
    let listed = test.archive.store().list(&walpoint_archive::Prefix::all(), None, None).await.unwrap();
    for history in listed.iter().filter(|it| it.key.as_str().contains("00000002.history")) {
        test.archive.store().delete(&history.key).await.unwrap();
    }
    for extent in [Extent::Listings, Extent::Everything] {
        let verified = verify_with(&test.archive, extent).await.unwrap();
        let [finding] = verified.findings.as_slice() else { panic!("{:#?}", verified.findings) };
        assert_eq!((finding.trouble, finding.object.as_str()), (Trouble::Missing, "00000002.history"));
        assert_eq!(finding.backups, std::slice::from_ref(&second.id));
        let [cost] = finding.costs.as_slice() else { panic!("{finding:?}") };
        let end = Lsn(new.end().0.next_multiple_of(MIB));
        assert_eq!((cost.timeline, cost.to.as_ref().unwrap().lsn), (tli(2), end));
        assert!(cost.from.as_ref().unwrap().lsn <= fork);
        assert_eq!(verified.ranges.iter().map(|range| range.timeline).collect::<Vec<_>>(), [tli(1)]);
        let proven = verified.backups.iter().filter(|(_, proof)| proof.is_some());
        assert_eq!(proven.map(|(id, _)| id).collect::<Vec<_>>(), [&verified.ranges[0].backup]);
    }
}
