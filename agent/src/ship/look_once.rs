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
