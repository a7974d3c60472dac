//! Objects in parts, answered by a script.

use super::*;
use crate::content::StoredHash;
use crate::store::PART_BYTES;

const BEGUN: &str =
    "<InitiateMultipartUploadResult><UploadId>the-id</UploadId></InitiateMultipartUploadResult>";
const COMPLETED: &str = "<CompleteMultipartUploadResult><ETag>\"all\"</ETag></CompleteMultipartUploadResult>";

/// A store where all goes well but the end: `complete` answers, and HEAD
/// tells this size.
fn server(size: usize, complete: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |request| match request.method.as_str() {
        "POST" if request.target.contains("uploads") => Answer::new(200).body(BEGUN),
        "POST" => complete(request),
        "HEAD" => stored().announce(size),
        "DELETE" => Answer::new(204),
        _ => stored(),
    })
}

async fn upload(server: &Server, parts: &[usize]) -> (Box<dyn Upload>, Result<PutOutcome, StoreError>) {
    let store = store(server).await;
    let mut upload = store.begin_upload(&key("a/b"), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
    for part in parts {
        upload.part(Bytes::from(vec![7; *part])).await.unwrap();
    }
    let outcome = upload.finish().await;
    (upload, outcome)
}

#[tokio::test]
async fn every_part_is_sent_with_its_sha256_and_named_at_the_end() {
    let server = server(PART_BYTES + 3, |_| Answer::new(200).body(COMPLETED));
    let (_, outcome) = upload(&server, &[PART_BYTES, 3]).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Created);
    let begin = server.only("POST", "uploads");
    assert_eq!(begin.header("x-amz-checksum-algorithm"), Some("SHA256"));
    let complete = server.only("POST", "uploadId=the-id");
    assert_eq!(complete.header("if-none-match"), Some("*"));
    let named = String::from_utf8(complete.body).unwrap();
    for (number, length) in [(1, PART_BYTES), (2, 3)] {
        let part = server.only("PUT", &format!("partNumber={number}&"));
        assert_eq!(part.body.len(), length);
        assert_eq!(part.header("expect"), None);
        let sha256 = part.header("x-amz-checksum-sha256").unwrap().to_owned();
        let hash = StoredHash::of(&part.body);
        assert_eq!(sha256, hash.base64());
        assert_eq!(part.header("x-amz-content-sha256"), Some(hash.to_string().as_str()));
        assert!(named.contains(&format!("<ChecksumSHA256>{sha256}</ChecksumSHA256>")), "{named}");
    }
}

#[tokio::test]
async fn an_error_in_a_200_answer_to_complete_is_an_error() {
    let server = server(3, |_| s3_error(200, "InternalError"));
    let (mut upload, outcome) = upload(&server, &[3]).await;
    assert_eq!(kind(outcome), Transient);
    upload.abort().await.unwrap();
    server.only("DELETE", "uploadId=the-id");
    assert!(upload.finish().await.is_err());
}

#[tokio::test]
async fn a_200_answer_to_complete_that_says_nothing_is_an_error() {
    for body in ["", "<html></html>", "<CompleteMultipartUploadResult/>"] {
        let server = server(3, move |_| Answer::new(200).body(body));
        assert_eq!(kind(upload(&server, &[3]).await.1), Transient, "{body}");
    }
}

#[tokio::test]
async fn a_completed_upload_of_another_size_is_damage() {
    let server = server(2, |_| Answer::new(200).body(COMPLETED));
    assert_eq!(kind(upload(&server, &[3]).await.1), Damaged);
}

#[tokio::test]
async fn a_complete_whose_answer_was_lost_is_found_done() {
    let server = server(3, |_| s3_error(404, "NoSuchUpload"));
    assert_eq!(upload(&server, &[3]).await.1.unwrap(), PutOutcome::Created);
}

#[tokio::test]
async fn an_upload_onto_a_taken_key_is_aborted_and_says_so() {
    let server = server(3, |_| s3_error(412, "PreconditionFailed"));
    let (mut upload, outcome) = upload(&server, &[3]).await;
    assert_eq!(outcome.unwrap(), PutOutcome::Exists);
    server.only("DELETE", "uploadId=the-id");
    assert_eq!(upload.finish().await.unwrap(), PutOutcome::Exists);
}

#[tokio::test]
async fn a_store_that_refuses_the_condition_completes_without_it() {
    let server = server(3, |request| match request.header("if-none-match") {
        Some(_) => s3_error(501, "NotImplemented"),
        None => Answer::new(200).body(COMPLETED),
    });
    assert_eq!(upload(&server, &[3]).await.1.unwrap(), PutOutcome::Created);
}

#[tokio::test]
async fn an_empty_upload_becomes_a_put() {
    let server = server(0, |_| s3_error(400, "InvalidRequest"));
    assert_eq!(upload(&server, &[]).await.1.unwrap(), PutOutcome::Created);
    let request = server.only("PUT", "/bucket/pre/fix/a/b");
    assert!(request.body.is_empty());
    server.only("DELETE", "uploadId=the-id");
}
