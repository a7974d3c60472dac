use std::io::Write;

use super::*;
use crate::catalog::Usable;
use crate::store::faulty::{Fault, Faulty, Verb};
use crate::store::retry::Retry;
use crate::store::{RetryPolicy, StoreErrorKind};

fn conflict(pushed: Result<PutWalOutcome, ArchiveError>) -> Vec<crate::error::Rival> {
    match pushed {
        Err(ArchiveError::Conflict { theirs, .. }) => theirs,
        other => panic!("expected was a conflict: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_is_stored_once_and_found_again() {
    let place = Place::new().await;
    let archive = place.archive();
    assert_eq!(archive.put_wal(&put("content")).await.unwrap(), PutWalOutcome::Stored);
    assert_eq!(archive.put_wal(&put("content")).await.unwrap(), PutWalOutcome::AlreadyThere);
    assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(&b"content"[..]));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_file_has_its_place_and_does_not_meet_its_neighbours() {
    let place = Place::new().await;
    let archive = place.archive();
    for name in [
        "000000010000000000000003",
        "000000010000000000000003.partial",
        "000000010000000000000003.00000028.backup",
        "00000002.history",
    ] {
        let name: WalFileName = name.parse().unwrap();
        let content = format!("1\t0/3000000\tthe content of {name}");
        assert_eq!(archive.put_wal(&file(name, content.as_bytes())).await.unwrap(), PutWalOutcome::Stored);
        let state = archive.wal_variants(&name).await.unwrap();
        let Usable::One(variant) = state.usable() else { panic!("{state:?}") };
        let mut found = Vec::new();
        archive.fetch_wal(variant, &mut found, 1000).await.unwrap();
        assert_eq!(found, content.as_bytes());
        if !matches!(name, WalFileName::Partial(_)) {
            conflict(archive.put_wal(&file(name, b"other")).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn later_content_is_refused_kept_aside_once_and_its_rival_named() {
    let place = Place::new().await;
    let archive = place.archive();
    let first = put("acknowledged");
    let _ = archive.put_wal(&first).await.unwrap();
    for _ in 0..2 {
        let theirs = conflict(archive.put_wal(&put("late")).await);
        assert_eq!(theirs.len(), 1);
        assert_eq!(theirs[0].content, id("acknowledged"));
        assert_eq!(theirs[0].writer, Some(first.facts.common().writer));
        assert!(theirs[0].stored_at.is_some());
    }
    assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(&b"acknowledged"[..]));
    let aside = archive.wal_conflicts(&segment()).await.unwrap();
    assert_eq!(aside.iter().map(|kept| kept.content).collect::<Vec<_>>(), [id("late")]);
    let mut kept = Vec::new();
    archive.fetch_wal(&aside[0], &mut kept, 1000).await.unwrap();
    assert_eq!(kept, b"late");
    assert_eq!(archive.put_wal(&put("acknowledged")).await.unwrap(), PutWalOutcome::AlreadyThere);
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_push_left_is_not_acknowledged_before_it_is_settled() {
    let place = Place::new().await;
    let _ = place.archive().put_wal(&put("content")).await.unwrap();
    let faulty = Faulty::new(Arc::clone(&place.store));
    faulty.fail(Verb::Settle, 0, Fault::Before(StoreErrorKind::Transient));
    let archive = archive_on(Arc::new(faulty));
    assert!(archive.put_wal(&put("content")).await.is_err());
    assert_eq!(archive.put_wal(&put("content")).await.unwrap(), PutWalOutcome::AlreadyThere);
}

#[tokio::test(start_paused = true)]
async fn one_content_with_and_without_encryption_is_one() {
    let place = Place::new().await;
    let (sealing, opening) = place.encrypted();
    let _ = sealing.put_wal(&put("content")).await.unwrap();
    let plain = place.archive();
    assert_eq!(plain.put_wal(&put("content")).await.unwrap(), PutWalOutcome::AlreadyThere);
    assert_eq!(usable(&opening).await.unwrap().as_deref(), Some(&b"content"[..]));
    conflict(plain.put_wal(&put("other")).await);
}

#[tokio::test(start_paused = true)]
async fn when_all_contents_are_refused_nobody_slips_in() {
    let place = Place::new().await;
    let archive = place.archive();
    for content in ["one", "other"] {
        let key = archive.layout().wal(&segment(), id(content), false);
        let _ = archive.store_file(&key, &put(content)).await.unwrap();
        archive.mark_refused(&segment(), id(content)).await.unwrap();
    }
    for content in ["one", "other", "third"] {
        let theirs = conflict(archive.put_wal(&put(content)).await);
        assert!(!theirs.is_empty() && theirs.iter().all(|rival| rival.refused));
    }
    assert_eq!(usable(&archive).await.unwrap(), None);
    archive.resolve(&segment(), id("third")).await.unwrap();
    assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(&b"third"[..]));
}

#[tokio::test(start_paused = true)]
async fn the_late_arrival_of_a_put_that_was_given_up_changes_nothing() {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&put("acknowledged")).await.unwrap();
    conflict(archive.put_wal(&put("late")).await);
    // Now the put arrives that an earlier try of the late one had sent and given up.
    let key = archive.layout().wal(&segment(), id("late"), false);
    let _ = archive.store_file(&key, &put("late")).await.unwrap();
    assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(&b"acknowledged"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_neither_a_conflict_nor_a_second_object() {
    let place = Place::new().await;
    for (verb, calls) in [(Verb::List, 2), (Verb::Put, 1)] {
        for call in 0..calls {
            let name: WalFileName = format!("0000000100000000000000{}{call}", verb as u8).parse().unwrap();
            let faulty = Faulty::new(Arc::clone(&place.store));
            faulty.fail(verb, call, Fault::After(StoreErrorKind::Transient));
            let archive = archive_on(Arc::new(faulty));
            let error = archive.put_wal(&file(name, b"content")).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            let _ = archive.put_wal(&file(name, b"content")).await.unwrap();
            assert_eq!(archive.wal_variants(&name).await.unwrap().variants.len(), 1);

            // The same with retries below: nobody notices.
            let name: WalFileName = format!("0000000200000000000000{}{call}", verb as u8).parse().unwrap();
            let faulty = Faulty::new(Arc::clone(&place.store));
            faulty.fail(verb, call, Fault::After(StoreErrorKind::Transient));
            let policy = RetryPolicy::for_at_most(std::time::Duration::from_secs(20));
            let archive = archive_on(Arc::new(Retry::new(Arc::new(faulty), policy)));
            let _ = archive.put_wal(&file(name, b"content")).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_never_an_acknowledgement() {
    let place = Place::new().await;
    for (verb, call) in [(Verb::List, 0), (Verb::Put, 0), (Verb::List, 1)] {
        for kind in [StoreErrorKind::Transient, StoreErrorKind::Denied, StoreErrorKind::NoArchive] {
            let faulty = Faulty::new(Arc::clone(&place.store));
            faulty.fail(verb, call, Fault::Before(kind));
            let pushed = archive_on(Arc::new(faulty)).put_wal(&put("content")).await;
            // Once it is stored, the listing and the comparison are all there is to fail.
            if call == 0 || pushed.is_err() {
                assert!(matches!(pushed, Err(ArchiveError::Store(error)) if error.kind == kind));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_usual_push_takes_two_listings_and_one_put() {
    let place = Place::new().await;
    let faulty = Faulty::new(Arc::clone(&place.store));
    let _ = archive_on(Arc::new(faulty.clone())).put_wal(&put("content")).await.unwrap();
    assert_eq!((faulty.calls(Verb::List), faulty.calls(Verb::Put), faulty.calls(Verb::Head)), (2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_there_under_our_key_is_compared_in_full() {
    let place = Place::new().await;
    let archive = place.archive();
    let key = archive.layout().wal(&segment(), id("content"), false);
    // The same key, and metadata that speaks of other content.
    let metadata = common(b"other").to_metadata().unwrap();
    let _ = place
        .store
        .put(&key, Bytes::from_static(b"x"), &metadata, crate::store::PutMode::CreateOnly)
        .await
        .unwrap();
    assert!(matches!(archive.put_wal(&put("content")).await, Err(ArchiveError::Damaged { .. })));
}

#[tokio::test(start_paused = true)]
async fn over_metadata_that_were_changed_nothing_is_acknowledged() {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&put("content")).await.unwrap();
    let state = archive.wal_variants(&segment()).await.unwrap();
    let key = &state.variants[0].key();
    let beside = place.dir.path().join(format!("{key}.meta"));
    let sound = std::fs::read_to_string(&beside).unwrap();
    let writer = archive.common(key).await.unwrap().writer.to_string();
    let digit = if writer.starts_with('0') { '1' } else { '0' };
    let other = format!("{digit}{}", &writer[1..]);
    for changed in [sound.replace(&writer, &other), sound.replace("\"size\":\"7\"", "\"size\":\"8\"")] {
        assert_ne!(changed, sound);
        std::fs::write(&beside, changed).unwrap();
        match archive.put_wal(&put("content")).await {
            Err(ArchiveError::Damaged { key: named, what }) => {
                assert_eq!((named, what.as_str()), (key.to_string(), "its metadata are not what was stored"));
            }
            other => panic!("{other:?}"),
        }
        let mut content = Vec::new();
        let fetched = archive.fetch_wal(&state.variants[0], &mut content, 1 << 20).await;
        assert!(matches!(fetched, Err(ArchiveError::Damaged { .. })) && content.is_empty(), "{fetched:?}");
    }
    std::fs::write(&beside, sound).unwrap();
    assert_eq!(archive.put_wal(&put("content")).await.unwrap(), PutWalOutcome::AlreadyThere);
}

#[tokio::test(start_paused = true)]
async fn a_file_of_another_cluster_is_refused() {
    let place = Place::new().await;
    let mut foreign = put("content");
    foreign.facts = FileFacts::Other(Common { system_identifier: SystemIdentifier(8), ..common(b"content") });
    let pushed = place.archive().put_wal(&foreign).await;
    assert!(matches!(pushed, Err(ArchiveError::WrongCluster { .. })));
    assert_eq!(usable(&place.archive()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changed_meanwhile_is_not_stored() {
    let place = Place::new().await;
    for size in [100, 40 << 20] {
        let changed =
            PutWal { source: PutSource::Bytes(vec![1; size].into()), ..file(segment(), &vec![2; size]) };
        let pushed = place.archive().put_wal(&changed).await;
        assert!(matches!(pushed, Err(ArchiveError::SourceChanged { .. })), "{pushed:?}");
    }
    let mut sealing = place.archive().sealer().begin(1, 0).unwrap();
    sealing.take(&[1]).unwrap();
    let sealed = PutSource::Sealed(sealing.finish().unwrap());
    let changed = PutWal { source: sealed.clone(), ..put("2") };
    assert!(matches!(place.archive().put_wal(&changed).await, Err(ArchiveError::SourceChanged { .. })));
    // Nor is it stored where everything is encrypted.
    let plain = PutWal { source: sealed, ..put("\u{1}") };
    assert!(matches!(place.encrypted().0.put_wal(&plain).await, Err(ArchiveError::SourceChanged { .. })));
    let mut history = file("00000002.history".parse().unwrap(), b"1");
    history.source = PutSource::Bytes(Bytes::from_static(b"2"));
    assert!(matches!(place.archive().put_wal(&history).await, Err(ArchiveError::SourceChanged { .. })));
    assert_eq!(usable(&place.archive()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_go_in_parts_and_come_back() {
    let place = Place::new().await;
    let (sealing, opening) = place.encrypted();
    for (number, content) in [noise(40 << 20), vec![0; 40 << 20], noise(17 << 20)].into_iter().enumerate() {
        let name: WalFileName = format!("00000001000000000000000{number}").parse().unwrap();
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(&content).unwrap();
        let put = PutWal { source: PutSource::File(Arc::new(source)), ..file(name, &content) };
        assert_eq!(sealing.put_wal(&put).await.unwrap(), PutWalOutcome::Stored);
        let state = opening.wal_variants(&name).await.unwrap();
        let Usable::One(variant) = state.usable() else { panic!("{state:?}") };
        let mut found = Vec::new();
        opening.fetch_wal(variant, &mut found, content.len() as u64).await.unwrap();
        assert!(found == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_leaves_no_object() {
    let place = Place::new().await;
    for (verb, call) in [(Verb::BeginUpload, 0), (Verb::Part, 0), (Verb::Part, 1), (Verb::Finish, 0)] {
        let faulty = Faulty::new(Arc::clone(&place.store));
        faulty.fail(verb, call, Fault::Before(StoreErrorKind::Transient));
        let archive = archive_on(Arc::new(faulty));
        let pushed = archive.put_wal(&file(segment(), &noise(40 << 20))).await;
        assert!(matches!(pushed, Err(ArchiveError::Store(_))), "{verb:?} {call}: {pushed:?}");
        assert!(archive.wal_variants(&segment()).await.unwrap().is_empty());
    }
}

/// What a push takes that finds its content there, stored so long ago: its outcome, its
/// listings, and how long it waited.
async fn find_there(age: std::time::Duration) -> (PutWalOutcome, u32, std::time::Duration) {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&put("content")).await.unwrap();
    let key = archive.layout().wal(&segment(), id("content"), false);
    let stored = std::fs::File::options().write(true).open(place.dir.path().join(key.as_str())).unwrap();
    stored.set_modified(stored.metadata().unwrap().modified().unwrap() - age).unwrap();
    let faulty = Faulty::new(Arc::clone(&place.store));
    let began = tokio::time::Instant::now();
    let outcome = archive_on(Arc::new(faulty.clone())).put_wal(&put("content")).await.unwrap();
    (outcome, faulty.calls(Verb::List), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn what_has_been_there_for_a_minute_is_acknowledged_at_once_and_what_is_new_after_a_wait() {
    let minute = std::time::Duration::from_secs(61);
    assert_eq!(find_there(minute).await, (PutWalOutcome::AlreadyThere, 1, std::time::Duration::ZERO));
    for age in [std::time::Duration::ZERO, minute / 2] {
        let (outcome, listings, waited) = find_there(age).await;
        assert_eq!((outcome, listings), (PutWalOutcome::AlreadyThere, 2));
        assert!(waited >= crate::archive::push::SETTLED, "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_of_ours_that_is_ahead_makes_nothing_settled() {
    let place = Place::new().await;
    let _ = place.archive().put_wal(&put("content")).await.unwrap();
    let faulty = Faulty::new(Arc::clone(&place.store));
    faulty.set_clock_behind(std::time::Duration::from_secs(3600));
    let began = tokio::time::Instant::now();
    let pushed = archive_on(Arc::new(faulty)).put_wal(&put("content")).await.unwrap();
    assert_eq!(pushed, PutWalOutcome::AlreadyThere);
    assert!(began.elapsed() >= crate::archive::push::SETTLED, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn partial_segments_that_differ_are_all_kept_and_all_acknowledged() {
    let place = Place::new().await;
    let archive = place.archive();
    let partial: WalFileName = "000000010000000000000003.partial".parse().unwrap();
    for content in ["zeros behind the fork", "what the file held before"] {
        for expected in [PutWalOutcome::Stored, PutWalOutcome::AlreadyThere] {
            let put = PutWal { name: partial, ..put(content) };
            assert_eq!(archive.put_wal(&put).await.unwrap(), expected, "{content}");
        }
    }
    let state = archive.wal_variants(&partial).await.unwrap();
    assert_eq!((state.standing().len(), state.refused.len()), (2, 0));
    assert!(archive.wal_conflicts(&partial).await.unwrap().is_empty());
}
