//! How old an object is. The directory may be another host's, whose clock is not ours: so the file
//! is compared with one that is made now.

use std::path::Path;
use std::time::Duration;

use super::failure::Attempt;
use super::{folder, read};
use crate::durable::{FILE_MODE, TempFile};
use crate::object_key::ObjectKey;
use crate::store::StoreError;

pub(super) fn age(root: &Path, key: &ObjectKey, attempt: &Attempt) -> Result<Option<Duration>, StoreError> {
    let object = read::open(root, key, attempt)?.file;
    let (folders, _) = folder::split(key);
    let folder = folder::open(root, &folders, attempt)?.ok_or_else(|| attempt.not_found())?;
    let look = || {
        let mut now = TempFile::create(&folder, FILE_MODE)?;
        // Its time is that of the write, and not what the host's own clock said when it was made.
        now.write_all(b".")?;
        let (now, stored) = (now.file().metadata()?.modified()?, object.metadata()?.modified()?);
        Ok(now.duration_since(stored).ok())
    };
    look().map_err(|error| attempt.io("compare its file's time with now", &error))
}
