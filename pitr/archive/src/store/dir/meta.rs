//! The `.meta` file beside an object: `{"size":4711,"metadata":{"name":"value"}}`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::failure::Attempt;
use crate::object_key::META_SUFFIX;
use crate::store::{Metadata, StoreError, StoreErrorKind};

/// Most that is read of a `.meta` file. Ours are smaller than 4 KiB: metadata
/// is limited to 1.5 KB and JSON can escape every byte of it.
const MAX_BYTES: u64 = 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Text {
    size: u64,
    metadata: BTreeMap<String, String>,
}

/// What a `.meta` file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Meta {
    pub(super) size: u64,
    pub(super) metadata: Metadata,
}

impl Meta {
    pub(super) fn to_json(&self) -> io::Result<Vec<u8>> {
        let metadata =
            self.metadata.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(serde_json::to_vec(&Text { size: self.size, metadata })?)
    }

    fn from_json(bytes: &[u8]) -> Option<Self> {
        let text: Text = serde_json::from_slice(bytes).ok()?;
        let values = text.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Some(Self { size: text.size, metadata: Metadata::from_store(values) })
    }
}

/// The name of the `.meta` file of an object's file.
pub(super) fn name_for(object: &str) -> String {
    format!("{object}{META_SUFFIX}")
}

/// Reads the metadata of an object's file; none when there is none.
pub(super) fn read(folder: &OwnedFd, object: &str, attempt: &Attempt) -> Result<Option<Meta>, StoreError> {
    let name = name_for(object);
    let Some(file) = open_file(folder, &name, attempt)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| attempt.io(&format!("read {name:?}"), &error))?;
    match Meta::from_json(&bytes) {
        Some(meta) => Ok(Some(meta)),
        None => {
            Err(attempt
                .error(StoreErrorKind::Damaged, format!("{name:?} does not hold what was written there")))
        }
    }
}

/// Opens a regular file to read; none when there is none of that name.
pub(super) fn open_file(folder: &OwnedFd, name: &str, attempt: &Attempt) -> Result<Option<File>, StoreError> {
    // Without NONBLOCK, opening a pipe that somebody put there would hang.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(attempt.symbolic_link(name)),
        Err(error) => return Err(attempt.io(&format!("open {name:?}"), &error.into())),
    };
    let stat = file.metadata().map_err(|error| attempt.io(&format!("look at {name:?}"), &error))?;
    if stat.is_dir() {
        return Ok(None);
    }
    if !stat.is_file() {
        return Err(attempt.error(StoreErrorKind::Other, format!("{name:?} is not a regular file")));
    }
    Ok(Some(file))
}
