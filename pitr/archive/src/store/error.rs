//! Why a store did not do what it was asked for.

use std::fmt;

/// A verb on one object (or listing) that failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreError {
    /// What was asked for: `put`, `get`, `head`, `list`, `delete`, `open`.
    pub verb: &'static str,
    /// The key, the prefix of a listing, or the place itself.
    pub key: String,
    /// What kind of failure it is: all that callers decide by.
    pub kind: StoreErrorKind,
    /// Why, in one line, without secrets.
    pub detail: String,
    /// The next step for the operator.
    pub hint: Option<String>,
}

/// What a caller may conclude from a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreErrorKind {
    /// The archive itself answered that this object does not exist.
    NotFound,
    /// The bucket or the directory is missing: nothing can be said about objects.
    NoArchive,
    /// Not allowed. Says nothing about whether the object exists.
    Denied,
    /// Failed, and trying again may help: outage, timeout, overload, no space.
    Transient,
    /// The object is there and is not what was stored.
    Damaged,
    /// Anything else: trying again would not help.
    Other,
}

impl StoreError {
    /// An error without a hint.
    pub fn new(
        verb: &'static str,
        key: impl fmt::Display,
        kind: StoreErrorKind,
        detail: impl Into<String>,
    ) -> Self {
        Self { verb, key: key.to_string(), kind, detail: detail.into(), hint: None }
    }

    /// The same with the next step for the operator.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// True when trying again may help.
    pub fn is_transient(&self) -> bool {
        self.kind == StoreErrorKind::Transient
    }

    /// True when the archive answered that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not {} \"{}\": {}", self.verb, self.key, self.detail)
    }
}

impl std::error::Error for StoreError {}
