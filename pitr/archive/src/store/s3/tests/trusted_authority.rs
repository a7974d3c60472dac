//! A store whose certificate is signed by an authority of its owner's, served
//! by `openssl s_server`.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Kills the server when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority, and a certificate for 127.0.0.1 signed by it.
fn make_certificates(dir: &Path) {
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("req -x509 {new_key} -days 2 -subj /CN=authority -keyout ca.key -out ca.pem"));
    openssl(dir, &format!("req {new_key} -subj /CN=store -keyout store.key -out store.csr"));
    openssl(
        dir,
        "x509 -req -in store.csr -CA ca.pem -CAkey ca.key -set_serial 2 -days 2 -extfile san -out store.pem",
    );
}

/// Serves files from the directory as whole HTTP answers.
fn serve(dir: &Path) -> (Running, String) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let arguments = format!("s_server -accept {port} -cert store.pem -key store.key -HTTP -quiet");
    let child = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let running = Running(child);
    let since = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(since.elapsed() < Duration::from_secs(20), "openssl s_server does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (running, format!("https://127.0.0.1:{port}"))
}

#[tokio::test]
async fn a_store_is_believed_by_its_own_authority_and_by_no_other() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    std::fs::create_dir_all(dir.path().join("bucket/pre/fix/a")).unwrap();
    std::fs::write(
        dir.path().join("bucket/pre/fix/a/b?x-id=GetObject"),
        "HTTP/1.1 200 OK\r\netag: \"0123\"\r\ncontent-length: 10\r\nconnection: close\r\n\r\nsome bytes",
    )
    .unwrap();
    let (_running, endpoint) = serve(dir.path());
    let mut config = ArchiveConfig::new("s3://bucket/pre/fix".parse().unwrap());
    config.endpoint = Some(endpoint);
    config.request_timeout = Duration::from_secs(10);

    config.ca_file = Some(dir.path().join("ca.pem"));
    assert_eq!(read(&store_with(&config).await, None).await.unwrap(), body());

    openssl(
        dir.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=other -keyout other.key -out other.pem",
    );
    for ca_file in [None, Some(dir.path().join("other.pem"))] {
        config.ca_file = ca_file;
        let error = read(&store_with(&config).await, None).await.unwrap_err();
        assert_eq!(error.kind, Other, "{error}");
        assert!(error.hint.unwrap().contains("ca_file"));
    }
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_used_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let mut config = ArchiveConfig::new("s3://bucket".parse().unwrap());
    config.endpoint = Some("https://127.0.0.1:1".to_owned());
    config.ca_file = Some(file.clone());
    let not_a_certificate = "-----BEGIN CERTIFICATE-----\nMIGAAAAA\n-----END CERTIFICATE-----\n";
    let whole_sequence = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        base64::engine::general_purpose::STANDARD.encode([&[0x30, 0x81, 0x80][..], &[5; 128]].concat())
    );
    for text in [None, Some("nonsense"), Some(not_a_certificate), Some(&whole_sequence)] {
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let environment = SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12()).build();
        let error = S3Store::open_in(&environment, &config, "bucket", "").await.unwrap_err();
        assert_eq!(error.kind, Other);
        assert!(error.detail.contains("ca.pem"), "{error}");
    }
}
