//! What nobody else will archive. A standby marks the segments that it receives as archived, whether the primary
//! got that far or not. Once it is promoted they are in its `pg_wal`, missing in the archive, and go at the next
//! checkpoint.

use crate::exit::Failure;
use crate::ship::before::history_in;
use crate::ship::ground::aside;
use futures::{StreamExt, TryStreamExt, stream};
use std::path::Path;
use walpoint_archive::{Archive, Usable};
use walpoint_wal::{PathStep, SegmentName, SegmentSize, TimelineId, WalFileName};

/// Names that are asked for at once.
const AT_ONCE: usize = 8;

/// The segments of the parent timelines, up to the forks, that `pg_wal` has and the archive lacks.
///
/// # Errors
/// Status 1 and those of the archive.
pub async fn find(
    archive: &Archive,
    pg_wal: &Path,
    timeline: TimelineId,
) -> Result<Vec<WalFileName>, Failure> {
    let path = pg_wal.to_owned();
    let there = aside(move || of_parents(&path, timeline)).await?;
    let asked = stream::iter(there).map(|name| async move {
        let name = WalFileName::Segment(name);
        let state = archive.wal_variants(&name).await?;
        Ok::<_, Failure>((state.usable() == Usable::Nothing).then_some(name))
    });
    asked.buffered(AT_ONCE).try_filter_map(|name| async move { Ok(name) }).try_collect().await
}

fn of_parents(pg_wal: &Path, timeline: TimelineId) -> Result<Vec<SegmentName>, Failure> {
    let Some((history, _)) = history_in(pg_wal, timeline) else { return Ok(Vec::new()) };
    let path = history.path();
    let about = |error: std::io::Error| {
        Failure::failed(format!("could not read the directory \"{}\": {error}", pg_wal.display()))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(pg_wal).map_err(about)? {
        let entry = entry.map_err(about)?;
        let name: Option<SegmentName> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(name) = name.filter(|name| name.timeline != timeline) else { continue };
        let size = entry.metadata().map_err(about)?.len();
        if SegmentSize::new(size).is_ok_and(|size| is_below_the_fork(name, size, &path)) {
            found.push(name);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether the whole segment belongs to what the timeline came from. Its parent's last one, in which the fork
/// lies, PostgreSQL archives as `.partial`, and the timeline's first has what it held.
fn is_below_the_fork(name: SegmentName, size: SegmentSize, path: &[PathStep]) -> bool {
    let Ok(start) = name.start(size) else { return false };
    let Some(end) = start.checked_add(size.bytes()) else { return false };
    let is_on = |step: &&PathStep| step.timeline == name.timeline && step.end.is_some_and(|fork| end <= fork);
    path.iter().find(is_on).is_some_and(|step| end > step.begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_wal::TimelineHistory;

    #[test]
    fn only_what_lies_on_the_path_below_the_forks_was_left_behind() {
        // 1 to 0/3000C0, 2 to 0/600000 (a border), then 3.
        let text = "1\t0/3000C0\tno reason\n2\t0/600000\tno reason\n";
        let timeline = TimelineId::new(3).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("00000003.history"), text).unwrap();
        TimelineHistory::parse(timeline, text.as_bytes()).unwrap();
        let expected = [
            ("000000010000000000000001", true),
            ("000000010000000000000002", true),
            ("000000010000000000000003", false),
            ("000000010000000000000004", false),
            ("000000020000000000000002", false),
            ("000000020000000000000003", true),
            ("000000020000000000000005", true),
            ("000000020000000000000006", false),
            ("000000030000000000000006", false),
            ("000000040000000000000001", false),
        ];
        for (name, _) in expected {
            std::fs::write(directory.path().join(name), vec![0; 1 << 20]).unwrap();
        }
        // As made ahead: not written yet, or in the midst of it.
        std::fs::write(directory.path().join("000000010000000000000000"), [0; 100]).unwrap();
        let found: Vec<String> =
            of_parents(directory.path(), timeline).unwrap().iter().map(ToString::to_string).collect();
        let wanted: Vec<&str> = expected.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_first_timeline_has_no_parents() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("000000010000000000000001"), vec![0; 1 << 20]).unwrap();
        assert!(of_parents(directory.path(), TimelineId::FIRST).unwrap().is_empty());
    }
}
