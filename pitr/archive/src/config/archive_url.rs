//! Where an archive is, as an operator writes it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{ArchiveConfigError, without_user_info};
use crate::object_key::{ObjectKey, ObjectKeyError};

/// `s3://bucket[/prefix]` or `file:///directory`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ArchiveUrl {
    /// A bucket, and the prefix of all keys (without `/` at its end, may be empty).
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What precedes every key.
        prefix: String,
    },
    /// A directory, by absolute path.
    Dir(PathBuf),
}

impl FromStr for ArchiveUrl {
    type Err = ArchiveConfigError;

    fn from_str(text: &str) -> Result<Self, ArchiveConfigError> {
        let refused = |why: String| {
            ArchiveConfigError::new(format!("[archive] url {:?}", without_user_info(text)), why)
        };
        if let Some(rest) = text.strip_prefix("s3://") {
            return parse_s3(rest).map_err(refused);
        }
        if let Some(path) = text.strip_prefix("file://") {
            return parse_dir(path).map_err(refused);
        }
        Err(refused("it begins with neither s3:// nor file:///".to_owned()))
    }
}

fn parse_s3(rest: &str) -> Result<ArchiveUrl, String> {
    if rest.contains('@') {
        return Err(
            "credentials do not belong here; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned()
        );
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    // Amazon S3, "General purpose bucket naming rules"; older buckets have
    // capitals and underscores too.
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if !(3..=255).contains(&bucket.len()) || !bucket.bytes().all(safe) {
        return Err(format!("{bucket:?} cannot be the name of a bucket"));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() {
        ObjectKey::new(prefix).map_err(|ObjectKeyError { reason, .. }| format!("its prefix: {reason}"))?;
    }
    Ok(ArchiveUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn parse_dir(path: &str) -> Result<ArchiveUrl, String> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    let path = decoded.map_err(|_| "its path is not UTF-8".to_owned())?;
    if !path.starts_with('/') {
        return Err("a directory is named by its absolute path, file:///…".to_owned());
    }
    if path.contains('\0') {
        return Err("its path holds a zero byte".to_owned());
    }
    Ok(ArchiveUrl::Dir(Path::new(path.as_ref()).to_owned()))
}

impl fmt::Display for ArchiveUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Dir(path) => {
                let text = path.to_string_lossy();
                write!(f, "file://{}", percent_encoding::utf8_percent_encode(&text, UNSAFE_IN_PATH))
            }
        }
    }
}

/// What would not read back as it was written.
const UNSAFE_IN_PATH: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%').add(b' ');

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_url_reads_back_as_it_was_written() {
        for text in ["s3://bucket", "s3://bucket/a/b", "file:///srv/archive", "file:///srv/my%20archive%25"] {
            assert_eq!(text.parse::<ArchiveUrl>().unwrap().to_string(), text);
        }
        let slash: ArchiveUrl = "s3://bucket/a/".parse().unwrap();
        assert_eq!(slash.to_string(), "s3://bucket/a");
        let space: ArchiveUrl = "file:///srv/my%20archive".parse().unwrap();
        assert_eq!(space, ArchiveUrl::Dir(PathBuf::from("/srv/my archive")));
    }

    #[test]
    fn an_archive_url_that_names_no_place_is_refused() {
        for text in [
            "",
            "bucket",
            "s3://",
            "s3://b",
            "s3:///x",
            "s3://bu cket",
            "s3://bucket//a",
            "s3://bucket/../x",
            "file://relative",
            "file://",
            "file:/x",
            "http://host/bucket",
            "file:///a%00b",
            "s3://user:pw@bucket",
        ] {
            assert!(text.parse::<ArchiveUrl>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn credentials_in_an_archive_url_are_refused_and_not_repeated() {
        for text in
            ["s3://user:secret@bucket", "s3://user:sec/secret@bucket/a", "https://user:secret@host/bucket"]
        {
            let error = format!("{0} {0:?}", text.parse::<ArchiveUrl>().unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
