//! The last segment of a timeline that others have left.
//!
//! A standby with `archive_mode = always` that follows its primary's successor to a new timeline is given the
//! rest of the old one up to the fork, and archives that file under the segment's full name, as if it were
//! whole (`WalReceiverMain`, replication/walreceiver.c, 13–18). Behind the fork lie zeros, or what the file
//! held before. That is what PostgreSQL calls a partial segment, and so it is archived; under the full name it
//! would keep out the true one, and refused it would stop the archiver for good.

use super::before::history_in;
use std::path::Path;
use walpoint_wal::{Ending, Survey, TimelineHistory, WalFileName};

/// Whether one of these timelines leaves the segment's own just where the WAL in it ends.
///
/// Zeros may also begin behind the fork. Other bytes must begin right at it: further on they are damage in
/// WAL that a server wrote.
pub fn is_end_of_timeline(survey: &Survey, histories: &[TimelineHistory]) -> bool {
    let forks = histories.iter().flat_map(|history| &history.ancestors);
    let mut forks = forks.filter(|it| it.timeline == survey.name.timeline).map(|it| it.fork);
    match survey.ending {
        Ending::Open { .. } => forks.any(|fork| survey.start < fork && fork <= survey.end),
        Ending::Damaged { .. } => forks.any(|fork| survey.start < fork && fork == survey.end),
        Ending::Full | Ending::Switched { .. } => false,
    }
}

/// The histories in `pg_wal` that can be read. A standby has its new timeline's there before it archives the
/// end of the old one.
pub fn histories_in(pg_wal: &Path) -> Vec<TimelineHistory> {
    let entries = std::fs::read_dir(pg_wal).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<WalFileName>().ok());
    let timelines = names.filter_map(|name| match name {
        WalFileName::History(timeline) => Some(timeline),
        _ => None,
    });
    timelines.filter_map(|timeline| history_in(pg_wal, timeline)).map(|(history, _)| history).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use std::io::Read;
    use walpoint_wal::{Carry, Lsn, SurveyOf, Surveyor, TimelineId};

    const OPEN: &str = "00000001000000000000000C";

    fn open_segment() -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{OPEN}.zst"));
        let mut bytes = Vec::new();
        zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn survey(bytes: &[u8]) -> Survey {
        let mut surveyor = Surveyor::new(SurveyOf {
            name: OPEN.parse().unwrap(),
            partial: false,
            file_size: bytes.len() as u64,
            expected: None,
            carry: Carry::Unknown,
        });
        surveyor.feed(bytes);
        surveyor.finish().unwrap()
    }

    fn left(timeline: u32, fork: Lsn) -> Vec<TimelineHistory> {
        let text = format!("{timeline}\t{fork}\tno recovery target specified\n");
        vec![TimelineHistory::parse(TimelineId::new(9).unwrap(), text.as_bytes()).unwrap()]
    }

    #[test]
    fn zeros_behind_a_fork_are_the_end_of_the_timeline_and_before_it_they_are_not() {
        let survey = survey(&open_segment());
        assert!(matches!(survey.ending, Ending::Open { .. }));
        let end = survey.end;
        let inside = |lsn: u64| is_end_of_timeline(&survey, &left(1, Lsn(lsn)));
        assert!(inside(end.0) && inside(end.0 - 8));
        assert!(!inside(end.0 + 8), "what comes before the fork is missing");
        assert!(!inside(survey.start.0), "nothing of the segment is on the way to the other timeline");
        assert!(!is_end_of_timeline(&survey, &left(2, end)) && !is_end_of_timeline(&survey, &[]));
    }

    #[test]
    fn what_a_recycled_file_holds_behind_a_fork_is_no_damage_and_further_on_it_is() {
        let mut bytes = open_segment();
        let zeros = survey(&bytes);
        let (end, offset) = (zeros.end, usize::try_from(zeros.end.0 - zeros.start.0).unwrap());
        bytes[offset..offset + 400].fill(0x5A);
        let recycled = survey(&bytes);
        assert!(matches!(recycled.ending, Ending::Damaged { .. }), "{:?}", recycled.ending);
        assert!(is_end_of_timeline(&recycled, &left(1, end)));
        assert!(!is_end_of_timeline(&recycled, &left(1, Lsn(end.0 - 8))));
    }
}
