//! Paths of files within a data directory, as backups name them. A path that
//! could leave the directory that it is restored into cannot be made.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Longest path in bytes: `PATH_MAX` of Linux.
pub const MAX_PATH_BYTES: usize = 4096;

/// A path of components that are neither empty nor `.` nor `..`, relative,
/// without NUL. Any other bytes may be in it. Ordered bytewise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelativePath(Vec<u8>);

/// A path that is not one of these.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path:?} is not a path within a data directory: {reason}")]
pub struct RelativePathError {
    /// The path refused, shortened when it was long.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl RelativePath {
    /// Checks the rules above.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self, RelativePathError> {
        let path = path.as_ref();
        match check(path) {
            Ok(()) => Ok(Self(path.to_vec())),
            Err(reason) => {
                let shown = path.get(..200).unwrap_or(path);
                Err(RelativePathError { path: String::from_utf8_lossy(shown).into_owned(), reason })
            }
        }
    }

    /// From a path of the operating system, as found below a directory.
    pub fn from_path(path: &Path) -> Result<Self, RelativePathError> {
        Self::new(path.as_os_str().as_bytes())
    }

    /// As a path to join to the directory restored into.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The directory that holds it; `None` for a file in the data directory itself.
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.iter().rposition(|byte| *byte == b'/')?;
        self.0.get(..end).map(|parent| Self(parent.to_vec()))
    }
}

fn check(path: &[u8]) -> Result<(), &'static str> {
    if path.len() > MAX_PATH_BYTES {
        return Err("longer than 4096 bytes");
    }
    if path.contains(&0) {
        return Err("it has a NUL byte");
    }
    if path.starts_with(b"/") {
        return Err("it is absolute");
    }
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" => return Err("it has an empty component"),
            b"." | b".." => return Err("it has a component . or .."),
            _ => {}
        }
    }
    // What the operating system's own reading makes of it, to be sure.
    let path = Path::new(OsStr::from_bytes(path));
    match path.components().all(|component| matches!(component, Component::Normal(_))) {
        true => Ok(()),
        false => Err("it has a component that is no plain name"),
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_path().display())
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_path())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_that_could_leave_the_data_directory_is_refused() {
        let long = "x/".repeat(3000);
        for path in [
            "",
            "/",
            "/etc/passwd",
            ".",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "a/./b",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            "pg_tblspc/16385/../../x",
            long.as_str(),
        ] {
            assert!(RelativePath::new(path).is_err(), "{path:?} was accepted");
        }
    }

    #[test]
    fn paths_of_a_data_directory_are_accepted() {
        for path in
            ["PG_VERSION", "base/1/1259_fsm", "pg_tblspc/16385/PG_15_202209061/5/16400", "...", "a b\n"]
        {
            let path = RelativePath::new(path).unwrap();
            assert_eq!(RelativePath::from_path(path.as_path()).unwrap(), path);
        }
        let latin1 = RelativePath::new(b"caf\xe9").unwrap();
        assert_eq!((latin1.as_str(), latin1.as_bytes()), (None, &b"caf\xe9"[..]));
        assert_eq!(RelativePath::new("a/b/c").unwrap().parent(), RelativePath::new("a/b").ok());
        assert_eq!(RelativePath::new("a").unwrap().parent(), None);
    }

    proptest! {
        #[test]
        fn any_accepted_path_stays_below_the_directory(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..40)) {
            if let Ok(path) = RelativePath::new(&bytes) {
                prop_assert_eq!(path.as_bytes(), &bytes);
                let joined = Path::new("/data").join(path.as_path());
                prop_assert!(joined.starts_with("/data") && joined != Path::new("/data"));
                prop_assert!(joined.components().all(|part| part != Component::ParentDir));
            }
        }
    }
}
