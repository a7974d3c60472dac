//! Names of records of `verify`.

use std::fmt;
use std::str::FromStr;

use crate::hex;

/// 64 random bits, printed as 16 hexadecimal digits: two runs that begin at once do not share a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RecordId([u8; 8]);

/// Text that is not such a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is not 16 lower-case hexadecimal digits")]
pub struct RecordIdError;

impl RecordId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for RecordId {
    type Err = RecordIdError;

    fn from_str(text: &str) -> Result<Self, RecordIdError> {
        hex::decode_array(text).map(Self).ok_or(RecordIdError)
    }
}
