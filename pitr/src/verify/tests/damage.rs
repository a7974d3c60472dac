//! Every kind of damage: named, with what it costs, and with nothing else.

use super::*;

pub(super) fn flip_bit(file: &Path, at: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = at.min(bytes.len() - 1);
    bytes[at] ^= 4;
    std::fs::write(file, bytes).unwrap();
}

fn cut(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

fn meta(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.meta", file.display()))
}

fn remove(file: &Path) {
    std::fs::remove_file(meta(file)).unwrap();
    std::fs::remove_file(file).unwrap();
}

fn copy_over(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::copy(meta(from), meta(to)).unwrap();
}

/// The one finding, and its costs as LSNs.
fn the_one(verified: &Verified) -> (&Finding, Vec<(u32, u64, u64)>) {
    let [finding] = verified.findings.as_slice() else { panic!("{:#?}", verified.findings) };
    let costs = finding.costs.iter().map(|cost| {
        (cost.timeline.get(), cost.from.as_ref().unwrap().lsn.0, cost.to.as_ref().unwrap().lsn.0)
    });
    (finding, costs.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_not_what_was_stored_costs_what_lies_behind_it_up_to_the_next_backup() {
    for (what, harm) in [
        ("flipped", (|file: &Path| flip_bit(file, 5000)) as fn(&Path)),
        ("cut", cut),
        ("unsized", |file| {
            let text = std::fs::read_to_string(meta(file)).unwrap();
            std::fs::write(meta(file), text.replacen("\"commits\":\"1\"", "\"commits\":\"2\"", 1)).unwrap();
        }),
    ] {
        let stage = Stage::new().await;
        let file = stage.segment_file(5).await;
        harm(&file);
        let verified = stage.verify(Extent::Everything).await;
        let (finding, costs) = the_one(&verified);
        assert_eq!(finding.trouble, Trouble::Damaged, "{what}: {finding:?}");
        assert!(file.ends_with(&finding.object), "{what}: {finding:?}");
        assert_eq!(costs, [(1, 5 * MIB, stage.second.stop.lsn.0)], "{what}");
        assert_eq!(finding.backups, [], "{what}");
        let ranges: Vec<_> = verified.ranges.iter().map(|it| (it.from.lsn, it.to.lsn)).collect();
        let end = Lsn(stage.wal.end().0.next_multiple_of(MIB));
        let expected = [(stage.first.stop.lsn, Lsn(5 * MIB)), (stage.second.stop.lsn, end)];
        assert_eq!(ranges, expected, "{what}");
        // Nobody who asks later is told that it was sound.
        let known = stage.archive().verification().await.unwrap();
        assert!(known.found_damaged().any(|key| key.as_str() == finding.object), "{what}");
        assert!(known.of_backup(stage.archive().layout(), &stage.head(&stage.second)).is_some(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_gone_costs_the_same_also_without_reading() {
    for extent in [Extent::Listings, Extent::Everything] {
        let stage = Stage::new().await;
        stage.test.delete(segment(1, 6)).await;
        let verified = stage.verify(extent).await;
        let (finding, costs) = the_one(&verified);
        assert_eq!(
            (finding.trouble, finding.object.as_str()),
            (Trouble::Missing, segment(1, 6).to_string().as_str())
        );
        assert_eq!(costs, [(1, 6 * MIB, stage.second.stop.lsn.0)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_that_a_backup_needs_to_be_consistent_costs_the_backup() {
    let stage = Stage::new().await;
    stage.test.delete(segment(1, 3)).await;
    let verified = stage.verify(Extent::Listings).await;
    // Nothing shows that it was ever there but the backup that needs it.
    let (finding, costs) = the_one(&verified);
    assert_eq!((finding.trouble, &finding.backups), (Trouble::Missing, &vec![stage.first.id.clone()]));
    assert_eq!(costs, [(1, stage.first.stop.lsn.0, stage.second.stop.lsn.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_costs_every_backup_that_names_it_and_no_moment_that_another_reaches() {
    for (what, harm) in
        [("flipped", (|file: &Path| flip_bit(file, 5000)) as fn(&Path)), ("cut", cut), ("gone", remove)]
    {
        let stage = Stage::new().await;
        // The second backup has a piece in it, too.
        let shared = stage.first.packs.iter().find(|pack| stage.second.packs.contains(pack)).unwrap();
        harm(&stage.file(&shared.key));
        let verified = stage.verify(Extent::Everything).await;
        let (finding, costs) = the_one(&verified);
        assert_eq!(finding.object, shared.key.as_str(), "{what}");
        assert_eq!(finding.trouble, if what == "gone" { Trouble::Missing } else { Trouble::Damaged });
        assert_eq!(finding.backups, [stage.first.id.clone(), stage.second.id.clone()], "{what}");
        let end = stage.wal.end().0.next_multiple_of(MIB);
        assert_eq!(costs, [(1, stage.first.stop.lsn.0, end)], "{what}");
        assert_eq!(verified.ranges, [], "{what}");
        assert!(verified.backups.iter().all(|(_, proof)| proof.is_none()), "{what}");

        let stage = Stage::new().await;
        let own = stage.second.packs.iter().find(|pack| !stage.first.packs.contains(pack)).unwrap();
        harm(&stage.file(&own.key));
        let verified = stage.verify(Extent::Everything).await;
        let (finding, costs) = the_one(&verified);
        assert_eq!((&finding.backups, costs), (&vec![stage.second.id.clone()], Vec::new()), "{what}");
        assert_eq!(verified.ranges.len(), 1, "{what}: the first backup and the WAL reach everything");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_costs_its_backup() {
    for harm in [(|file: &Path| flip_bit(file, 40)) as fn(&Path), cut, remove] {
        let stage = Stage::new().await;
        harm(&stage.file(&stage.first.manifest.key));
        let verified = stage.verify(Extent::Everything).await;
        let (finding, costs) = the_one(&verified);
        assert_eq!(finding.object, stage.first.manifest.key.as_str());
        assert_eq!(finding.backups, std::slice::from_ref(&stage.first.id));
        assert_eq!(costs, [(1, stage.first.stop.lsn.0, stage.second.stop.lsn.0)]);
        let proofs: Vec<_> = verified.backups.iter().map(|(_, proof)| proof.is_some()).collect();
        assert_eq!(proofs, [false, true]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_names_what_its_packs_do_not_have_is_damaged() {
    let stage = Stage::new().await;
    let lying = backup(3, 1, stage.second.redo, stage.second.stop.lsn, at_second(560));
    let lying = stored(stage.archive(), lying, &[]).await;
    let changed = self::lying(&stage, lying.clone()).await;
    let verified = stage.verify(Extent::Everything).await;
    let (finding, costs) = the_one(&verified);
    assert_eq!((finding.object.as_str(), costs), (changed.manifest.key.as_str(), Vec::new()));
    assert!(finding.what.contains("has none such there"), "{finding:?}");
    assert_eq!(finding.backups, std::slice::from_ref(&lying.id));
    // Read for itself it is sound: that does not clear it, and its packs do not make it true.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let round = stage.verify(Extent::Oldest(1)).await;
    let known = |verified: &Verified| verified.backups.iter().map(|(_, it)| it.is_some()).collect::<Vec<_>>();
    assert_eq!((known(&round), round.findings.len()), (vec![true, true, false], 1));
    // The manifest that it had is named by nobody now.
    assert_eq!(verified.unreferenced.len(), 1);
    assert_eq!(verified.unreferenced[0].key, lying.manifest.key);
}

/// The same backup with a manifest that is sound in itself: only who reads the pack sees that one of its pieces is not
/// there.
async fn lying(stage: &Stage, lying: BackupSummary) -> BackupSummary {
    let lie = |mut entry: ManifestEntry| {
        if entry.path.as_str() == Some("base/1") {
            entry.pieces[0].pack_offset += 1;
            entry.pieces[0].stored_length -= 1;
        }
        vec![entry]
    };
    changed(stage, lying, lie).await
}

/// The same backup with a manifest that has other entries.
async fn changed(
    stage: &Stage,
    summary: BackupSummary,
    change: impl Fn(ManifestEntry) -> Vec<ManifestEntry>,
) -> BackupSummary {
    let mut text = Vec::new();
    stage.archive().fetch_manifest(&summary, &mut text).await.unwrap();
    let mut old = walpoint_archive::ManifestReader::new(text.as_slice()).unwrap();
    let header = ManifestHeader { backup: summary.id.clone(), system_identifier: SYSTEM };
    let mut manifest = ManifestWriter::new(Vec::new(), &header).unwrap();
    while let Some(entry) = old.next_entry().unwrap() {
        change(entry).iter().for_each(|entry| manifest.entry(entry).unwrap());
    }
    let (text, _) = manifest.finish().unwrap();
    let mut changed = summary.clone();
    changed.manifest = stage.archive().put_manifest(&summary.id, text).await.unwrap();
    remove(&stage.file(&stage.archive().layout().summary(&summary.id)));
    stage.archive().put_summary(&changed).await.unwrap();
    changed
}

/// What its packs are is read in another request than that it is there. It expired in between, say; or it is another.
#[tokio::test]
async fn a_backup_that_goes_or_changes_while_verify_looks_is_none_or_damaged() {
    let mut stage = Stage::new().await;
    let (before, key) = (stage.test.catalog().await, stage.archive().layout().summary(&stage.second.id));
    let mut catalog = before.clone();
    remove(&stage.file(&key));
    let seen = inventory::take(stage.archive(), &mut catalog).await.unwrap();
    assert_eq!((catalog.backups, catalog.damaged), (vec![stage.head(&stage.first)], Vec::new()));
    assert!(seen.faults.is_empty());

    stage.second.files += 1;
    stage.archive().put_summary(&stage.second).await.unwrap();
    let mut catalog = before;
    inventory::take(stage.archive(), &mut catalog).await.unwrap();
    assert_eq!(catalog.backups, [stage.head(&stage.first)]);
    assert_eq!(catalog.damaged.iter().map(|it| &it.key).collect::<Vec<_>>(), [&key]);
}

/// `verify` and `restore` go by the same rules.
#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_no_restore_takes_is_damaged() {
    let stage = Stage::new().await;
    let with_wal =
        stored(stage.archive(), backup(3, 1, stage.second.redo, stage.second.stop.lsn, at_second(560)), &[]);
    let with_wal = changed(&stage, with_wal.await, |entry| {
        let is_last = entry.path.as_str() == Some("global/pg_control");
        let path = |path| RelativePath::new(path).unwrap();
        let empty = ManifestEntry { pieces: Vec::new(), size: 0, ..entry.clone() };
        let folder = ManifestEntry { path: path("pg_wal"), kind: EntryKind::Dir, ..empty.clone() };
        let segment = ManifestEntry { path: path("pg_wal/000000010000000000000003"), ..empty };
        if is_last { vec![entry, folder, segment] } else { vec![entry] }
    });
    let with_wal = with_wal.await;
    let verified = stage.verify(Extent::Everything).await;
    let (finding, _) = the_one(&verified);
    assert_eq!(finding.object, with_wal.manifest.key.as_str());
    assert!(finding.what.contains("no WAL of its own"), "{finding:?}");
}

/// Incrementals copy what their parent's manifest says: a lie in it is everybody's who tells it.
#[tokio::test(flavor = "multi_thread")]
async fn a_lie_that_was_inherited_costs_every_backup_that_tells_it() {
    let stage = Stage::new().await;
    let first = backup(3, 1, stage.second.redo, stage.second.stop.lsn, at_second(560));
    let first = lying(&stage, stored(stage.archive(), first, &[]).await).await;
    let second = backup(4, 1, stage.second.redo, stage.second.stop.lsn, at_second(570));
    let second = stored(stage.archive(), second, &[&first]).await;
    let verified = stage.verify(Extent::Everything).await;
    let named: Vec<_> = verified.findings.iter().flat_map(|it| it.backups.clone()).collect();
    assert_eq!(named, [first.id.clone(), second.id.clone()], "{:#?}", verified.findings);
    let proven = verified.backups.iter().filter(|(_, proof)| proof.is_some()).map(|(id, _)| id.clone());
    assert_eq!(proven.collect::<Vec<_>>(), [stage.first.id.clone(), stage.second.id.clone()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_changed_places_are_damaged_both() {
    let stage = Stage::new().await;
    let (one, other) = (stage.segment_file(5).await, stage.segment_file(6).await);
    let aside = stage.test.root().join("aside");
    copy_over(&one, &aside);
    copy_over(&other, &one);
    copy_over(&aside, &other);
    let verified = stage.verify(Extent::Everything).await;
    assert_eq!(verified.findings.len(), 2, "{:#?}", verified.findings);
    assert!(verified.findings.iter().all(|it| it.trouble == Trouble::Damaged && !it.costs.is_empty()));

    let stage = Stage::new().await;
    let files: Vec<PathBuf> = stage.first.packs.iter().map(|pack| stage.file(&pack.key)).collect();
    copy_over(&files[0], &files[1]);
    let verified = stage.verify(Extent::Everything).await;
    let (finding, _) = the_one(&verified);
    assert_eq!(finding.object, stage.first.packs[1].key.as_str());
}

/// Sound in itself, under its right key, and of another past of the same cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_segment_does_not_continue_the_wal_before_it() {
    let stage = Stage::new().await;
    let mut other = WalWriter::new(size(), SYSTEM, 3);
    other.filler(500);
    other.fill_until(10 * MIB);
    let mut strange = TestArchive::new().await;
    strange.push_all(&other, |_| Some(Knows::Nothing)).await;
    stage.test.delete(segment(1, 6)).await;
    let state = strange.archive.segment_state(&segment(1, 6)).await.unwrap();
    let key = &state.variants[0].key();
    copy_over(&strange.root().join(key.as_str()), &stage.file(key));
    let verified = stage.verify(Extent::Everything).await;
    assert_eq!(verified.findings.len(), 2, "it fits on neither side: {:#?}", verified.findings);
    let costs: Vec<_> = verified.findings.iter().map(|it| it.costs[0].from.as_ref().unwrap().lsn).collect();
    assert!(verified.findings.iter().all(|it| it.trouble == Trouble::Discontinuous));
    assert_eq!(costs, [Lsn(6 * MIB), Lsn(7 * MIB)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undecided_conflict_costs_what_lies_behind_it_until_it_is_decided() {
    let stage = Stage::new().await;
    let mut other = WalWriter::new(size(), SYSTEM, 3);
    other.fill_until(10 * MIB);
    let mut strange = TestArchive::new().await;
    strange.push_all(&other, |_| Some(Knows::Nothing)).await;
    let state = strange.archive.segment_state(&segment(1, 6)).await.unwrap();
    let key = state.variants[0].key();
    copy_over(&strange.root().join(key.as_str()), &stage.file(&key));
    for extent in [Extent::Listings, Extent::Everything] {
        let verified = stage.verify(extent).await;
        let (finding, costs) = the_one(&verified);
        assert_eq!(
            (finding.trouble, finding.object.as_str()),
            (Trouble::Undecided, segment(1, 6).to_string().as_str())
        );
        assert!(finding.what.contains("walpoint resolve"), "{finding:?}");
        assert_eq!(costs, [(1, 6 * MIB, stage.second.stop.lsn.0)]);
    }
    let ours = stage.archive().segment_state(&segment(1, 6)).await.unwrap();
    let ours = ours.variants.iter().find(|it| it.key() != key).unwrap().content;
    stage.archive().resolve(&walpoint_wal::WalFileName::Segment(segment(1, 6)), ours).await.unwrap();
    let verified = stage.verify(Extent::Everything).await;
    assert_eq!(verified.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_put_there_is_named_and_is_no_damage() {
    let stage = Stage::new().await;
    let folder = stage.file(&stage.first.manifest.key);
    let stray = folder.parent().unwrap().join("notes");
    copy_over(&folder, &stray);
    let pack = stage.file(&stage.first.packs[0].key);
    let orphan = pack.parent().unwrap().join("pack-000077-0123456789abcdef.zst");
    copy_over(&pack, &orphan);
    let verified = stage.verify(Extent::Everything).await;
    assert_eq!(verified.findings, []);
    assert!(verified.unknown.iter().any(|key| key.ends_with("/notes")), "{:?}", verified.unknown);
    assert!(verified.unreferenced[0].key.as_str().ends_with("pack-000077-0123456789abcdef.zst"));
}

/// An object that claims to hold what no object does takes no memory for it, and is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_damage_and_nothing_worse() {
    let stage = Stage::new().await;
    let bomb = zstd_bomb();
    let file = stage.segment_file(5).await;
    std::fs::write(&file, &bomb).unwrap();
    let text = std::fs::read_to_string(meta(&file)).unwrap();
    let size = text.split("\"size\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    let told = text.replacen(&format!("\"size\":{size}"), &format!("\"size\":{}", bomb.len()), 1);
    std::fs::write(meta(&file), told).unwrap();
    let verified = stage.verify(Extent::Everything).await;
    let (finding, _) = the_one(&verified);
    assert_eq!(finding.trouble, Trouble::Damaged);
}

/// 64 MiB of zeros in a few kilobytes.
fn zstd_bomb() -> Vec<u8> {
    use walpoint_archive::{KeyRing, Sealer};
    let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
    sealer.seal_bytes(&vec![0; 64 << 20]).unwrap().bytes.to_vec()
}

/// Damage that is mended is over, and not before somebody has looked.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_mended_counts_again_when_it_was_read_again() {
    let stage = Stage::new().await;
    let file = stage.file(&stage.first.packs[0].key);
    let good = std::fs::read(&file).unwrap();
    flip_bit(&file, 3000);
    let known =
        |verified: &Verified| verified.backups.iter().map(|(_, proof)| proof.is_some()).collect::<Vec<_>>();
    assert_eq!(known(&stage.verify(Extent::Everything).await), [false, true]);
    std::fs::write(&file, good).unwrap();
    // Until somebody looks, it is as it was found.
    let quick = stage.verify(Extent::Listings).await;
    assert_eq!(known(&quick), [false, true]);
    let (finding, costs) = the_one(&quick);
    assert_eq!(
        (finding.object.as_str(), finding.trouble),
        (stage.first.packs[0].key.as_str(), Trouble::Damaged)
    );
    assert!(finding.what.contains("not found sound since") && !costs.is_empty(), "{finding:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
    // What was found damaged is read in every round, and something else as well.
    let verified = stage.verify(Extent::Oldest(1)).await;
    assert_eq!((known(&verified), &verified.findings), (vec![true, true], &Vec::new()));
    assert_eq!(stage.verify(Extent::Listings).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_wal_is_damaged_also_for_who_does_not_read_it_again() {
    let stage = Stage::new().await;
    let file = stage.segment_file(5).await;
    flip_bit(&file, 5000);
    let read = stage.verify(Extent::Everything).await;
    for extent in [Extent::Listings, Extent::Oldest(1)] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let again = stage.verify(extent).await;
        assert_eq!(the_one(&again).1, the_one(&read).1, "{extent:?}");
        assert_eq!(again.ranges, read.ranges, "{extent:?}");
    }
    // What is not there any more is missing, and no more than that.
    remove(&file);
    let gone = stage.verify(Extent::Listings).await;
    assert_eq!(the_one(&gone).0.trouble, Trouble::Missing);
}

/// The clock was ahead when the object was found sound: that it is damaged now is the later word all the same.
#[tokio::test(flavor = "multi_thread")]
async fn damage_counts_against_a_clock_that_was_ahead() {
    let stage = Stage::new().await;
    stage.verify(Extent::Everything).await;
    // As a store would have it whose clock was an hour ahead.
    let record = stage.archive().verification_records().await.unwrap().remove(0);
    let ahead = Timestamp(record.stored_at.unwrap().0 + 3_600_000_000);
    let at = |time: Timestamp| serde_json::to_string(&time).unwrap();
    let text = String::from_utf8(record.record.to_json().unwrap()).unwrap();
    let began = at(record.record.pass.unwrap());
    let file = stage.file(&stage.archive().layout().verification(record.id));
    let told: walpoint_archive::verification::VerificationRecord =
        serde_json::from_str(&text.replace(&began, &at(ahead))).unwrap();
    stage.archive().put_verification(record.id, &told).await.unwrap();
    let later = std::fs::metadata(&file).unwrap().modified().unwrap() + Duration::from_secs(3700);
    for file in [file.clone(), meta(&file)] {
        std::fs::File::options().write(true).open(file).unwrap().set_modified(later).unwrap();
    }
    let known = stage.archive().verification().await.unwrap();
    assert_eq!(
        known.of_backup(stage.archive().layout(), &stage.head(&stage.first)).unwrap().stored_at,
        ahead
    );
    flip_bit(&stage.file(&stage.first.packs[0].key), 3000);
    // Also by a run that came to no end.
    let records = stage.archive().verification_records().await.unwrap();
    let scope = ledger::Scope::Part;
    let ledger = ledger::Ledger::begin(stage.archive(), &records, scope, Instant::now(), at_second(0));
    let ledger = ledger.await.unwrap();
    let key = &stage.first.packs[0].key;
    let what = crate::verify::finding::Fault::of(key, Depth::Stored, Trouble::Damaged, "x", Touches::Nothing);
    ledger.note_fault(&what);
    ledger.store(stage.archive()).await.unwrap();
    let known = stage.archive().verification().await.unwrap();
    assert_eq!(known.of_backup(stage.archive().layout(), &stage.head(&stage.first)), None);
    let verified = stage.verify(Extent::EverythingAnew).await;
    assert_eq!(verified.backups[0], (stage.first.id.clone(), None), "{:#?}", verified.findings);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let quick = stage.verify(Extent::Listings).await;
    assert_eq!((quick.findings.len(), &quick.backups[0].1), (1, &None));
}

/// A key that is listed and an object that is not there: of every object that a recovery needs.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_and_not_there_is_missing() {
    let stage = Stage::new().await;
    let catalog = stage.test.catalog().await;
    let segments = catalog.wal.values().flat_map(BTreeMap::values).flat_map(|state| &state.variants);
    let mut left: std::collections::BTreeSet<String> =
        segments.map(|variant| variant.key().to_string()).collect();
    for index in 0.. {
        let stage = Stage::new().await;
        let faulty = Faulty::new(Arc::clone(stage.archive().store()));
        faulty.fail(Verb::Get, index, Fault::Before(StoreErrorKind::NotFound));
        let torn = Archive::new(Arc::new(faulty.clone()), SYSTEM, stage.archive().sealer().clone());
        let verified = verify_with(&torn, Extent::Everything).await;
        if faulty.calls(Verb::Get) <= index {
            break;
        }
        // The small objects that a listing is made of have to be there.
        let Ok(verified) = verified else { continue };
        let missing = verified.findings.iter().filter(|it| it.trouble == Trouble::Missing);
        missing.for_each(|finding| {
            left.remove(&finding.object);
        });
    }
    assert!(left.is_empty(), "nobody misses {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_goes_away_while_verify_reads_is_missing_where_it_is_needed() {
    let stage = Stage::new().await;
    let mut seen = Seen::look(stage.archive()).await.unwrap();
    stage.test.delete(segment(1, 6)).await;
    let reading =
        seen.read(stage.archive(), &request(Extent::Everything), &Arc::new(Progress::new())).await.unwrap();
    assert_eq!(reading.read.gone, 1);
    let judged = judge::judge(&seen.catalog, &seen.faults);
    let [finding] = judged.findings.as_slice() else { panic!("{:#?}", judged.findings) };
    assert_eq!(
        (finding.trouble, finding.object.as_str()),
        (Trouble::Missing, segment(1, 6).to_string().as_str())
    );
    assert_eq!(judged.ranges.len(), 2, "{:?}", judged.ranges);
}
