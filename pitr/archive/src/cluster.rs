//! `cluster.json`: what a cluster is, and nothing that two honest writers could
//! disagree on. Whoever comes first stores it; all others compare.

use serde::{Deserialize, Serialize};
use walpoint_wal::{SegmentSize, SystemIdentifier};

use crate::error::ArchiveError;
use crate::facts::FORMAT;

/// What a cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// From `pg_control`.
    pub system_identifier: SystemIdentifier,
    /// Size of its WAL segments in bytes.
    pub segment_size: SegmentSize,
    /// Size of its data pages in bytes.
    pub block_size: u32,
    /// Size of its WAL pages in bytes.
    pub wal_block_size: u32,
    /// Major version of PostgreSQL.
    pub major: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    #[serde(flatten)]
    cluster: Cluster,
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl Cluster {
    /// As it is stored: the same bytes whoever writes them.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut json = serde_json::to_vec_pretty(&Stored { format: FORMAT, cluster: *self })?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads what is stored under this key.
    pub(crate) fn parse(key: &str, json: &[u8]) -> Result<Self, ArchiveError> {
        check_format(key, json)?;
        let stored: Stored =
            serde_json::from_slice(json).map_err(|error| ArchiveError::damaged(key, error))?;
        Ok(stored.cluster)
    }

    /// What differs between the archive's cluster and another one, in words.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let differs = |what, ours: String, theirs: String| format!("its {what} is {ours}, not {theirs}");
        if self.system_identifier != other.system_identifier {
            let (ours, theirs) = (self.system_identifier, other.system_identifier);
            return Some(differs("system identifier", ours.to_string(), theirs.to_string()));
        }
        let (ours, theirs) = (self.segment_size.bytes(), other.segment_size.bytes());
        [
            ("WAL segment size", ours, theirs),
            ("block size", self.block_size.into(), other.block_size.into()),
            ("WAL block size", self.wal_block_size.into(), other.wal_block_size.into()),
            ("major version", self.major.into(), other.major.into()),
        ]
        .into_iter()
        .find(|(_, ours, theirs)| ours != theirs)
        .map(|(what, ours, theirs)| differs(what, ours.to_string(), theirs.to_string()))
    }
}

/// That a JSON object is in a format known here: asked first, because a later
/// format may lack what this one requires.
pub(crate) fn check_format(key: &str, json: &[u8]) -> Result<(), ArchiveError> {
    let FormatOnly { format } =
        serde_json::from_slice(json).map_err(|error| ArchiveError::damaged(key, error))?;
    match format {
        1..=FORMAT => Ok(()),
        version => Err(ArchiveError::UnknownFormat { key: key.to_owned(), version }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn cluster() -> Cluster {
        Cluster {
            system_identifier: SystemIdentifier(7),
            segment_size: SegmentSize::new(1 << 20).unwrap(),
            block_size: 8192,
            wal_block_size: 8192,
            major: 15,
        }
    }

    #[test]
    fn what_is_stored_is_what_format_md_shows() {
        let json = String::from_utf8(cluster().to_json().unwrap()).unwrap();
        assert_eq!(
            json,
            "{\n  \"format\": 1,\n  \"system_identifier\": \"7\",\n  \"segment_size\": 1048576,\n  \
             \"block_size\": 8192,\n  \"wal_block_size\": 8192,\n  \"major\": 15\n}\n"
        );
        assert_eq!(Cluster::parse("k", json.as_bytes()).unwrap(), cluster());
    }

    #[test]
    fn a_later_format_and_damage_are_told_apart() {
        assert!(matches!(
            Cluster::parse("k", b"{\"format\": 2}"),
            Err(ArchiveError::UnknownFormat { version: 2, .. })
        ));
        for json in [&b""[..], b"{}", b"{\"format\": 1}", b"[]", b"\xff"] {
            assert!(matches!(Cluster::parse("k", json), Err(ArchiveError::Damaged { .. })));
        }
    }

    #[test]
    fn a_difference_is_named() {
        assert_eq!(cluster().difference(&cluster()), None);
        let resized = Cluster { segment_size: SegmentSize::new(1 << 24).unwrap(), ..cluster() };
        let text = cluster().difference(&resized).unwrap();
        assert_eq!(text, "its WAL segment size is 1048576, not 16777216");
        assert!(cluster().difference(&Cluster { major: 16, ..cluster() }).is_some());
        assert!(cluster().difference(&Cluster { block_size: 4096, ..cluster() }).is_some());
    }
}
