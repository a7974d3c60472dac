//! Objects that could not be read although the store answers: one bad sector, one object that this role may not read.
//! Nothing is concluded about them, and what lies behind them is read all the same.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::{Archive, ArchiveError};

/// So many failures one after the other are the store's, and no object's.
const MOST_IN_A_ROW: usize = 8;

/// An object that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Its key.
    pub object: String,
    /// Why.
    pub why: String,
}

/// What could not be read so far.
#[derive(Debug, Default)]
pub(super) struct SetAside(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    unread: Vec<Unread>,
    in_a_row: usize,
}

impl SetAside {
    /// An object was read.
    pub fn answered(&self) {
        self.inner().in_a_row = 0;
    }

    /// Sets the object aside that an attempt to read it failed at.
    ///
    /// # Errors
    /// The error itself: it is no object's, or the store does not answer.
    pub async fn take(&self, archive: &Archive, error: ArchiveError) -> Result<(), ArchiveError> {
        let Some(object) = object_of(&error) else { return Err(error) };
        {
            let mut inner = self.inner();
            inner.in_a_row += 1;
            if inner.in_a_row > MOST_IN_A_ROW {
                return Err(error);
            }
        }
        // Who lists the notes of verify asks for next to nothing.
        let prefix = archive.layout().verification_prefix();
        if archive.store().list(&prefix, None, None).await.is_err() {
            return Err(error);
        }
        let mut inner = self.inner();
        if !inner.unread.iter().any(|known| known.object == object) {
            inner.unread.push(Unread { object, why: error.to_string() });
        }
        Ok(())
    }

    /// All of them, by key.
    pub fn unread(&self) -> Vec<Unread> {
        let mut unread = self.inner().unread.clone();
        unread.sort_by(|one, other| one.object.cmp(&other.object));
        unread
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The object that an error is about; none when it is about the archive, or about this machine.
fn object_of(error: &ArchiveError) -> Option<String> {
    let ArchiveError::Store(error) = error else { return None };
    match error.kind {
        _ if !["get", "head"].contains(&error.verb) => None,
        StoreErrorKind::Transient | StoreErrorKind::Denied | StoreErrorKind::Other => Some(error.key.clone()),
        StoreErrorKind::NoArchive | StoreErrorKind::NotFound | StoreErrorKind::Damaged => None,
    }
}
