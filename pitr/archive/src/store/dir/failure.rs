//! What a failed system call means for the one who asked for an object.

use std::fmt;
use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::store::{StoreError, StoreErrorKind};

/// What was asked for, to name it in errors.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    verb: &'static str,
    pub(super) key: String,
}

impl Attempt {
    pub(super) fn on(verb: &'static str, key: impl fmt::Display) -> Self {
        Self { verb, key: key.to_string() }
    }

    pub(super) fn at_place(verb: &'static str, place: &Path) -> Self {
        Self { verb, key: place.display().to_string() }
    }

    pub(super) fn error(&self, kind: StoreErrorKind, detail: impl Into<String>) -> StoreError {
        StoreError::new(self.verb, &self.key, kind, detail)
    }

    pub(super) fn not_found(&self) -> StoreError {
        self.error(StoreErrorKind::NotFound, "there is no such object")
    }

    pub(super) fn symbolic_link(&self, name: &str) -> StoreError {
        let detail = format!("{name:?} in the archive's directory is a symbolic link, which is not followed");
        self.error(StoreErrorKind::Other, detail)
            .with_hint("move the files back, or mount the other place there (mount --bind)")
    }

    /// `doing` says which step failed: "create a temporary file".
    pub(super) fn io(&self, doing: &str, error: &io::Error) -> StoreError {
        let (kind, hint) = meaning(error);
        let failed = self.error(kind, format!("could not {doing}: {error}"));
        match hint {
            Some(hint) => failed.with_hint(hint),
            None => failed,
        }
    }
}

/// Every failure of a directory may end by itself or by the operator's hand,
/// except those that a retry meets again as they are.
fn meaning(error: &io::Error) -> (StoreErrorKind, Option<&'static str>) {
    use StoreErrorKind::{Denied, Other, Transient};
    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => {
            (Denied, Some("the archive's directory must belong to the user who runs PostgreSQL"))
        }
        Some(Errno::NOSPC) => (Transient, Some("the archive's disk is full: make room")),
        Some(Errno::DQUOT) => (Transient, Some("the quota on the archive's disk is used up")),
        Some(Errno::ROFS) => {
            (Other, Some("the archive's disk is mounted read-only; the kernel log may say why"))
        }
        Some(Errno::IO) => (Transient, Some("the disk reports an error; the kernel log says more")),
        Some(Errno::NAMETOOLONG | Errno::NOTDIR | Errno::ISDIR | Errno::INVAL | Errno::FBIG) => (Other, None),
        _ => (Transient, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_may_be_tried_again_and_a_refusal_may_not() {
        let kind = |errno: Errno| Attempt::on("put", "a").io("write", &errno.into()).kind;
        assert_eq!(kind(Errno::NOSPC), StoreErrorKind::Transient);
        assert_eq!(kind(Errno::DQUOT), StoreErrorKind::Transient);
        assert_eq!(kind(Errno::STALE), StoreErrorKind::Transient);
        assert_eq!(kind(Errno::MFILE), StoreErrorKind::Transient);
        assert_eq!(kind(Errno::ACCESS), StoreErrorKind::Denied);
        assert_eq!(kind(Errno::ROFS), StoreErrorKind::Other);
    }

    #[test]
    fn no_system_error_reads_as_not_found() {
        for code in 1..134 {
            let error = io::Error::from_raw_os_error(code);
            assert_ne!(
                Attempt::on("get", "a").io("open it", &error).kind,
                StoreErrorKind::NotFound,
                "{error}"
            );
        }
    }
}
