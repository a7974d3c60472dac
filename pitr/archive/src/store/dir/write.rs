//! Writing and removing an object's two files.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;

use super::failure::Attempt;
use super::folder::{self, FolderChain, Turn};
use super::meta::{self, Meta};
use crate::durable::{FILE_MODE, Placed, Placement, TempFile};
use crate::fault_point::step;
use crate::object_key::ObjectKey;
use crate::store::{Metadata, PutMode, PutOutcome, StoreError, StoreErrorKind};

/// How often folders are made again that an expiry removed, empty, between
/// their making and the first file in them.
const FOLDER_TRIES: u32 = 20;

/// Stores one object whose bytes are all at hand.
pub(super) fn put(
    root: &Path,
    key: &ObjectKey,
    body: &[u8],
    metadata: &Metadata,
    mode: PutMode,
    attempt: &Attempt,
) -> Result<PutOutcome, StoreError> {
    if mode == PutMode::CreateOnly && is_there_durably(root, key, attempt)? {
        return Ok(PutOutcome::Exists);
    }
    let mut pending = Pending::begin(root, key, metadata.clone(), mode, attempt)?;
    pending.write(body, attempt)?;
    pending.commit(attempt)
}

/// Spares writing a file that would not be placed. What another process has
/// just placed may not be durable yet, so that is seen to here.
fn is_there_durably(root: &Path, key: &ObjectKey, attempt: &Attempt) -> Result<bool, StoreError> {
    let (folders, name) = folder::split(key);
    let Some(chain) = FolderChain::find(root, &folders, attempt)? else { return Ok(false) };
    if standing(chain.last(), name, attempt)? != Standing::Object {
        return Ok(false);
    }
    chain.sync(attempt)?;
    Ok(true)
}

/// Makes an object that is there durable: its bytes were before it appeared, its name may not be.
pub(super) fn settle(root: &Path, key: &ObjectKey, attempt: &Attempt) -> Result<(), StoreError> {
    match is_there_durably(root, key, attempt)? {
        true => Ok(()),
        false => Err(attempt.error(StoreErrorKind::NotFound, "it is not there")),
    }
}

/// An object being written: its temporary file, beside its later name.
#[derive(Debug)]
pub(super) struct Pending {
    chain: FolderChain,
    key: ObjectKey,
    metadata: Metadata,
    mode: PutMode,
    written: u64,
    temp: TempFile,
    /// What placing it did, once that was done.
    placed: Option<Placed>,
}

impl Pending {
    pub(super) fn begin(
        root: &Path,
        key: &ObjectKey,
        metadata: Metadata,
        mode: PutMode,
        attempt: &Attempt,
    ) -> Result<Self, StoreError> {
        let (folders, _) = folder::split(key);
        let mut tries = 1;
        loop {
            let chain = FolderChain::make(root, &folders, attempt)?;
            match TempFile::create(chain.last(), FILE_MODE) {
                Ok(temp) => {
                    let key = key.clone();
                    return Ok(Self { chain, key, metadata, mode, written: 0, temp, placed: None });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < FOLDER_TRIES => {
                    tries += 1
                }
                Err(error) => return Err(attempt.io("create a temporary file", &error)),
            }
        }
    }

    /// Appends bytes, durable; after an error, the same bytes may be given again.
    ///
    /// Linux reports what it could not write to the disk once, to the fsync that follows, and takes it for
    /// written from then on: a second fsync would succeed with the bytes lost. So every part is made durable
    /// before it counts, and one that was not is cut off and written anew.
    pub(super) fn write(&mut self, bytes: &[u8], attempt: &Attempt) -> Result<(), StoreError> {
        if self.placed.is_some() {
            return Err(attempt.error(StoreErrorKind::Other, "the upload has ended before"));
        }
        let (written, file) = (self.written, self.temp.file());
        let appended = step("write", || {
            std::io::Seek::seek(file, std::io::SeekFrom::Start(written))
                .and_then(|_| file.set_len(written))
                .and_then(|()| file.write_all(bytes))
        });
        appended.map_err(|error| attempt.io("write its file", &error))?;
        self.temp.sync().map_err(|error| attempt.io("make its file durable", &error))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Makes the object appear. After an error it may be called again.
    pub(super) fn commit(&mut self, attempt: &Attempt) -> Result<PutOutcome, StoreError> {
        let placed = match self.placed {
            // By the call before, which failed to make that durable. A folder's entries are in the file
            // system's journal: where that fails once it fails for good, so asking again is no risk.
            Some(placed) => placed,
            None => {
                if self.written == 0 {
                    // Nothing was, not even that it is empty.
                    self.write(b"", attempt)?;
                }
                let placed = self.place_both(attempt)?;
                *self.placed.insert(placed)
            }
        };
        self.chain.sync(attempt)?;
        Ok(match placed {
            Placed::Created => PutOutcome::Created,
            Placed::Exists => PutOutcome::Exists,
        })
    }

    /// Removes what was written, and the folders made for it.
    pub(super) fn abandon(self) {
        let Self { chain, key, temp, .. } = self;
        drop(temp);
        chain.remove_empty(&folder::split(&key).0);
    }

    /// First the metadata, durable, then the object.
    fn place_both(&mut self, attempt: &Attempt) -> Result<Placed, StoreError> {
        let folder = self.chain.last();
        let (_, name) = folder::split(&self.key);
        let _turn = Turn::wait(folder, attempt)?;
        let standing = standing(folder, name, attempt)?;
        if self.mode == PutMode::CreateOnly && standing == Standing::Object {
            return Ok(Placed::Exists);
        }
        place_meta(folder, name, &self.metadata, self.written, attempt)?;
        // A file without metadata is no object, and must not keep one away.
        let placement = match (self.mode, standing) {
            (PutMode::CreateOnly, Standing::Nothing) => Placement::CreateOnly,
            _ => Placement::Replace,
        };
        self.temp.place(name, placement).map_err(|error| attempt.io("give its file its name", &error))
    }
}

fn place_meta(
    folder: &OwnedFd,
    name: &str,
    metadata: &Metadata,
    size: u64,
    attempt: &Attempt,
) -> Result<(), StoreError> {
    let meta = Meta { size, metadata: metadata.clone() };
    let write = || {
        let mut temp = TempFile::create(folder, FILE_MODE)?;
        temp.write_all(&meta.to_json()?)?;
        temp.sync()?;
        temp.place(&meta::name_for(name), Placement::Replace)
    };
    let _created = write().map_err(|error| attempt.io("write its metadata", &error))?;
    folder::sync(folder, attempt)
}

/// What is under an object's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Nothing,
    /// Stored by nobody: no metadata.
    BareFile,
    Object,
}

fn standing(folder: &OwnedFd, name: &str, attempt: &Attempt) -> Result<Standing, StoreError> {
    if !is_file(folder, name, attempt)? {
        return Ok(Standing::Nothing);
    }
    Ok(if is_file(folder, &meta::name_for(name), attempt)? { Standing::Object } else { Standing::BareFile })
}

fn is_file(folder: &OwnedFd, name: &str, attempt: &Attempt) -> Result<bool, StoreError> {
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(attempt.io(&format!("look at {name:?}"), &error.into())),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(true),
        FileType::Symlink => Err(attempt.symbolic_link(name)),
        _ => {
            Err(attempt.error(StoreErrorKind::Other, format!("{name:?} is there and is not a regular file")))
        }
    }
}

/// Removes an object, durably; one that is absent is no error.
pub(super) fn delete(root: &Path, key: &ObjectKey, attempt: &Attempt) -> Result<(), StoreError> {
    let (folders, name) = folder::split(key);
    let Some(chain) = FolderChain::find(root, &folders, attempt)? else { return Ok(()) };
    {
        let _turn = Turn::wait(chain.last(), attempt)?;
        // The object first: metadata alone is nothing.
        unlink(chain.last(), name, attempt)?;
        unlink(chain.last(), &meta::name_for(name), attempt)?;
        folder::sync(chain.last(), attempt)?;
    }
    chain.remove_empty(&folders);
    Ok(())
}

fn unlink(folder: &OwnedFd, name: &str, attempt: &Attempt) -> Result<(), StoreError> {
    match step("unlink", || rustix::fs::unlinkat(folder, name, AtFlags::empty())) {
        // A folder of that name is no object.
        Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => Ok(()),
        Err(error) => Err(attempt.io(&format!("remove {name:?}"), &error.into())),
    }
}
