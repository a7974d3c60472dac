//! What a cluster that is to be made into what a backup of it was has of WAL that the archive does not have, though
//! nothing of it waits to be archived: a copy that was promoted without archiving, a standby that is ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use walpoint_archive::{Archive, ArchiveError, CatalogScope, SegmentState, Usable, Variant};
use walpoint_wal::page::LONG_HEADER;
use walpoint_wal::{
    ControlFile, DbState, Lsn, PageHeader, SegmentName, SegmentSize, SystemIdentifier, TimelineId,
};

use super::blocking;
use super::error::RestoreError;
use crate::data_dir::{CONTROL_FILE, Refusal, is_unfinished};

/// Segments that are named one by one.
const NAMED: usize = 3;

/// The WAL of an archive, by timeline and number.
type Wal = BTreeMap<TimelineId, BTreeMap<u64, SegmentState>>;

/// What a cluster that was shut down has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Own {
    timeline: TimelineId,
    /// Behind the last record that was written for somebody.
    end: Lsn,
    size: SegmentSize,
    /// What lies in `pg_wal` under its own name.
    segments: BTreeSet<SegmentName>,
}

/// Why a cluster that is to be changed has WAL that is nowhere else.
///
/// Of one that was not shut down, and of WAL that waits to be archived, nothing is said here: whoever sees that in the
/// directory alone ([`crate::data_dir::wal_that_would_be_lost`]) has refused already.
///
/// # Errors
/// The archive could not be asked.
pub(super) async fn nowhere_else(
    archive: &Archive,
    directory: &Path,
) -> Result<Option<Refusal>, RestoreError> {
    let (at, cluster) = (directory.to_owned(), archive.system_identifier());
    let Some(own) = blocking(move || Ok(Own::of(&at, cluster))).await? else { return Ok(None) };
    let wal = archive.catalog(CatalogScope::All).await?.wal;
    let lost = own.lost(&wal);
    if let [first, ..] = lost.as_slice() {
        let named: Vec<String> = lost.iter().take(NAMED).map(ToString::to_string).collect();
        let more = match lost.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let what = format!("the archive does not have its WAL: {}{more}", named.join(", "));
        let there = own.segments.contains(first);
        let archive_it = format!("archive it first, in that directory: walpoint archive-push pg_wal/{first}");
        return Ok(Some(refusal(directory, &own, &what, there.then_some(archive_it))));
    }
    // The same names may be another cluster's: of two copies that were promoted both began the same timeline.
    if own.is_others(archive, &wal, directory).await? {
        let what = format!("the archive's WAL of timeline {} up to there is not the same", own.timeline);
        return Ok(Some(refusal(directory, &own, &what, None)));
    }
    Ok(None)
}

fn refusal(directory: &Path, own: &Own, what: &str, archive_it: Option<String>) -> Refusal {
    let way = archive_it.map(|way| format!("; or {way}, and so on")).unwrap_or_default();
    Refusal {
        why: format!(
            "\"{}\" holds a cluster that ended at {} on timeline {}, and {what}",
            directory.display(),
            own.end,
            own.timeline
        ),
        hint: format!(
            "restore to another directory and keep what was written there{way}; or give it up with --discard-wal"
        ),
    }
}

impl Own {
    /// None when the directory holds no cluster that was shut down.
    fn of(directory: &Path, cluster: SystemIdentifier) -> Option<Own> {
        if is_unfinished(directory) {
            return None;
        }
        let control = ControlFile::parse(&std::fs::read(directory.join(CONTROL_FILE)).ok()?).ok()?;
        let (timeline, end) = end_of(&control)?;
        let segments = segments_in(&directory.join("pg_wal"), cluster, control.segment_size);
        let mut own = Own { timeline, end, size: control.segment_size, segments };
        if control.state == DbState::ShutDown {
            // What comes next holds the record of the shutdown.
            let last = own.last_segment();
            own.segments.retain(|name| name.timeline != timeline || *name <= last);
        }
        Some(own)
    }

    /// The segments of which the archive does not have all that there is. Pure.
    fn lost(&self, wal: &Wal) -> Vec<SegmentName> {
        // What is older than all of the archive has expired there, and is no loss.
        let with_content = wal.values().flatten().filter(|(_, state)| state.available() != Usable::Nothing);
        let oldest = with_content.map(|(number, _)| *number).min().unwrap_or(0);
        let is_lost = |name: &SegmentName| {
            let Ok(number) = name.number(self.size) else { return false };
            number >= oldest && !self.is_in(wal, *name)
        };
        self.segments
            .iter()
            .copied()
            .chain([self.last_segment()])
            .filter(is_lost)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The segment in which the last byte of WAL lies.
    fn last_segment(&self) -> SegmentName {
        SegmentName::containing(self.timeline, Lsn(self.end.0.saturating_sub(1)), self.size)
    }

    fn is_in(&self, wal: &Wal, name: SegmentName) -> bool {
        let state = name.number(self.size).ok().and_then(|number| wal.get(&name.timeline)?.get(&number));
        match state.map(SegmentState::available) {
            Some(Usable::One(variant)) => self.reaches(variant, name),
            Some(Usable::Ambiguous(_)) => true,
            Some(Usable::Nothing) | None => false,
        }
    }

    /// Whether what was shipped of a segment before it was complete has all of it.
    fn reaches(&self, variant: &Variant, name: SegmentName) -> bool {
        match name == self.last_segment() {
            true => variant.reaches(self.bytes_of_last()),
            false => variant.reaches(self.size.bytes()),
        }
    }

    /// How much of the last segment is written.
    fn bytes_of_last(&self) -> u64 {
        match self.end.offset_in_segment(self.size) {
            0 => self.size.bytes(),
            offset => offset,
        }
    }

    /// Whether the archive has something else under the name of the last segment. What is not in `pg_wal` any more
    /// cannot be compared.
    async fn is_others(&self, archive: &Archive, wal: &Wal, directory: &Path) -> Result<bool, RestoreError> {
        let name = self.last_segment();
        let number = name.number(self.size).unwrap_or_default();
        let Some(state) = wal.get(&name.timeline).and_then(|segments| segments.get(&number)) else {
            return Ok(false);
        };
        let (path, length) = (directory.join("pg_wal").join(name.to_string()), self.bytes_of_last());
        let Some(own) = blocking(move || Ok(beginning_of(&path, length))).await? else { return Ok(false) };
        let variants = match state.available() {
            Usable::One(variant) => vec![variant],
            Usable::Ambiguous(variants) => variants,
            Usable::Nothing => Vec::new(),
        };
        for variant in variants {
            let mut stored = Vec::new();
            match archive.fetch_wal(variant, &mut stored, self.size.bytes()).await {
                Ok(_) if stored.starts_with(&own) => return Ok(false),
                Ok(_) | Err(ArchiveError::Damaged { .. }) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// Where the WAL of a cluster ends that was shut down. A server that archives begins a segment of its own for the record
/// of its shutdown (`ShutdownXLOG`, access/transam/xlog.c): that one holds nothing that anybody wrote.
fn end_of(control: &ControlFile) -> Option<(TimelineId, Lsn)> {
    match control.state {
        DbState::ShutDown => {
            let (end, offset) =
                (control.checkpoint, control.checkpoint.offset_in_segment(control.segment_size));
            let is_alone = offset <= LONG_HEADER as u64;
            Some((control.timeline, Lsn(if is_alone { end.0.saturating_sub(offset) } else { end.0 })))
        }
        DbState::ShutDownInRecovery => {
            Some((control.min_recovery_timeline.unwrap_or(control.timeline), control.min_recovery_point))
        }
        _ => None,
    }
}

/// The segments in `pg_wal` that hold what their names say. Those that wait to be used again do not.
fn segments_in(pg_wal: &Path, cluster: SystemIdentifier, size: SegmentSize) -> BTreeSet<SegmentName> {
    let entries = std::fs::read_dir(pg_wal).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<SegmentName>().ok());
    let is_own = |name: &SegmentName| {
        let page = beginning_of(&pg_wal.join(name.to_string()), LONG_HEADER as u64);
        let header = page.and_then(|page| PageHeader::parse(&page).ok());
        header.is_some_and(|header| {
            let is_clusters = header.long.is_some_and(|long| long.system_identifier == cluster.0);
            is_clusters && name.start(size) == Ok(header.address) && header.timeline <= name.timeline
        })
    };
    names.filter(is_own).collect()
}

/// So many bytes; none when the file does not have them or cannot be read.
fn beginning_of(path: &Path, length: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(length).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == length).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{MIB, catalog, segment, ship, size, tli};

    /// A cluster that ended there, and has these segments in `pg_wal`.
    fn own(timeline: u32, end: u64, segments: &[(u32, u64)]) -> Own {
        let segments = segments.iter().map(|(timeline, number)| segment(*timeline, *number)).collect();
        Own { timeline: tli(timeline), end: Lsn(end), size: size(), segments }
    }

    fn lost(own: &Own, archived: &[(u32, u64, u64)]) -> Vec<SegmentName> {
        own.lost(&catalog(archived, &[]).wal)
    }

    #[test]
    fn what_the_archive_has_is_not_lost() {
        let archived = [(1, 3, 6), (2, 6, 8)];
        for own in [
            own(1, 6 * MIB + 500, &[(1, 5), (1, 6)]),
            own(1, 7 * MIB, &[(1, 6)]),
            own(2, 8 * MIB + 500, &[(1, 5), (1, 6), (2, 6), (2, 8)]),
            // Expired in the archive.
            own(1, 6 * MIB + 500, &[(1, 1), (1, 2), (1, 6)]),
        ] {
            assert_eq!(lost(&own, &archived), [], "{own:?}");
        }
    }

    #[test]
    fn a_timeline_that_the_archive_lacks_is_lost_to_its_end() {
        assert_eq!(
            lost(&own(2, 7 * MIB + 500, &[(1, 6), (2, 6), (2, 7)]), &[(1, 3, 6)]),
            [segment(2, 6), segment(2, 7)]
        );
        // Also when nothing is left of its WAL: the files have what it brought.
        assert_eq!(lost(&own(2, 7 * MIB + 500, &[]), &[(1, 3, 9)]), [segment(2, 7)]);
    }

    #[test]
    fn what_lies_behind_the_archives_end_or_in_a_gap_is_lost() {
        assert_eq!(lost(&own(1, 7 * MIB + 1, &[(1, 7)]), &[(1, 3, 6)]), [segment(1, 7)]);
        assert_eq!(lost(&own(1, 8 * MIB, &[(1, 5), (1, 7)]), &[(1, 3, 4), (1, 6, 7)]), [segment(1, 5)]);
    }

    #[test]
    fn what_was_shipped_before_the_segment_was_complete_counts_as_far_as_it_reaches() {
        let mut catalog = catalog(&[(1, 3, 6)], &[]);
        ship(&mut catalog, segment(1, 7), &[(0, 1000)]);
        assert_eq!(own(1, 7 * MIB + 1000, &[(1, 7)]).lost(&catalog.wal), []);
        assert_eq!(own(1, 7 * MIB + 1001, &[(1, 7)]).lost(&catalog.wal), [segment(1, 7)]);
    }

    #[test]
    fn a_segment_is_one_that_says_so_itself() {
        let pg_wal = tempfile::tempdir().unwrap();
        let page = |number: u64| {
            let mut page = vec![0; 40];
            page[..8].copy_from_slice(&[0x10, 0xD1, 2, 0, 1, 0, 0, 0]);
            page[8..16].copy_from_slice(&(number * MIB).to_le_bytes());
            page[24..32].copy_from_slice(&7u64.to_le_bytes());
            page
        };
        let write = |number, page: Vec<u8>| {
            std::fs::write(pg_wal.path().join(segment(1, number).to_string()), page).unwrap();
        };
        write(3, page(3));
        write(4, page(2));
        write(5, vec![0; 40]);
        std::fs::write(pg_wal.path().join("archive_status"), "").unwrap();
        assert_eq!(segments_in(pg_wal.path(), SystemIdentifier(7), size()), [segment(1, 3)].into());
        assert_eq!(segments_in(pg_wal.path(), SystemIdentifier(8), size()), BTreeSet::new());
    }
}
