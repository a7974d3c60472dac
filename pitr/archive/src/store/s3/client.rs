//! The SDK's client, set up for an archive.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use std::time::Duration;

use super::{guard, trust};
use crate::config::ArchiveConfig;
use crate::store::{StoreError, StoreErrorKind};

/// A connection that takes longer will not come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Region to sign for when nobody names one: what stores other than AWS expect.
const REGION_OF_OTHER_STORES: &str = "us-east-1";

/// What the AWS environment, profile and instance say: credentials, region.
/// Sends nothing to S3.
pub(super) async fn environment(config: &ArchiveConfig) -> SdkConfig {
    let mut loader = aws_config::defaults(behavior())
        .http_client(trust::system_http_client())
        .stalled_stream_protection(stalled_streams(config));
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    loader.load().await
}

/// The client for this archive, in this environment.
pub(super) async fn build(config: &ArchiveConfig, environment: &SdkConfig) -> Result<Client, StoreError> {
    config.validate().map_err(|error| refused(config, error.to_string()))?;
    let http_client = match &config.ca_file {
        Some(file) => trust::http_client_of(file).await,
        None if config.is_plain_http() => trust::http_client_without_tls(),
        None => Ok(trust::system_http_client()),
    };
    speaking_through(http_client.map_err(|error| refused(config, error))?, config, environment)
}

/// The same over connections of this kind.
pub(super) fn speaking_through(
    http_client: SharedHttpClient,
    config: &ArchiveConfig,
    environment: &SdkConfig,
) -> Result<Client, StoreError> {
    let mut builder = Builder::from(environment)
        .http_client(http_client)
        .force_path_style(config.uses_path_style())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts(config))
        .stalled_stream_protection(stalled_streams(config))
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .interceptor(guard::WebPageGuard);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    if environment.region().is_none() {
        if config.endpoint.is_none() && environment.endpoint_url().is_none() {
            return Err(
                refused(config, "no region is configured").with_hint("set [archive] region or AWS_REGION")
            );
        }
        builder = builder.region(Region::new(REGION_OF_OTHER_STORES));
    }
    Ok(Client::from_conf(builder.build()))
}

fn refused(config: &ArchiveConfig, detail: impl Into<String>) -> StoreError {
    StoreError::new("open", &config.url, StoreErrorKind::Other, detail)
}

fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

fn stalled_streams(config: &ArchiveConfig) -> StalledStreamProtectionConfig {
    StalledStreamProtectionConfig::enabled().grace_period(config.request_timeout).build()
}

fn timeouts(config: &ArchiveConfig) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(config.request_timeout))
        .operation_attempt_timeout(config.request_timeout)
        .build()
}
