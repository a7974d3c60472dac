//! Plans as JSON and as text.

use super::*;

fn value(json: &serde_json::Value, path: &str) -> serde_json::Value {
    json.pointer(path).unwrap_or_else(|| panic!("{path}: {json}")).clone()
}

#[tokio::test]
async fn the_names_of_the_fields_are_fixed() {
    let (test, commits, _) = three_commits().await;
    let outcome = ask(&test, &request(time(250))).await;
    let json = serde_json::to_value(outcome.report()).unwrap();
    assert_eq!(value(&json, "/reachable"), true);
    assert_eq!(value(&json, "/reason"), serde_json::Value::Null);
    assert_eq!(value(&json, "/backup/id"), test.catalog().await.backups[0].id.to_string());
    assert_eq!(value(&json, "/timeline"), 1);
    assert_eq!(value(&json, "/segments/first"), "000000010000000000000003");
    assert_eq!(value(&json, "/segments/last"), "000000010000000000000004");
    assert_eq!(value(&json, "/segments/count"), 2);
    assert!(value(&json, "/segments/bytes").is_u64());
    let commit = |xid: u32, lsn: Lsn, second: i64| serde_json::json!({ "xid": xid, "lsn": lsn.to_string(), "time": at_second(second).rfc3339() });
    assert_eq!(value(&json, "/last_included"), commit(1200, commits[1].lsn, 200));
    assert_eq!(value(&json, "/first_excluded"), commit(1300, commits[2].lsn, 300));

    let outcome = ask(&test, &request(time(9999))).await;
    let json = serde_json::to_value(outcome.report()).unwrap();
    assert_eq!(value(&json, "/reachable"), false);
    assert!(value(&json, "/reason").is_string());
    assert!(value(&json, "/nearest/before/lsn").is_string());
    assert!(value(&json, "/nearest/before/time").is_string());
    assert_eq!(value(&json, "/nearest/after"), serde_json::Value::Null);
    for absent in ["/backup", "/timeline", "/segments", "/last_included", "/first_excluded"] {
        assert_eq!(value(&json, absent), serde_json::Value::Null, "{absent}");
    }
}

#[tokio::test]
async fn the_text_says_what_the_json_says() {
    let (test, commits, _) = three_commits().await;
    let text = explain(&ask(&test, &request(time(250))).await);
    for part in [
        "reachable       yes",
        "000000010000000000000003 to 000000010000000000000004",
        &format!("transaction 1200, committed {} at {}", at_second(200), commits[1].lsn),
        &format!("transaction 1300, committed {} at {}", at_second(300), commits[2].lsn),
        "the only one that can be replayed to the target",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let text = explain(&ask(&test, &request(time(9999))).await);
    for part in ["reachable       no", "nearest before", "hint", "--latest"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
}
