//! What an attempt to read an object says about the object. Only here is damage told from a store that is away: what
//! is neither a word about the object nor about the keys at hand is an error, and nothing is concluded from it.

use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::{ArchiveError, DamagedObject, ObjectKey};

use super::finding::Trouble;

/// What came of reading one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Looked<T> {
    /// It is what it should be.
    Sound(T),
    /// It is not, and why.
    Unsound(Trouble, String),
    /// The store answered that there is no such object.
    Gone,
    /// It is encrypted, and there is no key to look into it.
    NoKey,
}

/// Concludes from the outcome of reading the object under `key`.
///
/// # Errors
/// It could not be read, and whether it is sound is not known.
pub(super) fn looked<T>(key: &ObjectKey, read: Result<T, ArchiveError>) -> Result<Looked<T>, ArchiveError> {
    let error = match read {
        Ok(sound) => return Ok(Looked::Sound(sound)),
        Err(error) => error,
    };
    match error {
        ArchiveError::NoKey { .. } => Ok(Looked::NoKey),
        ArchiveError::WrongKey { .. } => {
            let what =
                "none of the identities opens it: it is encrypted to others, or its beginning is damaged";
            Ok(Looked::Unsound(Trouble::Sealed, what.to_owned()))
        }
        ArchiveError::Ambiguous { .. } => Ok(Looked::Unsound(Trouble::Undecided, error.to_string())),
        ArchiveError::Store(store) if store.kind == StoreErrorKind::NotFound => Ok(Looked::Gone),
        error => {
            let object = DamagedObject::by(key.clone(), error)?;
            Ok(Looked::Unsound(Trouble::Damaged, object.reason))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use walpoint_archive::store::StoreError;

    #[test]
    fn a_store_that_is_away_says_nothing_about_the_object() {
        let key: ObjectKey = "7/wal/x".parse().unwrap();
        for kind in [
            StoreErrorKind::Transient,
            StoreErrorKind::Denied,
            StoreErrorKind::NoArchive,
            StoreErrorKind::Other,
        ] {
            let away = Err::<(), _>(StoreError::new("get", &key, kind, "detail").into());
            assert!(looked(&key, away).is_err(), "{kind:?}");
        }
        let store = |kind| looked(&key, Err::<(), _>(StoreError::new("get", &key, kind, "detail").into()));
        assert_eq!(store(StoreErrorKind::NotFound).unwrap(), Looked::Gone);
        assert!(matches!(
            store(StoreErrorKind::Damaged).unwrap(),
            Looked::Unsound(Trouble::Damaged, why) if why == "detail"
        ));
        let io =
            ArchiveError::Io { verb: "write", what: "x".into(), source: std::io::ErrorKind::Other.into() };
        assert!(looked(&key, Err::<(), _>(io)).is_err());
    }
}
