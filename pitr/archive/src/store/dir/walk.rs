//! Listing: the folders below a prefix, walked in the order of their keys.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;
use walpoint_wal::Timestamp;

use super::failure::Attempt;
use super::folder;
use crate::durable::TEMP_PREFIX;
use crate::object_key::{MAX_KEY_BYTES, META_SUFFIX, ObjectKey, Prefix};
use crate::store::{Listed, StoreError};

/// A temporary file that nobody wrote to for so long was left by a killed run.
/// Listing removes it, because only listing reads the names in a folder anyway.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 3600);

/// The objects below a prefix; see [`crate::store::ObjectStore::list`].
pub(super) fn list(
    root: &Path,
    prefix: &Prefix,
    start_after: Option<&ObjectKey>,
    limit: Option<usize>,
    attempt: &Attempt,
) -> Result<Vec<Listed>, StoreError> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut walk = Walk {
        prefix: prefix.as_str(),
        start_after: start_after.map(ObjectKey::as_str),
        limit,
        attempt,
        found: Vec::new(),
    };
    if let Some(top) = open_top(root, prefix, attempt)?
        && limit > 0
    {
        walk.folder(&top, prefix.folder())?;
    }
    Ok(walk.found)
}

/// The folders below a prefix; see [`crate::store::ObjectStore::list_folders`].
pub(super) fn list_folders(
    root: &Path,
    prefix: &Prefix,
    attempt: &Attempt,
) -> Result<Vec<String>, StoreError> {
    let Some(top) = open_top(root, prefix, attempt)? else { return Ok(Vec::new()) };
    let mut folders = Vec::new();
    for (path, name) in subfolders(&top, prefix.folder(), attempt)? {
        if path.starts_with(prefix.as_str()) && has_object(&top, &path, &name, attempt)? {
            folders.push(name);
        }
    }
    Ok(folders)
}

fn subfolders(top: &OwnedFd, path: &str, attempt: &Attempt) -> Result<Vec<(String, String)>, StoreError> {
    let names = Names::read(top, attempt)?;
    let folders = names.entries.into_iter().filter(|entry| entry.is_folder);
    let mut folders: Vec<_> = folders.map(|entry| (format!("{path}{}/", entry.name), entry.name)).collect();
    folders.sort();
    Ok(folders)
}

fn has_object(top: &OwnedFd, path: &str, name: &str, attempt: &Attempt) -> Result<bool, StoreError> {
    let Some(inner) = folder::enter(top, name, attempt)? else { return Ok(false) };
    if begins_with_object(&inner, path, attempt)? {
        return Ok(true);
    }
    let mut walk = Walk { prefix: path, start_after: None, limit: 1, attempt, found: Vec::new() };
    walk.folder(&inner, path)?;
    Ok(!walk.found.is_empty())
}

/// Whether an object is among the first names in a folder: nearly always, and then a folder of many thousand
/// need not be read.
fn begins_with_object(folder: &OwnedFd, path: &str, attempt: &Attempt) -> Result<bool, StoreError> {
    const FIRST: usize = 8;
    let failed = |error: Errno| attempt.io("read a folder", &error.into());
    for entry in Dir::read_from(folder).map_err(failed)?.take(FIRST) {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let is_key =
            entry.file_type() == FileType::RegularFile && ObjectKey::new(&format!("{path}{name}")).is_ok();
        let meta = format!("{name}{META_SUFFIX}");
        if is_key && rustix::fs::statat(folder, meta, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn open_top(root: &Path, prefix: &Prefix, attempt: &Attempt) -> Result<Option<OwnedFd>, StoreError> {
    let components: Vec<&str> = prefix.folder().split('/').filter(|part| !part.is_empty()).collect();
    folder::open(root, &components, attempt)
}

struct Walk<'a> {
    prefix: &'a str,
    start_after: Option<&'a str>,
    limit: usize,
    attempt: &'a Attempt,
    found: Vec<Listed>,
}

impl Walk<'_> {
    /// Lists what is in one folder whose keys begin with `path`.
    fn folder(&mut self, folder: &OwnedFd, path: &str) -> Result<(), StoreError> {
        let names = Names::read(folder, self.attempt)?;
        let mut entries: Vec<(String, &Entry)> =
            names.entries.iter().map(|entry| (entry.key_start(path), entry)).collect();
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (key, entry) in entries {
            if self.found.len() >= self.limit {
                break;
            }
            if entry.is_folder && self.may_hold_some(&key) {
                // It may have been removed, empty, since its name was read.
                if let Some(inner) = folder::enter(folder, &entry.name, self.attempt)? {
                    self.folder(&inner, &key)?;
                }
            } else if !entry.is_folder && self.is_wanted(&key) && names.with_meta.contains(&entry.name) {
                self.object(folder, key, &entry.name)?;
            }
        }
        Ok(())
    }

    fn object(&mut self, folder: &OwnedFd, key: String, name: &str) -> Result<(), StoreError> {
        let Ok(key) = ObjectKey::of(key) else { return Ok(()) };
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // Deleted since its name was read.
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(self.attempt.io(&format!("look at {name:?}"), &error.into())),
        };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        self.found.push(Listed { key, size, modified: modified(&stat) });
        Ok(())
    }

    fn is_wanted(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.start_after.is_none_or(|after| key > after)
    }

    /// False when no key that begins with `path` can be wanted.
    fn may_hold_some(&self, path: &str) -> bool {
        let in_prefix = path.starts_with(self.prefix) || self.prefix.starts_with(path);
        let ahead = self.start_after.is_none_or(|after| path > after || after.starts_with(path));
        in_prefix && ahead && path.len() <= MAX_KEY_BYTES
    }
}

fn modified(stat: &Stat) -> Option<Timestamp> {
    let micros = i64::try_from(stat.st_mtime_nsec).ok()? / 1000;
    Timestamp::from_unix_micros(stat.st_mtime.checked_mul(1_000_000)?.checked_add(micros)?)
}

struct Entry {
    name: String,
    is_folder: bool,
}

impl Entry {
    /// What the keys of this entry begin with: a folder sorts as with its `/`,
    /// after `-` and `.`.
    fn key_start(&self, path: &str) -> String {
        let end = if self.is_folder { "/" } else { "" };
        [path, &self.name, end].concat()
    }
}

/// The names in one folder that could belong to keys.
struct Names {
    entries: Vec<Entry>,
    with_meta: HashSet<String>,
}

impl Names {
    fn read(folder: &OwnedFd, attempt: &Attempt) -> Result<Self, StoreError> {
        let failed = |error: Errno| attempt.io("read a folder", &error.into());
        let mut names = Self { entries: Vec::new(), with_meta: HashSet::new() };
        for entry in Dir::read_from(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is no UTF-8 is no part of a key.
            if let Ok(name) = entry.file_name().to_str() {
                names.take(folder, name, entry.file_type(), attempt)?;
            }
        }
        Ok(names)
    }

    fn take(
        &mut self,
        folder: &OwnedFd,
        name: &str,
        file_type: FileType,
        attempt: &Attempt,
    ) -> Result<(), StoreError> {
        if name.starts_with(TEMP_PREFIX) {
            remove_left_behind(folder, name);
        } else if let Some(object) = name.strip_suffix(META_SUFFIX) {
            self.with_meta.insert(object.to_owned());
        } else if ObjectKey::is_component(name) {
            match known_type(folder, name, file_type, attempt)? {
                FileType::Directory => self.entries.push(Entry { name: name.to_owned(), is_folder: true }),
                FileType::RegularFile => self.entries.push(Entry { name: name.to_owned(), is_folder: false }),
                // Leaving it out would say that what lies behind is not there.
                FileType::Symlink => return Err(attempt.symbolic_link(name)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Not every file system says the type with the name.
fn known_type(
    folder: &OwnedFd,
    name: &str,
    said: FileType,
    attempt: &Attempt,
) -> Result<FileType, StoreError> {
    if said != FileType::Unknown {
        return Ok(said);
    }
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
        // Deleted since its name was read.
        Err(Errno::NOENT) => Ok(FileType::Unknown),
        Err(error) => Err(attempt.io(&format!("look at {name:?}"), &error.into())),
    }
}

fn remove_left_behind(folder: &OwnedFd, name: &str) {
    let Ok(stat) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { return };
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    if written.elapsed().is_ok_and(|age| age > LEFT_BEHIND) {
        // Who may only read lists all the same.
        let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
    }
}
