//! What every object's metadata says, typed: the format, the hash and the size
//! of the plain content, who stored it, and for which cluster.

use walpoint_wal::{SystemIdentifier, Timestamp};

use crate::content::ContentHash;
use crate::description::{Described, Description};
use crate::store::{Metadata, MetadataError};
use crate::writer_id::WriterId;

/// The version of the stored format that this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// Metadata that all data objects have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Common {
    /// Version of the stored format.
    pub format: u32,
    /// BLAKE3 of the plain content.
    pub content: ContentHash,
    /// Size of the plain content in bytes.
    pub plain_size: u64,
    /// Who stored it.
    pub writer: WriterId,
    /// The cluster it belongs to.
    pub system_identifier: SystemIdentifier,
}

/// Why metadata could not be read as facts.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FactsError {
    /// A value that must be there is not.
    #[error("its metadata lacks \"{0}\"")]
    Missing(&'static str),
    /// A value that does not parse.
    #[error("its metadata says {value:?} as \"{name}\"")]
    Unreadable {
        /// The value's name.
        name: &'static str,
        /// The value.
        value: String,
    },
    /// They do not match the hash that they carry.
    #[error("its metadata are not what was stored")]
    Altered,
    /// Written by a later version.
    #[error("it has format {0}, and this program knows formats up to {FORMAT}")]
    UnknownFormat(u32),
}

impl Common {
    /// Facts in the present format.
    pub fn new(
        content: ContentHash,
        plain_size: u64,
        writer: WriterId,
        system_identifier: SystemIdentifier,
    ) -> Self {
        Self { format: FORMAT, content, plain_size, writer, system_identifier }
    }

    /// As object metadata.
    pub fn to_metadata(&self) -> Result<Metadata, MetadataError> {
        self.describe()?.finish()
    }

    /// The beginning of a description of which more is known.
    pub(crate) fn describe(&self) -> Result<Description, MetadataError> {
        let mut description = Description::of(self.content, self.plain_size)?;
        description.put("writer", Some(self.writer))?;
        description.put("system", Some(self.system_identifier))?;
        Ok(description)
    }

    /// From object metadata. Values with other names are left alone: a later
    /// program may have added them.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, FactsError> {
        Self::of_description(Described::verified(metadata)?)
    }

    pub(crate) fn of_description(described: Described<'_>) -> Result<Self, FactsError> {
        Ok(Self {
            format: described.required("format")?,
            content: described.required("content")?,
            plain_size: described.required("size")?,
            writer: described.required("writer")?,
            system_identifier: described.required("system")?,
        })
    }
}

/// A time as text that reads back as the same time. RFC 3339 has no years before
/// 0; a record written while the clock was that wrong must not make its segment
/// unreadable, and is given as microseconds since 2000.
pub(crate) fn time_text(time: Timestamp) -> String {
    let text = time.rfc3339();
    if text.parse() == Ok(time) { text } else { format!("{}us", time.0) }
}

pub(crate) fn unreadable(name: &'static str, value: &str) -> FactsError {
    FactsError::Unreadable { name, value: value.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::description::resealed;

    fn common() -> Common {
        Common::new(ContentHash::of(b"content"), 7, WriterId::random(), SystemIdentifier(u64::MAX))
    }

    #[test]
    fn facts_come_back_from_metadata_and_unknown_names_do_no_harm() {
        let mut metadata = common().to_metadata().unwrap();
        let facts = Common::from_metadata(&metadata).unwrap();
        metadata.insert("invented-later", "x").unwrap();
        assert_eq!(Common::from_metadata(&metadata).unwrap(), facts);
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut metadata = common().to_metadata().unwrap();
        for format in ["0", "2", "4294967295"] {
            metadata.insert("format", format).unwrap();
            let error = Common::from_metadata(&metadata).unwrap_err();
            assert_eq!(error, FactsError::UnknownFormat(format.parse().unwrap()));
        }
        for format in ["one", "-1", "99999999999"] {
            metadata = resealed(&metadata, &[("format", format)]);
            assert!(matches!(Common::from_metadata(&metadata), Err(FactsError::Unreadable { .. })));
        }
        assert_eq!(Common::from_metadata(&Metadata::new()), Err(FactsError::Missing("format")));
    }
}
