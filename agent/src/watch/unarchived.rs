//! Since when does a segment that the archive does not have hold something to lose?

use std::fs;
use std::io;
use std::path::Path;

use walpoint_wal::lsn::Lsn;
use walpoint_wal::reader::{Reader, ReaderStart, Start, Step};
use walpoint_wal::segment::{SegmentName, SegmentSize};
use walpoint_wal::system_identifier::SystemIdentifier;
use walpoint_wal::timestamp::Timestamp;

/// A segment of `pg_wal`, whole or being written.
#[derive(Debug, Clone, Copy)]
pub struct UnarchivedSegment<'a> {
    pub data_directory: &'a Path,
    pub system_identifier: SystemIdentifier,
    pub name: SegmentName,
    pub size: SegmentSize,
    /// What ends before here, the archive has.
    pub from: Lsn,
}

impl UnarchivedSegment<'_> {
    /// The time of the first commit, abort, prepare or restore point that
    /// starts in the segment, of those that the archive does not have; `None` when there is none yet. A
    /// segment that `pg_wal` does not have, because nothing was written past the border or it was archived
    /// meanwhile, holds none; without `pg_wal` nobody knows.
    pub fn first_event(&self) -> io::Result<Option<Timestamp>> {
        let pg_wal = self.data_directory.join("pg_wal");
        match fs::read(pg_wal.join(self.name.to_string())) {
            Ok(bytes) => Ok(self.first_event_in(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::metadata(pg_wal).map(|_| None),
            Err(error) => Err(error),
        }
    }

    /// Ends quietly at the first thing that is no record: the server may
    /// be writing there.
    fn first_event_in(&self, bytes: Vec<u8>) -> Option<Timestamp> {
        let mut reader = Reader::new(ReaderStart {
            size: self.size,
            system_identifier: Some(self.system_identifier),
            carry: None,
            at: Start::SegmentStart,
        });
        reader.feed_open(self.name, bytes).ok()?;
        while let Ok(Step::Record(record)) = reader.next() {
            if record.end <= self.from {
                continue;
            }
            let event = record.event().ok().flatten();
            let time = event.and_then(|event| loses(&event).then(|| event.time()).flatten());
            if time.is_some() {
                return time;
            }
        }
        None
    }
}

/// Would somebody miss it? Checkpoints, for one, the server makes by itself.
fn loses(event: &walpoint_wal::event::Event) -> bool {
    use walpoint_wal::event::Event;
    matches!(event, Event::RestorePoint { .. } | Event::Prepare { .. }) || event.ends_transaction().is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_segment_that_is_not_there_holds_nothing_but_without_pg_wal_nobody_knows() {
        let directory = tempfile::tempdir().unwrap();
        let segment = UnarchivedSegment {
            data_directory: directory.path(),
            system_identifier: SystemIdentifier(7),
            name: "000000010000000000000003".parse().unwrap(),
            size: SegmentSize::new(1 << 20).unwrap(),
            from: Lsn::ZERO,
        };
        assert!(segment.first_event().is_err());
        fs::create_dir(directory.path().join("pg_wal")).unwrap();
        assert_eq!(segment.first_event().unwrap(), None);
    }
}
