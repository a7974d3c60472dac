//! One put, one delete.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use std::collections::HashMap;

use super::failure::Attempt;
use super::signature::SignedBody;
use super::{Inner, guard};
use crate::config::{self, ArchiveConfig};
use crate::content::StoredHash;
use crate::object_key::ObjectKey;
use crate::store::{ChecksumCheck, Metadata, PutMode, PutOutcome, StoreError, StoreErrorKind};

/// What every object is stored as, so that a web page is never one of ours.
pub(super) const CONTENT_TYPE: &str = "application/octet-stream";

/// How the store is to keep new objects.
#[derive(Clone, Debug)]
pub(super) struct Placing {
    pub(super) storage_class: Option<StorageClass>,
    pub(super) sse: Option<ServerSideEncryption>,
    pub(super) kms_key: Option<String>,
}

impl Placing {
    pub(super) fn new(config: &ArchiveConfig) -> Self {
        Self {
            storage_class: config.storage_class.as_deref().map(StorageClass::from),
            sse: config.sse.map(|sse| match sse {
                config::ServerSideEncryption::Aes256 => ServerSideEncryption::Aes256,
                config::ServerSideEncryption::AwsKms => ServerSideEncryption::AwsKms,
            }),
            kms_key: config.kms_key.clone(),
        }
    }
}

/// Compares what the store says it verified with what was sent.
pub(super) fn check_echo(sent: &str, echoed: Option<&str>, attempt: &Attempt) -> Result<(), StoreError> {
    match echoed {
        // Composite checksums of uploads end with the number of parts.
        Some(echoed) if echoed != sent => {
            let detail = format!("the store says the SHA-256 is {echoed}, {sent} was sent");
            Err(attempt.error(StoreErrorKind::Damaged, detail))
        }
        _ => Ok(()),
    }
}

pub(super) fn user_metadata(metadata: &Metadata) -> Option<HashMap<String, String>> {
    let values = metadata.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    (!metadata.is_empty()).then(|| values.collect())
}

/// True when the store refused because the key is taken.
pub(super) fn is_taken<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.raw_response().is_some_and(|answer| answer.status().as_u16() == 412)
        && error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("PreconditionFailed")
}

/// True when the store does not know something that was asked for.
pub(super) fn is_unknown_to_store<E>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(error, SdkError::ServiceError(answer) if answer.raw().status().as_u16() == 501)
}

pub(super) async fn put(
    inner: &Inner,
    key: &ObjectKey,
    body: Bytes,
    metadata: &Metadata,
    mode: PutMode,
) -> Result<PutOutcome, StoreError> {
    let attempt = inner.attempt("put", key);
    let hash = StoredHash::of(&body);
    let checksum = hash.base64();
    let body = Body { bytes: &body, hash, checksum: &checksum };
    let conditional = inner.sends_condition(mode);
    let mut result = send(inner, key, body, metadata, conditional).await;
    if conditional && result.as_ref().is_err_and(is_unknown_to_store) {
        result = send(inner, key, body, metadata, false).await;
        if result.is_ok() {
            inner.forget_conditions();
        }
    }
    match result {
        Ok(answer) => {
            if answer.e_tag().is_none() {
                return Err(attempt.not_s3("it has no ETag"));
            }
            check_echo(&checksum, answer.checksum_sha256(), &attempt)?;
            Ok(PutOutcome::Created)
        }
        Err(error) if conditional && is_taken(&error) => Ok(PutOutcome::Exists),
        Err(error) => Err(attempt.failed(&error)),
    }
}

/// What is sent, and what is said of it.
#[derive(Clone, Copy)]
struct Body<'a> {
    bytes: &'a Bytes,
    /// What the signature covers.
    hash: StoredHash,
    /// What the store is told that the SHA-256 is.
    checksum: &'a str,
}

async fn send(
    inner: &Inner,
    key: &ObjectKey,
    body: Body<'_>,
    metadata: &Metadata,
    conditional: bool,
) -> Result<PutObjectOutput, SdkError<PutObjectError, HttpResponse>> {
    let limits = aws_sdk_s3::config::Builder::new().timeout_config(inner.time_for(body.bytes.len()));
    inner
        .client
        .put_object()
        .bucket(&inner.bucket)
        .key(inner.name_of(key))
        .content_type(CONTENT_TYPE)
        .set_metadata(user_metadata(metadata))
        .set_storage_class(inner.placing.storage_class.clone())
        .set_server_side_encryption(inner.placing.sse.clone())
        .set_ssekms_key_id(inner.placing.kms_key.clone())
        .set_if_none_match(conditional.then(|| "*".to_owned()))
        .checksum_sha256(body.checksum)
        .body(body.bytes.clone().into())
        .customize()
        .config_override(limits)
        .interceptor(SignedBody(body.hash))
        .send()
        .await
}

/// Sends bytes with the checksum of others. The signature is over the right one, so that nothing but
/// `x-amz-checksum-sha256` is wrong.
pub(super) async fn try_checksum(inner: &Inner, key: &ObjectKey) -> Result<ChecksumCheck, StoreError> {
    let bytes = Bytes::from_static(b"walpoint");
    let of_others = StoredHash::of(b"not walpoint").base64();
    let body = Body { bytes: &bytes, hash: StoredHash::of(&bytes), checksum: &of_others };
    match send(inner, key, body, &Metadata::new(), false).await {
        Ok(answer) if answer.e_tag().is_none() => Err(inner.attempt("put", key).not_s3("it has no ETag")),
        Ok(_) => Ok(ChecksumCheck::Ignored),
        Err(error) if is_bad_checksum(&error) => Ok(ChecksumCheck::Verified),
        Err(error) => Err(inner.attempt("put", key).failed(&error)),
    }
}

/// True when the store refused because the body is not the one its checksum is of: `BadDigest` on Amazon's S3
/// (API Reference, "Error responses"), the others elsewhere.
fn is_bad_checksum<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    error.raw_response().is_some_and(|answer| answer.status().as_u16() == 400)
        && matches!(code, Some("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch"))
}

pub(super) async fn delete(inner: &Inner, key: &ObjectKey) -> Result<(), StoreError> {
    let attempt = inner.attempt("delete", key);
    let request = inner.client.delete_object().bucket(&inner.bucket).key(inner.name_of(key));
    match request.customize().interceptor(guard::DeleteGuard).send().await {
        Ok(_) => Ok(()),
        Err(error) => {
            let failed = attempt.failed(&error);
            // Some stores say so; S3 does not.
            if failed.is_not_found() { Ok(()) } else { Err(failed) }
        }
    }
}
