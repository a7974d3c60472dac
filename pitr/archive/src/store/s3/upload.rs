//! An object in parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::complete_multipart_upload::{
    CompleteMultipartUploadError, CompleteMultipartUploadOutput,
};
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;

use super::failure::Attempt;
use super::signature::SignedBody;
use super::{Inner, put, read};
use crate::content::StoredHash;
use crate::object_key::ObjectKey;
use crate::store::{Metadata, PutMode, PutOutcome, StoreError, StoreErrorKind, Upload};

/// Amazon S3, "multipart upload limits".
const MOST_PARTS: i32 = 10_000;

/// An upload that the store knows.
#[derive(Debug)]
pub(super) struct S3Upload {
    inner: Arc<Inner>,
    key: ObjectKey,
    metadata: Metadata,
    mode: PutMode,
    id: String,
    parts: BTreeMap<i32, CompletedPart>,
    size: u64,
    /// Set once it has ended; none inside means aborted.
    ended: Option<Option<PutOutcome>>,
}

pub(super) async fn begin(
    inner: Arc<Inner>,
    key: &ObjectKey,
    metadata: &Metadata,
    mode: PutMode,
) -> Result<S3Upload, StoreError> {
    let attempt = inner.attempt("put", key);
    let answer = inner
        .client
        .create_multipart_upload()
        .bucket(&inner.bucket)
        .key(inner.name_of(key))
        .content_type(put::CONTENT_TYPE)
        .set_metadata(put::user_metadata(metadata))
        .set_storage_class(inner.placing.storage_class.clone())
        .set_server_side_encryption(inner.placing.sse.clone())
        .set_ssekms_key_id(inner.placing.kms_key.clone())
        .checksum_algorithm(ChecksumAlgorithm::Sha256)
        .send()
        .await
        .map_err(|error| attempt.failed(&error))?;
    let id = answer.upload_id().ok_or_else(|| attempt.not_s3("it names no upload"))?.to_owned();
    let (key, metadata) = (key.clone(), metadata.clone());
    Ok(S3Upload { inner, key, metadata, mode, id, parts: BTreeMap::new(), size: 0, ended: None })
}

impl S3Upload {
    fn attempt(&self) -> Attempt {
        self.inner.attempt("put", &self.key)
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if self.ended.is_some() {
            return Err(self.attempt().error(StoreErrorKind::Other, "the upload has ended before"));
        }
        Ok(())
    }

    fn next_number(&self) -> Result<i32, StoreError> {
        let last = self.parts.keys().next_back().copied().unwrap_or(0);
        if last >= MOST_PARTS {
            let detail = format!("S3 takes at most {MOST_PARTS} parts of one object");
            return Err(self.attempt().error(StoreErrorKind::Other, detail));
        }
        Ok(last + 1)
    }

    async fn complete(
        &self,
        conditional: bool,
    ) -> Result<CompleteMultipartUploadOutput, SdkError<CompleteMultipartUploadError, HttpResponse>> {
        let parts =
            CompletedMultipartUpload::builder().set_parts(Some(self.parts.values().cloned().collect()));
        self.inner
            .client
            .complete_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.inner.name_of(&self.key))
            .upload_id(&self.id)
            .multipart_upload(parts.build())
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            .send()
            .await
    }

    /// No store completes an upload without bytes in it.
    async fn finish_empty(&mut self) -> Result<PutOutcome, StoreError> {
        let outcome = put::put(&self.inner, &self.key, Bytes::new(), &self.metadata, self.mode).await?;
        self.abort().await?;
        self.ended = Some(Some(outcome));
        Ok(outcome)
    }

    /// The store's word that the upload is complete is not enough: an answer
    /// may come in pieces, and a lost one leaves it open whether it was done.
    async fn verify(&self) -> Result<PutOutcome, StoreError> {
        let head = read::head(&self.inner, &self.key, self.attempt()).await?;
        if head.size != self.size {
            let detail = format!("the store holds {} bytes of it, {} were sent", head.size, self.size);
            return Err(self.attempt().error(StoreErrorKind::Damaged, detail));
        }
        Ok(PutOutcome::Created)
    }

    /// What the answer to Complete says, once it is known which it is.
    async fn conclude(
        &mut self,
        answer: Result<CompleteMultipartUploadOutput, SdkError<CompleteMultipartUploadError, HttpResponse>>,
    ) -> Result<PutOutcome, StoreError> {
        match answer {
            Ok(answer) if answer.e_tag().is_none() => Err(self.attempt().not_s3("it has no ETag")),
            Ok(_) => self.verify().await,
            Err(error) if put::is_taken(&error) => {
                self.abort().await?;
                Ok(PutOutcome::Exists)
            }
            // Done by a call before, whose answer was lost, or else aborted.
            Err(error) if is_gone(&error) => self.verify().await,
            Err(error) => Err(self.attempt().failed(&error)),
        }
    }
}

fn is_gone<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("NoSuchUpload")
}

#[async_trait]
impl Upload for S3Upload {
    async fn part(&mut self, body: Bytes) -> Result<(), StoreError> {
        self.check_open()?;
        if body.is_empty() {
            return Ok(());
        }
        let (number, hash, attempt) = (self.next_number()?, StoredHash::of(&body), self.attempt());
        let checksum = hash.base64();
        let limits = aws_sdk_s3::config::Builder::new().timeout_config(self.inner.time_for(body.len()));
        let size = body.len() as u64;
        let request = self
            .inner
            .client
            .upload_part()
            .bucket(&self.inner.bucket)
            .key(self.inner.name_of(&self.key))
            .upload_id(&self.id)
            .part_number(number)
            .checksum_sha256(&checksum)
            .body(body.into());
        let answer = request
            .customize()
            .config_override(limits)
            .interceptor(SignedBody(hash))
            .send()
            .await
            .map_err(|error| attempt.failed(&error))?;
        let e_tag = answer.e_tag().ok_or_else(|| attempt.not_s3("it has no ETag"))?;
        put::check_echo(&checksum, answer.checksum_sha256(), &attempt)?;
        let part =
            CompletedPart::builder().part_number(number).e_tag(e_tag).checksum_sha256(checksum).build();
        self.parts.insert(number, part);
        self.size += size;
        Ok(())
    }

    async fn finish(&mut self) -> Result<PutOutcome, StoreError> {
        if let Some(Some(outcome)) = self.ended {
            return Ok(outcome);
        }
        self.check_open()?;
        if self.parts.is_empty() {
            return self.finish_empty().await;
        }
        let conditional = self.inner.sends_condition(self.mode);
        let mut answer = self.complete(conditional).await;
        if conditional && answer.as_ref().is_err_and(put::is_unknown_to_store) {
            answer = self.complete(false).await;
            if answer.is_ok() {
                self.inner.forget_conditions();
            }
        }
        let outcome = self.conclude(answer).await?;
        self.ended = Some(Some(outcome));
        Ok(outcome)
    }

    async fn abort(&mut self) -> Result<(), StoreError> {
        if self.ended.is_some() {
            return Ok(());
        }
        let request = self
            .inner
            .client
            .abort_multipart_upload()
            .bucket(&self.inner.bucket)
            .key(self.inner.name_of(&self.key))
            .upload_id(&self.id);
        match request.send().await {
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(self.attempt().failed(&error)),
        }
        self.ended = Some(None);
        Ok(())
    }
}
