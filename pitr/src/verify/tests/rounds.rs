//! Runs that end before everything is read, and runs beside each other.

use super::damage::flip_bit;
use super::*;

/// All object bytes that a whole run reads.
async fn everything(stage: &Stage) -> Read {
    stage.verify(Extent::EverythingAnew).await.read
}

#[tokio::test(flavor = "multi_thread")]
async fn rounds_with_a_budget_read_everything_the_oldest_first() {
    let stage = Stage::new().await;
    let all = everything(&Stage::new().await).await;
    let budget = all.bytes / 5;
    let (mut read, mut rounds) = (0, 0);
    loop {
        let verified = stage.verify(Extent::Oldest(budget)).await;
        assert_eq!(verified.findings, []);
        // One object may be larger than the budget, no more.
        read += verified.read.bytes;
        rounds += 1;
        if verified.left.never_bytes == 0 {
            break;
        }
        assert!(rounds < 50, "{:?}", verified.left);
    }
    // What is left of the last round's budget goes to what was read first.
    assert!((all.bytes..all.bytes + budget).contains(&read), "{read} of {}", all.bytes);
    assert!(rounds > 2, "{rounds}");
    let known = stage.archive().verification().await.unwrap();
    let first = known.of_backup(stage.archive().layout(), &stage.head(&stage.first)).unwrap();
    // The next round begins with what was read first.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let next = stage.verify(Extent::Oldest(budget)).await;
    assert!(next.left.oldest.unwrap() > first.stored_at || next.backups.iter().all(|(_, it)| it.is_some()));
}

/// A store that fails from some request on.
fn failing(stage: &Stage, verb: Verb, from: u32) -> (Faulty, Archive) {
    let faulty = Faulty::new(Arc::clone(stage.archive().store()));
    for index in from..from + 200 {
        faulty.fail(verb, index, Fault::Before(StoreErrorKind::Transient));
    }
    let archive = Archive::new(Arc::new(faulty.clone()), SYSTEM, stage.archive().sealer().clone());
    (faulty, archive)
}

/// The store goes away at each request in turn: that is never taken for damage, and what was read by then is not
/// read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_goes_away_is_no_damage_and_what_was_read_is_kept() {
    let all = everything(&Stage::new().await).await;
    for index in (0..60).step_by(3) {
        let stage = Stage::new().await;
        let (faulty, away) = failing(&stage, Verb::Get, index);
        let result = verify_with(&away, Extent::Everything).await;
        if faulty.calls(Verb::Get) <= index {
            assert!(result.unwrap().is_sound());
            assert!(index > 20, "only {index} requests");
            return;
        }
        match result {
            Ok(verified) => {
                assert_eq!(verified.findings, [], "{index}");
                assert!(!verified.is_sound(), "{index}: {verified:?}");
            }
            Err(error) => assert!(matches!(error, ArchiveError::Store(_)), "{index}: {error:?}"),
        }
        let known = stage.archive().verification().await.unwrap();
        assert_eq!(known.found_damaged().count(), 0, "{index}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let rest = stage.verify(Extent::Everything).await;
        assert_eq!(rest.findings, [], "{index}");
        assert_eq!(rest.read.bytes + rest.left.bytes, all.bytes, "{index}");
        // Whose word that is is said.
        assert!(rest.left.bytes == 0 || rest.goes_on_since.is_some(), "{index}");
        assert!(rest.backups.iter().all(|(_, proof)| proof.is_some()), "{index}");
    }
}

/// One bad sector: everything else is read, and the object is named. That is no proof of anything.
#[tokio::test(flavor = "multi_thread")]
async fn one_object_that_cannot_be_read_is_named_and_the_others_are_read() {
    for kind in [StoreErrorKind::Transient, StoreErrorKind::Denied, StoreErrorKind::Other] {
        let mut named = std::collections::BTreeSet::new();
        for index in 0.. {
            let stage = Stage::new().await;
            let faulty = Faulty::new(Arc::clone(stage.archive().store()));
            faulty.fail(Verb::Get, index, Fault::Before(kind));
            let torn = Archive::new(Arc::new(faulty.clone()), SYSTEM, stage.archive().sealer().clone());
            let verified = verify_with(&torn, Extent::Everything).await;
            if faulty.calls(Verb::Get) <= index {
                break;
            }
            // The small objects that a listing is made of have to be there.
            let Ok(verified) = verified else { continue };
            if !verified.incomplete.is_empty() {
                continue;
            }
            assert_eq!(
                (&verified.findings, verified.unread.len()),
                (&Vec::new(), 1),
                "{index}: {verified:?}"
            );
            assert!(!verified.is_sound());
            named.extend(verified.unread.into_iter().map(|it| it.object));
        }
        for part in ["/wal/", "pack-", "manifest"] {
            assert!(named.iter().any(|key| key.contains(part)), "{kind:?}: no {part} in {named:?}");
        }
    }
}

/// What was found is said, also when there is nobody to note it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_found_is_said_when_it_cannot_be_noted() {
    let stage = Stage::new().await;
    let file = stage.segment_file(5).await;
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5000] ^= 4;
    std::fs::write(&file, bytes).unwrap();
    // The note that begins the run is the first put.
    let (_, full) = failing(&stage, Verb::Put, 1);
    let verified = verify_with(&full, Extent::Everything).await.unwrap();
    assert_eq!((verified.findings.len(), verified.incomplete.len()), (1, 1), "{verified:?}");
    // An older note that cannot be taken away says nothing that is not known.
    stage.verify(Extent::Everything).await;
    let (_, kept) = failing(&stage, Verb::Delete, 0);
    let verified = verify_with(&kept, Extent::EverythingAnew).await.unwrap();
    assert_eq!((verified.findings.len(), verified.incomplete.len()), (1, 0), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_came_to_its_end_is_followed_by_another() {
    let stage = Stage::new().await;
    let all = stage.verify(Extent::Everything).await.read;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let again = stage.verify(Extent::Everything).await;
    assert_eq!((again.read, again.goes_on_since), (all, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_spoil_nothing_for_each_other() {
    let stage = Stage::new().await;
    let (one, other) = tokio::join!(
        verify_with(stage.archive(), Extent::Everything),
        verify_with(stage.archive(), Extent::Everything)
    );
    for verified in [one.unwrap(), other.unwrap()] {
        assert_eq!(verified.findings, []);
        assert!(verified.backups.iter().all(|(_, proof)| proof.is_some()));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let again = stage.verify(Extent::Everything).await;
    assert!(again.backups.iter().all(|(_, proof)| proof.is_some()));
    assert_eq!(stage.archive().verification_records().await.unwrap().len(), 1, "they were put together");
}

/// A long run looked before a backup and a segment came that a shorter one found damaged meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_does_not_forget_what_a_shorter_one_found_of_newer_things() {
    let mut stage = Stage::new().await;
    let looked = Instant::now();
    let mut before = stage.test.catalog().await;
    let seen = inventory::take(stage.archive(), &mut before).await.unwrap();
    let start = stage.wal.filler(100).lsn;
    let newer = backup(3, 1, start, stage.wal.backup_end(start).end, at_second(800));
    let newer = stored(stage.archive(), newer, &[]).await;
    stage.wal.switch();
    stage.test.push_all(&stage.wal, |number| (number > 9).then_some(Knows::All)).await;
    let file = stage.segment_file(10).await;
    let segment_key = stage.archive().segment_state(&segment(1, 10)).await.unwrap().variants[0].key();
    flip_bit(&stage.file(&newer.packs[0].key), 3000);
    flip_bit(&file, 60);
    // Both are found before the long run has even stored its first note.
    let shorter = stage.verify(Extent::Everything).await;
    assert_eq!(shorter.findings.len(), 2, "{shorter:#?}");
    let records = Vec::new();
    let long = ledger::Ledger::begin(stage.archive(), &records, ledger::Scope::Part, looked, at_second(0));
    long.await.unwrap().finish(stage.archive(), &before, &seen.packs).await.unwrap();
    assert_eq!(stage.archive().verification_records().await.unwrap().len(), 1, "they were put together");
    let known = stage.archive().verification().await.unwrap();
    let layout = stage.archive().layout();
    assert!(known.has_damage_in(layout, &stage.head(&newer)), "{known:?}");
    assert!(known.still_damaged(layout).any(|(key, _)| *key == segment_key), "{known:?}");
}

/// An archive that is encrypted to others, and its store.
async fn sealed() -> (TestArchive, Faulty, Archive) {
    let recipients = vec!["age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa".to_owned()];
    let keys = KeyRing::from_config(&EncryptionConfig { recipients, identity_file: None }).unwrap();
    let sealer = Sealer::new(CompressionLevel::default(), Arc::new(keys));
    let mut test = TestArchive::new().await;
    let faulty = Faulty::new(Arc::clone(test.archive.store()));
    test.archive = Archive::new(Arc::clone(test.archive.store()), SYSTEM, sealer.clone());
    let mut wal = WalWriter::new(size(), SYSTEM, 3);
    let start = wal.filler(100).lsn;
    let summary = backup(1, 1, start, wal.backup_end(start).end, at_second(10));
    wal.fill_until(6 * MIB + 5000);
    wal.switch();
    test.push_all(&wal, |_| Some(Knows::All)).await;
    stored(&test.archive, summary, &[]).await;
    let archive = Archive::new(Arc::new(faulty.clone()), SYSTEM, sealer);
    (test, faulty, archive)
}

/// Nobody without the key can tell by the bytes themselves whether encrypted WAL is what was stored.
#[tokio::test(flavor = "multi_thread")]
async fn wal_that_there_is_nothing_to_compare_with_is_not_verified_and_waits_its_turn() {
    let (test, faulty, archive) = sealed().await;
    let segments: Vec<_> =
        test.catalog().await.wal[&tli(1)].values().map(|it| it.variants[0].clone()).collect();
    let verified = verify_with(&archive, Extent::Everything).await.unwrap();
    assert!(verified.is_sound());
    assert_eq!((verified.read.length_only, verified.backups[0].1), (segments.len() as u64, None));
    // It was read all the same: what was read longest ago comes next, and not it alone for ever.
    let rest = verify_with(&archive, Extent::Oldest(1)).await.unwrap();
    assert_eq!(rest.left.never_bytes, 0);

    for variant in &segments {
        let bytes = std::fs::read(test.root().join(variant.key().as_str())).unwrap();
        faulty.keep_checksum(&variant.key(), StoredHash::of(&bytes));
    }
    let verified = verify_with(&archive, Extent::EverythingAnew).await.unwrap();
    assert_eq!((verified.read.length_only, verified.read.sealed > 0), (0, true));
    assert!(verified.backups[0].1.is_some_and(|proof| proof.content_at.is_none()));
    let file = test.root().join(segments[1].key().as_str());
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 4;
    std::fs::write(file, bytes).unwrap();
    let verified = verify_with(&archive, Extent::EverythingAnew).await.unwrap();
    let [finding] = verified.findings.as_slice() else { panic!("{:#?}", verified.findings) };
    assert_eq!((finding.trouble, finding.object.as_str()), (Trouble::Damaged, segments[1].key().as_str()));
}
