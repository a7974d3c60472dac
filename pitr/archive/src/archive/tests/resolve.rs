use super::*;
use crate::catalog::SegmentState;
use crate::store::StoreErrorKind;
use crate::store::faulty::{Fault, Faulty, Verb};

/// The ways a name can be contested, each with what recovery takes before.
async fn contested(shape: usize, place: &Place) {
    let archive = place.archive();
    let stand = async |content: &str| {
        let key = archive.layout().wal(&segment(), id(content), false);
        let _ = archive.store_file(&key, &put(content)).await.unwrap();
    };
    match shape {
        // Ours came late and lies aside.
        0 => {
            stand("theirs").await;
            archive.put_wal(&put("ours")).await.unwrap_err();
        }
        // Both stand: one was killed.
        1 => {
            stand("theirs").await;
            stand("ours").await;
        }
        // Both refused themselves.
        2 => {
            for content in ["theirs", "ours"] {
                stand(content).await;
                archive.mark_refused(&segment(), id(content)).await.unwrap();
            }
        }
        // Ours stands alone: nothing to decide.
        _ => stand("ours").await,
    }
}

/// Everything that is stored of the name, wherever it lies.
async fn all_contents(archive: &Archive) -> (SegmentState, Vec<ContentId>) {
    let state = archive.wal_variants(&segment()).await.unwrap();
    let aside = archive.wal_conflicts(&segment()).await.unwrap();
    let mut contents: Vec<_> = state.variants.iter().chain(&aside).map(|variant| variant.content).collect();
    contents.sort();
    contents.dedup();
    (state, contents)
}

#[tokio::test(start_paused = true)]
async fn the_content_that_is_kept_is_the_one_that_recovery_uses() {
    for shape in 0..4 {
        for keep in ["ours", "theirs"] {
            let place = Place::new().await;
            contested(shape, &place).await;
            let archive = place.archive();
            let (_, before) = all_contents(&archive).await;
            let resolved = archive.resolve(&segment(), id(keep)).await;
            if !before.contains(&id(keep)) {
                assert!(matches!(resolved, Err(ArchiveError::NoSuchVariant { .. })));
                continue;
            }
            resolved.unwrap();
            for _ in 0..2 {
                assert_eq!(
                    usable(&archive).await.unwrap().as_deref(),
                    Some(keep.as_bytes()),
                    "shape {shape}"
                );
                assert_eq!(all_contents(&archive).await.1, before, "nothing is lost");
                archive.resolve(&segment(), id(keep)).await.unwrap();
            }
            assert_eq!(archive.put_wal(&put(keep)).await.unwrap(), PutWalOutcome::AlreadyThere);
            // And back again.
            if before.len() == 2 {
                let other = if keep == "ours" { "theirs" } else { "ours" };
                archive.resolve(&segment(), id(other)).await.unwrap();
                assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(other.as_bytes()));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolve_that_fails_anywhere_can_be_run_again() {
    let verbs = [Verb::List, Verb::Head, Verb::Put, Verb::Get, Verb::Delete];
    for shape in 0..3 {
        for (verb, call) in verbs.into_iter().flat_map(|verb| (0..3).map(move |call| (verb, call))) {
            for fault in [Fault::Before(StoreErrorKind::Other), Fault::After(StoreErrorKind::Other)] {
                let place = Place::new().await;
                contested(shape, &place).await;
                let archive = place.archive();
                let (state, before) = all_contents(&archive).await;
                let stood = state.standing().len();
                let faulty = Faulty::new(Arc::clone(&place.store));
                faulty.fail(verb, call, fault.clone());
                let _ = archive_on(Arc::new(faulty)).resolve(&segment(), id("ours")).await;
                let (state, after) = all_contents(&archive).await;
                let what = format!("shape {shape}, {verb:?} {call} {fault:?}");
                assert_eq!(after, before, "{what}: something was lost");
                assert!(state.standing().len() <= stood.max(1), "{what}: two stand");
                archive.resolve(&segment(), id("ours")).await.unwrap();
                assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(&b"ours"[..]), "{what}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_content_that_is_damaged_does_not_replace_a_sound_one() {
    let place = Place::new().await;
    let archive = place.archive();
    let _ = archive.put_wal(&put("theirs")).await.unwrap();
    let key = archive.layout().conflict(&segment(), id("ours"), false);
    let metadata = common(b"something else").to_metadata().unwrap();
    let _ = place
        .store
        .put(&key, Bytes::from_static(b"x"), &metadata, crate::store::PutMode::CreateOnly)
        .await
        .unwrap();
    let resolved = archive.resolve(&segment(), id("ours")).await;
    assert!(matches!(resolved, Err(ArchiveError::Damaged { .. })));
    assert_eq!(usable(&archive).await.unwrap().as_deref(), Some(&b"theirs"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_content_is_brought_back_in_parts() {
    let place = Place::new().await;
    let archive = place.archive();
    let large = noise(40 << 20);
    let _ = archive.put_wal(&put("theirs")).await.unwrap();
    archive.put_wal(&file(segment(), &large)).await.unwrap_err();
    archive.resolve(&segment(), ContentHash::of(&large).id()).await.unwrap();
    let state = archive.wal_variants(&segment()).await.unwrap();
    let mut found = Vec::new();
    archive.fetch_wal(state.standing()[0], &mut found, 1 << 30).await.unwrap();
    assert!(found == large);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_refused_is_told_from_what_a_push_refused() {
    let place = Place::new().await;
    let archive = place.archive();
    let is_resolved = async |content: &str| archive.is_resolved(&segment(), id(content)).await.unwrap();
    let _ = archive.put_wal(&put("theirs")).await.unwrap();
    archive.put_wal(&put("ours")).await.unwrap_err();
    assert!(!is_resolved("ours").await && !is_resolved("theirs").await);
    archive.resolve(&segment(), id("theirs")).await.unwrap();
    assert!(is_resolved("ours").await && !is_resolved("theirs").await);
    // The other server goes on trying.
    archive.put_wal(&put("ours")).await.unwrap_err();
    assert!(is_resolved("ours").await);
    archive.put_wal(&put("third")).await.unwrap_err();
    assert!(!is_resolved("third").await);
    archive.resolve(&segment(), id("ours")).await.unwrap();
    assert!(!is_resolved("ours").await && is_resolved("theirs").await && is_resolved("third").await);
}

/// One decides for ours, and after so many of its requests another one for theirs, altogether.
#[tokio::test(start_paused = true)]
async fn who_is_told_that_his_decision_holds_is_told_the_truth() {
    let mut overtaken = 0;
    for shape in 0..3 {
        for requests in 0..10 {
            let place = Place::new().await;
            contested(shape, &place).await;
            let gate = gate::Gated::new(Arc::clone(&place.store), false);
            let slow = archive_on(Arc::new(gate.clone()));
            let resolving = tokio::spawn(async move { slow.resolve(&segment(), id("ours")).await });
            gate.permits.add_permits(requests);
            for _ in 0..requests {
                while !resolving.is_finished() && gate.done.try_acquire().map(|it| it.forget()).is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
            let was_done = resolving.is_finished();
            let other = place.archive().resolve(&segment(), id("theirs")).await;
            gate.permits.add_permits(100);
            let first = resolving.await.unwrap();
            let what = format!("shape {shape}, after {requests} requests: {first:?}, {other:?}");
            match usable(&place.archive()).await {
                Ok(found) if found.as_deref() == Some(&b"ours"[..]) => assert!(first.is_ok(), "{what}"),
                Ok(found) => {
                    assert_eq!(found.as_deref(), Some(&b"theirs"[..]), "{what}");
                    assert!(other.is_ok() && (was_done || first.is_err()), "{what}");
                }
                Err(_) => assert!(first.is_err(), "{what}"),
            }
            overtaken += usize::from(first.is_err());
        }
    }
    assert!(overtaken > 0);
}
