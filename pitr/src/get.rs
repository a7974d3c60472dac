//! `archive-get`: answers one question of PostgreSQL's `restore_command`.
//!
//! The file is handed over, or PostgreSQL is told that there is none, or recovery
//! must stop. "There is none" ends recovery and opens the database, so it is said
//! only when the archive itself answered and nothing proves that the file existed;
//! everything else is an error. A contract says what a recovery needs; without one
//! the archive's other objects are the witnesses.

use std::path::PathBuf;
use std::time::Duration;

use walpoint_archive::{Archive, ArchiveError, Usable, Variant};
use walpoint_wal::{SegmentName, SegmentSize, SystemIdentifier, TimelineId, WalFileName};

use crate::contract::{Contract, Need};
use crate::spool::Spool;

mod deliver;
mod error;
mod from_spool;
mod header;
mod own_history;
mod tail;
mod temporary;
#[cfg(test)]
mod tests;
mod witness;

pub use error::GetError;
pub use own_history::deliver_own_history;

/// How long a file may be looked for that recovery can do without. PostgreSQL waits
/// meanwhile, at its target.
const PATIENCE_BEYOND: Duration = Duration::from_secs(15);

/// One question.
#[derive(Debug, Clone)]
pub struct GetRequest {
    /// The file that is asked for (`%f`).
    pub name: WalFileName,
    /// Where it is to be put (`%p`).
    pub destination: PathBuf,
    /// The cluster that asks.
    pub system_identifier: SystemIdentifier,
    /// Size of its segments.
    pub segment_size: SegmentSize,
    /// What its recovery needs, when that is known.
    pub contract: Option<Contract>,
    /// Who asks.
    pub asker: Asker,
    /// Where segments lie that were fetched ahead for this recovery.
    pub spool: Option<Spool>,
}

/// Who asks, as far as what was shipped of a segment before it was complete is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A recovery with an end: a tail may stand in for a segment that its contract needs.
    Recovery,
    /// A standby, which would archive a tail as the whole segment, or take its end for the end of
    /// what its primary has. It asks for the segment that is being written again and again, and is
    /// told that there is none yet.
    Standby,
    /// Whoever else: a tail is a witness, and no file.
    Other,
}

/// The answer, when it is one that recovery goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum GetOutcome {
    /// The file is at its destination, whole and verified.
    Delivered,
    /// There is no such file, and recovery may take that for the end.
    NoSuchFile {
        /// How that is known.
        why: String,
    },
}

/// Answers the question. All that can fail for a while is retried by the store.
pub async fn get(archive: &Archive, request: &GetRequest) -> Result<GetOutcome, GetError> {
    check_contract(request)?;
    match request.name {
        WalFileName::Segment(segment) => get_segment(archive, request, segment).await,
        WalFileName::History(timeline) if timeline == TimelineId::FIRST => {
            Ok(no_such_file("timeline 1 has no history"))
        }
        WalFileName::History(_) | WalFileName::Partial(_) | WalFileName::BackupHistory { .. } => {
            get_plain(archive, request).await
        }
    }
}

/// Hands over a segment out of the spool, when somebody who fetches ahead has just seen in the archive that this is
/// its content: the archive need not be asked once more. False when it is to be asked, whatever the reason. That
/// there is no such file is never found out here.
pub async fn deliver_known(request: &GetRequest) -> bool {
    let WalFileName::Segment(segment) = request.name else { return false };
    if check_contract(request).is_err() || can_do_without(request).is_some() {
        return false;
    }
    match deliver::deliver_known(request, segment).await {
        Ok(is_delivered) => is_delivered,
        Err(error) => {
            tracing::debug!("what was fetched ahead is of no use: {error}");
            false
        }
    }
}

/// Why recovery can do without the file whatever the archive has, when it can. To be
/// asked when the archive cannot even be opened: that stops no recovery then.
pub fn can_do_without(request: &GetRequest) -> Option<&'static str> {
    if matches!(request.name, WalFileName::History(timeline) if timeline == TimelineId::FIRST) {
        return Some("timeline 1 has no history");
    }
    check_contract(request).ok()?;
    match request.contract.as_ref()?.judge(&request.name) {
        Need::PastFork => Some("its timeline was left before it begins"),
        Need::Beyond => Some("it lies past the target"),
        Need::Needed | Need::NotOnPath => None,
    }
}

fn check_contract(request: &GetRequest) -> Result<(), GetError> {
    match &request.contract {
        Some(contract) if contract.system_identifier != request.system_identifier => {
            Err(GetError::WrongCluster {
                what: "the recovery contract".to_owned(),
                expected: request.system_identifier,
                found: contract.system_identifier,
            })
        }
        Some(contract) if contract.segment_size != request.segment_size => Err(GetError::SegmentSize {
            expected: request.segment_size.bytes(),
            found: contract.segment_size.bytes(),
        }),
        _ => Ok(()),
    }
}

async fn get_segment(
    archive: &Archive,
    request: &GetRequest,
    segment: SegmentName,
) -> Result<GetOutcome, GetError> {
    segment.number(request.segment_size).map_err(GetError::Name)?;
    let Some(contract) = &request.contract else {
        return get_plain(archive, request).await;
    };
    match contract.judge(&request.name) {
        Need::PastFork => Ok(no_such_file("its timeline was left before it begins")),
        Need::Beyond => Ok(get_beyond(archive, request, PATIENCE_BEYOND).await),
        Need::Needed => get_needed(archive, request, contract, segment).await,
        Need::NotOnPath => get_plain(archive, request).await,
    }
}

/// A file after the last record to replay: a favour, never a reason to stop.
async fn get_beyond(archive: &Archive, request: &GetRequest, patience: Duration) -> GetOutcome {
    match tokio::time::timeout(patience, find_and_deliver(archive, request)).await {
        Ok(Ok(true)) => GetOutcome::Delivered,
        Ok(Ok(false)) => no_such_file("it lies past the target, and the archive does not have it"),
        Ok(Err(error)) => no_such_file(&format!("it lies past the target and is not needed: {error}")),
        Err(_) => no_such_file("it lies past the target, and the archive did not answer in time"),
    }
}

async fn get_needed(
    archive: &Archive,
    request: &GetRequest,
    contract: &Contract,
    segment: SegmentName,
) -> Result<GetOutcome, GetError> {
    // Twice at most: when the whole segment has come, the pieces of its tail go.
    for is_last in [false, true] {
        // A `.partial` of the same segment does not stand in for it: it ends where nobody
        // says, and PostgreSQL would take it for whole.
        if find_and_deliver(archive, request).await? {
            return Ok(GetOutcome::Delivered);
        }
        match tail::find_and_deliver(archive, request, contract, segment).await {
            Ok(true) => return Ok(GetOutcome::Delivered),
            Ok(false) => break,
            Err(GetError::Archive(error)) if error.is_not_found() && !is_last => {}
            Err(error) => return Err(error),
        }
    }
    let followed_since = witness::followed_since(archive, segment).await?;
    let proof = "the recovery contract needs it".to_owned();
    Err(GetError::Gap { name: request.name, proof, followed_since })
}

/// By the rules that hold when nobody said what is needed.
async fn get_plain(archive: &Archive, request: &GetRequest) -> Result<GetOutcome, GetError> {
    // Twice at most: another server may store the file while we look for witnesses.
    for _ in 0..2 {
        if find_and_deliver(archive, request).await? {
            return Ok(GetOutcome::Delivered);
        }
        witness::the_right_archive(archive, request).await?;
        match witness::of(archive, request).await? {
            witness::Testimony::Nothing => return Ok(no_such_file("the archive does not have it")),
            witness::Testimony::ThereNow => {}
            witness::Testimony::Existed(proof) => return gap(request, proof),
        }
    }
    gap(request, "it is listed and cannot be found".to_owned())
}

fn gap(request: &GetRequest, proof: String) -> Result<GetOutcome, GetError> {
    Err(GetError::Gap { name: request.name, proof, followed_since: None })
}

/// Whether the archive has the file, which then is at its destination.
async fn find_and_deliver(archive: &Archive, request: &GetRequest) -> Result<bool, GetError> {
    let state = archive.wal_variants(&request.name).await?;
    match state.usable() {
        Usable::Nothing => Ok(false),
        Usable::Ambiguous(variants) => Err(GetError::Archive(ArchiveError::Ambiguous {
            name: request.name,
            contents: variants.iter().map(|variant| variant.content).collect(),
        })),
        Usable::One(chosen) => {
            let same = |it: &&Variant| {
                it.content == chosen.content && !it.refused && it.encrypted != chosen.encrypted
            };
            let copies: Vec<&Variant> =
                std::iter::once(chosen).chain(state.variants.iter().filter(same)).collect();
            deliver::deliver(archive, request, &copies).await?;
            Ok(true)
        }
    }
}

fn no_such_file(why: &str) -> GetOutcome {
    GetOutcome::NoSuchFile { why: why.to_owned() }
}
