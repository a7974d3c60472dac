//! The proof that nothing was written: until when the archive has all that there was, although
//! nothing came. Whoever ships a timeline's WAL renews it while there is none to ship.

use serde::{Deserialize, Serialize};
use walpoint_wal::{Lsn, TimelineId, Timestamp};

use crate::cluster::check_format;
use crate::error::ArchiveError;
use crate::facts::FORMAT;
use crate::writer_id::WriterId;

/// At `time` nothing had been written on `timeline` past `flush_lsn`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdleProof {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where its WAL ended, all of it durable on the server.
    pub flush_lsn: Lsn,
    /// When, by the server's clock.
    pub time: Timestamp,
    /// Who says so.
    pub writer: WriterId,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    proof: IdleProof,
}

impl IdleProof {
    /// As it is stored.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec(&Stored { format: FORMAT, proof: *self })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads what is stored under this key.
    pub(crate) fn parse(key: &str, json: &[u8]) -> Result<Self, ArchiveError> {
        check_format(key, json)?;
        let stored: Stored =
            serde_json::from_slice(json).map_err(|error| ArchiveError::damaged(key, error))?;
        Ok(stored.proof)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_stored_as_format_md_says() {
        let proof = IdleProof {
            timeline: TimelineId::FIRST,
            flush_lsn: Lsn(0x300_00D8),
            time: Timestamp(848_526_300_123_456),
            writer: "7f3a00000000beef".parse().unwrap(),
        };
        let json = proof.to_json().unwrap();
        assert_eq!(
            String::from_utf8(json.clone()).unwrap(),
            "{\"format\":1,\"timeline\":1,\"flush_lsn\":\"0/30000D8\",\
             \"time\":\"2026-11-20T21:45:00.123456Z\",\"writer\":\"7f3a00000000beef\"}\n"
        );
        assert_eq!(IdleProof::parse("key", &json).unwrap(), proof);
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let later = IdleProof::parse("key", br#"{"format":2}"#);
        assert!(matches!(later, Err(ArchiveError::UnknownFormat { version: 2, .. })));
        assert!(matches!(IdleProof::parse("key", b"{"), Err(ArchiveError::Damaged { .. })));
    }
}
