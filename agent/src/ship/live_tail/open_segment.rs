//! The segment that is being written, as far as it was read: what the next piece of it is.

use crate::exit::Failure;
use bytes::Bytes;
use std::io;
use std::path::Path;
use walpoint_archive::content::ContentHasher;
use walpoint_archive::{Common, ContentHash, PutChunk, RunFacts, TailFacts, WalFacts, WriterId};
use walpoint_wal::{
    Carry, Ending, Lsn, PAGE_SIZE, SegmentName, SegmentSize, Survey, SurveyError, SurveyOf, Surveyor,
    SystemIdentifier,
};

/// What must be known of a segment to begin with it.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub name: SegmentName,
    pub size: SegmentSize,
    pub system_identifier: SystemIdentifier,
    pub writer: WriterId,
    /// How the segment before ended, as far as that is known.
    pub carry: Carry,
    /// What the archive will say of it.
    pub previous: Option<WalFacts>,
}

/// A segment of which the beginning was read and, up to here, shipped or about to be.
#[derive(Debug)]
pub struct OpenSegment {
    of: Beginning,
    surveyor: Surveyor,
    hasher: ContentHasher,
    /// Bytes that were read.
    read: u32,
}

/// A piece ready to be shipped, and what is left of it when that was done.
#[derive(Debug, Clone)]
pub struct Piece {
    pub put: PutChunk,
    /// Offset in the segment behind it.
    pub end: u32,
}

/// All of a segment was read.
#[derive(Debug, Clone)]
pub struct Completed {
    pub name: SegmentName,
    /// Of all its bytes.
    pub content: ContentHash,
    pub facts: WalFacts,
    pub carry: Carry,
}

impl OpenSegment {
    pub fn new(of: Beginning) -> OpenSegment {
        let surveyor = Surveyor::new(SurveyOf {
            name: of.name,
            partial: false,
            file_size: of.size.bytes(),
            expected: Some(of.system_identifier),
            carry: of.carry.clone(),
        });
        OpenSegment { of, surveyor, hasher: ContentHasher::new(), read: 0 }
    }

    pub fn name(&self) -> SegmentName {
        self.of.name
    }

    /// Offset behind what was read.
    pub fn read_to(&self) -> u32 {
        self.read
    }

    /// Takes bytes that are in the archive already.
    pub fn pass(&mut self, bytes: &[u8]) {
        self.surveyor.feed(bytes);
        self.hasher.update(bytes);
        self.read = self.read.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }

    /// Takes the bytes that follow and makes a piece of them. `flush` is up to where the server says that its WAL is
    /// durable.
    ///
    /// # Errors
    /// Status 1 when they are no sound WAL of this segment: PostgreSQL says that they are durable, so either
    /// a disk damaged them, or another file has the name by now, or it is another server that says so.
    pub fn piece(&mut self, bytes: Vec<u8>, flush: Lsn) -> Result<Piece, Failure> {
        let (from, before) = (self.read, self.hasher.finish());
        self.pass(&bytes);
        let survey = self.surveyor.so_far().map_err(|error| self.unreadable(&error))?;
        if let Ending::Damaged { at, reason } = &survey.ending {
            return Err(Failure::failed(format!(
                "could not ship the tail of \"{}\": its WAL is damaged at {at}: {reason}",
                self.of.name
            )));
        }
        self.must_reach(&survey, flush)?;
        let content = ContentHash::of(&bytes);
        let facts = self.facts(&survey, content, bytes.len() as u64);
        let tail = TailFacts { from, before, after: self.hasher.finish() };
        let put = PutChunk { segment: self.of.name, tail, facts, bytes: Bytes::from(bytes) };
        Ok(Piece { put, end: self.read })
    }

    /// Within a page, what is durable ends with a record. Zeros where the server has WAL are another server's file.
    fn must_reach(&self, survey: &Survey, flush: Lsn) -> Result<(), Failure> {
        let is_all =
            self.of.name.start(self.of.size).is_ok_and(|start| start.0 + u64::from(self.read) == flush.0);
        match survey.ending {
            Ending::Open { at } if is_all && at < flush && !flush.0.is_multiple_of(PAGE_SIZE as u64) => {
                Err(Failure::failed(format!(
                    "could not ship the tail of \"{}\": its WAL ends at {at}, and the server says that it is durable up to {flush}",
                    self.of.name
                ))
                .with_hint("is it the server of this data directory that connection in section [postgres] names?"))
            }
            _ => Ok(()),
        }
    }

    /// What the segment leaves for the next one, once all of it was read.
    ///
    /// # Errors
    /// Status 1 as for a piece.
    pub fn complete(&self) -> Result<Completed, Failure> {
        let content = self.hasher.finish();
        let survey = self.surveyor.so_far().map_err(|error| self.unreadable(&error))?;
        let facts = self.facts(&survey, content, self.of.size.bytes());
        let carry = survey.carry_out.map_or(Carry::Unknown, Carry::Known);
        Ok(Completed { name: self.of.name, content, facts, carry })
    }

    fn facts(&self, survey: &Survey, content: ContentHash, size: u64) -> WalFacts {
        let common = Common::new(content, size, self.of.writer, self.of.system_identifier);
        WalFacts::of_survey(common, survey, RunFacts::continue_from(self.of.previous.as_ref(), survey))
    }

    fn unreadable(&self, error: &SurveyError) -> Failure {
        Failure::failed(format!("could not ship the tail of \"{}\": {error}", self.of.name))
    }
}

/// Bytes of a segment of `pg_wal` that the server says are there; none when the file is not there, as it is
/// between one segment and the next.
///
/// # Errors
/// Status 1.
pub fn read(pg_wal: &Path, name: SegmentName, from: u32, to: u32) -> Result<Option<Vec<u8>>, Failure> {
    use std::os::unix::fs::FileExt;
    let path = pg_wal.join(name.to_string());
    let unreadable =
        |error: io::Error| Failure::failed(format!("could not read \"{}\": {error}", path.display()));
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = vec![0; to.saturating_sub(from) as usize];
    file.read_exact_at(&mut bytes, u64::from(from)).map_err(unreadable)?;
    Ok(Some(bytes))
}
