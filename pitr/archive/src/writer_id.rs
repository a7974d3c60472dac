//! Who stored an object: a random id that a data directory keeps, and that
//! every restore renews. So two servers that archive under one name can be told
//! apart, though they are copies of each other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hex;

/// 64 random bits, printed as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WriterId([u8; 8]);

/// Text that is not a writer id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a writer id of 16 lower-case hexadecimal digits")]
pub struct WriterIdError(String);

impl WriterId {
    /// A new id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WriterId({self})")
    }
}

impl FromStr for WriterId {
    type Err = WriterIdError;

    fn from_str(text: &str) -> Result<Self, WriterIdError> {
        hex::decode_array(text).map(Self).ok_or_else(|| WriterIdError(text.chars().take(80).collect()))
    }
}

impl TryFrom<String> for WriterId {
    type Error = WriterIdError;

    fn try_from(text: String) -> Result<Self, WriterIdError> {
        text.parse()
    }
}

impl From<WriterId> for String {
    fn from(id: WriterId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_id_parses_to_itself_and_each_is_another() {
        let id = WriterId::random();
        assert_eq!(id.to_string().parse::<WriterId>().unwrap(), id);
        assert_ne!(id, WriterId::random());
        assert!("0123".parse::<WriterId>().is_err());
        assert!("0123456789ABCDEF".parse::<WriterId>().is_err());
    }
}
