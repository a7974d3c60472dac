//! Fetches an object, makes sure that it is what was asked for, and puts it where
//! PostgreSQL will look.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;

use walpoint_archive::fault_point::step;
use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::{Archive, ArchiveError, Variant};
use walpoint_wal::{SegmentName, TimelineHistory, TimelineId, WalFileName};

use super::from_spool;
use super::header::{self, Foreign, HEADER_BYTES};
use super::temporary::Temporary;
use super::{GetError, GetRequest};
use crate::spool::Spool;

/// History files are a few lines; whatever is larger is none.
pub(super) const SMALL_FILE: u64 = 1024 * 1024;

/// Bytes zeroed at a time.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Hands over the first of these objects that is sound. All have the same content.
pub(super) async fn deliver(
    archive: &Archive,
    request: &GetRequest,
    copies: &[&Variant],
) -> Result<(), GetError> {
    let mut first_failure = None;
    for variant in copies {
        match deliver_one(archive, request, variant).await {
            Ok(()) => return Ok(()),
            Err(error) if another_may_do(&error) => {
                tracing::warn!("{error}");
                first_failure.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match first_failure {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Whether the failure is this object's own, so that another with the same content
/// may be sound.
fn another_may_do(error: &GetError) -> bool {
    match error {
        GetError::Archive(ArchiveError::Store(error)) => {
            matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::Damaged)
        }
        GetError::Archive(error) => matches!(
            error,
            ArchiveError::Damaged { .. } | ArchiveError::WrongKey { .. } | ArchiveError::NoKey { .. }
        ),
        _ => false,
    }
}

async fn deliver_one(archive: &Archive, request: &GetRequest, variant: &Variant) -> Result<(), GetError> {
    let mut temporary = match fetched_ahead(request, variant).await {
        Some(temporary) => temporary,
        None => fetch(archive, request, variant).await?,
    };
    if let Some(segment) = segment_of(&request.name) {
        check_segment(request, segment, variant, &mut temporary)?;
        cut_at_fork(request, segment, &mut temporary)?;
    }
    if let WalFileName::History(timeline) = request.name {
        check_history(request, timeline, variant, &mut temporary)?;
    }
    temporary.place(&request.destination)
}

async fn fetch(archive: &Archive, request: &GetRequest, variant: &Variant) -> Result<Temporary, GetError> {
    let mut temporary = Temporary::beside(&request.destination)?;
    let limit = match segment_of(&request.name) {
        Some(_) => request.segment_size.bytes(),
        None => SMALL_FILE,
    };
    archive.fetch_wal(variant, temporary.file(), limit).await?;
    Ok(temporary)
}

/// The file as it was fetched ahead. A tail never is: it may have grown since.
async fn fetched_ahead(request: &GetRequest, variant: &Variant) -> Option<Temporary> {
    let spool = request.spool.as_ref().filter(|_| variant.tail.is_none())?;
    let WalFileName::Segment(segment) = request.name else { return None };
    if let Err(error) = spool.make_own() {
        tracing::debug!("nothing can be fetched ahead: {error}");
        return None;
    }
    note(spool, segment);
    let size = request.segment_size.bytes();
    from_spool::take(spool, segment, variant.content, size, &request.destination).await
}

/// Tells who fetches ahead what was asked for.
fn note(spool: &Spool, segment: SegmentName) {
    // On a full disk what is there already is of use all the same, and taking it makes room.
    if let Err(error) = spool.note(segment) {
        tracing::debug!("who fetches ahead cannot be told what was asked for: {error}");
    }
}

/// Hands over a segment as it was fetched ahead, when the archive was seen to have it a moment ago. False when the
/// archive is to be asked.
///
/// # Errors
/// When it cannot be put in place.
pub(super) async fn deliver_known(request: &GetRequest, segment: SegmentName) -> Result<bool, GetError> {
    let Some(spool) = request.spool.as_ref().filter(|spool| spool.make_own().is_ok()) else {
        return Ok(false);
    };
    if spool.find(segment, None).is_none() {
        return Ok(false);
    }
    // Before it is taken: that it was not there yet is a reason to fetch further ahead.
    note(spool, segment);
    let size = request.segment_size.bytes();
    let taken = from_spool::take_known(spool, segment, size, &request.destination).await;
    let Some(mut temporary) = taken else { return Ok(false) };
    if let Err(foreign) = judge(request, segment, &mut temporary)? {
        tracing::debug!("what was fetched ahead as \"{segment}\" is of no use: {foreign:?}");
        return Ok(false);
    }
    cut_at_fork(request, segment, &mut temporary)?;
    temporary.place(&request.destination)?;
    Ok(true)
}

fn segment_of(name: &WalFileName) -> Option<SegmentName> {
    match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => Some(*segment),
        WalFileName::History(_) | WalFileName::BackupHistory { .. } => None,
    }
}

fn check_segment(
    request: &GetRequest,
    segment: SegmentName,
    variant: &Variant,
    temporary: &mut Temporary,
) -> Result<(), GetError> {
    match judge(request, segment, temporary)? {
        Ok(()) => Ok(()),
        Err(Foreign::Contradicts(what)) => {
            Err(GetError::Contradicted { name: request.name, key: variant.key(), what })
        }
        Err(Foreign::Cluster(found)) => Err(GetError::WrongCluster {
            what: format!("object \"{}\"", variant.key()),
            expected: request.system_identifier,
            found,
        }),
    }
}

/// Whether it is the segment that its name says.
fn judge(
    request: &GetRequest,
    segment: SegmentName,
    temporary: &mut Temporary,
) -> Result<Result<(), Foreign>, GetError> {
    let (length, head) = beginning(temporary.file()).map_err(|error| temporary.error("read", error))?;
    if length != request.segment_size.bytes() {
        let what = format!("has {length} bytes, and a segment {}", request.segment_size.bytes());
        return Ok(Err(Foreign::Contradicts(what)));
    }
    Ok(header::compare(segment, request.segment_size, request.system_identifier, &head))
}

/// PostgreSQL takes the path from this file, and we take it from the contract: if the
/// archive's history was exchanged since the restore, segments would be cut or withheld
/// at the wrong places.
fn check_history(
    request: &GetRequest,
    timeline: TimelineId,
    variant: &Variant,
    temporary: &mut Temporary,
) -> Result<(), GetError> {
    let path = request.contract.as_ref().map(|contract| contract.path.as_slice()).unwrap_or_default();
    if path.last().is_none_or(|step| step.timeline != timeline) {
        return Ok(());
    }
    let mut text = Vec::new();
    let file = temporary.file();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut text))
        .map_err(|error| temporary.error("read", error))?;
    let what = match TimelineHistory::parse(timeline, &text) {
        Ok(history) if history.path() == path => return Ok(()),
        Ok(_) => "names other forks than the recovery contract".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(GetError::Contradicted { name: request.name, key: variant.key(), what })
}

fn beginning(file: &File) -> io::Result<(u64, [u8; HEADER_BYTES])> {
    let mut head = [0; HEADER_BYTES];
    let length = file.metadata()?.len();
    if length >= HEADER_BYTES as u64 {
        file.read_exact_at(&mut head, 0)?;
    }
    Ok((length, head))
}

/// What lies past the fork in a parent's segment is WAL of an abandoned branch, and
/// PostgreSQL would replay it.
fn cut_at_fork(
    request: &GetRequest,
    segment: SegmentName,
    temporary: &mut Temporary,
) -> Result<(), GetError> {
    let contract = request.contract.as_ref();
    let Some(fork) = contract.and_then(|contract| contract.fork_cut(&segment)) else {
        return Ok(());
    };
    let (begin, end) = (fork.offset_in_segment(request.segment_size), request.segment_size.bytes());
    step("write", || zero(temporary.file(), begin, end)).map_err(|error| temporary.error("write", error))
}

fn zero(file: &mut File, begin: u64, end: u64) -> io::Result<()> {
    let mut at = begin;
    file.seek(io::SeekFrom::Start(at))?;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS.len());
        file.write_all(ZEROS.get(..length).unwrap_or_default())?;
        at += length as u64;
    }
    Ok(())
}
