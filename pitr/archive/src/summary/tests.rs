#![allow(clippy::unwrap_used)]

use super::*;

pub(crate) fn layout() -> Layout {
    Layout::new(SystemIdentifier(7))
}

pub(crate) fn summary() -> BackupSummary {
    let layout = layout();
    let id: BackupId = "20261120T214500Z-full-3fa9c1".parse().unwrap();
    let (pack, manifest) = (ContentHash::of(b"pack"), ContentHash::of(b"manifest"));
    let at = |lsn, seconds: i64| Position { lsn: Lsn(lsn), time: Timestamp(seconds * 1_000_000) };
    BackupSummary {
        format: FORMAT,
        tool: "walpoint 0.1.0".to_owned(),
        kind: BackupKind::Full,
        parent: None,
        label: Some("before the migration".to_owned()),
        writer: "00112233aabbccdd".parse().unwrap(),
        system_identifier: SystemIdentifier(7),
        timeline: TimelineId::FIRST,
        start: at(0x200_0028, 848_526_300),
        stop: at(0x200_0100, 848_526_310),
        redo: Lsn(0x200_0028),
        checkpoint: Lsn(0x200_0060),
        next_xid: 731,
        from_standby: false,
        server: ServerFacts {
            major: 15,
            version_num: 150_020,
            control_version: 1300,
            catalog_version: 202_209_061,
        },
        segment_size: SegmentSize::new(1 << 24).unwrap(),
        block_size: 8192,
        wal_block_size: 8192,
        data_checksums: true,
        wal_log_hints: false,
        settings: Settings {
            max_connections: 100,
            max_worker_processes: 8,
            max_wal_senders: 10,
            max_prepared_xacts: 0,
            max_locks_per_xact: 64,
            wal_level: 1,
        },
        tablespaces: 0,
        files: 970,
        bytes: BackupBytes { data: 23_000_000, stored: 3_000_000 },
        damaged_pages: 0,
        subscriptions: None,
        archive_mode: None,
        server_started: None,
        manifest: ManifestObject {
            key: layout.manifest(&id, manifest.id(), true),
            size: 20_000,
            sha256: StoredHash::of(b"manifest"),
            content: manifest,
            plain_size: 200_000,
        },
        packs: vec![StoredObject {
            key: layout.pack(&id, 0, pack.id(), true),
            size: 3_000_000,
            sha256: StoredHash::of(b"pack"),
        }],
        id,
    }
}

fn parse(json: &[u8]) -> Result<BackupSummary, ArchiveError> {
    BackupSummary::parse(&layout(), &summary().id, json)
}

/// The stored summary with one value replaced or added.
fn with(name: &str, value: serde_json::Value) -> Vec<u8> {
    let mut json: serde_json::Value = serde_json::from_slice(&summary().to_json().unwrap()).unwrap();
    json[name] = value;
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn a_summary_comes_back_and_what_later_versions_add_does_no_harm() {
    assert_eq!(parse(&summary().to_json().unwrap()).unwrap(), summary());
    assert_eq!(parse(&with("signature", "reserved".into())).unwrap(), summary());
    let packs = summary();
    let packs = packs.packs_by_number(&layout());
    assert_eq!(packs.keys().collect::<Vec<_>>(), [&(summary().id, 0)]);
}

#[test]
fn a_summary_that_contradicts_itself_or_its_place_is_damaged() {
    let other = "20261120T214500Z-incr-3fa9c1";
    let text = |text: String| serde_json::Value::from(text);
    let pack = |key: &str| serde_json::json!({"key": key, "size": 1, "sha256": StoredHash::of(b"")});
    let key = summary().packs[0].key.to_string();
    for (name, value) in [
        ("id", text(other.to_owned())),
        ("kind", text("incr".to_owned())),
        ("system_identifier", text("8".to_owned())),
        ("stop", serde_json::json!({"lsn": "0/1", "time": "2026-11-20T21:45:00Z"})),
        ("redo", text("FF/0".to_owned())),
        ("timeline", 0.into()),
        ("segment_size", 3.into()),
        (
            "manifest",
            serde_json::json!({"key": key, "size": 1, "sha256": StoredHash::of(b""), "content": ContentHash::of(b""), "plain_size": 1}),
        ),
        ("packs", serde_json::json!([pack("7/backup/../x")])),
        ("packs", serde_json::json!([pack("7/cluster.json")])),
        ("packs", serde_json::json!([pack(&key), pack(&key)])),
        ("packs", serde_json::json!([pack(&key.replace("7/", "8/"))])),
        (
            "packs",
            serde_json::json!([{"key": key, "size": MAX_PACK_BYTES + 1, "sha256": StoredHash::of(b"")}]),
        ),
    ] {
        let parsed = parse(&with(name, value));
        assert!(matches!(parsed, Err(ArchiveError::Damaged { .. })), "{name}: {parsed:?}");
    }
}

#[test]
fn a_later_format_is_told_from_damage() {
    assert!(matches!(parse(&with("format", 2.into())), Err(ArchiveError::UnknownFormat { version: 2, .. })));
    let json = summary().to_json().unwrap();
    for end in 0..json.len() - 2 {
        assert!(matches!(parse(&json[..end]), Err(ArchiveError::Damaged { .. })), "cut at {end}");
    }
}

#[test]
fn the_names_and_spellings_are_those_of_format_md() {
    let json: serde_json::Value = serde_json::from_slice(&summary().to_json().unwrap()).unwrap();
    for (pointer, value) in [
        ("/format", serde_json::json!(1)),
        ("/kind", serde_json::json!("full")),
        ("/start/lsn", serde_json::json!("0/2000028")),
        ("/start/time", serde_json::json!("2026-11-20T21:45:00.000000Z")),
        ("/system_identifier", serde_json::json!("7")),
        ("/server/version_num", serde_json::json!(150_020)),
        ("/settings/max_connections", serde_json::json!(100)),
        ("/bytes/stored", serde_json::json!(3_000_000)),
        ("/packs/0/size", serde_json::json!(3_000_000)),
    ] {
        assert_eq!(json.pointer(pointer), Some(&value), "{pointer}");
    }
    assert_eq!(json.pointer("/parent"), Some(&serde_json::Value::Null));
}
