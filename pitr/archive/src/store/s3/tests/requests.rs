//! What is sent.

use super::*;
use crate::content::StoredHash;

#[tokio::test]
async fn a_put_is_sent_with_its_sha256_signed_and_without_trailers() {
    let server = Server::start(|_| stored());
    let mut metadata = Metadata::new();
    metadata.insert("plain-size", "4711").unwrap();
    let outcome = store(&server).await.put(&key("a/b"), body(), &metadata, PutMode::Overwrite).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Created);
    let request = server.only("PUT", "");
    assert_eq!(request.target.split('?').next().unwrap(), "/bucket/pre/fix/a/b");
    assert_eq!(request.body, body());
    let digest = Sha256::digest(body());
    let base64 = base64::engine::general_purpose::STANDARD.encode(digest);
    assert_eq!(request.header("x-amz-checksum-sha256").unwrap(), base64);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(request.header("x-amz-content-sha256").unwrap(), hex);
    assert_eq!(request.header("x-amz-meta-plain-size").unwrap(), "4711");
    assert_eq!(request.header("content-length").unwrap(), "10");
    assert_eq!(request.header("content-type").unwrap(), "application/octet-stream");
    assert_eq!(request.header("if-none-match"), None);
    assert_eq!(request.header("x-amz-trailer"), None);
    // So no 100-continue is waited for that may never come.
    assert_eq!(request.header("expect"), None);
    assert_eq!(request.header("content-encoding"), None);
    assert_eq!(request.header("x-amz-storage-class"), None);
    assert_eq!(request.header("x-amz-server-side-encryption"), None);
    let signature = request.header("authorization").unwrap();
    assert!(signature.contains("Credential=ACCESSKEYID/") && signature.contains("/here/s3/"), "{signature}");
    assert!(signature.contains("x-amz-checksum-sha256"), "the checksum is not signed: {signature}");
}

#[tokio::test]
async fn storage_class_and_encryption_are_asked_for_with_every_new_object() {
    let begun = |request: &Request| match request.method.as_str() {
        "POST" => Answer::new(200)
            .body("<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>"),
        _ => stored(),
    };
    for (sse, kms_key) in [("AES256", None), ("aws:kms", None), ("aws:kms", Some("arn:aws:kms:x:1:key/2"))] {
        let server = Server::start(begun);
        let mut config = config(&server);
        config.storage_class = Some("STANDARD_IA".to_owned());
        config.sse = Some(sse.parse().unwrap());
        config.kms_key = kms_key.map(str::to_owned);
        let store = store_with(&config).await;
        assert_eq!(put(&store).await.unwrap(), PutOutcome::Created);
        let _upload = store.begin_upload(&key("c"), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
        for request in [server.only("PUT", "/a/b"), server.only("POST", "/c?uploads")] {
            assert_eq!(request.header("x-amz-storage-class"), Some("STANDARD_IA"));
            assert_eq!(request.header("x-amz-server-side-encryption"), Some(sse));
            assert_eq!(request.header("x-amz-server-side-encryption-aws-kms-key-id"), kms_key);
        }
    }
}

#[tokio::test]
async fn create_only_asks_for_it_and_believes_a_refusal() {
    let server = Server::start(|request| match request.header("if-none-match") {
        Some("*") => s3_error(412, "PreconditionFailed"),
        _ => stored(),
    });
    let store = store(&server).await;
    assert_eq!(put(&store).await.unwrap(), PutOutcome::Exists);
    let outcome = store.put(&key("a/b"), body(), &Metadata::new(), PutMode::Overwrite).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Created);
}

#[tokio::test]
async fn a_conflict_that_s3_says_to_retry_is_not_taken_for_an_object() {
    let server = Server::start(|_| s3_error(409, "ConditionalRequestConflict"));
    assert_eq!(kind(put(&store(&server).await).await), Transient);
}

#[tokio::test]
async fn a_store_that_refuses_the_condition_is_asked_without_it_from_then_on() {
    let server = Server::start(|request| match request.header("if-none-match") {
        Some(_) => s3_error(501, "NotImplemented"),
        None => stored(),
    });
    let store = store(&server).await;
    for _ in 0..3 {
        assert_eq!(put(&store).await.unwrap(), PutOutcome::Created);
    }
    let conditions: Vec<bool> =
        server.requests().iter().map(|r| r.header("if-none-match").is_some()).collect();
    assert_eq!(conditions, [true, false, false, false]);
}

#[tokio::test]
async fn a_store_that_refuses_something_else_is_not_thought_to_know_no_conditions() {
    let server = Server::start(|_| s3_error(501, "NotImplemented"));
    let store = store(&server).await;
    for _ in 0..2 {
        assert_eq!(kind(put(&store).await), Other);
    }
    let conditions: Vec<bool> =
        server.requests().iter().map(|r| r.header("if-none-match").is_some()).collect();
    assert_eq!(conditions, [true, false, true, false]);
}

#[tokio::test]
async fn the_sdk_tries_each_request_once() {
    let server = Server::start(|_| s3_error(503, "SlowDown"));
    let store = store(&server).await;
    assert_eq!(kind(put(&store).await), Transient);
    assert_eq!(kind(read(&store, None).await), Transient);
    assert_eq!(kind(store.list(&Prefix::all(), None, None).await), Transient);
    assert_eq!(kind(store.head(&key("a/b")).await), Transient);
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn an_echoed_checksum_that_differs_is_damage() {
    let server = Server::start(|_| stored().header("x-amz-checksum-sha256", "AAAA"));
    assert_eq!(kind(put(&store(&server).await).await), Damaged);
    let server = Server::start(|request| {
        stored().header("x-amz-checksum-sha256", request.header("x-amz-checksum-sha256").unwrap())
    });
    assert_eq!(put(&store(&server).await).await.unwrap(), PutOutcome::Created);
}

#[tokio::test]
async fn a_listing_asks_for_one_page_after_the_other() {
    let server = Server::start(|request| {
        if request.target.contains("continuation-token=two") {
            return listing(
                "<IsTruncated>false</IsTruncated><Contents><Key>pre/fix/w/c</Key><Size>3</Size></Contents>",
            );
        }
        listing(
            "<IsTruncated>true</IsTruncated><NextContinuationToken>two</NextContinuationToken>\
             <Contents><Key>pre/fix/w/b</Key><Size>2</Size></Contents>",
        )
    });
    let store = store(&server).await;
    let listed = store.list(&Prefix::new("w/").unwrap(), Some(&key("w/a")), Some(5)).await.unwrap();
    let found: Vec<(&str, u64)> = listed.iter().map(|line| (line.key.as_str(), line.size)).collect();
    assert_eq!(found, [("w/b", 2), ("w/c", 3)]);
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for wanted in ["list-type=2", "prefix=pre%2Ffix%2Fw%2F", "start-after=pre%2Ffix%2Fw%2Fa", "max-keys=5"] {
        assert!(requests[0].target.contains(wanted), "{wanted}: {}", requests[0].target);
    }
    assert!(requests[1].target.contains("max-keys=4"), "{}", requests[1].target);
}

#[tokio::test]
async fn secrets_are_in_no_debug_output_and_no_error() {
    let server = Server::start(|_| s3_error(403, "SignatureDoesNotMatch"));
    let store = store(&server).await;
    let error = put(&store).await.unwrap_err();
    assert_eq!(error.kind, Denied);
    for text in [format!("{store:?}"), format!("{error:?}"), error.to_string(), store.describe()] {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert_eq!(store.describe(), "s3://bucket/pre/fix");
}

#[tokio::test]
async fn whether_a_store_looks_at_checksums_is_found_out_with_a_wrong_one() {
    for (answer, expected) in [
        (s3_error(400, "BadDigest"), Ok(ChecksumCheck::Verified)),
        (s3_error(400, "InvalidDigest"), Ok(ChecksumCheck::Verified)),
        (s3_error(400, "XAmzContentChecksumMismatch"), Ok(ChecksumCheck::Verified)),
        (stored(), Ok(ChecksumCheck::Ignored)),
        // What says nothing of checksums proves nothing.
        (s3_error(400, "InvalidArgument"), Err(Other)),
        (s3_error(403, "AccessDenied"), Err(Denied)),
        (s3_error(503, "SlowDown"), Err(Transient)),
        (Answer::new(200), Err(Transient)),
    ] {
        let server = Server::start(move |_| answer.clone());
        let found = store(&server).await.try_checksum(&key("a/b")).await;
        assert_eq!(found.map_err(|error| error.kind), expected);
        let request = server.only("PUT", "/a/b");
        let base64 = |digest: &[u8]| base64::engine::general_purpose::STANDARD.encode(digest);
        let right = Sha256::digest(&request.body);
        let wrong = request.header("x-amz-checksum-sha256").unwrap();
        assert!(wrong != base64(&right) && wrong.len() == base64(&right).len());
        // Nothing else is wrong with it.
        let hex: String = right.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(request.header("x-amz-content-sha256").unwrap(), hex);
    }
}

#[tokio::test]
async fn an_objects_age_is_told_by_the_stores_own_clock_alone() {
    let dates = [
        (Some("Sun, 06 Nov 1994 08:50:37 GMT"), Some(59)),
        (Some("Sun, 06 Nov 1994 08:49:37 GMT"), None),
        (Some("Sun, 06 Nov 1994 07:00:00 GMT"), None),
        (Some("the day before yesterday"), None),
        (None, None),
    ];
    for (date, age) in dates {
        let server = Server::start(move |_| {
            let answer = stored().header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
            date.map_or(answer.clone(), |date| answer.header("date", date))
        });
        let found = store(&server).await.age(&key("a/b")).await.unwrap();
        assert_eq!(found, age.map(std::time::Duration::from_secs), "{date:?}");
    }
}

#[tokio::test]
async fn the_checksum_that_a_store_keeps_is_asked_for_and_is_that_of_the_whole_or_none() {
    let whole = StoredHash::of(b"bytes").base64();
    let in_parts = format!("{whole}-2");
    for (kept, expected) in [
        (Some(whole.as_str()), Some(StoredHash::of(b"bytes"))),
        (Some(in_parts.as_str()), None),
        (Some("x"), None),
        (None, None),
    ] {
        let answer = kept.map_or(stored(), |kept| stored().header("x-amz-checksum-sha256", kept));
        let server = Server::start(move |_| answer.clone());
        assert_eq!(store(&server).await.kept_checksum(&key("a/b")).await.unwrap(), expected, "{kept:?}");
        let request = server.only("HEAD", "/a/b");
        assert_eq!(request.header("x-amz-checksum-mode"), Some("ENABLED"));
    }
}
