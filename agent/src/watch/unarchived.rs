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
    /// starts in the segment, of those that the archive does not have; `None` when there is none yet. A segment that
    /// does not exist, because nothing was written past the border or it was
    /// archived meanwhile, holds none.
    pub fn first_event(&self) -> io::Result<Option<Timestamp>> {
        let file = self.data_directory.join("pg_wal").join(self.name.to_string());
        match fs::read(file) {
            Ok(bytes) => Ok(self.first_event_in(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
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
