//! Which WAL is complete on the server and not in the archive, and what
//! became of it. The archive alone is asked what is there: PostgreSQL calls a
//! file archived when the `archive_command` said so, whatever that has done.

use std::collections::BTreeMap;

use walpoint_archive::catalog::{Catalog, Usable};
use walpoint_pitr::path::TimelinePath;
use walpoint_wal::lsn::Lsn;
use walpoint_wal::segment::SegmentName;
use walpoint_wal::timestamp::Timestamp;

use super::health::{Missing, MissingSegment};
use crate::session::WalFile;

/// Longest list of missing segments: what is behind it is as bad and says no more.
const MOST: u64 = 100_000;

/// The complete segments from number `from` on up to the one before
/// `position`'s that the archive has nothing of, oldest first.
pub fn unarchived(catalog: &Catalog, path: &TimelinePath, from: u64, position: Lsn) -> Vec<SegmentName> {
    let size = catalog.cluster.segment_size;
    let open = position.segment_number(size);
    let named = |number: u64| {
        let begun = |begin: Lsn| begin.segment_number(size) <= number;
        let step = path.steps.iter().rev().find(|step| begun(step.begin))?;
        SegmentName::from_number(step.timeline, number, size)
    };
    let is_there = |name: &SegmentName| {
        let number = name.number(size).unwrap_or_default();
        let state = catalog.wal.get(&name.timeline).and_then(|segments| segments.get(&number));
        state.is_some_and(|state| match state.available() {
            Usable::Nothing => false,
            Usable::One(variant) => variant.reaches(size.bytes()),
            Usable::Ambiguous(_) => true,
        })
    };
    (from..open.min(from.saturating_add(MOST))).filter_map(named).filter(|name| !is_there(name)).collect()
}

/// What the server still knows of them. `files` are those of `pg_wal`,
/// `statuses` those of `pg_wal/archive_status`, each with its modification.
pub fn fate(
    names: &[SegmentName],
    files: &BTreeMap<String, Timestamp>,
    statuses: &BTreeMap<String, Timestamp>,
) -> Vec<MissingSegment> {
    let fate_of = |name: &SegmentName| {
        let text = name.to_string();
        let status = |suffix: &str| statuses.get(&format!("{text}{suffix}")).copied();
        let missing = match (files.get(&text).copied(), status(".ready"), status(".done")) {
            (None, _, _) => Missing::Gone,
            (Some(written), Some(_), _) => Missing::Waits { written },
            (Some(written), None, Some(done)) => Missing::CalledArchived { written, since: done },
            (Some(written), None, None) => Missing::NotOffered { written },
        };
        MissingSegment { name: *name, missing }
    };
    names.iter().map(fate_of).collect()
}

/// A listing as a map.
pub fn by_name(files: Vec<WalFile>) -> BTreeMap<String, Timestamp> {
    files.into_iter().map(|file| (file.name, file.modified)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_status_files_and_pg_wal_tell_what_became_of_a_segment() {
        let names: Vec<SegmentName> =
            (1..5).map(|number| format!("00000001000000000000000{number}").parse().unwrap()).collect();
        let map = |entries: &[(&str, i64)]| {
            entries.iter().map(|(name, time)| ((*name).to_owned(), Timestamp(*time))).collect()
        };
        let files = map(&[
            ("000000010000000000000001", 10),
            ("000000010000000000000002", 20),
            ("000000010000000000000003", 30),
        ]);
        let statuses = map(&[("000000010000000000000001.ready", 11), ("000000010000000000000002.done", 22)]);
        let fates: Vec<Missing> = fate(&names, &files, &statuses).into_iter().map(|it| it.missing).collect();
        assert_eq!(
            fates,
            [
                Missing::Waits { written: Timestamp(10) },
                Missing::CalledArchived { written: Timestamp(20), since: Timestamp(22) },
                Missing::NotOffered { written: Timestamp(30) },
                Missing::Gone,
            ]
        );
    }
}
