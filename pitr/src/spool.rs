//! WAL that was fetched before recovery asked for it: files in a directory of one recovery, each named by its
//! segment and the hash of its content.
//!
//! Who takes one hashes what he finds: what is damaged or not whole is not what its name says. That this is the
//! content which the archive has is known for a moment after it was listed there; a file's time of modification is
//! that of the listing. Later, or when nobody tends the spool, who takes it asks the archive once more. That a file
//! is not here says nothing at all. So nothing here is made durable, and all of it may go at any moment.
//!
//! `archive-get` writes down what it was asked for last; whoever fetches ahead ([`crate::prefetch`]) holds the
//! lock, and reads that.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
/// How long after it was listed a content is taken for what the archive has, without asking again. It may have got a
/// rival meanwhile, been refused or removed: this recovery might as well have asked then.
pub(crate) const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Ends the name of a file that is not whole yet; before it stand the segment and the content's id.
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
    /// When the archive was seen to have it.
    pub listed_at: SystemTime,
}

/// What there is of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// All of it.
    Whole(Found),
    /// So many bytes, so far.
    Coming(u64),
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

    /// What there is of this segment: of this content, or of whatever it is.
    pub(crate) fn find(&self, segment: SegmentName, content: Option<ContentId>) -> Option<Held> {
        // Once more, for it may have been renamed while the directory was read.
        self.look(segment, content).or_else(|| self.look(segment, content))
    }

    fn look(&self, segment: SegmentName, content: Option<ContentId>) -> Option<Held> {
        let entries = std::fs::read_dir(&self.directory).ok()?;
        let mut coming = None;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(named) = name.to_str().and_then(Named::parse) else { continue };
            let is_wanted = content.is_none_or(|content| content == named.id()) && named.segment() == segment;
            let Some(metadata) = entry.metadata().ok().filter(|it| is_wanted && it.is_file()) else {
                continue;
            };
            match named {
                Named::Whole(_, content) => {
                    let listed_at = metadata.modified().ok()?;
                    return Some(Held::Whole(Found { path: entry.path(), content, listed_at }));
                }
                Named::Coming(..) => coming = Some(Held::Coming(metadata.len())),
            }
        }
        coming
    }

    fn path(&self, named: Named) -> PathBuf {
        self.directory.join(named.to_string())
    }
}

/// The name of a file with WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    Whole(SegmentName, ContentHash),
    Coming(SegmentName, ContentId),
}

impl Named {
    fn parse(name: &str) -> Option<Self> {
        let (segment, content) = name.split_once('-')?;
        let segment = segment.parse().ok()?;
        match content.strip_suffix(COMING) {
            Some(digits) => Some(Self::Coming(segment, digits.parse().ok()?)),
            None => Some(Self::Whole(segment, content.parse().ok()?)),
        }
    }

    fn segment(self) -> SegmentName {
        let (Self::Whole(segment, _) | Self::Coming(segment, _)) = self;
        segment
    }

    fn id(self) -> ContentId {
        match self {
            Self::Whole(_, content) => content.id(),
            Self::Coming(_, id) => id,
        }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(segment, content) => write!(f, "{segment}-{content}"),
            Self::Coming(segment, id) => write!(f, "{segment}-{id}{COMING}"),
        }
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
