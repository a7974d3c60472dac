//! Segments that are not there whole: what was shipped of one while it was being written.

use walpoint_archive::{Archive, Usable, Variant};
use walpoint_wal::{Lsn, SegmentName};

use super::{Asker, GetError, GetRequest, deliver};
use crate::contract::Contract;

/// Whether a tail of the segment gives what recovery needs of it, and is at its destination.
pub(super) async fn find_and_deliver(
    archive: &Archive,
    request: &GetRequest,
    contract: &Contract,
    segment: SegmentName,
) -> Result<bool, GetError> {
    if request.asker != Asker::Recovery {
        return Ok(false);
    }
    let state = archive.segment_state(&segment).await?;
    let Usable::One(variant) = state.available() else { return Ok(false) };
    if !is_enough(variant, request, contract, segment)? {
        return Ok(false);
    }
    deliver::deliver(archive, request, &[variant]).await?;
    Ok(true)
}

/// A tail gives the whole segment, or it is the last one and the last record begins in it.
fn is_enough(
    variant: &Variant,
    request: &GetRequest,
    contract: &Contract,
    segment: SegmentName,
) -> Result<bool, GetError> {
    let start = segment.start(request.segment_size).map_err(GetError::Name)?;
    let end = variant.tail.as_ref().map_or(0, |tail| u64::from(tail.end()));
    let end_lsn = Lsn(start.0.saturating_add(end));
    let has_last_record = segment == contract.last_segment && end_lsn > contract.last_record;
    Ok(variant.reaches(request.segment_size.bytes()) || has_last_record && end > 0)
}
