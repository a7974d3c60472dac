//! One look at the archive for several segments: who ships ahead comes to the following ones in the same moment, and
//! one listing shows what is there of all of them. What came since is seen by the listing after each put.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use walpoint_archive::{Archive, ArchiveError, Onward, SegmentState};
use walpoint_wal::{SegmentName, WalFileName};

/// Objects that one look shows: more than there are of what is under way together.
const LISTED: usize = 256;
/// How long it holds for those who come later.
const HOLDS_FOR: Duration = Duration::from_secs(1);

/// The last look.
#[derive(Debug, Default)]
pub struct LookOnce(Mutex<Option<Look>>);

#[derive(Debug)]
struct Look {
    at: Instant,
    onward: Onward,
    /// The segments that this look was used for: who comes to one again wants to see what became of it.
    told: BTreeSet<SegmentName>,
}

impl LookOnce {
    /// What the archive has of this segment, at most a moment ago.
    ///
    /// # Errors
    /// Of the listing.
    pub async fn at(&self, archive: &Archive, segment: SegmentName) -> Result<SegmentState, ArchiveError> {
        let came = Instant::now();
        // Held while the archive answers: the others want the same answer, however long it takes.
        let mut last = self.0.lock().await;
        if let Some(look) = last.as_mut().filter(|look| look.at >= came || look.at.elapsed() < HOLDS_FOR)
            && let Some(state) = look.onward.of(&segment)
            && look.told.insert(segment)
        {
            return Ok(state);
        }
        let at = Instant::now();
        let onward = archive.wal_onward(segment, LISTED).await?;
        let Some(state) = onward.of(&segment) else {
            // It has more objects than one look shows.
            return archive.wal_variants(&WalFileName::Segment(segment)).await;
        };
        *last = Some(Look { at, onward, told: BTreeSet::from([segment]) });
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use walpoint_archive::compress::CompressionLevel;
    use walpoint_archive::store::dir::DirStore;
    use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
    use walpoint_archive::{KeyRing, Sealer};
    use walpoint_wal::SystemIdentifier;

    use super::*;

    async fn stage() -> (tempfile::TempDir, Faulty, Archive) {
        let root = tempfile::tempdir().unwrap();
        let store = Faulty::new(Arc::new(DirStore::open(root.path()).await.unwrap()));
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(Arc::new(store.clone()), SystemIdentifier(7), sealer);
        (root, store, archive)
    }

    fn segment(number: u32) -> SegmentName {
        format!("0000000100000000000000{number:02X}").parse().unwrap()
    }

    #[tokio::test]
    async fn what_is_shipped_together_costs_one_listing_and_what_is_shipped_again_another() {
        let (_root, store, archive) = stage().await;
        let once = LookOnce::default();
        for number in 1..=4 {
            once.at(&archive, segment(number)).await.unwrap();
        }
        assert_eq!(store.calls(Verb::List), 1);
        once.at(&archive, segment(2)).await.unwrap();
        assert_eq!(store.calls(Verb::List), 2);
        // One before them, which a look from there on does not show.
        once.at(&archive, segment(1)).await.unwrap();
        assert_eq!(store.calls(Verb::List), 3);
    }

    /// Else each would wait for the looks of all before it, and then look itself.
    #[tokio::test]
    async fn who_waits_for_a_look_that_takes_long_takes_it() {
        let (_root, store, archive) = stage().await;
        store.fail_every(Verb::List, Some(Fault::Delay(HOLDS_FOR + Duration::from_millis(100))));
        let once = LookOnce::default();
        let looks = (1..=6).map(|number| once.at(&archive, segment(number)));
        let looks = futures::future::join_all(looks).await;
        assert!(looks.iter().all(Result::is_ok));
        // The first one's began before the others came.
        assert!(store.calls(Verb::List) <= 2, "{} listings", store.calls(Verb::List));
        // And is not believed for ever.
        tokio::time::sleep(HOLDS_FOR).await;
        let before = store.calls(Verb::List);
        once.at(&archive, segment(7)).await.unwrap();
        assert_eq!(store.calls(Verb::List), before + 1);
    }
}
