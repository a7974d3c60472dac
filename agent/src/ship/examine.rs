//! Looks at a segment before it is shipped: is it the file that its name says, of this cluster, and is its
//! WAL sound? What is refused here never reaches the archive under this name.

use super::source::{IN_MEMORY_BYTES, Source};
use crate::exit::{Failure, Status};
use std::path::{Path, PathBuf};
use walpoint_archive::ContentHash;
use walpoint_archive::content::ContentHasher;
use walpoint_wal::{
    Carry, CarryOver, Ending, PageHeader, SegmentName, SegmentSize, Survey, SurveyError, SurveyOf, Surveyor,
    SystemIdentifier,
};

/// A segment that may be shipped.
#[derive(Debug)]
pub enum Examined {
    /// Its WAL was read. It may be damaged: then it is shipped all the same, for it is the only copy.
    Read(Box<Survey>),
    /// WAL that this program cannot read: of an unknown PostgreSQL version, or in pages of an unusual size.
    /// It is shipped as it is, for a server whose WAL is not taken stops when its disk is full.
    Unreadable {
        /// Magic of the first page.
        magic: u16,
        /// Why it cannot be read.
        why: SurveyError,
    },
}

/// A segment or partial segment with its bytes, when they fit in memory.
#[derive(Debug)]
pub struct Looked {
    /// What was found.
    pub examined: Examined,
    /// Hash of the whole content.
    pub content: ContentHash,
    /// The bytes that were looked at.
    pub bytes: Option<Vec<u8>>,
}

/// Reads the file, which has the size of a segment, and looks at it. `before` is where the segment before may
/// still lie.
///
/// # Errors
/// Status 1, 2 or 4 with the reason why it must not be archived under this name.
pub fn look(
    source: &Source,
    name: SegmentName,
    partial: bool,
    cluster: SystemIdentifier,
    before: Option<(SegmentName, PathBuf)>,
) -> Result<Looked, Failure> {
    let bytes = if source.size() <= IN_MEMORY_BYTES { Some(source.read()?) } else { None };
    let carry = match &bytes {
        Some(bytes) if !begins_within_a_record(bytes) => Carry::Unknown,
        _ => carry_from(before, cluster),
    };
    let of = SurveyOf { name, partial, file_size: source.size(), expected: Some(cluster), carry };
    let (mut surveyor, mut hasher) = (Surveyor::new(of), ContentHasher::new());
    let mut take = |piece: &[u8]| {
        surveyor.feed(piece);
        hasher.update(piece);
    };
    match &bytes {
        Some(bytes) => take(bytes),
        None => source.pieces(take)?,
    }
    let examined = judge(surveyor.finish(), partial).map_err(|failure| failure.while_doing(doing(source)))?;
    Ok(Looked { examined, content: hasher.finish(), bytes })
}

fn doing(source: &Source) -> String {
    format!("archive \"{}\"", source.path().display())
}

/// Whether the first page begins with the rest of a record, which cannot be checked without its beginning.
fn begins_within_a_record(bytes: &[u8]) -> bool {
    PageHeader::parse(bytes).is_ok_and(|header| header.remaining != 0 || header.overwrites_record())
}

/// How the segment before ended, when it is still in `pg_wal`. Whatever is wrong with it is its own matter:
/// then the record that spans in stays unchecked.
fn carry_from(before: Option<(SegmentName, PathBuf)>, cluster: SystemIdentifier) -> Carry {
    let found = before.and_then(|(name, path)| carry_out(name, &path, cluster));
    found.map_or(Carry::Unknown, Carry::Known)
}

fn carry_out(name: SegmentName, path: &Path, cluster: SystemIdentifier) -> Option<CarryOver> {
    let source = Source::open(path).ok()?;
    let of = SurveyOf {
        name,
        partial: false,
        file_size: source.size(),
        expected: Some(cluster),
        carry: Carry::Unknown,
    };
    let mut surveyor = Surveyor::new(of);
    source.pieces(|piece| surveyor.feed(piece)).ok()?;
    surveyor.finish().ok()?.carry_out
}

fn judge(survey: Result<Survey, SurveyError>, partial: bool) -> Result<Examined, Failure> {
    let survey = match survey {
        Ok(survey) => survey,
        Err(why @ (SurveyError::UnknownMagic(magic) | SurveyError::UnknownPageSize { magic, .. })) => {
            return Ok(Examined::Unreadable { magic, why });
        }
        Err(error) => return Err(refusal(&error)),
    };
    match &survey.ending {
        Ending::Open { at } if !partial => Err(Failure::failed(format!(
            "its WAL ends at {at} without a switch to the next segment, so it is not complete"
        ))
        .with_hint(
            "PostgreSQL never archives a segment that it is still writing: was an incomplete copy put into \
             pg_wal, or restored from an archive?",
        )),
        _ => Ok(Examined::Read(Box::new(survey))),
    }
}

fn refusal(error: &SurveyError) -> Failure {
    let (status, hint) = match error {
        SurveyError::WrongCluster { .. } => {
            (Status::WrongCluster, "is the command running in another cluster's data directory?")
        }
        SurveyError::NameContradicted { .. } => {
            (Status::Usage, "was the file renamed, or copied from another timeline?")
        }
        SurveyError::WrongSize { .. }
        | SurveyError::NotWal { .. }
        | SurveyError::UnknownMagic(_)
        | SurveyError::UnknownPageSize { .. } => {
            (Status::Usage, "archive-push takes finished WAL files from pg_wal, as %p in archive_command")
        }
    };
    Failure::new(status, error.to_string()).with_hint(hint)
}

/// How large the cluster's segments are, and that this file is as large as one. The file's own size is all
/// there is to go by when `pg_control` cannot be read.
///
/// # Errors
/// Status 2 when it is no segment by its size.
pub fn size_of_segment(source: &Source, known: Option<SegmentSize>) -> Result<SegmentSize, Failure> {
    let found = source.size();
    let refused = |why: String| Failure::usage(why).while_doing(doing(source));
    match known {
        Some(size) if size.bytes() == found => Ok(size),
        Some(size) => Err(refused(format!(
            "the file has {found} bytes and the cluster's segments have {}",
            size.bytes()
        ))),
        None => SegmentSize::new(found).map_err(|error| refused(error.to_string())),
    }
}
