//! What this process knows of the segments that it ships, before the archive does. Several are under way at
//! once, and each must know how the one before leads to it: else every one of them would begin a new run of WAL.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use walpoint_archive::WalFacts;
use walpoint_wal::SegmentName;

/// So many segments are remembered, more than are ever under way together.
const REMEMBERED: usize = 256;

type Told = Option<Arc<WalFacts>>;

/// The segments that are under way or were lately.
#[derive(Debug, Default)]
pub struct Recent {
    segments: Mutex<BTreeMap<SegmentName, watch::Receiver<Told>>>,
}

impl Recent {
    /// Says that a segment is under way. Whoever asks for it from now on waits.
    pub fn announce(&self, segment: SegmentName) -> Announcement {
        let (sender, receiver) = watch::channel(None);
        let mut segments = self.lock();
        segments.insert(segment, receiver);
        while segments.len() > REMEMBERED {
            segments.pop_first();
        }
        Announcement { sender, is_kept: false }
    }

    /// The segment, when it is under way or was lately, well or not.
    pub fn of(&self, segment: SegmentName) -> Option<Awaited> {
        self.lock().get(&segment).map(|receiver| Awaited { receiver: receiver.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SegmentName, watch::Receiver<Told>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A segment that is under way. Dropped before it is kept, it tells that there is nothing to wait for, or takes
/// back what it told: another content may come under this name.
#[derive(Debug)]
pub struct Announcement {
    sender: watch::Sender<Told>,
    is_kept: bool,
}

impl Announcement {
    /// Tells what the segment holds: it may be archived, and is about to be.
    pub fn tell(&self, facts: WalFacts) {
        self.sender.send_replace(Some(Arc::new(facts)));
    }

    /// What was told is what the archive holds now.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if !self.is_kept {
            self.sender.send_replace(None);
        }
    }
}

/// What a segment will tell.
#[derive(Clone, Debug)]
pub struct Awaited {
    receiver: watch::Receiver<Told>,
}

impl Awaited {
    /// Waits for it. None when the push of that segment failed before anything was known.
    pub async fn facts(mut self) -> Told {
        self.receiver.wait_for(Option::is_some).await.ok().and_then(|told| told.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_archive::{Common, ContentHash, WriterId};
    use walpoint_wal::{Lsn, SystemIdentifier};

    fn facts(segment: SegmentName) -> WalFacts {
        let common = Common::new(ContentHash::of(b"content"), 7, WriterId::random(), SystemIdentifier(7));
        WalFacts::unvalidated(common, segment.timeline, Lsn(1 << 20), 0)
    }

    fn segment() -> SegmentName {
        "000000010000000000000008".parse().unwrap()
    }

    #[tokio::test]
    async fn whoever_comes_next_waits_for_what_is_told() {
        let recent = Recent::default();
        assert!(recent.of(segment()).is_none());
        let announcement = recent.announce(segment());
        let awaited = recent.of(segment()).unwrap();
        let waiting = tokio::spawn(awaited.facts());
        announcement.tell(facts(segment()));
        assert!(waiting.await.unwrap().is_some());
        announcement.keep();
        assert!(recent.of(segment()).unwrap().facts().await.is_some(), "it stays known");
    }

    #[tokio::test]
    async fn a_push_that_failed_tells_nothing_and_keeps_nobody_waiting() {
        let recent = Recent::default();
        let announcement = recent.announce(segment());
        let before = recent.of(segment()).unwrap();
        drop(announcement);
        assert!(before.facts().await.is_none());
        let announcement = recent.announce(segment());
        announcement.tell(facts(segment()));
        drop(announcement);
        assert!(recent.of(segment()).unwrap().facts().await.is_none(), "another content may come");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let recent = Recent::default();
        for number in 0..2 * REMEMBERED as u32 {
            recent.announce(SegmentName { seg: number, ..segment() }).keep();
        }
        assert_eq!(recent.lock().len(), REMEMBERED);
        assert!(recent.of(SegmentName { seg: 0, ..segment() }).is_none());
    }
}
