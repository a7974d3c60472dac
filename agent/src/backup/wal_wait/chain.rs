//! Is the WAL from a backup's start to its stop whole? Judged over what the
//! archive says of each segment.

use walpoint_archive::wal_facts::{WalEnding, WalFacts};
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::{SegmentName, SegmentSize};
use walpoint_wal::timeline::TimelineId;

/// The segments that hold WAL from `start` up to, not including, `stop`.
pub fn segments_between(timeline: TimelineId, start: Lsn, stop: Lsn, size: SegmentSize) -> Vec<SegmentName> {
    let first = start.segment_number(size);
    let last = Lsn(stop.0.saturating_sub(1)).segment_number(size);
    (first..=last.max(first)).filter_map(|number| SegmentName::from_number(timeline, number, size)).collect()
}

/// Why a segment that is in the archive does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("its WAL is damaged at {0}")]
    Damaged(Lsn),
    #[error("its WAL ends at {0}, before the segment does")]
    Open(Lsn),
    #[error("its WAL was not validated: this version does not know its format")]
    NotValidated,
    #[error("it belongs to another place: it starts at {0}")]
    Elsewhere(Lsn),
    #[error("its first record at {0} does not continue the segment before")]
    Unchained(Lsn),
}

/// Follows the segments in order; each must be whole and continue the one
/// before it.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    size: SegmentSize,
    /// Start of the last record that started in the segments seen.
    last_record: Option<Lsn>,
}

impl Chain {
    pub fn new(size: SegmentSize) -> Chain {
        Chain { size, last_record: None }
    }

    /// Takes up the next segment.
    pub fn follow(&mut self, name: SegmentName, facts: &WalFacts) -> Result<(), Unfit> {
        if !facts.validated {
            return Err(Unfit::NotValidated);
        }
        match facts.ending {
            WalEnding::Full | WalEnding::Switched { .. } => {}
            WalEnding::Open { at } => return Err(Unfit::Open(at)),
            WalEnding::Damaged { at } => return Err(Unfit::Damaged(at)),
            WalEnding::Unknown => return Err(Unfit::NotValidated),
        }
        if facts.timeline != name.timeline || name.start(self.size) != Ok(facts.start) {
            return Err(Unfit::Elsewhere(facts.start));
        }
        if let (Some(before), Some(first)) = (self.last_record, facts.first_record)
            && facts.first_prev != Some(before)
        {
            return Err(Unfit::Unchained(first));
        }
        self.last_record = facts.last_start.or(self.last_record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use walpoint_archive::content::ContentHash;
    use walpoint_archive::facts::Common;
    use walpoint_archive::writer_id::WriterId;
    use walpoint_wal::system_identifier::SystemIdentifier;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::new(MIB).unwrap()
    }

    fn name(number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId::FIRST, number, size()).unwrap()
    }

    /// Segment `number` with its first and last record at these offsets, and
    /// what the first says of the record before it.
    fn facts(number: u64, first: u64, last: u64, prev: u64) -> WalFacts {
        let common = Common::new(ContentHash::of(b""), MIB, WriterId::random(), SystemIdentifier(7));
        let start = Lsn(number * MIB);
        WalFacts {
            validated: true,
            first_record: Some(Lsn(start.0 + first)),
            first_prev: Some(Lsn(prev)),
            last_start: Some(Lsn(start.0 + last)),
            ending: WalEnding::Full,
            ..WalFacts::unvalidated(common, TimelineId::FIRST, start, 0xD110)
        }
    }

    #[test]
    fn every_segment_that_holds_wal_of_the_backup_is_wanted() {
        let between = |start, stop| segments_between(TimelineId::FIRST, Lsn(start), Lsn(stop), size());
        assert_eq!(between(3 * MIB + 40, 3 * MIB + 300), [name(3)]);
        assert_eq!(between(3 * MIB + 40, 4 * MIB), [name(3)]);
        assert_eq!(between(3 * MIB + 40, 4 * MIB + 1), [name(3), name(4)]);
        assert_eq!(between(3 * MIB, 6 * MIB - 1), [name(3), name(4), name(5)]);
    }

    #[test]
    fn segments_that_continue_each_other_are_a_chain() {
        let mut chain = Chain::new(size());
        chain.follow(name(3), &facts(3, 40, 900, 1)).unwrap();
        chain.follow(name(4), &facts(4, 40, 800, 3 * MIB + 900)).unwrap();
        // A record as long as segment 5: none starts there.
        let within = WalFacts { first_record: None, first_prev: None, last_start: None, ..facts(5, 0, 0, 0) };
        chain.follow(name(5), &within).unwrap();
        chain.follow(name(6), &facts(6, 100, 100, 4 * MIB + 800)).unwrap();
    }

    #[test]
    fn a_segment_of_another_history_does_not_continue_the_chain() {
        let mut chain = Chain::new(size());
        chain.follow(name(3), &facts(3, 40, 900, 1)).unwrap();
        let other = facts(4, 40, 800, 3 * MIB + 904);
        assert_eq!(chain.follow(name(4), &other), Err(Unfit::Unchained(Lsn(4 * MIB + 40))));
    }

    #[test]
    fn a_segment_must_be_whole_known_and_in_its_place() {
        let good = facts(3, 40, 900, 1);
        let at = Lsn(3 * MIB + 500);
        let table = [
            (WalFacts { ending: WalEnding::Damaged { at }, ..good.clone() }, Unfit::Damaged(at)),
            (WalFacts { ending: WalEnding::Open { at }, ..good.clone() }, Unfit::Open(at)),
            (WalFacts { validated: false, ..good.clone() }, Unfit::NotValidated),
            (WalFacts { ending: WalEnding::Unknown, ..good.clone() }, Unfit::NotValidated),
            (WalFacts { start: Lsn(0), ..good.clone() }, Unfit::Elsewhere(Lsn(0))),
            (
                WalFacts { timeline: TimelineId::new(2).unwrap(), ..good.clone() },
                Unfit::Elsewhere(good.start),
            ),
        ];
        for (facts, expected) in table {
            assert_eq!(Chain::new(size()).follow(name(3), &facts), Err(expected));
        }
        let switched = WalFacts { ending: WalEnding::Switched { at }, ..good };
        assert_eq!(Chain::new(size()).follow(name(3), &switched), Ok(()));
    }
}
