//! What an operator wants to recover to.

mod time;

use std::fmt;
use std::str::FromStr;

use walpoint_archive::BackupId;
use walpoint_wal::{Lsn, TimelineId, Timestamp};

pub use time::parse_target_time;

/// A moment in the life of a cluster, in the six ways PostgreSQL can name one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Everything committed up to this time (`recovery_target_time`).
    Time(Timestamp),
    /// Everything up to and with the record that starts here or next (`recovery_target_lsn`).
    Lsn(Lsn),
    /// Everything up to and with the end of this transaction (`recovery_target_xid`).
    /// Up to 2³² − 1 it is the number that rows and logs show; above, the 64-bit number
    /// that `pg_current_xact_id()` shows.
    Xid(u64),
    /// Everything up to this restore point (`recovery_target_name`).
    Name(String),
    /// The end of a base backup (`recovery_target = 'immediate'`).
    Immediate,
    /// The end of the archive's WAL on the timeline.
    Latest,
}

impl Target {
    /// Whether leaving out the record itself means anything for this kind of target.
    pub fn can_be_exclusive(&self) -> bool {
        matches!(self, Target::Time(_) | Target::Lsn(_) | Target::Xid(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Time(time) => write!(f, "time {time}"),
            Target::Lsn(lsn) => write!(f, "LSN {lsn}"),
            Target::Xid(xid) => write!(f, "transaction {xid}"),
            Target::Name(name) => write!(f, "restore point \"{name}\""),
            Target::Immediate => f.write_str("the end of the base backup"),
            Target::Latest => f.write_str("the end of the archive's WAL"),
        }
    }
}

/// Which timeline's past the target is looked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetTimeline {
    /// The newest timeline that descends from a usable backup.
    #[default]
    Latest,
    /// The timeline that the backup was taken on.
    Current,
    /// This one.
    Number(TimelineId),
}

impl FromStr for TargetTimeline {
    type Err = TargetError;

    /// Takes `latest`, `current` or a decimal number, as PostgreSQL does.
    fn from_str(text: &str) -> Result<TargetTimeline, TargetError> {
        match text {
            "latest" => Ok(TargetTimeline::Latest),
            "current" => Ok(TargetTimeline::Current),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                let number = text.parse().ok().and_then(TimelineId::new);
                number.map(TargetTimeline::Number).ok_or_else(|| TargetError::NotATimeline(text.to_owned()))
            }
            _ => Err(TargetError::NotATimeline(text.to_owned())),
        }
    }
}

/// All that an operator says about a recovery's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetRequest {
    /// The moment.
    pub target: Target,
    /// Stop just before what the target names instead of just after it.
    pub exclusive: bool,
    /// Where to look for it.
    pub timeline: TargetTimeline,
    /// Use this base backup and no other.
    pub backup: Option<BackupId>,
}

impl TargetRequest {
    /// Refuses combinations that mean nothing.
    pub fn check(&self) -> Result<(), TargetError> {
        if self.exclusive && !self.target.can_be_exclusive() {
            return Err(TargetError::ExclusiveMeansNothing);
        }
        match &self.target {
            // 0 to 2 never belong to a transaction (access/transam.h).
            Target::Xid(xid) if *xid & 0xFFFF_FFFF < 3 => Err(TargetError::NotATransaction(*xid)),
            _ => Ok(()),
        }
    }
}

/// The request cannot be understood; every one of these is wrong usage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not of the form that is taken.
    #[error("could not read \"{0}\" as a time")]
    NotATime(String),
    /// No offset and no time zone.
    #[error("could not tell which moment \"{0}\" is: it has no offset from UTC")]
    NoOffset(String),
    /// No such zone on this machine or in the tables that are built in.
    #[error("could not find the time zone \"{0}\"")]
    UnknownTimezone(String),
    /// Clocks were set back over this local time.
    #[error(
        "could not tell which moment \"{text}\" is: in {timezone} it came twice, as {first} and as {second}"
    )]
    CameTwice {
        /// As given.
        text: String,
        /// As given.
        timezone: String,
        /// The earlier of the two.
        first: Timestamp,
        /// The later of the two.
        second: Timestamp,
    },
    /// Clocks were set forward over this local time.
    #[error("could not find a moment \"{text}\": in {timezone} clocks were set forward over it")]
    NeverCame {
        /// As given.
        text: String,
        /// As given.
        timezone: String,
    },
    /// Not a target timeline.
    #[error("could not read \"{0}\" as a timeline: a decimal number, \"latest\" or \"current\" is expected")]
    NotATimeline(String),
    /// A special transaction number.
    #[error("{0} is not the number of a transaction")]
    NotATransaction(u64),
    /// `--exclusive` where nothing can be left out.
    #[error("exclusive means nothing for a restore point, the end of a backup or the end of WAL")]
    ExclusiveMeansNothing,
}

impl TargetError {
    /// The next step.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            TargetError::NotATime(_) => "write it as 2026-11-20 21:45:00.123456+00 or 2026-11-20T21:45:00Z",
            TargetError::NoOffset(_) => "add the offset (+00, +01:00, Z) or name the zone with --timezone",
            TargetError::UnknownTimezone(_) => "names look like Europe/Berlin or UTC",
            TargetError::CameTwice { .. } | TargetError::NeverCame { .. } => {
                "write the time with its offset from UTC"
            }
            TargetError::NotATimeline(_) => {
                "give a number as walpoint list --wal shows it (decimal), \"latest\" or \"current\""
            }
            TargetError::NotATransaction(_) => "transactions are numbered from 3",
            TargetError::ExclusiveMeansNothing => "leave out --exclusive",
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn timelines_are_decimal() {
        assert_eq!("latest".parse(), Ok(TargetTimeline::Latest));
        assert_eq!("current".parse(), Ok(TargetTimeline::Current));
        assert_eq!("10".parse(), Ok(TargetTimeline::Number(TimelineId::new(10).unwrap())));
        for wrong in ["", "0", "A", "0xA", "-1", "+1", "4294967296", "Latest"] {
            let error = wrong.parse::<TargetTimeline>().unwrap_err();
            assert!(error.hint().is_some_and(|hint| hint.contains("decimal")), "{wrong}");
        }
    }

    #[test]
    fn exclusive_needs_something_to_leave_out() {
        let request = |target, exclusive| TargetRequest {
            target,
            exclusive,
            timeline: TargetTimeline::Latest,
            backup: None,
        };
        for target in [Target::Name("x".into()), Target::Immediate, Target::Latest] {
            assert!(request(target.clone(), false).check().is_ok());
            assert_eq!(request(target, true).check(), Err(TargetError::ExclusiveMeansNothing));
        }
        for target in [Target::Time(Timestamp(0)), Target::Lsn(Lsn(1)), Target::Xid(3)] {
            assert!(request(target, true).check().is_ok());
        }
        for special in [0, 1, 2, 1 << 32] {
            assert!(request(Target::Xid(special), false).check().is_err());
        }
    }
}
