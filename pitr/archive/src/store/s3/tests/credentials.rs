//! Where credentials come from. The SDK finds them by the environment, which a
//! running process cannot change safely: each test runs an ignored one in a
//! process of its own.

use std::process::Command;

use super::*;

const ENDPOINT: &str = "WALPOINT_TEST_STORE_ENDPOINT";

/// Puts one object in a process whose environment has only what is given, and
/// returns what it printed.
fn put_in_child(server: &Server, environment: &[(&str, &str)]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "store::s3::tests::credentials::child_puts_an_object",
        "--exact",
        "--ignored",
        "--nocapture",
    ]);
    command.env_clear().env("HOME", home.path()).env(ENDPOINT, server.endpoint());
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("1 passed"), "{printed}");
    printed
}

#[tokio::test]
#[ignore = "run by the tests below"]
async fn child_puts_an_object() {
    let mut config = ArchiveConfig::new("s3://bucket".parse().unwrap());
    config.endpoint = Some(std::env::var(ENDPOINT).unwrap());
    let store = S3Store::open(&config, "bucket", "").await.unwrap();
    println!("outcome: {:?}", put(&store).await);
}

fn signed_with(request: &Request, access_key: &str, token: Option<&str>) {
    let signature = request.header("authorization").unwrap();
    assert!(signature.contains(&format!("Credential={access_key}/")), "{signature}");
    assert_eq!(request.header("x-amz-security-token"), token);
}

#[test]
fn credentials_come_from_the_environment() {
    let server = Server::start(|_| stored());
    let printed = put_in_child(
        &server,
        &[
            ("AWS_ACCESS_KEY_ID", "FROMENV"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_REGION", "nowhere-1"),
        ],
    );
    assert!(printed.contains("outcome: Ok(Created)"), "{printed}");
    let request = server.only("PUT", "/bucket/a/b");
    signed_with(&request, "FROMENV", Some("token"));
    assert!(request.header("authorization").unwrap().contains("/nowhere-1/s3/"));
}

#[test]
fn credentials_come_from_a_profile() {
    let server = Server::start(|_| stored());
    let dir = tempfile::tempdir().unwrap();
    let (file, config) = (dir.path().join("credentials"), dir.path().join("config"));
    std::fs::write(&file, "[walpoint]\naws_access_key_id = FROMPROFILE\naws_secret_access_key = secret\n")
        .unwrap();
    std::fs::write(&config, "[profile walpoint]\nregion = there-2\n").unwrap();
    let printed = put_in_child(
        &server,
        &[
            ("AWS_PROFILE", "walpoint"),
            ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ],
    );
    assert!(printed.contains("outcome: Ok(Created)"), "{printed}");
    let request = server.only("PUT", "/bucket/a/b");
    signed_with(&request, "FROMPROFILE", None);
    assert!(request.header("authorization").unwrap().contains("/there-2/s3/"));
}

#[test]
fn credentials_come_from_the_instance_by_imds_version_2() {
    const ROLE: &str = "/latest/meta-data/iam/security-credentials/";
    let server = Server::start(|request| {
        let has_token = request.header("x-aws-ec2-metadata-token") == Some("the-imds-token");
        match (request.method.as_str(), request.target.as_str()) {
            ("PUT", "/latest/api/token") => {
                Answer::new(200).header("x-aws-ec2-metadata-token-ttl-seconds", "21600").body("the-imds-token")
            }
            ("PUT", _) => stored(),
            _ if !has_token => Answer::new(401),
            ("GET", ROLE) => Answer::new(200).body("backup-role"),
            ("GET", "/latest/meta-data/iam/security-credentials/backup-role") => Answer::new(200).body(
                r#"{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"FROMIMDS","SecretAccessKey":"secret",
                    "Token":"imds-session","LastUpdated":"2026-01-01T00:00:00Z","Expiration":"2099-01-01T00:00:00Z"}"#,
            ),
            ("GET", "/latest/meta-data/placement/region") => Answer::new(200).body("imds-region-1"),
            _ => Answer::new(404),
        }
    });
    let printed = put_in_child(&server, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &server.endpoint())]);
    assert!(printed.contains("outcome: Ok(Created)"), "{printed}\n{:#?}", server.requests());
    let request = server.only("PUT", "/bucket/a/b");
    signed_with(&request, "FROMIMDS", Some("imds-session"));
    assert!(request.header("authorization").unwrap().contains("/imds-region-1/s3/"));
    assert!(server.requests().iter().any(|r| r.is("GET", ROLE)));
}

#[test]
fn credentials_come_from_a_web_identity() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Answer::new(200).header("content-type", "text/xml").body(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>FROMSTS</AccessKeyId>\
             <SecretAccessKey>secret</SecretAccessKey><SessionToken>sts-session</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        ),
        _ => stored(),
    });
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "the-web-identity-token").unwrap();
    let printed = put_in_child(
        &server,
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap()),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
            ("AWS_ROLE_SESSION_NAME", "walpoint"),
            ("AWS_ENDPOINT_URL_STS", &server.endpoint()),
            ("AWS_REGION", "nowhere-1"),
        ],
    );
    assert!(printed.contains("outcome: Ok(Created)"), "{printed}\n{:#?}", server.requests());
    let asked = String::from_utf8(server.only("POST", "/").body).unwrap();
    for wanted in [
        "Action=AssumeRoleWithWebIdentity",
        "WebIdentityToken=the-web-identity-token",
        "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbackup",
    ] {
        assert!(asked.contains(wanted), "{wanted}: {asked}");
    }
    signed_with(&server.only("PUT", "/bucket/a/b"), "FROMSTS", Some("sts-session"));
}

#[test]
fn no_credentials_are_a_refusal_with_a_hint_and_no_request() {
    let server = Server::start(|_| stored());
    let printed =
        put_in_child(&server, &[("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_REGION", "nowhere-1")]);
    assert!(printed.contains("kind: Denied") && printed.contains("AWS_ACCESS_KEY_ID"), "{printed}");
    assert!(server.requests().is_empty());
}

/// Reading them takes longer than many a request. In a debug build the SDK panics where it reads them and
/// finds none.
#[test]
fn without_tls_the_certificates_of_the_system_are_not_read() {
    let server = Server::start(|_| stored());
    let nothing = tempfile::tempdir().unwrap();
    let file = nothing.path().join("none.pem");
    std::fs::write(&file, "").unwrap();
    let printed = put_in_child(
        &server,
        &[
            ("AWS_ACCESS_KEY_ID", "FROMENV"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            // Else the instance is asked for it, by a client that can do TLS.
            ("AWS_REGION", "nowhere-1"),
            ("SSL_CERT_FILE", file.to_str().unwrap()),
            ("SSL_CERT_DIR", nothing.path().to_str().unwrap()),
        ],
    );
    assert!(printed.contains("outcome: Ok(Created)"), "{printed}");
}
