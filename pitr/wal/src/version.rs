//! Which PostgreSQL wrote it.

use serde::{Deserialize, Serialize};

/// A major version whose WAL can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u32", try_from = "u32")]
pub enum Major {
    /// PostgreSQL 13.
    V13,
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

/// The number is not that of a major version this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL {number} is not a version this program can read: 13 to 18 are")]
pub struct MajorError {
    /// The number that was refused.
    pub number: u32,
}

impl Major {
    /// All of them, oldest first.
    pub const ALL: [Major; 6] = [Major::V13, Major::V14, Major::V15, Major::V16, Major::V17, Major::V18];

    /// The version whose WAL pages begin with this number (`XLOG_PAGE_MAGIC`).
    pub fn from_page_magic(magic: u16) -> Option<Major> {
        Major::ALL.into_iter().find(|major| major.page_magic() == magic)
    }

    /// `XLOG_PAGE_MAGIC`, access/xlog_internal.h of each version.
    pub fn page_magic(self) -> u16 {
        match self {
            Major::V13 => 0xD106,
            Major::V14 => 0xD10D,
            Major::V15 => 0xD110,
            Major::V16 => 0xD113,
            Major::V17 => 0xD116,
            Major::V18 => 0xD118,
        }
    }

    /// The number people say: 13 to 18.
    pub fn number(self) -> u32 {
        match self {
            Major::V13 => 13,
            Major::V14 => 14,
            Major::V15 => 15,
            Major::V16 => 16,
            Major::V17 => 17,
            Major::V18 => 18,
        }
    }

    /// The version with this number.
    pub fn from_number(number: u32) -> Option<Major> {
        Major::ALL.into_iter().find(|major| major.number() == number)
    }

    /// `CATALOG_VERSION_NO`, catalog/catversion.h of each release branch; it is
    /// frozen at the first release candidate.
    pub fn catalog_version(self) -> u32 {
        match self {
            Major::V13 => 202_007_201,
            Major::V14 => 202_107_181,
            Major::V15 => 202_209_061,
            Major::V16 => 202_307_071,
            Major::V17 => 202_406_281,
            Major::V18 => 202_506_291,
        }
    }

    /// `PG_CONTROL_VERSION`, catalog/pg_control.h of each version.
    pub fn control_version(self) -> u32 {
        match self {
            Major::V13 | Major::V14 | Major::V15 | Major::V16 => 1300,
            Major::V17 => 1700,
            Major::V18 => 1800,
        }
    }

    /// The version that both numbers of a `pg_control` file name. The first alone
    /// does not tell 13, 14, 15 and 16 apart.
    pub fn from_control_version(control_version: u32, catalog_version: u32) -> Option<Major> {
        let named = |major: &Major| {
            (major.control_version(), major.catalog_version()) == (control_version, catalog_version)
        };
        Major::ALL.into_iter().find(named)
    }
}

impl From<Major> for u32 {
    fn from(major: Major) -> u32 {
        major.number()
    }
}

impl TryFrom<u32> for Major {
    type Error = MajorError;

    fn try_from(number: u32) -> Result<Major, MajorError> {
        Major::from_number(number).ok_or(MajorError { number })
    }
}

impl std::fmt::Display for Major {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.number())
    }
}
