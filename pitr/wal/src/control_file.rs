//! `global/pg_control`: what a cluster knows about itself.
//!
//! Offsets are those of `ControlFileData` and `CheckPoint` (catalog/pg_control.h) on
//! 64-bit little-endian machines. From `system_identifier` to `data_checksum_version`
//! they are the same in 13 to 18; 18 put `default_char_signedness` before the nonce,
//! which moved the CRC.

use serde::{Deserialize, Serialize};

use crate::fields::{u8_at, u32_at, u64_at};
use crate::lsn::Lsn;
use crate::segment::SegmentSize;
use crate::system_identifier::SystemIdentifier;
use crate::timeline::TimelineId;
use crate::timestamp::Timestamp;
use crate::version::Major;

/// What `pg_control` says. See `pg_controldata` for the words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are PostgreSQL's own, name by name")]
pub struct ControlFile {
    pub system_identifier: SystemIdentifier,
    pub control_version: u32,
    pub catalog_version: u32,
    /// `None` for a server that is no release of 13–18 (a beta, a fork).
    pub major: Option<Major>,
    pub state: DbState,
    /// When the file was last written.
    pub time: Option<Timestamp>,
    /// Address of the latest checkpoint's record.
    pub checkpoint: Lsn,
    /// Where replay from that checkpoint begins.
    pub redo: Lsn,
    pub timeline: TimelineId,
    pub previous_timeline: TimelineId,
    pub full_page_writes: bool,
    /// Next transaction, with its epoch in the high half.
    pub next_xid: u64,
    pub checkpoint_time: Option<Timestamp>,
    pub min_recovery_point: Lsn,
    /// `None` when not in recovery.
    pub min_recovery_timeline: Option<TimelineId>,
    pub backup_start: Lsn,
    pub backup_end: Lsn,
    pub backup_end_required: bool,
    /// 0 minimal, 1 replica, 2 logical.
    pub wal_level: i32,
    pub wal_log_hints: bool,
    pub max_connections: i32,
    pub max_worker_processes: i32,
    pub max_wal_senders: i32,
    pub max_prepared_xacts: i32,
    pub max_locks_per_xact: i32,
    /// Bytes in a data page.
    pub block_size: u32,
    /// Blocks in one file of a large relation.
    pub relation_segment_size: u32,
    /// Bytes in a WAL page.
    pub wal_block_size: u32,
    pub segment_size: SegmentSize,
    /// 0 when data pages have no checksums.
    pub data_checksum_version: u32,
}

/// What the server was doing when it last wrote `pg_control` (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "PostgreSQL's own words")]
pub enum DbState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
    InProduction,
}

/// The bytes are not a `pg_control` file that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// Fewer bytes than the structure has.
    #[error("could not read pg_control: {found} bytes are too few")]
    TooShort {
        /// How many there are.
        found: usize,
    },
    /// A format this program does not know.
    #[error(
        "could not read pg_control: format version {0} is unknown, 1300 (PostgreSQL 13–16), 1700 and 1800 are known"
    )]
    UnknownVersion(u32),
    /// Damaged, or read while the server wrote it: read again.
    #[error("could not read pg_control: its checksum is {expected:08X}, its content has {found:08X}")]
    BadCrc {
        /// CRC-32C written in the file.
        expected: u32,
        /// CRC-32C of the bytes before it.
        found: u32,
    },
    /// A value no PostgreSQL writes, although the checksum holds.
    #[error("could not read pg_control: {0}")]
    Impossible(String),
}

/// Newest `pg_control_version` that is known, and one that no release will have soon.
const NEWEST_KNOWN: u32 = 1800;
const IMPLAUSIBLE: u32 = 10_000;

impl ControlFile {
    /// Of a `pg_control` written by a version later than all that are known: which cluster it is of. Nothing
    /// else can be said of it. The identifier and the version have been at these offsets in every version, so
    /// that programs can tell that they read another one's file. `None` when it is not such a file.
    pub fn identity_of_later_version(bytes: &[u8]) -> Option<SystemIdentifier> {
        let version = u32_at(bytes, 8)?;
        let identifier = u64_at(bytes, 0)?;
        (identifier != 0 && version > NEWEST_KNOWN && version < IMPLAUSIBLE)
            .then_some(SystemIdentifier(identifier))
    }

    /// Reads the content of a `pg_control` file. A file that a running server is
    /// writing can read as [`ControlFileError::BadCrc`]: the caller reads it again.
    pub fn parse(bytes: &[u8]) -> Result<ControlFile, ControlFileError> {
        let control_version = u32_at(bytes, 8).ok_or(ControlFileError::TooShort { found: bytes.len() })?;
        let crc_at = match control_version {
            1300 | 1700 => 288,
            1800 => 292,
            other => return Err(ControlFileError::UnknownVersion(other)),
        };
        check_crc(bytes, crc_at)?;
        let checked = Checked::read(bytes).ok_or(ControlFileError::TooShort { found: bytes.len() })?;
        let checked = checked.map_err(ControlFileError::Impossible)?;
        read_fields(bytes, checked).ok_or(ControlFileError::TooShort { found: bytes.len() })
    }
}

fn check_crc(bytes: &[u8], crc_at: usize) -> Result<(), ControlFileError> {
    let too_short = ControlFileError::TooShort { found: bytes.len() };
    let (Some(covered), Some(expected)) = (bytes.get(..crc_at), u32_at(bytes, crc_at)) else {
        return Err(too_short);
    };
    let found = crc32c::crc32c(covered);
    if found == expected { Ok(()) } else { Err(ControlFileError::BadCrc { expected, found }) }
}

/// `None` when bytes are missing, which `check_crc` has excluded.
fn read_fields(bytes: &[u8], checked: Checked) -> Option<ControlFile> {
    let number = |at| u32_at(bytes, at).map(|value| value as i32);
    let address = |at| u64_at(bytes, at).map(Lsn);
    let moment = |at| u64_at(bytes, at).map(|value| Timestamp::from_unix_seconds(value as i64));
    let question = |at| u8_at(bytes, at).map(|value| value != 0);
    let (control_version, catalog_version) = (u32_at(bytes, 8)?, u32_at(bytes, 12)?);
    Some(ControlFile {
        system_identifier: SystemIdentifier(u64_at(bytes, 0)?),
        control_version,
        catalog_version,
        major: Major::from_control_version(control_version, catalog_version),
        state: checked.state,
        time: moment(24)?,
        checkpoint: address(32)?,
        redo: address(40)?,
        timeline: checked.timeline,
        previous_timeline: checked.previous_timeline,
        full_page_writes: question(56)?,
        next_xid: u64_at(bytes, 64)?,
        checkpoint_time: moment(104)?,
        min_recovery_point: address(136)?,
        min_recovery_timeline: TimelineId::new(u32_at(bytes, 144)?),
        backup_start: address(152)?,
        backup_end: address(160)?,
        backup_end_required: question(168)?,
        wal_level: number(172)?,
        wal_log_hints: question(176)?,
        max_connections: number(180)?,
        max_worker_processes: number(184)?,
        max_wal_senders: number(188)?,
        max_prepared_xacts: number(192)?,
        max_locks_per_xact: number(196)?,
        block_size: u32_at(bytes, 216)?,
        relation_segment_size: u32_at(bytes, 220)?,
        wal_block_size: u32_at(bytes, 224)?,
        segment_size: checked.segment_size,
        data_checksum_version: u32_at(bytes, 252)?,
    })
}

/// The fields that have fewer values than their bytes.
struct Checked {
    state: DbState,
    timeline: TimelineId,
    previous_timeline: TimelineId,
    segment_size: SegmentSize,
}

impl Checked {
    /// `None` when bytes are missing, an error text when a value is impossible.
    fn read(bytes: &[u8]) -> Option<Result<Checked, String>> {
        let (state, timeline, previous) = (u32_at(bytes, 16)?, u32_at(bytes, 48)?, u32_at(bytes, 52)?);
        let segment_size = u32_at(bytes, 228)?;
        let check = || {
            Ok(Checked {
                state: DbState::from_number(state).ok_or(format!("the cluster's state is {state}"))?,
                timeline: TimelineId::new(timeline).ok_or("its timeline is 0")?,
                previous_timeline: TimelineId::new(previous).ok_or("its previous timeline is 0")?,
                segment_size: SegmentSize::new(u64::from(segment_size)).map_err(|e| e.to_string())?,
            })
        };
        Some(check())
    }
}

impl DbState {
    fn from_number(number: u32) -> Option<DbState> {
        Some(match number {
            0 => DbState::StartingUp,
            1 => DbState::ShutDown,
            2 => DbState::ShutDownInRecovery,
            3 => DbState::ShuttingDown,
            4 => DbState::InCrashRecovery,
            5 => DbState::InArchiveRecovery,
            6 => DbState::InProduction,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_later_version_is_known_by_its_identifier_alone() {
        let file = |identifier: u64, version: u32| {
            let mut bytes = vec![0; 512];
            bytes.splice(0..8, identifier.to_le_bytes());
            bytes.splice(8..12, version.to_le_bytes());
            ControlFile::identity_of_later_version(&bytes)
        };
        assert_eq!(file(7, 1900), Some(SystemIdentifier(7)));
        for (identifier, version) in [(7, 1800), (7, 1300), (7, 0), (7, 0x076C_0000), (0, 1900)] {
            assert_eq!(file(identifier, version), None, "{identifier} {version}");
        }
        assert_eq!(ControlFile::identity_of_later_version(&[1; 11]), None);
    }
}
