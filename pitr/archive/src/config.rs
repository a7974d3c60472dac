//! What an operator says about an archive, as typed values.
//!
//! The texts are read at the edge of the program; this file knows what they
//! may mean, and what cannot go together.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::store::dir::DirStore;
use crate::store::retry::{Retry, RetryPolicy};
use crate::store::s3::S3Store;
use crate::store::{ObjectStore, StoreError};

mod archive_url;

pub use archive_url::ArchiveUrl;

/// Where an archive is and how to speak to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveConfig {
    /// The place.
    pub url: ArchiveUrl,
    /// `http://` or `https://` address of an S3-compatible store; none means AWS.
    pub endpoint: Option<String>,
    /// S3 region; none means what the AWS environment or profile says.
    pub region: Option<String>,
    /// Bucket in the path instead of the host name. None means: when there is
    /// an endpoint.
    pub path_style: Option<bool>,
    /// PEM file with the certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Storage class of new objects, in S3's words.
    pub storage_class: Option<String>,
    /// Encryption by the store.
    pub sse: Option<ServerSideEncryption>,
    /// Id or ARN of the KMS key, with `aws:kms`.
    pub kms_key: Option<String>,
    /// How long one request may take, and how long a body may bring nothing.
    pub request_timeout: Duration,
}

/// How the store itself encrypts what it keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerSideEncryption {
    /// Keys of S3's own.
    Aes256,
    /// A key in KMS.
    AwsKms,
}

/// How objects are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompressionConfig {
    /// zstd level; higher is smaller and slower, negative is faster.
    pub level: i32,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { level: 1 }
    }
}

/// How objects are encrypted, if at all.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct EncryptionConfig {
    /// age public keys; none means no encryption.
    pub recipients: Vec<String>,
    /// File with the age identities that can read.
    pub identity_file: Option<PathBuf>,
}

/// Archive settings that cannot work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("could not use {what}: {why}")]
pub struct ArchiveConfigError {
    /// The setting and its value, or that it has one.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
}

impl ArchiveConfigError {
    fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into() }
    }
}

impl ArchiveConfig {
    /// `[archive] request_timeout` when nothing is said.
    pub const DEFAULT_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

    /// The archive at a place, everything else at its default.
    pub fn new(url: ArchiveUrl) -> Self {
        Self {
            url,
            endpoint: None,
            region: None,
            path_style: None,
            ca_file: None,
            storage_class: None,
            sse: None,
            kms_key: None,
            request_timeout: Self::DEFAULT_REQUEST_TIMEOUT,
        }
    }

    /// True when the bucket is named in the path of requests.
    pub fn uses_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    /// True when the store is asked without TLS.
    pub(crate) fn is_plain_http(&self) -> bool {
        self.endpoint.as_deref().is_some_and(|endpoint| split_scheme(endpoint, "http://").is_some())
    }

    /// Refuses what could not work, or would work until the day of a restore.
    pub fn validate(&self) -> Result<(), ArchiveConfigError> {
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint)?;
        }
        if let Some(class) = &self.storage_class {
            check_storage_class(class)?;
        }
        if self.kms_key.is_some() && self.sse != Some(ServerSideEncryption::AwsKms) {
            let why = "a KMS key is used only with sse = \"aws:kms\"";
            return Err(ArchiveConfigError::new("[archive] kms_key", why));
        }
        if self.request_timeout.is_zero() {
            let why = "no request can end within no time";
            return Err(ArchiveConfigError::new("[archive] request_timeout = \"0s\"", why));
        }
        Ok(())
    }

    /// What to warn about once per command when data and signatures cross a
    /// network in clear: an `http://` endpoint that is not this machine.
    pub fn plain_http_warning(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref()?;
        let (_, rest) = split_scheme(endpoint, "http://")?;
        if !matches!(self.url, ArchiveUrl::S3 { .. }) || is_loopback(host_of(rest)) {
            return None;
        }
        Some(format!(
            "the archive's endpoint {endpoint} is plain http: what is not encrypted by walpoint can be read, and changed, on the way"
        ))
    }
}

/// Opens the archive that the settings name, with retries. A directory must be
/// there; of a bucket nothing is asked yet.
pub async fn open_store(
    config: &ArchiveConfig,
    policy: &RetryPolicy,
) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let store: Arc<dyn ObjectStore> = match &config.url {
        ArchiveUrl::Dir(path) => Arc::new(DirStore::open(path).await?),
        ArchiveUrl::S3 { bucket, prefix } => Arc::new(S3Store::open(config, bucket, prefix).await?),
    };
    #[cfg(feature = "fault-points")]
    let store: Arc<dyn ObjectStore> = Arc::new(crate::store::fault_points::FaultPoints::new(store));
    #[cfg(feature = "fault-points")]
    let policy = &RetryPolicy {
        give_up_after: crate::fault_point::injected::patience(policy.give_up_after),
        ..*policy
    };
    Ok(Arc::new(Retry::new(store, *policy)))
}

fn check_endpoint(endpoint: &str) -> Result<(), ArchiveConfigError> {
    let named = format!("[archive] endpoint {:?}", without_user_info(endpoint));
    let rest = ["http://", "https://"].iter().find_map(|scheme| split_scheme(endpoint, scheme));
    let Some((_, rest)) = rest else {
        return Err(ArchiveConfigError::new(named, "it begins with neither http:// nor https://"));
    };
    if rest.contains('@') {
        let why = "credentials do not belong here; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        return Err(ArchiveConfigError::new(named, why));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host_of(authority).is_empty() {
        return Err(ArchiveConfigError::new(named, "it names no host"));
    }
    if !path.is_empty() || rest.contains(['?', '#', ' ']) {
        let why = "it has more than a host and a port; the bucket belongs to [archive] url";
        return Err(ArchiveConfigError::new(named, why));
    }
    Ok(())
}

fn check_storage_class(class: &str) -> Result<(), ArchiveConfigError> {
    let named = format!("[archive] storage_class {class:?}");
    // S3 answers a GET of these with InvalidObjectState until an operator has
    // thawed the object: a plan would promise what a restore cannot read.
    if matches!(class, "GLACIER" | "DEEP_ARCHIVE") {
        let why =
            "objects of this class cannot be read without being thawed first, so nothing could be restored";
        return Err(ArchiveConfigError::new(named, why));
    }
    let safe = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if class.is_empty() || !class.bytes().all(safe) {
        return Err(ArchiveConfigError::new(
            named,
            "it is not the name of a storage class (STANDARD_IA, say)",
        ));
    }
    Ok(())
}

fn split_scheme<'a>(url: &'a str, scheme: &str) -> Option<(&'a str, &'a str)> {
    let (found, rest) = url.split_at_checked(scheme.len())?;
    found.eq_ignore_ascii_case(scheme).then_some((found, rest))
}

fn without_user_info(endpoint: &str) -> String {
    match endpoint.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => endpoint.to_owned(),
    }
}

/// The host of `host[:port][/…]`, an IPv6 address without its brackets.
fn host_of(authority: &str) -> &str {
    let authority = authority.split('/').next().unwrap_or(authority);
    match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

fn is_loopback(host: &str) -> bool {
    let by_address = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    by_address || host.eq_ignore_ascii_case("localhost")
}

impl FromStr for ServerSideEncryption {
    type Err = ArchiveConfigError;

    fn from_str(text: &str) -> Result<Self, ArchiveConfigError> {
        match text {
            "AES256" => Ok(Self::Aes256),
            "aws:kms" => Ok(Self::AwsKms),
            _ => Err(ArchiveConfigError::new(
                format!("[archive] sse {text:?}"),
                "it is neither \"AES256\" nor \"aws:kms\"",
            )),
        }
    }
}

impl fmt::Display for ServerSideEncryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256 => "AES256",
            Self::AwsKms => "aws:kms",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn s3_at(endpoint: &str) -> ArchiveConfig {
        let mut config = ArchiveConfig::new("s3://bucket/a/b".parse().unwrap());
        config.endpoint = Some(endpoint.to_owned());
        config
    }

    #[test]
    fn plain_http_is_warned_about_away_from_loopback_only() {
        for near in
            ["http://127.0.0.1:3900", "http://localhost:1", "http://[::1]:3900", "https://s3.example.org"]
        {
            assert_eq!(s3_at(near).plain_http_warning(), None, "{near}");
        }
        for far in [
            "http://s3.example.org",
            "HTTP://10.0.0.1:9000",
            "http://[fe80::1]:3900",
            "http://localhost.example.org",
        ] {
            assert!(s3_at(far).plain_http_warning().is_some(), "{far}");
        }
    }

    #[test]
    fn an_endpoint_with_credentials_is_refused_without_printing_them() {
        let error = s3_at("https://me:hunter2@s3.example.org").validate().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        for bad in ["s3.example.org", "ftp://x", "https://", "https://h/bucket", "https://h?x", "https://:80"]
        {
            assert!(s3_at(bad).validate().is_err(), "{bad} was accepted");
        }
        for good in ["https://s3.example.org", "http://127.0.0.1:3900/", "https://[::1]:3900"] {
            s3_at(good).validate().unwrap();
        }
    }

    #[test]
    fn a_storage_class_that_cannot_be_read_back_at_once_is_refused() {
        let mut config = s3_at("https://s3.example.org");
        for bad in ["GLACIER", "DEEP_ARCHIVE", "", "standard ia"] {
            config.storage_class = Some(bad.to_owned());
            assert!(config.validate().is_err(), "{bad}");
        }
        for good in ["STANDARD_IA", "GLACIER_IR", "INTELLIGENT_TIERING"] {
            config.storage_class = Some(good.to_owned());
            config.validate().unwrap();
        }
    }

    #[test]
    fn a_kms_key_without_kms_is_refused() {
        let mut config = s3_at("https://s3.example.org");
        config.kms_key = Some("alias/walpoint".to_owned());
        assert!(config.validate().is_err());
        config.sse = Some("AES256".parse().unwrap());
        assert!(config.validate().is_err());
        config.sse = Some("aws:kms".parse().unwrap());
        config.validate().unwrap();
        assert!("kms".parse::<ServerSideEncryption>().is_err());
    }

    #[test]
    fn path_style_is_the_default_with_an_endpoint() {
        assert!(s3_at("http://127.0.0.1:3900").uses_path_style());
        assert!(!ArchiveConfig::new("s3://bucket".parse().unwrap()).uses_path_style());
    }
}
