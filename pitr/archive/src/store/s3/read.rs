//! Get and head.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::operation::head_object::HeadObjectError;
use aws_sdk_s3::types::ChecksumMode;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use futures::StreamExt;

use super::answer_date::AnswerDate;
use super::failure::Attempt;
use super::{Inner, body, listing};
use crate::content::StoredHash;
use crate::object_key::ObjectKey;
use crate::store::{Head, Metadata, Object, StoreError, StoreErrorKind};

pub(super) async fn get(
    inner: &Inner,
    key: &ObjectKey,
    range: Option<Range<u64>>,
) -> Result<Object, StoreError> {
    let attempt = inner.attempt("get", key);
    match range {
        // HTTP cannot ask for no bytes.
        Some(range) if range.is_empty() => nothing_of(inner, key, attempt).await,
        Some(range) => match send(inner, key, Some(&range)).await {
            Ok(answer) => part_of(inner, answer, &range, attempt),
            Err(error) if is_past_end(&error) => nothing_of(inner, key, attempt).await,
            Err(error) => Err(attempt.failed(&error)),
        },
        None => match send(inner, key, None).await {
            Ok(answer) => whole(inner, answer, attempt),
            Err(error) => Err(attempt.failed(&error)),
        },
    }
}

async fn send(
    inner: &Inner,
    key: &ObjectKey,
    range: Option<&Range<u64>>,
) -> Result<GetObjectOutput, SdkError<GetObjectError, HttpResponse>> {
    // RFC 9110, 14.1.2: both ends are included.
    let range = range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
    let request = inner.client.get_object().bucket(&inner.bucket).key(inner.name_of(key));
    request.set_range(range).send().await
}

fn is_past_end(error: &SdkError<GetObjectError, HttpResponse>) -> bool {
    matches!(error, SdkError::ServiceError(answer) if answer.raw().status().as_u16() == 416)
}

fn whole(inner: &Inner, answer: GetObjectOutput, attempt: Attempt) -> Result<Object, StoreError> {
    check_is_object(answer.e_tag(), &attempt)?;
    if answer.content_range().is_some() {
        return Err(attempt.not_s3("it is a part of the object, and all was asked for"));
    }
    let size = size_of(answer.content_length(), &attempt)?;
    Ok(object(inner, answer, size, size, attempt))
}

fn part_of(
    inner: &Inner,
    answer: GetObjectOutput,
    asked: &Range<u64>,
    attempt: Attempt,
) -> Result<Object, StoreError> {
    check_is_object(answer.e_tag(), &attempt)?;
    let sent = answer.content_range().and_then(parse_content_range);
    let Some((sent, size)) = sent else {
        return Err(attempt.not_s3("it does not say which part of the object it is"));
    };
    if sent != (asked.start..asked.end.min(size)) {
        return Err(attempt.not_s3("it is another part of the object than was asked for"));
    }
    Ok(object(inner, answer, size, sent.end - sent.start, attempt))
}

fn object(inner: &Inner, answer: GetObjectOutput, size: u64, length: u64, attempt: Attempt) -> Object {
    let metadata = metadata_of(answer.metadata());
    let body = body::checked(answer.body, length, inner.request_timeout, attempt);
    Object { metadata, size, body }
}

/// An empty body, of an object that is known to be there.
async fn nothing_of(inner: &Inner, key: &ObjectKey, attempt: Attempt) -> Result<Object, StoreError> {
    let Head { metadata, size } = head(inner, key, attempt).await?;
    Ok(Object { metadata, size, body: futures::stream::empty().boxed() })
}

/// `bytes 0-9/100` (RFC 9110, 14.4) as the range and the whole size.
fn parse_content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) =
        (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, size.parse::<u64>().ok()?);
    (first <= last && last < size).then(|| (first..last + 1, size))
}

pub(super) async fn head(inner: &Inner, key: &ObjectKey, attempt: Attempt) -> Result<Head, StoreError> {
    let request = inner.client.head_object().bucket(&inner.bucket).key(inner.name_of(key));
    match request.send().await {
        Ok(answer) => {
            check_is_object(answer.e_tag(), &attempt)?;
            let size = size_of(answer.content_length(), &attempt)?;
            Ok(Head { metadata: metadata_of(answer.metadata()), size })
        }
        Err(error) => Err(explained(inner, key, &attempt, &error).await),
    }
}

/// That of an upload in parts is of the parts' checksums and says nothing of the whole.
pub(super) async fn kept_checksum(inner: &Inner, key: &ObjectKey) -> Result<Option<StoredHash>, StoreError> {
    let attempt = inner.attempt("head", key);
    let request = inner.client.head_object().bucket(&inner.bucket).key(inner.name_of(key));
    match request.checksum_mode(ChecksumMode::Enabled).send().await {
        Ok(answer) => {
            check_is_object(answer.e_tag(), &attempt)?;
            Ok(answer.checksum_sha256().and_then(StoredHash::from_base64))
        }
        Err(error) => Err(explained(inner, key, &attempt, &error).await),
    }
}

/// What the answer says of now and of the object. Both are cut to seconds, so its age may be one less.
pub(super) async fn age(inner: &Inner, key: &ObjectKey) -> Result<Option<Duration>, StoreError> {
    let attempt = inner.attempt("head", key);
    let date = AnswerDate::default();
    let request = inner.client.head_object().bucket(&inner.bucket).key(inner.name_of(key));
    let answer = match request.customize().interceptor(date.clone()).send().await {
        Ok(answer) => answer,
        Err(error) => return Err(explained(inner, key, &attempt, &error).await),
    };
    check_is_object(answer.e_tag(), &attempt)?;
    let seconds = date.seconds().zip(answer.last_modified()).map(|(now, stored)| now - stored.secs());
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok()?.checked_sub(1));
    Ok(seconds.map(Duration::from_secs))
}

/// The answer to HEAD has no body, so its 404 could be the bucket's, a
/// proxy's, or anybody's, and its 403 has no reason. A listing says which.
async fn explained(
    inner: &Inner,
    key: &ObjectKey,
    attempt: &Attempt,
    error: &SdkError<HeadObjectError, HttpResponse>,
) -> StoreError {
    let status = match error {
        SdkError::ServiceError(answer) => answer.raw().status().as_u16(),
        _ => 0,
    };
    if !(400..500).contains(&status) {
        return attempt.failed(error);
    }
    match listing::shows(inner, key, attempt).await {
        Err(reason) => reason,
        Ok(false) if status == 404 => attempt.error(StoreErrorKind::NotFound, "there is no such object"),
        Ok(true) if status == 404 => {
            attempt.error(StoreErrorKind::Transient, "the store lists it and says it has none")
        }
        Ok(_) => attempt.failed(error),
    }
}

/// Every object has an ETag, and a foreign server's page seldom does.
fn check_is_object(e_tag: Option<&str>, attempt: &Attempt) -> Result<(), StoreError> {
    e_tag.map(drop).ok_or_else(|| attempt.not_s3("it has no ETag"))
}

fn size_of(content_length: Option<i64>, attempt: &Attempt) -> Result<u64, StoreError> {
    let size = content_length.and_then(|length| u64::try_from(length).ok());
    size.ok_or_else(|| attempt.not_s3("it does not say how long the object is"))
}

fn metadata_of(values: Option<&HashMap<String, String>>) -> Metadata {
    let values = values.into_iter().flatten();
    Metadata::from_store(values.map(|(name, value)| (name.as_str(), value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_range_that_makes_no_sense_is_none() {
        assert_eq!(parse_content_range("bytes 0-9/100"), Some((0..10, 100)));
        assert_eq!(parse_content_range("bytes 99-99/100"), Some((99..100, 100)));
        for text in [
            "",
            "bytes */100",
            "bytes 0-9/*",
            "bytes 9-0/100",
            "bytes 0-100/100",
            "0-9/100",
            "bytes 0-18446744073709551615/3",
        ] {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }
}
