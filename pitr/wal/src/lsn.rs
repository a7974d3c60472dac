//! Addresses in the write-ahead log.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::segment::SegmentSize;

/// A log sequence number: the address of a byte in the WAL of a cluster.
///
/// Printed as PostgreSQL prints it (`%X/%X`), also in serde.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

/// The text is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an LSN: two hexadecimal numbers of 1 to 8 digits with \"/\" between are expected")]
pub struct LsnError {
    /// The text that was refused.
    pub text: String,
}

impl Lsn {
    /// PostgreSQL's `InvalidXLogRecPtr`: no record ever starts here.
    pub const ZERO: Lsn = Lsn(0);

    /// Number of the segment that holds this byte, counted from the beginning of WAL.
    pub fn segment_number(self, size: SegmentSize) -> u64 {
        self.0 / size.bytes()
    }

    /// Distance in bytes from the start of the segment.
    pub fn offset_in_segment(self, size: SegmentSize) -> u64 {
        self.0 % size.bytes()
    }

    /// The address `bytes` further on; `None` past the last address there is.
    pub fn checked_add(self, bytes: u64) -> Option<Lsn> {
        self.0.checked_add(bytes).map(Lsn)
    }

    /// The address `bytes` further on, or the last address there is.
    pub(crate) fn saturating_add(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Lsn, LsnError> {
        let refused = || LsnError { text: text.to_owned() };
        let (high, low) = text.split_once('/').ok_or_else(refused)?;
        let half = |digits: &str| {
            // from_str_radix alone would take a sign.
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain { u32::from_str_radix(digits, 16).ok() } else { None }
        };
        match (half(high), half(low)) {
            (Some(high), Some(low)) => Ok(Lsn(u64::from(high) << 32 | u64::from(low))),
            _ => Err(refused()),
        }
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> String {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = LsnError;

    fn try_from(text: String) -> Result<Lsn, LsnError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prints_as_postgresql_does() {
        assert_eq!(Lsn(0x1_0000_00AB).to_string(), "1/AB");
        assert_eq!(Lsn::ZERO.to_string(), "0/0");
        assert_eq!(Lsn(u64::MAX).to_string(), "FFFFFFFF/FFFFFFFF");
    }

    #[test]
    fn takes_either_case_and_leading_zeros_but_nothing_else() {
        assert_eq!("0/1a2B".parse::<Lsn>().unwrap(), Lsn(0x1A2B));
        assert_eq!("00000001/00000002".parse::<Lsn>().unwrap(), Lsn(0x1_0000_0002));
        for wrong in
            ["", "/", "0", "0/", "/0", "0/+1", "-1/0", "0/0/0", " 0/1", "0/000000001", "0x1/2", "G/1"]
        {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn knows_its_segment() {
        let size = SegmentSize::new(16 << 20).unwrap();
        let lsn = Lsn(0x1_0300_0028);
        assert_eq!(lsn.segment_number(size), 0x103);
        assert_eq!(lsn.offset_in_segment(size), 0x28);
        assert_eq!(Lsn(u64::MAX).checked_add(1), None);
    }
}
