//! Listings: all pages, in order, or an error.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::types::Object as SdkObject;
use walpoint_wal::Timestamp;

use super::Inner;
use super::failure::Attempt;
use crate::object_key::{ObjectKey, Prefix};
use crate::store::{Listed, StoreError, StoreErrorKind};

/// What S3 puts on one page at most.
const PAGE: usize = 1000;

pub(super) async fn list(
    inner: &Inner,
    prefix: &Prefix,
    start_after: Option<&ObjectKey>,
    limit: Option<usize>,
) -> Result<Vec<Listed>, StoreError> {
    let attempt = inner.attempt("list", prefix);
    let limit = limit.unwrap_or(usize::MAX);
    let mut pages = Pages::new(inner, prefix, &attempt);
    pages.start_after = start_after.map(|key| inner.name_of(key));
    let mut found: Vec<Listed> = Vec::new();
    while found.len() < limit
        && let Some(page) = pages.next((limit - found.len()).min(PAGE)).await?
    {
        for object in page.contents() {
            let (name, size) = name_and_size(object, &attempt)?;
            pages.check_order(name)?;
            // Names that are no keys are not ours; a store may leave out where to begin.
            let key = name.strip_prefix(&inner.prefix).and_then(|rest| ObjectKey::new(rest).ok());
            let key = key.filter(|key| start_after.is_none_or(|after| key > after));
            found.extend(key.map(|key| Listed { key, size, modified: modified(object) }));
        }
    }
    // … and how many it was asked for.
    found.truncate(limit);
    Ok(found)
}

fn name_and_size<'a>(object: &'a SdkObject, attempt: &Attempt) -> Result<(&'a str, u64), StoreError> {
    let size = object.size().and_then(|size| u64::try_from(size).ok());
    object.key().zip(size).ok_or_else(|| attempt.not_s3("it lists an object without its size"))
}

fn modified(object: &SdkObject) -> Option<Timestamp> {
    let micros = object.last_modified()?.as_nanos() / 1000;
    Timestamp::from_unix_micros(i64::try_from(micros).ok()?)
}

pub(super) async fn list_folders(inner: &Inner, prefix: &Prefix) -> Result<Vec<String>, StoreError> {
    let attempt = inner.attempt("list", prefix);
    let mut pages = Pages::new(inner, prefix, &attempt);
    pages.delimiter = Some("/".to_owned());
    let folder = format!("{}{}", inner.prefix, prefix.folder());
    let mut found = Vec::new();
    while let Some(page) = pages.next(PAGE).await? {
        for path in page.common_prefixes().iter().filter_map(|common| common.prefix()) {
            pages.check_order(path)?;
            let name = path.strip_prefix(&folder).and_then(|rest| rest.strip_suffix('/'));
            found.extend(name.filter(|name| ObjectKey::new(name).is_ok()).map(str::to_owned));
        }
    }
    Ok(found)
}

/// True when a listing shows exactly this key.
pub(super) async fn shows(inner: &Inner, key: &ObjectKey, attempt: &Attempt) -> Result<bool, StoreError> {
    let name = inner.name_of(key);
    let mut pages = Pages::with_prefix(inner, name.clone(), attempt);
    // Of all keys that begin with this one, it is the first.
    let page = pages.next(1).await?;
    Ok(page.is_some_and(|page| page.contents().iter().any(|object| object.key() == Some(name.as_str()))))
}

struct Pages<'a> {
    inner: &'a Inner,
    attempt: &'a Attempt,
    prefix: String,
    start_after: Option<String>,
    delimiter: Option<String>,
    token: Option<String>,
    is_over: bool,
    last: String,
}

impl<'a> Pages<'a> {
    fn new(inner: &'a Inner, prefix: &Prefix, attempt: &'a Attempt) -> Self {
        Self::with_prefix(inner, format!("{}{prefix}", inner.prefix), attempt)
    }

    fn with_prefix(inner: &'a Inner, prefix: String, attempt: &'a Attempt) -> Self {
        let (start_after, delimiter, token) = (None, None, None);
        Self { inner, attempt, prefix, start_after, delimiter, token, is_over: false, last: String::new() }
    }

    /// The next page of at most so many lines; none after the last.
    async fn next(&mut self, size: usize) -> Result<Option<ListObjectsV2Output>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        let page = self.request(size).send().await.map_err(|error| self.attempt.failed(&error))?;
        check_whole(&page, &self.inner.bucket, self.attempt)?;
        self.is_over = page.is_truncated() != Some(true);
        let token = page.next_continuation_token().map(str::to_owned);
        // Pages without a line show no order, and would come for ever.
        if !self.is_over && token == self.token {
            let detail = "the store lists the same page again and again";
            return Err(self.attempt.error(StoreErrorKind::Other, detail));
        }
        self.token = token;
        Ok(Some(page))
    }

    fn request(&self, size: usize) -> ListObjectsV2FluentBuilder {
        let first = self.token.is_none();
        self.inner
            .client
            .list_objects_v2()
            .bucket(&self.inner.bucket)
            .prefix(&self.prefix)
            .max_keys(i32::try_from(size).unwrap_or(i32::MAX))
            .set_delimiter(self.delimiter.clone())
            .set_start_after(self.start_after.clone().filter(|_| first))
            .set_continuation_token(self.token.clone())
    }

    /// Everything above takes what is not listed for absent, so a store that
    /// lists in another order, or one page twice, must be noticed.
    fn check_order(&mut self, name: &str) -> Result<(), StoreError> {
        if !name.starts_with(&self.prefix) || name <= self.last.as_str() {
            let detail = "the store does not list in the order of keys";
            return Err(self
                .attempt
                .error(StoreErrorKind::Other, detail)
                .with_hint("directory buckets of S3 Express do not; use a general purpose bucket"));
        }
        self.last = name.to_owned();
        Ok(())
    }
}

/// An answer that is not a listing, or lost its end, must not read as an empty
/// or shorter one: the SDK takes XML that stops in the middle.
fn check_whole(page: &ListObjectsV2Output, bucket: &str, attempt: &Attempt) -> Result<(), StoreError> {
    if page.is_truncated().is_none() {
        return Err(attempt.not_s3("it does not say whether the listing goes on"));
    }
    if page.name().is_some_and(|name| name != bucket) {
        return Err(attempt.not_s3("it lists another bucket"));
    }
    if page.is_truncated() == Some(true) && page.next_continuation_token().is_none() {
        return Err(attempt.not_s3("it does not say how the listing goes on"));
    }
    let lines = page.contents().len() + page.common_prefixes().len();
    if page.key_count().is_some_and(|count| usize::try_from(count) != Ok(lines)) {
        return Err(attempt.not_s3("it announces another number of keys than it lists"));
    }
    Ok(())
}
