//! Which files a base backup holds: a walk over the data directory and its
//! tablespaces by the rules of [`rules`].
//!
//! What vanishes while the walk goes on is normal on a running server, and WAL
//! replay makes up for it. Everything else that cannot be read ends the backup.

pub mod rules;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use rules::{Fork, Place, RelationFile, Verdict};

/// What is walked, and the little that the rules cannot know from names.
#[derive(Debug, Clone)]
pub struct Scope {
    pub data_directory: PathBuf,
    /// The directory of a tablespace that is this server's: `PG_15_202209061`.
    pub tablespace_version: String,
    /// PostgreSQL's major version.
    pub major: u32,
    /// Directories inside the data directory, relative to it, of which only
    /// the directory itself is kept.
    pub emptied: Vec<PathBuf>,
    /// Directories and files, relative to the data directory, that are left.
    pub left: Vec<PathBuf>,
}

/// One thing to keep. Paths are relative to the data directory; below a
/// tablespace they go on behind its link: `pg_tblspc/16384/PG_15_…/5/1259`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    Directory,
    /// A regular file, or a symbolic link to one: what is kept is the content.
    File {
        size: u64,
        relation: Option<RelationFile>,
    },
    /// The link of a tablespace. Where it leads to is what the server says at
    /// the backup's end.
    Tablespace {
        oid: u32,
    },
}

/// Everything to keep but `global/pg_control`, which is read after all else.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// In path order.
    pub entries: Vec<Entry>,
    /// Number of regular files, and the sum of their sizes.
    pub files: u64,
    pub bytes: u64,
    /// Tablespaces that are links.
    pub links: BTreeSet<u32>,
}

impl Listing {
    pub(super) fn of(mut entries: Vec<Entry>) -> Listing {
        entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
        let mut listing = Listing::default();
        for entry in &entries {
            match entry.kind {
                EntryKind::File { size, .. } => {
                    listing.files += 1;
                    listing.bytes += size;
                }
                EntryKind::Tablespace { oid } => {
                    listing.links.insert(oid);
                }
                EntryKind::Directory => {}
            }
        }
        Listing { entries, ..listing }
    }
}

/// The OID of the tablespace that the path is of or lies in.
pub fn tablespace_oid(path: &Path) -> Option<u32> {
    let mut parts = path.components();
    if parts.next()? != Component::Normal("pg_tblspc".as_ref()) {
        return None;
    }
    parts.next()?.as_os_str().to_str()?.parse().ok()
}

/// Why there is no complete list of files.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("could not {verb} \"{}\": {source}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("could not back up \"{}\": {reason}", path.display())]
    Refused { path: PathBuf, reason: String, hint: &'static str },
}

impl WalkError {
    /// The operator's next step.
    pub fn hint(&self) -> &str {
        match self {
            WalkError::Io { .. } => "does this command run as the data directory's owner?",
            WalkError::Refused { hint, .. } => hint,
        }
    }
}

/// The control file's place in the data directory.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Walks everything that belongs to the backup.
pub fn walk(scope: &Scope) -> Result<Listing, WalkError> {
    let mut walk = Walk {
        scope,
        inner_tablespaces: tablespaces_inside(scope)?,
        pending: vec![PathBuf::new()],
        found: Vec::new(),
    };
    while let Some(directory) = walk.pending.pop() {
        walk.directory(&directory)?;
    }
    Ok(Listing::of(walk.found))
}

struct Walk<'a> {
    scope: &'a Scope,
    /// Tablespaces that lie in the data directory: they are reached by their
    /// link, and must not be kept twice.
    inner_tablespaces: BTreeSet<PathBuf>,
    pending: Vec<PathBuf>,
    found: Vec<Entry>,
}

impl Walk<'_> {
    /// Takes up what lies in one directory; `directory` is relative.
    fn directory(&mut self, directory: &Path) -> Result<(), WalkError> {
        let place = place_of(directory);
        let Some(names) = names_in(&self.scope.data_directory.join(directory))? else {
            return self.vanished(directory);
        };
        let init_forks = if place == Place::Database { init_forks(&names) } else { BTreeSet::new() };
        for name in &names {
            let path = directory.join(name);
            if rules::is_unlogged_content(name.as_bytes(), |number| init_forks.contains(&number))
                || self.scope.left.contains(&path)
                || path == Path::new(CONTROL_FILE)
            {
                continue;
            }
            match rules::judge(place, name.as_bytes()) {
                Verdict::Leave => {}
                Verdict::KeepEmpty => self.keep_empty(path)?,
                Verdict::Keep => self.keep(place, path)?,
            }
        }
        Ok(())
    }

    /// The data directory itself cannot vanish; every other directory may.
    fn vanished(&self, directory: &Path) -> Result<(), WalkError> {
        if directory.as_os_str().is_empty() {
            let path = self.scope.data_directory.clone();
            return Err(WalkError::Io {
                verb: "read directory",
                path,
                source: io::ErrorKind::NotFound.into(),
            });
        }
        Ok(())
    }

    fn keep(&mut self, place: Place, path: PathBuf) -> Result<(), WalkError> {
        let source = self.scope.data_directory.join(&path);
        let Some(metadata) = unless_vanished("read the status of", &source, fs::symlink_metadata)? else {
            return Ok(());
        };
        if metadata.is_dir() {
            self.keep_directory(path, &metadata);
        } else if metadata.is_file() {
            self.keep_file(place, path, &metadata);
        } else if metadata.is_symlink() {
            self.keep_link(place, path, &source)?;
        } else {
            // Sockets, pipes and devices hold no data.
            tracing::debug!(path = %source.display(), "left a special file");
        }
        Ok(())
    }

    fn keep_directory(&mut self, path: PathBuf, metadata: &Metadata) {
        let is_left_empty = self.inner_tablespaces.contains(&path) || self.scope.emptied.contains(&path);
        if !is_left_empty {
            self.pending.push(path.clone());
        }
        self.found.push(Entry { path, kind: EntryKind::Directory, mode: mode_of(metadata) });
    }

    fn keep_file(&mut self, place: Place, path: PathBuf, metadata: &Metadata) {
        let relation = match place {
            Place::Database | Place::Global => {
                path.file_name().and_then(|name| RelationFile::parse(name.as_bytes()))
            }
            Place::Root | Place::Tablespaces | Place::Other => None,
        };
        let kind = EntryKind::File { size: metadata.len(), relation };
        self.found.push(Entry { path, kind, mode: mode_of(metadata) });
    }

    /// A link in `pg_tblspc` is a tablespace. Elsewhere a link to a file is
    /// followed (`postgresql.conf` that lies with other configuration); one to
    /// a directory cannot be: nobody could say where to restore it.
    fn keep_link(&mut self, place: Place, path: PathBuf, source: &Path) -> Result<(), WalkError> {
        if place == Place::Tablespaces {
            return self.keep_tablespace(path, source);
        }
        let refuse = |reason: &str| WalkError::Refused {
            path: source.to_path_buf(),
            reason: reason.to_owned(),
            hint: "only tablespaces and pg_wal may be symbolic links to directories: move the \
                   directory back, or name its real place in the server's settings",
        };
        match fs::metadata(source) {
            Ok(metadata) if metadata.is_file() => self.keep_file(place, path, &metadata),
            Ok(metadata) if metadata.is_dir() => {
                return Err(refuse("it is a symbolic link to a directory outside the backup"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if fs::symlink_metadata(source).is_ok() {
                    return Err(refuse("it is a symbolic link to something that does not exist"));
                }
            }
            Err(error) => return Err(io_error("read the status of", source)(error)),
        }
        Ok(())
    }

    /// Keeps the link, and of the tablespace the directory that is this
    /// server's: others may share the location.
    fn keep_tablespace(&mut self, path: PathBuf, source: &Path) -> Result<(), WalkError> {
        let Some(oid) = tablespace_oid(&path) else {
            return Err(WalkError::Refused {
                path: source.to_path_buf(),
                reason: "it is a symbolic link in pg_tblspc that is no tablespace".into(),
                hint: "remove the link, if nothing of yours needs it",
            });
        };
        let version = path.join(&self.scope.tablespace_version);
        self.found.push(Entry { path, kind: EntryKind::Tablespace { oid }, mode: 0o777 });
        let inside = self.scope.data_directory.join(&version);
        if let Some(metadata) = unless_vanished("read the status of", &inside, fs::symlink_metadata)? {
            self.keep_directory(version, &metadata);
        }
        Ok(())
    }

    /// Keeps a directory (or a link to one, as a directory) without what is
    /// in it. `pg_wal` keeps the directories that the server expects there.
    fn keep_empty(&mut self, path: PathBuf) -> Result<(), WalkError> {
        let source = self.scope.data_directory.join(&path);
        let Some(metadata) = unless_vanished("read the status of", &source, fs::metadata)? else {
            return Ok(());
        };
        let mode = mode_of(&metadata);
        let mut directories = vec![path.clone()];
        if path == Path::new("pg_wal") {
            directories.push(path.join("archive_status"));
            if self.scope.major >= 17 {
                directories.push(path.join("summaries"));
            }
        }
        let entry = |path| Entry { path, kind: EntryKind::Directory, mode };
        self.found.extend(directories.into_iter().map(entry));
        Ok(())
    }
}

fn place_of(directory: &Path) -> Place {
    let parts: Vec<&[u8]> = directory
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.as_bytes()),
            _ => None,
        })
        .collect();
    match parts.as_slice() {
        [] => Place::Root,
        [b"global"] => Place::Global,
        [b"pg_tblspc"] => Place::Tablespaces,
        [parents @ .., name] if rules::is_database_directory(parents, name) => Place::Database,
        _ => Place::Other,
    }
}

/// The names in a directory; `None` when it has vanished.
fn names_in(directory: &Path) -> Result<Option<Vec<OsString>>, WalkError> {
    let Some(entries) = unless_vanished("read directory", directory, fs::read_dir)? else {
        return Ok(None);
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(io_error("read directory", directory))?.file_name());
    }
    Ok(Some(names))
}

fn init_forks(names: &[OsString]) -> BTreeSet<u32> {
    names
        .iter()
        .filter_map(|name| RelationFile::parse(name.as_bytes()))
        .filter(|file| file.fork == Fork::Init)
        .map(|file| file.number)
        .collect()
}

fn tablespaces_inside(scope: &Scope) -> Result<BTreeSet<PathBuf>, WalkError> {
    let links = scope.data_directory.join("pg_tblspc");
    let mut inside = BTreeSet::new();
    for name in names_in(&links)?.unwrap_or_default() {
        if let Ok(location) = fs::read_link(links.join(name))
            && let Ok(relative) = location.strip_prefix(&scope.data_directory)
        {
            inside.insert(relative.to_path_buf());
        }
    }
    Ok(inside)
}

fn mode_of(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o7777
}

fn unless_vanished<T>(
    verb: &'static str,
    path: &Path,
    ask: impl Fn(PathBuf) -> io::Result<T>,
) -> Result<Option<T>, WalkError> {
    match ask(path.to_path_buf()) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(verb, path)(error)),
    }
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> WalkError {
    let path = path.to_path_buf();
    move |source| WalkError::Io { verb, path, source }
}

#[cfg(test)]
mod tests;
