//! Looks at a segment before it is shipped: is it the file that its name says, of this cluster, and is its
//! WAL sound? What is refused here never reaches the archive under this name.

use super::source::Source;
use crate::exit::{Failure, Status};
use std::io;
use std::path::{Path, PathBuf};
use walpoint_archive::content::ContentHasher;
use walpoint_archive::{ContentHash, SEALED_IN_MEMORY, SealedContent, Sealing};
use walpoint_wal::record::RECORD_HEADER;
use walpoint_wal::{
    Carry, CarryOver, Edge, Ending, PAGE_SIZE, PageHeader, SegmentName, SegmentSize, Survey, SurveyError,
    SurveyOf, Surveyor, SystemIdentifier,
};

/// Bytes at the end of the segment before that are read to learn how it ends.
const TAIL: usize = 128 << 10;

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

/// A segment or partial segment, sealed in the same pass when it fits in memory.
#[derive(Debug)]
pub struct Looked {
    /// What was found.
    pub examined: Examined,
    /// Hash of the whole content.
    pub content: ContentHash,
    /// The bytes that were looked at, ready to be stored. A larger file is read again for that.
    pub sealed: Option<SealedContent>,
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
    sealing: impl FnOnce(u64) -> io::Result<Sealing>,
) -> Result<Looked, Failure> {
    let fits = source.size() <= SEALED_IN_MEMORY;
    let carry = match begins_within_a_record(source)? || !fits {
        true => carry_from(before, cluster),
        false => Carry::Unknown,
    };
    let of = SurveyOf { name, partial, file_size: source.size(), expected: Some(cluster), carry };
    let mut surveyor = Surveyor::new(of);
    let (content, sealed) = match fits {
        true => seal(source, &mut surveyor, sealing).map(|sealed| (sealed.content(), Some(sealed)))?,
        false => (hash(source, &mut surveyor)?, None),
    };
    let examined = judge(surveyor.finish()).map_err(|failure| failure.while_doing(doing(source)))?;
    Ok(Looked { examined, content, sealed })
}

/// One pass for the survey, the hash and the stored bytes.
fn seal(
    source: &Source,
    surveyor: &mut Surveyor,
    sealing: impl FnOnce(u64) -> io::Result<Sealing>,
) -> Result<SealedContent, Failure> {
    let unsealed = |error| Failure::failed(format!("could not {}: {error}", doing(source)));
    let mut sealing = sealing(source.size()).map_err(unsealed)?;
    let mut sealed = Ok(());
    source.pieces(|piece| {
        surveyor.feed(piece);
        if sealed.is_ok() {
            sealed = sealing.take(piece);
        }
    })?;
    sealed.and_then(|()| sealing.finish()).map_err(unsealed)
}

fn hash(source: &Source, surveyor: &mut Surveyor) -> Result<ContentHash, Failure> {
    let mut hasher = ContentHasher::new();
    source.pieces(|piece| {
        surveyor.feed(piece);
        hasher.update(piece);
    })?;
    Ok(hasher.finish())
}

impl Looked {
    /// That it is a whole segment, as its full name says.
    ///
    /// # Errors
    /// Status 1 when its WAL just ends.
    pub fn must_be_complete(&self, source: &Source) -> Result<(), Failure> {
        match &self.examined {
            Examined::Read(survey) => complete(survey).map_err(|failure| failure.while_doing(doing(source))),
            Examined::Unreadable { .. } => Ok(()),
        }
    }
}

fn doing(source: &Source) -> String {
    format!("archive \"{}\"", source.path().display())
}

/// Whether the first page begins with the rest of a record, which cannot be checked without its beginning.
fn begins_within_a_record(source: &Source) -> Result<bool, Failure> {
    let first_page = source.read_at(0, PAGE_SIZE)?;
    let within = |header: PageHeader| header.remaining != 0 || header.overwrites_record();
    Ok(PageHeader::parse(&first_page).is_ok_and(within))
}

/// How the segment before ended, when it is still in `pg_wal`. Whatever is wrong with it is its own matter:
/// then the record that spans in stays unchecked.
fn carry_from(before: Option<(SegmentName, PathBuf)>, cluster: SystemIdentifier) -> Carry {
    let found = before.and_then(|(name, path)| carry_out(name, &path, cluster));
    found.map_or(Carry::Unknown, Carry::Known)
}

pub(super) fn carry_out(name: SegmentName, path: &Path, cluster: SystemIdentifier) -> Option<CarryOver> {
    let source = Source::open(path).ok()?;
    let first_page = source.read_at(0, PAGE_SIZE).ok()?;
    let tail = source.read_at(source.size().saturating_sub(TAIL as u64), TAIL).ok()?;
    // A record can be longer than that.
    CarryOver::of_tail(name, &first_page, &tail).or_else(|| carry_out_of_all(name, &source, cluster))
}

fn carry_out_of_all(name: SegmentName, source: &Source, cluster: SystemIdentifier) -> Option<CarryOver> {
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

fn judge(survey: Result<Survey, SurveyError>) -> Result<Examined, Failure> {
    match survey {
        Ok(survey) => Ok(Examined::Read(Box::new(survey))),
        Err(why @ (SurveyError::UnknownMagic(magic) | SurveyError::UnknownPageSize { magic, .. })) => {
            Ok(Examined::Unreadable { magic, why })
        }
        Err(error) => Err(refusal(&error)),
    }
}

fn complete(survey: &Survey) -> Result<(), Failure> {
    match &survey.ending {
        Ending::Open { at } if !may_begin_with_a_switch(survey) => Err(Failure::failed(format!(
            "its WAL ends at {at} without a switch to the next segment, so it is not complete"
        ))
        .with_hint(
            "PostgreSQL never archives a segment that it is still writing: was an incomplete copy put into \
             pg_wal, or restored from an archive?",
        )),
        _ => Ok(()),
    }
}

/// A switch record can span into a segment of which it is all there is. Without its beginning, which may be
/// recycled by now, it cannot be told from WAL that just ends; refusing it would stop the archiver for good.
fn may_begin_with_a_switch(survey: &Survey) -> bool {
    let rest = match survey.edge {
        Edge::Unchecked { record_rest } => record_rest,
        Edge::Clean | Edge::Checked => return false,
    };
    survey.first_record.is_none() && (rest as usize) < RECORD_HEADER
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use walpoint_wal::SystemIdentifier;

    const MIB: usize = 1 << 20;

    /// A segment of PostgreSQL 15 that holds the rest of a record, so many bytes, and nothing else.
    fn with_a_rest_of(rest: u32) -> Result<Survey, SurveyError> {
        let mut bytes = vec![0; MIB];
        bytes[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
        bytes[2] = if rest == 0 { 2 } else { 3 };
        bytes[4] = 1;
        bytes[8..16].copy_from_slice(&(3 * MIB as u64).to_le_bytes());
        bytes[16..20].copy_from_slice(&rest.to_le_bytes());
        bytes[24] = 7;
        bytes[32..36].copy_from_slice(&(MIB as u32).to_le_bytes());
        bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
        bytes[40..40 + rest as usize].fill(0x55);
        let mut surveyor = Surveyor::new(SurveyOf {
            name: "000000010000000000000003".parse().unwrap(),
            partial: false,
            file_size: MIB as u64,
            expected: Some(SystemIdentifier(7)),
            carry: Carry::Unknown,
        });
        surveyor.feed(&bytes);
        surveyor.finish()
    }

    #[test]
    fn what_may_be_the_rest_of_a_switch_does_not_stop_the_archiver() {
        for rest in [8, 16] {
            assert!(complete(&with_a_rest_of(rest).unwrap()).is_ok(), "{rest}");
        }
    }

    #[test]
    fn a_segment_that_is_not_complete_is_refused() {
        for rest in [0, 24, 4000] {
            let failure = complete(&with_a_rest_of(rest).unwrap()).unwrap_err();
            assert_eq!(failure.status, Status::Failed, "{rest}");
        }
    }
}
