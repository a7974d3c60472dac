//! The segment before a segment: the one that its first record's pointer leads back to.

use std::path::Path;
use walpoint_wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

/// Largest history file that is read; real ones have a line for each timeline.
const MAX_HISTORY_BYTES: u64 = 1 << 20;

/// The name of the segment before: of the same timeline, or of the one that this timeline left just before
/// this segment. None for the first segment that there can be.
pub fn segment_before(
    segment: SegmentName,
    size: SegmentSize,
    history: Option<&TimelineHistory>,
) -> Option<SegmentName> {
    let number = segment.number(size).ok()?.checked_sub(1)?;
    let last_byte = Lsn(segment.start(size).ok()?.0.checked_sub(1)?);
    let on_path = history.map(TimelineHistory::path).unwrap_or_default();
    let step =
        on_path.iter().find(|step| step.begin <= last_byte && step.end.is_none_or(|end| last_byte < end));
    SegmentName::from_number(step.map_or(segment.timeline, |step| step.timeline), number, size)
}

/// The history of a timeline, when its file is in `pg_wal` and can be read.
pub fn history_in(pg_wal: &Path, timeline: TimelineId) -> Option<(TimelineHistory, Vec<u8>)> {
    let path = pg_wal.join(WalFileName::History(timeline).to_string());
    if std::fs::metadata(&path).ok()?.len() > MAX_HISTORY_BYTES {
        return None;
    }
    let bytes = std::fs::read(&path).ok()?;
    TimelineHistory::parse(timeline, &bytes).ok().map(|history| (history, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::new(1 << 20).unwrap()
    }

    fn before(name: &str, history: Option<&str>) -> Option<String> {
        let segment: SegmentName = name.parse().unwrap();
        let history = history.map(|text| TimelineHistory::parse(segment.timeline, text.as_bytes()).unwrap());
        segment_before(segment, size(), history.as_ref()).map(|name| name.to_string())
    }

    #[test]
    fn the_segment_before_may_be_the_parents() {
        let forked = "1\t0/800098\tno reason\n";
        for (name, history, expected) in [
            ("000000010000000000000008", None, Some("000000010000000000000007")),
            ("000000020000000000000008", Some(forked), Some("000000010000000000000007")),
            ("000000020000000000000009", Some(forked), Some("000000020000000000000008")),
            (
                "000000020000000000000008",
                Some("1\t0/800000\tat the border\n"),
                Some("000000010000000000000007"),
            ),
            ("000000010000000100000000", None, Some("000000010000000000000FFF")),
            ("000000010000000000000000", None, None),
        ] {
            assert_eq!(before(name, history).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn only_a_history_that_can_be_read_counts() {
        let pg_wal = tempfile::tempdir().unwrap();
        let timeline = TimelineId::new(2).unwrap();
        assert!(history_in(pg_wal.path(), timeline).is_none());
        let path = pg_wal.path().join("00000002.history");
        std::fs::write(&path, "1\t0/800098\tno reason\n").unwrap();
        let (history, bytes) = history_in(pg_wal.path(), timeline).unwrap();
        assert_eq!((history.timeline, bytes.len()), (timeline, 21));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(history_in(pg_wal.path(), timeline).is_none());
    }
}
