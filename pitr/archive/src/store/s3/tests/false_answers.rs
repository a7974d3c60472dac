//! Answers that must not be believed.

use super::*;

/// The kind of error of every verb, when every request is answered so.
async fn every_verb(answer: Answer) -> Vec<(&'static str, Result<(), StoreErrorKind>)> {
    let server = Server::start(move |_| answer.clone());
    let store = store(&server).await;
    let seen = |result: Result<(), StoreError>| result.map_err(|error| error.kind);
    let all = Prefix::all();
    vec![
        ("put", seen(put(&store).await.map(drop))),
        ("upload", seen(store.begin_upload(&key("a"), &Metadata::new(), PutMode::Overwrite).await.map(drop))),
        ("get", seen(read(&store, None).await.map(drop))),
        ("get part", seen(read(&store, Some(2..5)).await.map(drop))),
        ("head", seen(store.head(&key("a/b")).await.map(drop))),
        ("list", seen(store.list(&all, None, None).await.map(drop))),
        ("list one", seen(store.list(&all, None, Some(1)).await.map(drop))),
        ("folders", seen(store.list_folders(&all).await.map(drop))),
        ("delete", seen(store.delete(&key("a/b")).await)),
    ]
}

const PAGES: [&str; 5] = [
    "<!DOCTYPE html><html><head><title>Welcome</title></head><body><p>Log in<br>here</p></body></html>",
    "<html><body><Code>NoSuchKey</Code></body></html>",
    "<?xml version=\"1.0\"?><!DOCTYPE html><html xmlns=\"http://www.w3.org/1999/xhtml\"><body/></html>",
    "not found",
    "",
];

#[tokio::test]
async fn a_page_is_an_outage_for_every_verb_whatever_its_status_and_type() {
    for status in [200, 404] {
        for content_type in ["text/html", "Text/HTML; charset=utf-8", "text/plain", "application/xml"] {
            for page in PAGES {
                let answer = Answer::new(status).header("content-type", content_type).body(page);
                for (verb, result) in every_verb(answer).await {
                    assert_eq!(result, Err(Transient), "{verb} with {status} {content_type} {page}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_page_with_an_error_status_is_never_absence_and_never_success() {
    for status in [301, 302, 400, 401, 403, 407, 410, 429, 500, 502, 503, 511] {
        for page in PAGES {
            let answer = Answer::new(status).header("content-type", "text/plain").body(page);
            for (verb, result) in every_verb(answer).await {
                assert!(
                    !matches!(result, Ok(()) | Err(NotFound | NoArchive)),
                    "{verb} with {status} {page}: {result:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn s3s_own_errors_mean_the_same_for_every_verb() {
    for (status, code, expected) in [
        (404, "NoSuchBucket", NoArchive),
        (403, "AccessDenied", Denied),
        (403, "RequestTimeTooSkewed", Transient),
        (503, "SlowDown", Transient),
        (500, "InternalError", Transient),
    ] {
        for (verb, result) in every_verb(s3_error(status, code)).await {
            assert_eq!(result, Err(expected), "{verb} with {code}");
        }
    }
    for (verb, result) in every_verb(s3_error(301, "PermanentRedirect")).await {
        assert_eq!(result, Err(Other), "{verb} with a redirect");
    }
}

#[tokio::test]
async fn a_redirect_hints_at_the_region() {
    let server = Server::start(|_| s3_error(301, "PermanentRedirect"));
    let hint = put(&store(&server).await).await.unwrap_err().hint.unwrap();
    assert!(hint.contains("region"), "{hint}");
}

#[tokio::test]
async fn an_archived_object_is_not_absent() {
    let server = Server::start(|_| s3_error(403, "InvalidObjectState"));
    assert_eq!(kind(read(&store(&server).await, None).await), Other);
}

#[tokio::test]
async fn a_bare_404_to_head_is_believed_only_with_a_listing() {
    let cases = [
        (listing("<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount>"), NotFound),
        (
            listing("<IsTruncated>false</IsTruncated><Contents><Key>pre/fix/a/b-longer</Key></Contents>"),
            NotFound,
        ),
        (listing("<IsTruncated>false</IsTruncated><Contents><Key>pre/fix/a/b</Key></Contents>"), Transient),
        (s3_error(404, "NoSuchBucket"), NoArchive),
        (s3_error(403, "AccessDenied"), Denied),
        (Answer::new(200).body("<html></html>"), Transient),
        (Answer::new(404), Transient),
    ];
    for (listed, expected) in cases {
        let answer = listed.clone();
        let server = Server::start(move |request| match request.method.as_str() {
            "HEAD" => Answer::new(404),
            _ => listed.clone(),
        });
        assert_eq!(kind(store(&server).await.head(&key("a/b")).await), expected, "{answer:?}");
        let asked = server.only("GET", "list-type=2").target;
        assert!(
            asked.contains("prefix=pre%2Ffix%2Fa%2Fb&") || asked.ends_with("prefix=pre%2Ffix%2Fa%2Fb"),
            "{asked}"
        );
    }
}

#[tokio::test]
async fn a_listing_that_is_not_whole_is_an_error() {
    let object = "<Contents><Key>pre/fix/a</Key><Size>1</Size></Contents>";
    let cases = [
        // Nothing says that it ends here.
        String::new(),
        object.to_owned(),
        "<IsTruncated>true</IsTruncated>".to_owned(),
        format!("<IsTruncated>false</IsTruncated><KeyCount>2</KeyCount>{object}"),
        format!("<IsTruncated>false</IsTruncated><KeyCount>0</KeyCount>{object}"),
    ];
    for inside in cases {
        let answer = listing(&inside);
        let server = Server::start(move |_| answer.clone());
        assert_eq!(kind(store(&server).await.list(&Prefix::all(), None, None).await), Transient, "{inside}");
    }
    let server = Server::start(|_| {
        Answer::new(200)
            .body("<ListBucketResult><Name>other</Name><IsTruncated>false</IsTruncated></ListBucketResult>")
    });
    assert_eq!(kind(store(&server).await.list(&Prefix::all(), None, None).await), Transient);
    let cut = "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated><KeyCount>2</KeyCount>\
               <Contents><Key>pre/fix/a</Key><Size>1</Size></Contents><Contents><Key>pre";
    let server = Server::start(move |_| Answer::new(200).body(cut));
    assert_eq!(kind(store(&server).await.list(&Prefix::all(), None, None).await), Transient);
}

#[tokio::test]
async fn a_listing_that_is_out_of_order_or_repeats_itself_is_an_error() {
    let unordered = "<IsTruncated>false</IsTruncated><Contents><Key>pre/fix/b</Key><Size>1</Size></Contents>\
                     <Contents><Key>pre/fix/a</Key><Size>1</Size></Contents>";
    let foreign = "<IsTruncated>false</IsTruncated><Contents><Key>elsewhere</Key><Size>1</Size></Contents>";
    let endless = "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>\
                   <Contents><Key>pre/fix/b</Key><Size>1</Size></Contents>";
    let endless_and_empty =
        "<IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>";
    for inside in [unordered, foreign, endless, endless_and_empty] {
        let server = Server::start(move |_| listing(inside));
        assert_eq!(kind(store(&server).await.list(&Prefix::all(), None, None).await), Other, "{inside}");
    }
}

#[tokio::test]
async fn a_listing_is_no_longer_and_begins_no_earlier_than_was_asked_for() {
    let server = Server::start(|_| {
        let line = |name| format!("<Contents><Key>pre/fix/{name}</Key><Size>1</Size></Contents>");
        listing(&format!("<IsTruncated>false</IsTruncated>{}", ["a", "b", "c", "d"].map(line).concat()))
    });
    let listed = store(&server).await.list(&Prefix::all(), Some(&key("a")), Some(2)).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|listed| listed.key.as_str()).collect();
    assert_eq!(names, ["b", "c"]);
}

#[tokio::test]
async fn a_body_shorter_than_announced_is_an_error_of_the_stream() {
    let server = Server::start(|_| stored().body("half").announce(10));
    let object = store(&server).await.get(&key("a/b"), None).await.unwrap();
    assert_eq!(object.size, 10);
    let chunks: Result<Vec<Bytes>, StoreError> = object.body.try_collect().await;
    assert_eq!(kind(chunks), Transient);
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_not_taken() {
    for (status, range) in [
        (200, None),
        (206, None),
        (206, Some("bytes 0-2/10")),
        (206, Some("bytes 2-5/10")),
        (206, Some("bytes 2-3/10")),
        (206, Some("nonsense")),
    ] {
        let server = Server::start(move |_| {
            let answer = Answer::new(status).header("etag", "\"0123\"").body("abc");
            range.into_iter().fold(answer, |answer, range| answer.header("content-range", range))
        });
        assert_eq!(kind(read(&store(&server).await, Some(2..5)).await), Transient, "{status} {range:?}");
    }
    let server = Server::start(|_| {
        Answer::new(206).header("etag", "\"0123\"").header("content-range", "bytes 2-4/10").body("abc")
    });
    assert_eq!(read(&store(&server).await, Some(2..5)).await.unwrap(), b"abc");
    assert_eq!(server.only("GET", "").header("range"), Some("bytes=2-4"));
}

#[tokio::test]
async fn no_such_key_is_absence() {
    let server = Server::start(|_| s3_error(404, "NoSuchKey"));
    assert_eq!(kind(read(&store(&server).await, None).await), NotFound);
    assert_eq!(store(&server).await.delete(&key("a/b")).await, Ok(()));
}
