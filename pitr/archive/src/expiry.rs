//! What an expiry has marked to go. Between the mark and the deletion lies a time of grace, which the
//! store's clock counts from the moment when the mark was stored. A mark alone lets nothing go: what is
//! deleted must at that moment still be wanted by nobody.

use serde::{Deserialize, Serialize};
use walpoint_wal::{SegmentName, SegmentSize, TimelineId};

use crate::backup_id::BackupId;
use crate::cluster::check_format;
use crate::error::ArchiveError;
use crate::facts::FORMAT;

/// What was not wanted when the mark was made.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ExpiryMark {
    /// Backups, complete or not, by their folders.
    pub backups: Vec<BackupId>,
    /// WAL.
    pub wal: Vec<MarkedWal>,
    /// All backups that were complete then, so that a listing that leaves one out is found out.
    pub seen: Vec<BackupId>,
}

/// Segments of one timeline, with all that is stored under their names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MarkedWal {
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
}

impl MarkedWal {
    /// Whether this segment is among them.
    pub fn contains(&self, timeline: TimelineId, number: u64, size: SegmentSize) -> bool {
        self.overlaps(timeline, number, number, size)
    }

    /// Whether any segment from one number to another is among them.
    pub fn overlaps(&self, timeline: TimelineId, from: u64, to: u64, size: SegmentSize) -> bool {
        let (Ok(first), Ok(last)) = (self.first.number(size), self.last.number(size)) else { return false };
        self.first.timeline == timeline && self.last.timeline == timeline && first <= to && from <= last
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    mark: ExpiryMark,
}

impl ExpiryMark {
    /// Whether it marks nothing.
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.wal.is_empty()
    }

    /// As it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec(&Stored { format: FORMAT, mark: self.clone() })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads what is stored under this key.
    pub(crate) fn parse(key: &str, json: &[u8]) -> Result<Self, ArchiveError> {
        check_format(key, json)?;
        let stored: Stored =
            serde_json::from_slice(json).map_err(|error| ArchiveError::damaged(key, error))?;
        Ok(stored.mark)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_stored_as_format_md_says() {
        let mark = ExpiryMark {
            backups: vec!["20261120T214500Z-full-3fa9c1".parse().unwrap()],
            wal: vec![MarkedWal {
                first: "000000010000000000000001".parse().unwrap(),
                last: "000000010000000000000007".parse().unwrap(),
            }],
            seen: vec!["20261121T214500Z-full-00ff00".parse().unwrap()],
        };
        let json = mark.to_json().unwrap();
        assert_eq!(
            String::from_utf8(json.clone()).unwrap(),
            "{\"format\":1,\"backups\":[\"20261120T214500Z-full-3fa9c1\"],\
             \"wal\":[{\"first\":\"000000010000000000000001\",\"last\":\"000000010000000000000007\"}],\
             \"seen\":[\"20261121T214500Z-full-00ff00\"]}\n"
        );
        assert_eq!(ExpiryMark::parse("key", &json).unwrap(), mark);
    }

    #[test]
    fn a_mark_names_the_segments_between_its_ends_on_its_timeline_only() {
        let size = SegmentSize::new(1 << 24).unwrap();
        let (one, two) = (TimelineId::FIRST, TimelineId::new(2).unwrap());
        let segment = |number| SegmentName::from_number(one, number, size).unwrap();
        let wal = MarkedWal { first: segment(3), last: segment(5) };
        let inside: Vec<u64> = (0..9).filter(|number| wal.contains(one, *number, size)).collect();
        assert_eq!(inside, [3, 4, 5]);
        assert!(!(0..9).any(|number| wal.contains(two, number, size)));
    }
}
