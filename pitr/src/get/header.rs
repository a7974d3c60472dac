//! Is this segment the one that its name says? PostgreSQL would end recovery
//! quietly at a segment of another place or cluster. Pure.

use walpoint_wal::{Major, PageHeader, SegmentName, SegmentSize, SystemIdentifier};

/// Bytes of a segment that the judgement needs.
pub(super) const HEADER_BYTES: usize = 40;

/// Why it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Foreign {
    /// It is of another cluster.
    Cluster(SystemIdentifier),
    /// Its header says something else.
    Contradicts(String),
}

/// Compares the first bytes of a segment with its name. What a PostgreSQL version
/// that this program does not know has written is not judged.
pub(super) fn compare(
    name: SegmentName,
    size: SegmentSize,
    cluster: SystemIdentifier,
    head: &[u8],
) -> Result<(), Foreign> {
    let contradicts = Foreign::Contradicts;
    let magic = match head {
        [low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => return Err(contradicts("is empty".to_owned())),
    };
    if Major::from_page_magic(magic).is_none() && magic != 0 {
        return Ok(());
    }
    let header = PageHeader::parse(head).map_err(|error| contradicts(format!("is not WAL: {error}")))?;
    let Some(long) = header.long else {
        return Err(contradicts("does not begin like a segment".to_owned()));
    };
    if long.system_identifier != cluster.0 {
        return Err(Foreign::Cluster(SystemIdentifier(long.system_identifier)));
    }
    if u64::from(long.segment_size) != size.bytes() {
        return Err(contradicts(format!("is of segments of {} bytes", long.segment_size)));
    }
    let start = name.start(size).map_err(|error| contradicts(error.to_string()))?;
    if header.address != start {
        let what = format!("begins at {}, and a file of this name at {start}", header.address);
        return Err(contradicts(what));
    }
    // Less is right in a child's first segment: it begins with a copy of its parent's.
    if header.timeline > name.timeline {
        return Err(contradicts(format!("is of timeline {}", header.timeline)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const CLUSTER: SystemIdentifier = SystemIdentifier(7_123);

    fn size() -> SegmentSize {
        SegmentSize::new(1 << 20).unwrap()
    }

    fn head() -> Vec<u8> {
        let mut head = vec![0; HEADER_BYTES];
        head[0..2].copy_from_slice(&Major::V15.page_magic().to_le_bytes());
        head[2] = 2;
        head[4] = 3;
        head[8..16].copy_from_slice(&(9u64 << 20).to_le_bytes());
        head[24..32].copy_from_slice(&CLUSTER.0.to_le_bytes());
        head[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
        head[36..40].copy_from_slice(&8192u32.to_le_bytes());
        head
    }

    fn judge(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<(), Foreign> {
        let mut head = head();
        change(&mut head);
        compare(name.parse().unwrap(), size(), CLUSTER, &head)
    }

    fn refused_for(name: &str, expected: &str, change: impl FnOnce(&mut Vec<u8>)) {
        match judge(name, change) {
            Err(Foreign::Contradicts(what)) => assert!(what.contains(expected), "{what}"),
            other => panic!("{expected}: {other:?}"),
        }
    }

    const NAME: &str = "000000030000000000000009";

    #[test]
    fn the_right_segment_is_accepted_under_its_own_and_a_later_timeline() {
        assert_eq!(judge(NAME, |_| {}), Ok(()));
        assert_eq!(judge("000000040000000000000009", |_| {}), Ok(()));
    }

    #[test]
    fn each_contradiction_is_told() {
        assert_eq!(judge(NAME, |head| head[24] ^= 1), Err(Foreign::Cluster(SystemIdentifier(CLUSTER.0 ^ 1))));
        refused_for("00000003000000000000000A", "begins at 0/900000", |_| {});
        refused_for("000000020000000000000009", "timeline 3", |_| {});
        refused_for(NAME, "segments of 16777216 bytes", |head| {
            head[32..36].copy_from_slice(&(1u32 << 24).to_le_bytes())
        });
        refused_for(NAME, "like a segment", |head| head[2] = 0);
        refused_for(NAME, "not WAL", |head| head[2] = 0xFF);
        refused_for(NAME, "not WAL", |head| head.truncate(20));
        refused_for(NAME, "not WAL", |head| head.fill(0));
        refused_for(NAME, "empty", Vec::clear);
    }

    #[test]
    fn a_version_that_is_not_known_is_not_judged() {
        assert_eq!(judge("00000003000000000000000A", |head| head[0] = 0xFE), Ok(()));
    }
}
