//! Names of the files that PostgreSQL hands to `archive_command` and asks
//! `restore_command` for. This is the only place that takes such names apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::segment::{NameError, SegmentName, upper_hex8};
use crate::timeline::TimelineId;

/// A WAL file's name (access/xlog_internal.h: `IsXLogFileName`,
/// `IsPartialXLogFileName`, `IsTLHistoryFileName`, `IsBackupHistoryFileName`; 13–18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum WalFileName {
    /// A whole segment.
    Segment(SegmentName),
    /// `<segment>.partial`: a timeline's last segment, not filled to its end.
    Partial(SegmentName),
    /// `<timeline>.history`.
    History(TimelineId),
    /// `<segment>.<offset>.backup`: written at the end of a base backup.
    BackupHistory {
        /// Segment that the backup starts in.
        segment: SegmentName,
        /// Where in that segment it starts, in bytes.
        offset: u32,
    },
}

const WHAT: &str = "the name of a WAL file: a segment, a .partial segment, a timeline history or a backup history is expected";

impl WalFileName {
    /// The timeline that the first 8 digits name.
    pub fn timeline(self) -> TimelineId {
        match self {
            WalFileName::Segment(name) | WalFileName::Partial(name) => name.timeline,
            WalFileName::History(timeline) => timeline,
            WalFileName::BackupHistory { segment, .. } => segment.timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFileName::Segment(name) => write!(f, "{name}"),
            WalFileName::Partial(name) => write!(f, "{name}.partial"),
            WalFileName::History(timeline) => write!(f, "{}.history", timeline.hex8()),
            WalFileName::BackupHistory { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<WalFileName, NameError> {
        parse(text).ok_or_else(|| NameError { text: text.to_owned(), what: WHAT })
    }
}

fn parse(text: &str) -> Option<WalFileName> {
    let Some((stem, ending)) = text.split_once('.') else {
        return text.parse().ok().map(WalFileName::Segment);
    };
    match ending {
        "partial" => stem.parse().ok().map(WalFileName::Partial),
        "history" => upper_hex8(stem).and_then(TimelineId::new).map(WalFileName::History),
        _ => {
            let offset = upper_hex8(ending.strip_suffix(".backup")?)?;
            stem.parse().ok().map(|segment| WalFileName::BackupHistory { segment, offset })
        }
    }
}

impl From<WalFileName> for String {
    fn from(name: WalFileName) -> String {
        name.to_string()
    }
}

impl TryFrom<String> for WalFileName {
    type Error = NameError;

    fn try_from(text: String) -> Result<WalFileName, NameError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_of_name_comes_back_as_it_was() {
        for text in [
            "0000000100000000000000AB",
            "0000000100000000000000AB.partial",
            "00000001.history",
            "FFFFFFFF.history",
            "000000010000000000000003.00000028.backup",
        ] {
            assert_eq!(text.parse::<WalFileName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_exactly_a_name_is_refused() {
        for wrong in [
            "",
            ".",
            "0000000100000000000000ab",
            "00000000.history",
            "0000001.history",
            "00000001.history.partial",
            "00000001.HISTORY",
            "0000000100000000000000AB.partial.zst",
            "0000000100000000000000AB.0000028.backup",
            "0000000100000000000000AB..backup",
            "0000000100000000000000AB.backup",
            "../0000000100000000000000AB",
            "0000000100000000000000AB\n",
            "RECOVERYXLOG",
        ] {
            assert!(wrong.parse::<WalFileName>().is_err(), "{wrong}");
        }
    }
}
