//! The lines of a manifest as JSON.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walpoint_wal::SystemIdentifier;

use super::columns::{Columns, OwnedColumns};
use super::windows::check_windows;
use super::{CONFIG_FOLDER, EntryKind, ManifestEntry, Piece, TABLESPACE_FOLDER, Windows, check_pieces};
use crate::backup_id::BackupId;
use crate::content::{ContentHash, StoredHash};
use crate::hex;
use crate::relative_path::{MAX_PATH_BYTES, RelativePath};

/// The first line's mark.
pub(super) const MARK: &str = "manifest";

#[derive(Serialize)]
pub(super) struct HeaderLine<'a> {
    pub walpoint: &'static str,
    pub format: u32,
    pub backup: &'a BackupId,
    pub system_identifier: SystemIdentifier,
    pub piece: [&'static str; 7],
}

#[derive(Serialize)]
pub(super) struct MoreLine<'a> {
    pub more: Vec<Columns<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub windows: &'a [Option<ContentHash>],
}

#[derive(Serialize)]
pub(super) struct TrailerLine {
    pub entries: u64,
    pub files: u64,
    pub bytes: u64,
    pub sha256: StoredHash,
}

#[derive(Serialize, Default)]
pub(super) struct EntryLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pieces: Option<Vec<Columns<'a>>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    windows: &'a [Option<ContentHash>],
}

impl<'a> EntryLine<'a> {
    /// The entry's line, with its first pieces and windows.
    pub(super) fn new(
        entry: &'a ManifestEntry,
        pieces: &'a [Piece],
        windows: &'a [Option<ContentHash>],
    ) -> Self {
        let (path, path_hex) = text_or_hex(entry.path.as_bytes());
        let mut line = Self { path, path_hex, ..Self::default() };
        match &entry.kind {
            EntryKind::File => line.kind = "file",
            EntryKind::Dir => line.kind = "dir",
            EntryKind::Tablespace { oid, target } => {
                line.kind = "tablespace";
                line.oid = Some(*oid);
                (line.target, line.target_hex) = text_or_hex(target.as_os_str().as_bytes());
            }
            EntryKind::Config { original } => {
                line.kind = "config";
                (line.original, line.original_hex) = text_or_hex(original.as_os_str().as_bytes());
            }
        }
        if !matches!(entry.kind, EntryKind::Tablespace { .. }) {
            line.mode = Some(format!("{:04o}", entry.mode));
        }
        if entry.kind.is_file() {
            line.size = Some(entry.size);
            line.pieces = Some(pieces.iter().map(Columns::of).collect());
            line.windows = windows;
        }
        line
    }
}

/// Names are bytes to the operating system. Those that are not UTF-8 go as
/// hexadecimal digits under another name.
fn text_or_hex(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(hex::encode(bytes))),
    }
}

/// Any line, as it is read: which kind it is shows in what it has. Names that
/// are not known are left alone.
#[derive(Deserialize)]
pub(super) struct AnyLine {
    pub walpoint: Option<String>,
    pub format: Option<u32>,
    pub backup: Option<BackupId>,
    pub system_identifier: Option<SystemIdentifier>,
    path: Option<String>,
    path_hex: Option<String>,
    pub kind: Option<String>,
    mode: Option<String>,
    oid: Option<u32>,
    target: Option<String>,
    target_hex: Option<String>,
    original: Option<String>,
    original_hex: Option<String>,
    size: Option<u64>,
    pieces: Option<Vec<OwnedColumns>>,
    pub more: Option<Vec<OwnedColumns>>,
    #[serde(default)]
    pub windows: Vec<Option<ContentHash>>,
    pub entries: Option<u64>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    pub sha256: Option<StoredHash>,
}

impl AnyLine {
    /// The entry that this line is, or begins; its windows may go on in further lines, and are not in it yet.
    pub(super) fn into_entry(self) -> Result<ManifestEntry, String> {
        let path = bytes_of(self.path, self.path_hex, "path")?;
        let path = RelativePath::new(path).map_err(|error| error.to_string())?;
        let kind = match self.kind.as_deref() {
            Some("file") => EntryKind::File,
            Some("dir") => EntryKind::Dir,
            Some("tablespace") => EntryKind::Tablespace {
                oid: self.oid.ok_or("it lacks \"oid\"")?,
                target: absolute(bytes_of(self.target, self.target_hex, "target")?)?,
            },
            Some("config") => EntryKind::Config {
                original: absolute(bytes_of(self.original, self.original_hex, "original")?)?,
            },
            _ => return Err("it is of no known kind".to_owned()),
        };
        let mode = match (&kind, self.mode) {
            (EntryKind::Tablespace { .. }, _) => 0,
            (_, Some(mode)) => u32::from_str_radix(&mode, 8).map_err(|_| format!("its mode is {mode:?}"))?,
            (_, None) => return Err("it lacks \"mode\"".to_owned()),
        };
        let (size, pieces) = if kind.is_file() {
            (self.size.ok_or("it lacks \"size\"")?, self.pieces.ok_or("it lacks \"pieces\"")?)
        } else {
            (0, Vec::new())
        };
        let pieces = pieces.into_iter().map(|OwnedColumns(piece)| piece).collect();
        Ok(ManifestEntry { path, kind, mode, size, pieces, windows: Windows::default() })
    }
}

fn bytes_of(text: Option<String>, digits: Option<String>, name: &str) -> Result<Vec<u8>, String> {
    match (text, digits) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(digits)) => {
            hex::decode(&digits).ok_or_else(|| format!("\"{name}_hex\" is not hexadecimal"))
        }
        (None, None) => Err(format!("it lacks \"{name}\"")),
        (Some(_), Some(_)) => Err(format!("it has \"{name}\" twice")),
    }
}

fn absolute(bytes: Vec<u8>) -> Result<PathBuf, String> {
    let path = PathBuf::from(OsStr::from_bytes(&bytes));
    if is_clean_absolute(&path) {
        Ok(path)
    } else {
        Err(format!("{} is not an absolute path", path.display()))
    }
}

fn is_clean_absolute(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_prefix(b"/").is_some_and(|rest| RelativePath::new(rest).is_ok())
        && bytes.len() <= MAX_PATH_BYTES
}

/// What an entry must be, whoever made it.
pub(super) fn check_entry(entry: &ManifestEntry) -> Result<(), String> {
    check_kind(entry)?;
    match entry.kind.is_file() {
        true => {
            check_pieces(entry.size, &entry.pieces)?;
            check_windows(entry.size, &entry.windows)
        }
        false if entry.size == 0 && entry.pieces.is_empty() && entry.windows.is_empty() => Ok(()),
        false => Err("it is no file and has content".to_owned()),
    }
}

/// What it must be apart from its content, written and read alike.
pub(super) fn check_kind(entry: &ManifestEntry) -> Result<(), String> {
    if entry.mode & !0o777 != 0 {
        return Err(format!("its mode is {:o}", entry.mode));
    }
    match &entry.kind {
        EntryKind::Tablespace { oid, target } => {
            if entry.path.as_str() != Some(format!("{TABLESPACE_FOLDER}/{oid}").as_str()) {
                return Err(format!("a tablespace lies at {}", entry.path));
            }
            if !is_clean_absolute(target) {
                return Err(format!("{} is not an absolute path", target.display()));
            }
        }
        EntryKind::Config { original } => {
            let mut above = entry.path.as_path().components();
            if above.next().map(|first| first.as_os_str()) != Some(OsStr::new(CONFIG_FOLDER))
                || above.next().is_none()
            {
                return Err(format!("a configuration file lies at {}", entry.path));
            }
            if !is_clean_absolute(original) {
                return Err(format!("{} is not an absolute path", original.display()));
            }
        }
        EntryKind::File | EntryKind::Dir => {}
    }
    Ok(())
}
