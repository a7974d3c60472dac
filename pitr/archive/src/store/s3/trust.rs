//! Whom to believe to be the store: the system's certificates, or only those
//! of a file.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;

use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{HttpClient, HttpConnectorSettings, SharedHttpConnector};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use base64::Engine;

/// A client that believes the system's certificates.
pub(super) fn system_http_client() -> SharedHttpClient {
    let client = || Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    SharedHttpClient::new(AtFirstRequest(LazyLock::new(client)))
}

/// The SDK has every client read all of the system's certificates as soon as it is
/// made, also the clients of credential sources that are never asked. For a hook
/// that runs once for every segment that is a tenth of its time.
#[derive(Debug)]
struct AtFirstRequest(LazyLock<SharedHttpClient>);

impl HttpClient for AtFirstRequest {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        self.0.http_connector(settings, components)
    }
}

/// A client for an endpoint that shows no certificate, and that believes none.
pub(super) fn http_client_without_tls() -> Result<SharedHttpClient, String> {
    let context = TlsContext::builder().with_trust_store(TrustStore::empty()).build();
    let context = context.map_err(|error| format!("could not make a client for http: {error}"))?;
    let client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context);
    Ok(client.build_https())
}

/// A client that believes the certificates of this file alone.
pub(super) async fn http_client_of(path: &Path) -> Result<SharedHttpClient, String> {
    let refused = |why: String| format!("could not use [archive] ca_file {}: {why}", path.display());
    let text = tokio::fs::read(path).await.map_err(|error| refused(error.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| refused("it is not a PEM file".to_owned()))?;
    let mut trusted = TrustStore::empty();
    for certificate in certificates(&text).map_err(|why| refused(why.to_owned()))? {
        trusted.add_pem_certificate(certificate);
    }
    let context = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|error| refused(error.to_string()))?;
    if !is_usable(&context) {
        return Err(refused("a certificate in it is damaged".to_owned()));
    }
    let client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context);
    Ok(client.build_https())
}

/// The TLS library panics on a certificate that it cannot read, when the first
/// client is made. So one is made here for trial.
fn is_usable(context: &TlsContext) -> bool {
    let connector =
        Connector::builder().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context.clone());
    catch_unwind(AssertUnwindSafe(|| connector.build())).is_ok()
}

/// The PEM certificates of a file, whole ones at least.
fn certificates(text: &str) -> Result<Vec<String>, &'static str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    for block in text.split(BEGIN).skip(1) {
        let (inner, _) = block.split_once(END).ok_or("a certificate has no end")?;
        let base64: String = inner.split_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(&base64);
        if !der.is_ok_and(|der| is_whole_sequence(&der)) {
            return Err("a certificate in it is damaged");
        }
        found.push(format!("{BEGIN}{inner}{END}\n"));
    }
    if found.is_empty() {
        return Err("there is no PEM certificate in it");
    }
    Ok(found)
}

/// True for one DER SEQUENCE whose length is the length of the bytes (X.690, 8.1.3).
fn is_whole_sequence(der: &[u8]) -> bool {
    match der {
        [0x30, 0x82, high, low, rest @ ..] => usize::from(u16::from_be_bytes([*high, *low])) == rest.len(),
        [0x30, 0x81, length, rest @ ..] => usize::from(*length) == rest.len(),
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_whole_certificate_is_refused() {
        for text in [
            "",
            "nonsense",
            "-----BEGIN CERTIFICATE-----\nMIIB",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(certificates(text).is_err(), "{text:?} was accepted");
        }
    }
}
