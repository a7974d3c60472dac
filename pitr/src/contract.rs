//! The recovery contract: what a restore needs from the archive, written into the
//! restored data directory and named in its `restore_command`.
//!
//! From one file name alone nobody can tell the end of the archive from a hole in
//! it: PostgreSQL also asks for segments past the target (15 and later read
//! ahead), for the parent's segments past a fork and for histories that never
//! existed. The contract says which is which, so that only a file that recovery
//! cannot do without stops it. Everything here is pure.

use serde::{Deserialize, Serialize};
use walpoint_wal::{
    Lsn, PathStep, SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp, WalFileName,
};

#[cfg(test)]
mod tests;

/// Name of the contract's file within the data directory.
pub const CONTRACT_FILE: &str = "walpoint.recovery.json";

/// The newest format that this version reads, and the one that it writes.
pub const CONTRACT_FORMAT: u32 = 1;

/// What one recovery needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// Version of this file's format.
    pub format: u32,
    /// The cluster that is recovered.
    pub system_identifier: SystemIdentifier,
    /// Size of its WAL segments in bytes.
    pub segment_size: SegmentSize,
    /// Which stretch of WAL comes from which timeline, oldest first. The last step
    /// is the timeline handed to PostgreSQL and has no end.
    pub path: Vec<PathStep>,
    /// The segment that replay starts in.
    pub first_segment: SegmentName,
    /// The segment that holds the end of the last record to replay, on the timeline
    /// whose file the plan counts on.
    pub last_segment: SegmentName,
    /// Start of the last record to replay.
    pub last_record: Lsn,
    /// The target in words, for people.
    pub target: String,
    /// When the restore was made.
    pub restored_at: Timestamp,
    /// Writer id of the restored data directory.
    pub writer: String,
    /// Databases that were left out: as long as the cluster has them it takes nobody's place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
}

/// A database of which a restore made the files and brought no content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its OID.
    pub oid: u32,
    /// Its name, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What the contract says about one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Recovery cannot pass without it: when it is absent, that is a gap.
    Needed,
    /// It lies after the last record to replay: whether it is there or can be read
    /// makes no difference.
    Beyond,
    /// A parent's segment that starts at or after its fork: foreign WAL, not to be
    /// handed over even when the archive has it.
    PastFork,
    /// The contract says nothing about it; the rules without a contract hold.
    NotOnPath,
}

/// The file is not a contract that this version can follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// It could not be read as what it should be.
    #[error("could not read the recovery contract: {0}")]
    Malformed(String),
    /// A later version of walpoint wrote it.
    #[error(
        "could not read the recovery contract: its format is {found}, and this version reads up to {CONTRACT_FORMAT}"
    )]
    NewerFormat {
        /// The format that the file names.
        found: u32,
    },
    /// Its parts contradict each other.
    #[error("could not follow the recovery contract: {0}")]
    Contradiction(&'static str),
}

impl Contract {
    /// The file's content.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists of them: nothing here can fail to serialise.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads the file's content. Unknown members are passed over, since a later
    /// version may add some within one format.
    pub fn from_json(text: &[u8]) -> Result<Contract, ContractError> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let malformed = |error: serde_json::Error| ContractError::Malformed(error.to_string());
        let Versioned { format } = serde_json::from_slice(text).map_err(malformed)?;
        if format > CONTRACT_FORMAT {
            return Err(ContractError::NewerFormat { found: format });
        }
        let contract: Contract = serde_json::from_slice(text).map_err(malformed)?;
        contract.check()?;
        Ok(contract)
    }

    /// What recovery needs of this file.
    pub fn judge(&self, name: &WalFileName) -> Need {
        match name {
            WalFileName::Segment(segment) => self.judge_segment(*segment),
            WalFileName::Partial(_) | WalFileName::History(_) | WalFileName::BackupHistory { .. } => {
                Need::NotOnPath
            }
        }
    }

    /// Where the WAL of this segment's timeline ends within the segment because the
    /// path goes on with another timeline: bytes from there on are foreign.
    pub fn fork_cut(&self, segment: &SegmentName) -> Option<Lsn> {
        let number = segment.number(self.segment_size).ok()?;
        let fork = self.step(segment.timeline)?.end?;
        let starts_inside = fork.segment_number(self.segment_size) == number;
        (starts_inside && fork.offset_in_segment(self.segment_size) > 0).then_some(fork)
    }

    fn judge_segment(&self, segment: SegmentName) -> Need {
        let (Ok(number), Ok(first), Ok(last)) =
            (self.number(segment), self.number(self.first_segment), self.number(self.last_segment))
        else {
            return Need::NotOnPath;
        };
        let step = self.step(segment.timeline);
        if step.and_then(|step| step.end).is_some_and(|fork| self.starts_at_or_after(number, fork)) {
            return Need::PastFork;
        }
        // Before asking whether the timeline is on the path: PostgreSQL walks through
        // every ancestor in the history while it reads ahead past the target.
        if number > last {
            return Need::Beyond;
        }
        let owner = self.owner(number, last);
        match step {
            Some(_) if number < first => Need::NotOnPath,
            Some(step) if Some(step.timeline) == owner => Need::Needed,
            Some(step) if number == last && Some(step.timeline) > owner => Need::Beyond,
            _ => Need::NotOnPath,
        }
    }

    /// The timeline whose file recovery needs for this segment number: the newest on
    /// the path that has begun by then, since a child's first segment repeats its
    /// parent's part. For the last number it is the one that the plan counts on.
    fn owner(&self, number: u64, last: u64) -> Option<TimelineId> {
        if number == last {
            return Some(self.last_segment.timeline);
        }
        let begun = |step: &&PathStep| step.begin.segment_number(self.segment_size) <= number;
        self.path.iter().rev().find(begun).map(|step| step.timeline)
    }

    fn step(&self, timeline: TimelineId) -> Option<&PathStep> {
        self.path.iter().find(|step| step.timeline == timeline)
    }

    fn number(&self, segment: SegmentName) -> Result<u64, ContractError> {
        let wrong = |_| ContractError::Contradiction("a segment's name does not fit the segment size");
        segment.number(self.segment_size).map_err(wrong)
    }

    fn starts_at_or_after(&self, number: u64, fork: Lsn) -> bool {
        number.checked_mul(self.segment_size.bytes()).is_none_or(|start| start >= fork.0)
    }

    fn check(&self) -> Result<(), ContractError> {
        let contradiction = |what| Err(ContractError::Contradiction(what));
        if self.number(self.first_segment)? > self.number(self.last_segment)? {
            return contradiction("its first segment lies after its last one");
        }
        if self.path.last().is_none_or(|step| step.end.is_some()) {
            return contradiction("its last timeline has an end, or there is none");
        }
        let joined = |pair: &[PathStep]| match pair {
            [older, newer] => older.timeline < newer.timeline && older.end == Some(newer.begin),
            _ => true,
        };
        if !self.path.windows(2).all(joined) {
            return contradiction("the steps of its timeline path do not join");
        }
        if self.step(self.last_segment.timeline).is_none() {
            return contradiction("its last segment is of a timeline that is not on the path");
        }
        Ok(())
    }
}
