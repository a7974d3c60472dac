//! Exit statuses. Every status of every command is decided in this file.
//!
//! PostgreSQL reads the status of the hooks: `archive_command` above 125 kills the archiver uncounted, and
//! `restore_command` from 1 to 125 means "this is the end of the archive, open the database here". So
//! `archive-push` never leaves above 125 and `archive-get` leaves with 255 unless the work itself said that
//! the file is there or that there is no such file.

use std::fmt;

mod library;
mod recovery;

/// What the statuses mean; the numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The command did what it was asked to.
    Done,
    /// It failed; trying again may help.
    Failed,
    /// Wrong usage or configuration.
    Usage,
    /// The archive holds other content under this name.
    Conflict,
    /// The data belongs to another cluster.
    WrongCluster,
    /// A damaged object or page, or the wrong key.
    Damaged,
    /// The recovery target cannot be reached.
    Unreachable,
    /// A safety gate refused.
    Refused,
}

impl Status {
    /// The number that a command (not a hook) leaves with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Conflict => 3,
            Self::WrongCluster => 4,
            Self::Damaged => 5,
            Self::Unreachable => 6,
            Self::Refused => 7,
        }
    }
}

/// How a run of the program ended when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this status; the command has said what there is to say.
    Status(Status),
    /// `archive-get`: the file is not available, and PostgreSQL may take that as the end of the archive
    /// (or is a standby, which asks again).
    NotAvailable,
    /// `check`: the level that monitoring plugins speak of, 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    Level(u8),
}

impl Ending {
    /// All is well.
    pub const DONE: Self = Self::Status(Status::Done);
}

/// Whose rules for exit statuses hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `archive-push`, run as `archive_command`.
    Push,
    /// `archive-get`, run as `restore_command`.
    Get,
    /// `check`, run by a monitoring system.
    Check,
    /// Everything else.
    Command,
}

impl Role {
    /// True for the two programs that PostgreSQL calls.
    pub fn is_hook(self) -> bool {
        matches!(self, Self::Push | Self::Get)
    }

    /// The status when nothing is known about how the run ended: a panic, say.
    pub fn default_code(self) -> u8 {
        match self {
            Self::Push | Self::Command => 1,
            Self::Get => 255,
            Self::Check => 3,
        }
    }

    /// The status of a run that ended so.
    pub fn code(self, ended: &Result<Ending, Failure>) -> u8 {
        match self {
            Self::Get => match ended {
                Ok(Ending::Status(Status::Done)) => 0,
                Ok(Ending::NotAvailable) => 1,
                _ => self.default_code(),
            },
            Self::Check => match ended {
                Ok(Ending::Level(level @ 0..=3)) => *level,
                Ok(Ending::Status(Status::Done)) => 0,
                _ => self.default_code(),
            },
            Self::Push => match status_of(ended) {
                Some(
                    status @ (Status::Done
                    | Status::Failed
                    | Status::Usage
                    | Status::Conflict
                    | Status::WrongCluster),
                ) => status.code(),
                _ => self.default_code(),
            },
            Self::Command => status_of(ended).map_or(self.default_code(), Status::code),
        }
    }
}

fn status_of(ended: &Result<Ending, Failure>) -> Option<Status> {
    match ended {
        Ok(Ending::Status(status)) => Some(*status),
        Ok(Ending::NotAvailable | Ending::Level(_)) => None,
        Err(failure) => Some(failure.status),
    }
}

/// Why a command did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub status: Status,
    /// What could not be done to which object, and why. Lower case, no full stop.
    pub error: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure of some status.
    pub fn new(status: Status, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), hint: None }
    }

    /// Status 1: trying again may help.
    pub fn failed(error: impl Into<String>) -> Self {
        Self::new(Status::Failed, error)
    }

    /// Status 2: wrong usage or configuration.
    pub fn usage(error: impl Into<String>) -> Self {
        Self::new(Status::Usage, error)
    }

    /// Adds the next step.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the next step when there is one.
    #[must_use]
    pub fn with_hint_of(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Names what was probably meant.
    #[must_use]
    pub fn with_nearest(self, nearest: Option<String>) -> Self {
        let hint = nearest.map(|nearest| format!("the nearest known name is {nearest}"));
        self.with_hint_of(hint)
    }

    /// Puts what was being done before the reason: `could not {what}: {reason}`.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.error = format!("could not {what}: {}", self.error);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Status; 8] = [
        Status::Done,
        Status::Failed,
        Status::Usage,
        Status::Conflict,
        Status::WrongCluster,
        Status::Damaged,
        Status::Unreachable,
        Status::Refused,
    ];

    fn failed(status: Status) -> Result<Ending, Failure> {
        Err(Failure::new(status, "could not"))
    }

    #[test]
    fn the_statuses_are_the_interface() {
        assert_eq!(ALL.map(Status::code), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn get_stops_recovery_unless_the_work_said_otherwise() {
        assert_eq!(Role::Get.code(&Ok(Ending::DONE)), 0);
        assert_eq!(Role::Get.code(&Ok(Ending::NotAvailable)), 1);
        assert_eq!(Role::Get.code(&Ok(Ending::Level(1))), 255);
        assert_eq!(Role::Get.default_code(), 255);
        for status in ALL {
            assert_eq!(Role::Get.code(&failed(status)), 255, "{status:?}");
        }
    }

    #[test]
    fn push_never_leaves_above_125() {
        let expected = [0, 1, 2, 3, 4, 1, 1, 1];
        for (status, code) in ALL.into_iter().zip(expected) {
            assert_eq!(Role::Push.code(&failed(status)), code, "{status:?}");
        }
        assert_eq!(Role::Push.code(&Ok(Ending::NotAvailable)), 1);
        assert_eq!(Role::Push.default_code(), 1);
    }

    #[test]
    fn check_says_unknown_for_every_failure() {
        for level in 0..=3 {
            assert_eq!(Role::Check.code(&Ok(Ending::Level(level))), level);
        }
        assert_eq!(Role::Check.code(&Ok(Ending::Level(9))), 3);
        for status in ALL {
            assert_eq!(Role::Check.code(&failed(status)), 3, "{status:?}");
        }
        assert_eq!(Role::Check.default_code(), 3);
    }

    #[test]
    fn other_commands_leave_with_the_status_itself() {
        for status in ALL {
            assert_eq!(Role::Command.code(&failed(status)), status.code());
            assert_eq!(Role::Command.code(&Ok(Ending::Status(status))), status.code());
        }
        assert_eq!(Role::Command.default_code(), 1);
    }
}
