//! What a failed request means for the one who asked.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::store::{StoreError, StoreErrorKind};

/// What was asked for, to name it in errors.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) verb: &'static str,
    pub(super) key: String,
    pub(super) bucket: String,
}

impl Attempt {
    pub(super) fn error(&self, kind: StoreErrorKind, detail: impl Into<String>) -> StoreError {
        StoreError::new(self.verb, &self.key, kind, detail)
    }

    /// An answer that S3 would not give, so nothing can be concluded from it.
    pub(super) fn not_s3(&self, what: &str) -> StoreError {
        self.error(StoreErrorKind::Transient, format!("the answer does not look like S3's: {what}"))
            .with_hint("is there a proxy or a captive portal on the way? is [archive] endpoint right?")
    }

    /// Says what a failed request means.
    pub(super) fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match error {
            SdkError::ServiceError(answer) => self.refused(&Refusal {
                status: answer.raw().status().as_u16(),
                code: answer.err().code(),
                message: answer.err().message(),
            }),
            SdkError::TimeoutError(_) => self.error(StoreErrorKind::Transient, "no answer in time"),
            SdkError::ResponseError(_) => self.not_s3(&causes(error)),
            SdkError::DispatchFailure(failure) if failure.is_user() => {
                self.error(StoreErrorKind::Other, causes(error))
            }
            _ => self.not_sent(&causes(error)),
        }
    }

    /// What the store's own answer means.
    pub(super) fn refused(&self, refusal: &Refusal<'_>) -> StoreError {
        let (kind, hint) = meaning(refusal);
        let code = refusal.code.unwrap_or("no reason given");
        let message = refusal.message.map(|message| format!(": {message}")).unwrap_or_default();
        let detail = format!("{code}{message} (HTTP status {})", refusal.status);
        let mut failed = self.error(kind, one_line(&detail));
        failed.hint = hint.map(str::to_owned);
        if refusal.code == Some("NoSuchBucket") {
            failed.detail = format!("bucket \"{}\" does not exist", self.bucket);
        }
        failed
    }

    fn not_sent(&self, causes: &str) -> StoreError {
        // The SDK does not tell credentials from connections by type.
        if causes.contains("redential") {
            return self.error(StoreErrorKind::Denied, causes).with_hint(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile or role, for the user who runs this",
            );
        }
        if causes.contains("invalid peer certificate") {
            return self.error(StoreErrorKind::Other, causes).with_hint(
                "set [archive] ca_file to the certificate of the authority that signed the store's",
            );
        }
        self.error(StoreErrorKind::Transient, causes)
    }
}

/// The store's own answer that it did not do it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal<'a> {
    pub(super) status: u16,
    /// S3's error code; none when the answer had no S3 error in it.
    pub(super) code: Option<&'a str>,
    pub(super) message: Option<&'a str>,
}

/// Codes: Amazon S3 API Reference, "Error responses".
fn meaning(refusal: &Refusal<'_>) -> (StoreErrorKind, Option<&'static str>) {
    use StoreErrorKind::{Denied, NoArchive, NotFound, Other, Transient};
    const REGION: Option<&str> = Some("the bucket is elsewhere: check [archive] region and endpoint");
    const DENIED: Option<&str> =
        Some("check the credentials, and that they may put, get, list and delete objects in this bucket");
    match (refusal.code.unwrap_or_default(), refusal.status) {
        ("NoSuchKey", 404) => (NotFound, None),
        ("NoSuchBucket", _) => {
            (NoArchive, Some("check [archive] url and endpoint; walpoint makes no buckets"))
        }
        ("InvalidObjectState", _) => {
            (Other, Some("the object was moved to a class that must be thawed before it can be read"))
        }
        ("RequestTimeTooSkewed", _) => {
            (Transient, Some("this machine's clock and the store's differ by more than 15 minutes"))
        }
        ("ExpiredToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken", _) => {
            (Denied, DENIED)
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _) => {
            (Other, REGION)
        }
        // The bytes that arrived were not those that left.
        ("BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "IncompleteBody", _) => {
            (Transient, None)
        }
        ("RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable" | "OperationAborted", _) => {
            (Transient, None)
        }
        // Somebody changed this key at the same moment; S3 says to try again.
        ("ConditionalRequestConflict", _) => (Transient, None),
        (_, 501) => (Other, None),
        (_, 500.. | 429 | 408) => (Transient, None),
        (_, 401 | 403) => (Denied, DENIED),
        (_, 307) => (Transient, REGION),
        (_, 301 | 302 | 308) => (Other, REGION),
        ("", _) => (
            Transient,
            Some(
                "the answer has no S3 error in it: is there a proxy on the way? is [archive] endpoint right?",
            ),
        ),
        // A 404 that names no object is a bare one, or about something else.
        (_, 404) => (Transient, None),
        _ => (Other, None),
    }
}

/// The error and what caused it, each once.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    one_line(&texts.join(": "))
}

fn one_line(text: &str) -> String {
    const LONGEST: usize = 500;
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, code: Option<&str>) -> StoreErrorKind {
        let attempt = Attempt { verb: "get", key: "a".to_owned(), bucket: "b".to_owned() };
        attempt.refused(&Refusal { status, code, message: None }).kind
    }

    #[test]
    fn only_no_such_key_reads_as_not_found() {
        assert_eq!(kind(404, Some("NoSuchKey")), StoreErrorKind::NotFound);
        for code in [None, Some("NotFound"), Some("NoSuchBucket"), Some("NoSuchUpload"), Some("AccessDenied")]
        {
            assert_ne!(kind(404, code), StoreErrorKind::NotFound, "{code:?}");
        }
        for status in [200, 301, 400, 401, 403, 410, 500, 502, 503] {
            for code in [None, Some("NoSuchKey")] {
                assert_ne!(kind(status, code), StoreErrorKind::NotFound, "{status} {code:?}");
            }
        }
    }

    #[test]
    fn each_refusal_is_what_an_operator_would_call_it() {
        assert_eq!(kind(404, Some("NoSuchBucket")), StoreErrorKind::NoArchive);
        assert_eq!(kind(403, Some("AccessDenied")), StoreErrorKind::Denied);
        assert_eq!(kind(403, None), StoreErrorKind::Denied);
        assert_eq!(kind(400, Some("ExpiredToken")), StoreErrorKind::Denied);
        assert_eq!(kind(403, Some("RequestTimeTooSkewed")), StoreErrorKind::Transient);
        assert_eq!(kind(503, Some("SlowDown")), StoreErrorKind::Transient);
        assert_eq!(kind(200, Some("InternalError")), StoreErrorKind::Transient);
        assert_eq!(kind(429, None), StoreErrorKind::Transient);
        assert_eq!(kind(404, None), StoreErrorKind::Transient);
        assert_eq!(kind(400, Some("BadDigest")), StoreErrorKind::Transient);
        assert_eq!(kind(301, Some("PermanentRedirect")), StoreErrorKind::Other);
        assert_eq!(kind(403, Some("InvalidObjectState")), StoreErrorKind::Other);
        assert_eq!(kind(400, Some("InvalidArgument")), StoreErrorKind::Other);
        assert_eq!(kind(501, Some("NotImplemented")), StoreErrorKind::Other);
    }
}
