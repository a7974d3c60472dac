//! Is this answer S3's? A captive portal, a proxy or a wrong server answers
//! with a page, often with status 200, and must never be believed.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;

/// What a web page in place of an answer is called in errors.
pub(super) const WEB_PAGE: &str = "a web page came instead of the store's answer";

/// Refuses every answer that is a web page. No object of ours is one: they are
/// stored as `application/octet-stream`.
#[derive(Debug)]
pub(super) struct WebPageGuard;

impl Intercept for WebPageGuard {
    fn name(&self) -> &'static str {
        "WebPageGuard"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let content_type = context.response().headers().get("content-type").unwrap_or_default();
        if content_type.trim_start().to_ascii_lowercase().starts_with("text/html") {
            return Err(WEB_PAGE.into());
        }
        Ok(())
    }
}

/// Refuses an answer to DELETE that says neither 204, as S3 does, nor who
/// gave it. For DELETE alone: its answer has no other mark.
#[derive(Debug)]
pub(super) struct DeleteGuard;

impl Intercept for DeleteGuard {
    fn name(&self) -> &'static str {
        "DeleteGuard"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let is_signed = response.headers().get("x-amz-request-id").is_some();
        if response.status().is_success() && response.status().as_u16() != 204 && !is_signed {
            return Err("the answer to DELETE is not S3's".into());
        }
        Ok(())
    }
}
