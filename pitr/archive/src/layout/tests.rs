#![allow(clippy::unwrap_used)]

use super::*;
use crate::content::ContentHash;
use proptest::prelude::*;

fn layout() -> Layout {
    Layout::new(SystemIdentifier(7_567_890_123_456_789_012))
}

fn id() -> ContentId {
    "0123456789abcdef".parse().unwrap()
}

fn name(text: &str) -> WalFileName {
    text.parse().unwrap()
}

#[test]
fn keys_are_what_format_md_says() {
    let layout = layout();
    let segment = name("000000010000000A000000FE");
    let backup: BackupId = "20261120T214500Z-full-3fa9c1".parse().unwrap();
    let two = TimelineId::new(2).unwrap();
    let root = "7567890123456789012";
    for (key, path) in [
        (layout.cluster(), "cluster.json"),
        (
            layout.wal(&segment, id(), false),
            "wal/000000010000000A/000000010000000A000000FE-0123456789abcdef.zst",
        ),
        (
            layout.wal(&segment, id(), true),
            "wal/000000010000000A/000000010000000A000000FE-0123456789abcdef.zst.age",
        ),
        (
            layout.refused(&segment, id()),
            "wal/000000010000000A/000000010000000A000000FE-0123456789abcdef.refused",
        ),
        (
            layout.wal(&name("000000010000000A000000FE.partial"), id(), false),
            "wal/000000010000000A/000000010000000A000000FE.partial-0123456789abcdef.zst",
        ),
        (
            layout.wal(&name("000000010000000A000000FE.00000028.backup"), id(), false),
            "wal/000000010000000A/000000010000000A000000FE.00000028.backup-0123456789abcdef.zst",
        ),
        (layout.history(two, id()), "timeline/00000002.history-0123456789abcdef"),
        (layout.wal(&WalFileName::History(two), id(), true), "timeline/00000002.history-0123456789abcdef"),
        (
            layout.refused(&WalFileName::History(two), id()),
            "timeline/00000002.history-0123456789abcdef.refused",
        ),
        (layout.conflict(&segment, id(), true), "conflict/000000010000000A000000FE-0123456789abcdef.zst.age"),
        (
            layout.conflict(&WalFileName::History(two), id(), false),
            "conflict/00000002.history-0123456789abcdef",
        ),
        (
            layout.pack(&backup, 7, id(), false),
            "backup/20261120T214500Z-full-3fa9c1/pack-000007-0123456789abcdef.zst",
        ),
        (
            layout.manifest(&backup, id(), true),
            "backup/20261120T214500Z-full-3fa9c1/manifest-0123456789abcdef.zst.age",
        ),
        (
            layout.chunk(
                &"000000010000000A000000FE".parse().unwrap(),
                ChunkName { from: 0x1f00, to: 0x40_0000, before: id(), after: id(), content: id() },
                true,
            ),
            "wal/000000010000000A/000000010000000A000000FE.live/\
             00001f00-00400000-0123456789abcdef-0123456789abcdef-0123456789abcdef.zst.age",
        ),
        (layout.idle(TimelineId::new(10).unwrap()), "idle/0000000A.json"),
        (layout.summary(&backup), "backup/20261120T214500Z-full-3fa9c1/backup.json"),
    ] {
        assert_eq!(key.as_str(), format!("{root}/{path}"));
    }
}

#[test]
fn the_variants_of_a_file_are_listed_without_its_neighbours() {
    let layout = layout();
    let segment = name("000000010000000A000000FE");
    let prefix = layout.variants_prefix(&segment);
    let matches = |key: &ObjectKey| key.as_str().starts_with(prefix.as_str());
    assert!(matches(&layout.wal(&segment, id(), false)));
    assert!(matches(&layout.wal(&segment, id(), true)));
    assert!(matches(&layout.refused(&segment, id())));
    for other in [
        "000000010000000A000000FE.partial",
        "000000010000000A000000FE.00000028.backup",
        "000000010000000A000000FF",
        "00000002.history",
    ] {
        assert!(!matches(&layout.wal(&name(other), id(), false)), "{other}");
    }
}

#[test]
fn everything_of_a_segment_sorts_before_the_key_after_it() {
    let layout = layout();
    let segment: SegmentName = "000000010000000A000000FE".parse().unwrap();
    let after = layout.after_segment(&segment);
    for own in [
        "000000010000000A000000FE",
        "000000010000000A000000FE.partial",
        "000000010000000A000000FE.00000028.backup",
        "000000010000000A000000FD",
        "000000010000000900000000",
    ] {
        assert!(layout.wal(&name(own), id(), true) < after, "{own}");
    }
    let chunk = ChunkName { from: u32::MAX - 1, to: u32::MAX, before: id(), after: id(), content: id() };
    assert!(layout.chunk(&segment, chunk, true) < after);
    assert!(layout.chunk(&segment, chunk, true).as_str().starts_with(layout.tail_prefix(&segment).as_str()));
    for later in ["000000010000000A000000FF", "000000010000000B00000000", "000000010000000A000000FF.partial"]
    {
        assert!(layout.wal(&name(later), id(), false) > after, "{later}");
    }
    assert!(after.as_str().starts_with(layout.wal_timeline_prefix(segment.timeline).as_str()));
}

#[test]
fn keys_that_are_not_ours_are_not_parsed() {
    let layout = layout();
    let id = "0123456789abcdef";
    let dir = "wal/000000010000000A";
    for path in [
        "cluster.json/x".to_owned(),
        "README".to_owned(),
        format!("{dir}/000000010000000A000000FE.zst"),
        format!("{dir}/000000010000000A000000FE-{id}"),
        format!("{dir}/000000010000000A000000FE-{id}.gz"),
        format!("{dir}/000000010000000A000000FE-{id}.zst.age.age"),
        format!("{dir}/000000010000000a000000fe-{id}.zst"),
        format!("{dir}/000000010000000A000000FE-{}.zst", id.to_uppercase()),
        format!("{dir}/000000010000000B000000FE-{id}.zst"),
        format!("wal/000000010000000A000000FE-{id}.zst"),
        format!("wal/x/{}/000000010000000A000000FE-{id}.zst", "000000010000000A"),
        format!("{dir}/00000002.history-{id}"),
        format!("timeline/00000002.history-{id}.zst"),
        format!("timeline/00000002-{id}"),
        format!("timeline/000000010000000A000000FE-{id}"),
        format!("conflict/00000002.history-{id}.zst"),
        format!("conflict/000000010000000A000000FE-{id}"),
        format!("backup/20261120T214500Z-full-3fa9c1/pack-7-{id}.zst"),
        format!("backup/20261120T214500Z-full-3fa9c1/pack-+00007-{id}.zst"),
        format!("backup/20261120T214500Z-full-3fa9c1/pack-0000000000007-{id}.zst"),
        format!("backup/x/pack-000007-{id}.zst"),
        "backup/20261120T214500Z-full-3fa9c1/backup.json.old".to_owned(),
        "drill/.json".to_owned(),
        "idle/0000000a.json".to_owned(),
        "idle/00000000.json".to_owned(),
        format!("{dir}/000000010000000A000000FE.live/0-8192-{id}.zst"),
        format!("{dir}/000000010000000A000000FE.live/00000008-00000008-{id}-{id}-{id}.zst"),
        format!("{dir}/000000010000000A000000FE.partial.live/00000000-00000008-{id}-{id}-{id}.zst"),
    ] {
        let Ok(key) = ObjectKey::new(&format!("7567890123456789012/{path}")) else { continue };
        assert_eq!(layout.parse(&key), None, "{path}");
    }
    for folder in ["1", "07567890123456789012", "+7567890123456789012", "x"] {
        let Ok(key) = ObjectKey::new(&format!("{folder}/cluster.json")) else { continue };
        assert_eq!(layout.parse(&key), None, "{folder}");
    }
}

fn any_name() -> impl Strategy<Value = WalFileName> {
    let segment = (1u32.., any::<u32>(), 0u32..4096).prop_map(|(timeline, log, seg)| SegmentName {
        timeline: TimelineId::new(timeline).unwrap(),
        log,
        seg,
    });
    (0u8..4, segment, any::<u32>()).prop_map(|(kind, segment, offset)| match kind {
        0 => WalFileName::Segment(segment),
        1 => WalFileName::Partial(segment),
        2 => WalFileName::History(segment.timeline),
        _ => WalFileName::BackupHistory { segment, offset },
    })
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let parts = (
        0u8..13,
        any_name(),
        any::<[u8; 32]>(),
        any::<bool>(),
        any::<u32>(),
        "[0-9]{8}T[0-9]{6}Z-(full|incr)-[0-9a-f]{6}",
    );
    parts.prop_map(|(kind, name, hash, encrypted, number, backup)| {
        let content = ContentHash::from_bytes(hash).id();
        let backup: BackupId = backup.parse().unwrap();
        match (kind, name) {
            (0, _) => Entry::Cluster,
            (1, WalFileName::History(timeline)) => Entry::History { timeline, content },
            (1, name) => Entry::Wal { name, content, encrypted },
            (2, WalFileName::History(timeline)) => Entry::HistoryRefused { timeline, content },
            (2, name) => Entry::WalRefused { name, content },
            (3, name @ WalFileName::History(_)) => Entry::Conflict { name, content, encrypted: false },
            (3, name) => Entry::Conflict { name, content, encrypted },
            (4, _) => Entry::Pack { backup, number, content, encrypted },
            (5, _) => Entry::Manifest { backup, content, encrypted },
            (6, _) => Entry::Summary { backup },
            (7, WalFileName::Segment(segment)) => {
                let (from, to) = (number / 2, number / 2 + 1);
                let chunk = ChunkName { from, to, before: content, after: content, content };
                Entry::LiveTail { segment, chunk, encrypted }
            }
            (8, name) => Entry::Idle(name.timeline()),
            (9, _) => Entry::ExpiryMark(content.to_string()),
            _ => Entry::Drill(format!("{number}")),
        }
    })
}

proptest! {
    #[test]
    fn every_entry_parses_back_from_its_key(entry in any_entry()) {
        let layout = layout();
        let key = layout.key(&path_of(&entry));
        prop_assert_eq!(layout.parse(&key), Some(entry));
    }

    #[test]
    fn any_key_parses_to_an_entry_with_that_key_or_to_nothing(
        path in "((wal|timeline|backup|conflict|drill|expire)/)?[0-9A-F]{0,24}(/|-|\\.|[a-z0-9]){0,30}",
    ) {
        let layout = layout();
        if let Ok(key) = ObjectKey::new(&format!("7567890123456789012/{path}"))
            && let Some(entry) = layout.parse(&key)
        {
            prop_assert_eq!(path_of(&entry), path);
        }
    }
}
