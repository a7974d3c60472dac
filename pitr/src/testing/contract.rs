//! The contract of a recovery over a fork.

use walpoint_wal::{Lsn, PathStep, SegmentName, SystemIdentifier, TimelineId, Timestamp};

use super::{MIB, size, tli};
use crate::contract::{CONTRACT_FORMAT, Contract};

/// Timeline 1 is left inside segment 8 for 2; 2 is needed up to its segment 10.
pub(crate) fn forked(system_identifier: SystemIdentifier) -> Contract {
    let fork = Lsn(8 * MIB + 0x98);
    let segment = |timeline, number| SegmentName::from_number(tli(timeline), number, size()).unwrap();
    Contract {
        format: CONTRACT_FORMAT,
        system_identifier,
        segment_size: size(),
        path: vec![
            PathStep { timeline: TimelineId::FIRST, begin: Lsn::ZERO, end: Some(fork) },
            PathStep { timeline: tli(2), begin: fork, end: None },
        ],
        first_segment: segment(1, 5),
        last_segment: segment(2, 10),
        last_record: Lsn(10 * MIB + 0x1000),
        target: "latest".to_owned(),
        restored_at: Timestamp(0),
        writer: "0123456789abcdef".to_owned(),
        left_out: Vec::new(),
    }
}
