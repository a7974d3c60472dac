//! The number that says which cluster a file belongs to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// PostgreSQL's system identifier, made by `initdb`. All standbys, clones and
/// restored copies of a cluster share it.
///
/// Printed in decimal, also in serde: JSON readers lose digits of 64-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SystemIdentifier(pub u64);

/// The text is not a system identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not a system identifier: a decimal number of at most 20 digits is expected")]
pub struct SystemIdentifierError {
    /// The text that was refused.
    pub text: String,
}

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemIdentifier {
    type Err = SystemIdentifierError;

    fn from_str(text: &str) -> Result<SystemIdentifier, SystemIdentifierError> {
        let refused = || SystemIdentifierError { text: text.to_owned() };
        // One text per number, since it names a place in the archive: no sign, no leading zero.
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        if !plain {
            return Err(refused());
        }
        text.parse().map(SystemIdentifier).map_err(|_| refused())
    }
}

impl From<SystemIdentifier> for String {
    fn from(identifier: SystemIdentifier) -> String {
        identifier.to_string()
    }
}

impl TryFrom<String> for SystemIdentifier {
    type Error = SystemIdentifierError;

    fn try_from(text: String) -> Result<SystemIdentifier, SystemIdentifierError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_text_per_number() {
        let text = "7573926172837465123";
        assert_eq!(text.parse::<SystemIdentifier>().unwrap().to_string(), text);
        for wrong in ["", "+1", "-1", "01", " 1", "1 ", "18446744073709551616", "0x1"] {
            assert!(wrong.parse::<SystemIdentifier>().is_err(), "{wrong}");
        }
    }
}
