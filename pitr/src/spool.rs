//! WAL that was fetched before recovery asked for it: files in a directory of one recovery, each named by the
//! hash of its content.
//!
//! A name says nothing about what a file is good for. Who takes one knows from the archive which content he
//! needs, and hashes what he finds: what is of another recovery, damaged or not whole is not what he looks for.
//! That a file is not here says nothing at all. So nothing here is made durable, and all of it may go at any
//! moment.
//!
//! `archive-get` writes down what it was asked for last; whoever fetches ahead ([`crate::prefetch`]) holds the
//! lock, and reads that.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use walpoint_archive::{ContentHash, ContentId, own_directory};
use walpoint_wal::SegmentName;

mod tended;
#[cfg(test)]
mod tests;

pub use tended::{Incoming, Tended, remove_abandoned};

/// Begins the name of every spool's directory.
const PREFIX: &str = "walpoint-spool-";
/// Held by whoever fetches ahead.
const LOCK: &str = "lock";
/// What was asked for last.
const ASKED: &str = "asked";
/// Ends the name of a file that is not whole yet; before it stands the content's id.
const COMING: &str = ".part";

/// The place of one recovery's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spool {
    directory: PathBuf,
}

/// What recovery asked for, and by whom: the same segment may be asked for again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Asked {
    /// The segment.
    pub segment: SegmentName,
    process: u32,
}

/// A file that was fetched ahead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub path: PathBuf,
    /// What its content is said to be.
    pub content: ContentHash,
}

impl Spool {
    /// In the directory of this name.
    pub fn at(place: &Path, name: &str) -> Self {
        Self { directory: place.join(format!("{PREFIX}{name}")) }
    }

    /// Makes its directory when it is missing, and makes sure that it is this user's alone. What lies in it may
    /// be looked at from then on.
    ///
    /// # Errors
    /// When it cannot be made, or others could put something into it or in its place.
    pub fn make_own(&self) -> io::Result<()> {
        own_directory::make(&self.directory)?;
        own_directory::check_place(&self.directory)
            .and_then(|()| own_directory::check(&self.directory))
            .map_err(io::Error::other)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes down that this segment was asked for, and that the archive has it.
    ///
    /// # Errors
    /// When it cannot be written. Nothing but speed depends on it.
    #[expect(clippy::disallowed_methods, reason = "nothing here has to survive a crash")]
    pub fn note(&self, segment: SegmentName) -> io::Result<()> {
        let process = std::process::id();
        let passing = self.directory.join(format!("{ASKED}.{process}"));
        let written = new_file(&passing, true)
            .and_then(|mut file| writeln!(file, "{segment} {process}"))
            .and_then(|()| std::fs::rename(&passing, self.directory.join(ASKED)));
        if written.is_err() {
            let _ = std::fs::remove_file(&passing);
        }
        written
    }

    /// What was asked for last; none when that cannot be told.
    pub fn asked(&self) -> Option<Asked> {
        let text = std::fs::read_to_string(self.directory.join(ASKED)).ok()?;
        let (segment, process) = text.trim_end().split_once(' ')?;
        Some(Asked { segment: segment.parse().ok()?, process: process.parse().ok()? })
    }

    /// Whether somebody fetches ahead for this recovery.
    pub fn is_tended(&self) -> bool {
        let Ok(lock) = open_file(&self.directory.join(LOCK), OpenOptions::new().read(true)) else {
            return false;
        };
        matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The file of this content.
    pub(crate) fn find(&self, content: ContentId) -> Option<Found> {
        let digits = content.to_string();
        let entries = std::fs::read_dir(&self.directory).ok()?;
        entries.flatten().find_map(|entry| {
            let name = entry.file_name();
            let name = name.to_str().filter(|name| name.starts_with(&digits))?;
            entry.file_type().ok().filter(|kind| kind.is_file())?;
            Some(Found { path: entry.path(), content: name.parse().ok()? })
        })
    }

    /// How much of this content has come, while it is being fetched.
    pub(crate) fn bytes_coming(&self, content: ContentId) -> Option<u64> {
        std::fs::metadata(self.coming(content)).ok().map(|metadata| metadata.len())
    }

    fn coming(&self, content: ContentId) -> PathBuf {
        self.directory.join(format!("{content}{COMING}"))
    }

    fn whole(&self, content: ContentHash) -> PathBuf {
        self.directory.join(content.to_string())
    }
}

/// Opens a file that is one: a link leads elsewhere, and a pipe would be waited for.
fn open_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.custom_flags(i32::try_from(flags.bits()).map_err(io::Error::other)?).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

/// A file of this user's own; where one is there already, only `over` it.
fn new_file(path: &Path, over: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if over {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    options.open(path)
}
