//! A bucket whose answers are made up: no connection is opened.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::config::{Credentials, Region, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use super::{S3Store, client};
use crate::config::ArchiveConfig;

/// What the bucket answers, in turn; the last one for ever.
#[derive(Clone, Default, Debug)]
pub(crate) struct Answers(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Answers {
    /// Answers divided by zero bytes.
    pub(crate) fn set(&self, data: &[u8]) {
        let answers = data.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }

    fn next(&self) -> Vec<u8> {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.len() {
            0 | 1 => answers.front().cloned().unwrap_or_default(),
            _ => answers.pop_front().unwrap_or_default(),
        }
    }
}

impl HttpConnector for Answers {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let body = self.next();
        // An answer that begins with a digit is an error of that status.
        let status = match body.first() {
            Some(digit @ b'3'..=b'5') => u16::from(digit - b'0') * 100 + 4,
            _ => 200,
        };
        let answer =
            StatusCode::try_from(status).map(|status| HttpResponse::new(status, SdkBody::from(body)));
        HttpConnectorFuture::ready(answer.map_err(|error| ConnectorError::user(error.into())))
    }
}

/// The store of a bucket that answers so.
pub(crate) fn store(answers: &Answers) -> Option<S3Store> {
    let config = ArchiveConfig::new("s3://bucket/pre/fix".parse().ok()?);
    let credentials = Credentials::new("ACCESSKEYID", "SecretAccessKey", None, None, "fuzzing");
    let environment = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("here"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let connector = SharedHttpConnector::new(answers.clone());
    let http_client = http_client_fn(move |_, _| connector.clone());
    let client = client::speaking_through(http_client, &config, &environment).ok()?;
    Some(S3Store::of(client, &config, "bucket", "pre/fix"))
}
