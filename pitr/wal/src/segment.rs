//! Segments: the files that WAL is cut into, their size and their names.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;
use crate::timeline::TimelineId;

/// Size of the WAL segments of a cluster: a power of two from 1 MiB to 1 GiB
/// (PostgreSQL `IsValidWalSegSize`, access/xlog_internal.h, 13–18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u64", try_from = "u64")]
pub struct SegmentSize(u64);

/// The number is not a segment size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} is not a WAL segment size: a power of two from 1 MiB to 1 GiB is expected")]
pub struct SegmentSizeError {
    /// The number that was refused, in bytes.
    pub bytes: u64,
}

impl SegmentSize {
    /// Takes a size in bytes.
    pub fn new(bytes: u64) -> Result<SegmentSize, SegmentSizeError> {
        let fits = bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes);
        if fits { Ok(SegmentSize(bytes)) } else { Err(SegmentSizeError { bytes }) }
    }

    /// Size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments share the first 8 digits after the timeline in a name.
    pub fn segments_per_log(self) -> u64 {
        (1 << 32) / self.0
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> u64 {
        size.0
    }
}

impl TryFrom<u64> for SegmentSize {
    type Error = SegmentSizeError;

    fn try_from(bytes: u64) -> Result<SegmentSize, SegmentSizeError> {
        SegmentSize::new(bytes)
    }
}

/// Name of a segment: 24 upper-case hexadecimal digits (`XLogFileName`,
/// access/xlog_internal.h). Ordered by timeline, then by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SegmentName {
    /// First 8 digits.
    pub timeline: TimelineId,
    /// Middle 8 digits: the high half of the addresses in it.
    pub log: u32,
    /// Last 8 digits: the segment's place within `log`.
    pub seg: u32,
}

/// The text, or the number in it, is not a WAL file's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not {what}")]
pub struct NameError {
    /// The text that was refused.
    pub text: String,
    /// What it should have been.
    pub what: &'static str,
}

impl SegmentName {
    /// Name of segment `number` (counted from the beginning of WAL). `None` past the last address.
    pub fn from_number(timeline: TimelineId, number: u64, size: SegmentSize) -> Option<SegmentName> {
        let log = u32::try_from(number / size.segments_per_log()).ok()?;
        let seg = u32::try_from(number % size.segments_per_log()).ok()?;
        Some(SegmentName { timeline, log, seg })
    }

    /// Name of the segment that holds the byte at `lsn`.
    pub fn containing(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> SegmentName {
        let log = (lsn.0 >> 32) as u32;
        let seg = ((lsn.0 & 0xFFFF_FFFF) / size.bytes()) as u32;
        SegmentName { timeline, log, seg }
    }

    /// Number of the segment, counted from the beginning of WAL; an error when the
    /// last 8 digits are too large for this segment size.
    pub fn number(self, size: SegmentSize) -> Result<u64, NameError> {
        if u64::from(self.seg) >= size.segments_per_log() {
            let what =
                "the name of a segment of this cluster: its last 8 digits are too large for the segment size";
            return Err(NameError { text: self.to_string(), what });
        }
        Ok(u64::from(self.log) * size.segments_per_log() + u64::from(self.seg))
    }

    /// Address of the first byte.
    pub fn start(self, size: SegmentSize) -> Result<Lsn, NameError> {
        self.number(size).map(|number| Lsn(number * size.bytes()))
    }

    /// The segment after this one on the same timeline.
    pub fn next(self, size: SegmentSize) -> Option<SegmentName> {
        let number = self.number(size).ok()?.checked_add(1)?;
        SegmentName::from_number(self.timeline, number, size)
    }

    /// The segment before this one on the same timeline.
    pub fn previous(self, size: SegmentSize) -> Option<SegmentName> {
        let number = self.number(size).ok()?.checked_sub(1)?;
        SegmentName::from_number(self.timeline, number, size)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.seg)
    }
}

impl FromStr for SegmentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<SegmentName, NameError> {
        let what = "the name of a WAL segment: 24 upper-case hexadecimal digits, the first 8 not all zero, are expected";
        let refused = || NameError { text: text.to_owned(), what };
        if text.len() != 24 {
            return Err(refused());
        }
        let part = |range| text.get(range).and_then(upper_hex8);
        let parts = (part(0..8).and_then(TimelineId::new), part(8..16), part(16..24));
        match parts {
            (Some(timeline), Some(log), Some(seg)) => Ok(SegmentName { timeline, log, seg }),
            _ => Err(refused()),
        }
    }
}

/// Eight upper-case hexadecimal digits as PostgreSQL writes them in file names.
pub(crate) fn upper_hex8(digits: &str) -> Option<u32> {
    let upper = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if digits.len() == 8 && upper { u32::from_str_radix(digits, 16).ok() } else { None }
}

impl From<SegmentName> for String {
    fn from(name: SegmentName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for SegmentName {
    type Error = NameError;

    fn try_from(text: String) -> Result<SegmentName, NameError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn size(mib: u64) -> SegmentSize {
        SegmentSize::new(mib << 20).unwrap()
    }

    #[test]
    fn sizes_are_powers_of_two_between_1_mib_and_1_gib() {
        assert!(SegmentSize::new(1 << 20).is_ok());
        assert!(SegmentSize::new(1 << 30).is_ok());
        for wrong in [0, 1, (1 << 20) - 1, 3 << 20, 1 << 31, 1 << 19, u64::MAX] {
            assert!(SegmentSize::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_carry_over_at_the_last_segment_of_a_log() {
        let name: SegmentName = "0000000A000000A3000000FF".parse().unwrap();
        assert_eq!(name.timeline.get(), 10);
        assert_eq!(name.next(size(16)).unwrap().to_string(), "0000000A000000A400000000");
        assert_eq!(name.next(size(16)).unwrap().previous(size(16)), Some(name));
        assert_eq!(name.start(size(16)).unwrap(), Lsn(0xA3_FF00_0000));
        assert_eq!(SegmentName::containing(name.timeline, Lsn(0xA3_FF12_3456), size(16)), name);
    }

    #[test]
    fn a_segment_number_too_large_for_the_size_is_refused() {
        let name: SegmentName = "000000010000000000000100".parse().unwrap();
        assert!(name.number(size(16)).is_err());
        assert!(name.number(size(1)).is_ok());
    }

    #[test]
    fn there_is_nothing_before_the_first_and_after_the_last() {
        let first: SegmentName = "000000010000000000000000".parse().unwrap();
        assert_eq!(first.previous(size(16)), None);
        let last: SegmentName = "00000001FFFFFFFF000000FF".parse().unwrap();
        assert_eq!(last.next(size(16)), None);
    }

    #[test]
    fn only_upper_case_hexadecimal_is_a_name() {
        for wrong in [
            "00000001000000000000000a",
            "000000000000000000000001",
            "00000001000000000000000",
            "+0000001000000000000000A",
        ] {
            assert!(wrong.parse::<SegmentName>().is_err(), "{wrong}");
        }
    }
}
