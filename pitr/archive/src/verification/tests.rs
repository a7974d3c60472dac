#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use walpoint_wal::SystemIdentifier;

use super::*;
use crate::content::ContentHash;
use crate::error::ArchiveError;
use crate::summary::BackupSummary;

const LAYOUT: SystemIdentifier = SystemIdentifier(7);

fn at(second: i64) -> Timestamp {
    Timestamp(800_000_000_000_000 + second * 1_000_000)
}

fn content(second: i64) -> Proof {
    Proof::at(at(second), Depth::Content)
}

fn segment(seg: u32) -> SegmentName {
    SegmentName { timeline: TimelineId::FIRST, log: 0, seg }
}

fn keys(of: u8) -> ContentId {
    ContentHash::of(&[of]).id()
}

fn id() -> BackupId {
    "20261120T214500Z-full-3fa9c1".parse().unwrap()
}

fn pack_key(number: u32) -> ObjectKey {
    Layout::new(LAYOUT).pack(&id(), number, keys(9), false)
}

#[test]
fn a_record_is_stored_as_format_md_says() {
    let mut verification = Verification::new();
    verification.add_wal(segment(3), segment(0x2a), keys(1), content(0));
    verification.add_manifest(&id(), content(0));
    verification.add_packs(&id(), 0, 41, Proof::at(at(5), Depth::Stored));
    verification.add_damaged(pack_key(42), at(6), Depth::Stored);
    let record = verification.to_record(Some(at(0)), true);
    let json = String::from_utf8(record.to_json().unwrap()).unwrap();
    let expected = format!(
        "{{\"format\":1,\"tool\":\"{}\",\"pass\":\"2025-05-08T06:13:20.000000Z\",\"finished\":true,\
         \"wal\":[{{\"first\":\"000000010000000000000003\",\"last\":\"00000001000000000000002A\",\
         \"keys\":\"{}\",\"stored_at\":\"2025-05-08T06:13:20.000000Z\",\
         \"content_at\":\"2025-05-08T06:13:20.000000Z\"}}],\
         \"backups\":[{{\"id\":\"20261120T214500Z-full-3fa9c1\",\
         \"manifest\":{{\"stored_at\":\"2025-05-08T06:13:20.000000Z\",\
         \"content_at\":\"2025-05-08T06:13:20.000000Z\"}},\
         \"packs\":[{{\"first\":0,\"last\":41,\"stored_at\":\"2025-05-08T06:13:25.000000Z\"}}]}}],\"objects\":[],\
         \"damaged\":[{{\"key\":\"{}\",\"at\":\"2025-05-08T06:13:26.000000Z\",\"depth\":\"stored\"}}]}}\n",
        record.tool,
        keys(1),
        pack_key(42),
    );
    assert_eq!(json, expected);
    assert_eq!(VerificationRecord::parse("key", json.as_bytes()).unwrap(), record);
    let mut merged = Verification::new();
    merged.merge(&record);
    assert_eq!(merged, verification);
}

#[test]
fn a_later_format_and_damage_are_errors_and_unknown_names_are_not() {
    let later = VerificationRecord::parse("key", br#"{"format":2}"#);
    assert!(matches!(later, Err(ArchiveError::UnknownFormat { version: 2, .. })));
    assert!(matches!(VerificationRecord::parse("key", b"{"), Err(ArchiveError::Damaged { .. })));
    let mut json: serde_json::Value =
        serde_json::from_slice(&Verification::new().to_record(None, false).to_json().unwrap()).unwrap();
    json["invented_later"] = "x".into();
    assert!(VerificationRecord::parse("key", json.to_string().as_bytes()).is_ok());
}

#[test]
fn a_stretch_counts_while_its_objects_are_the_same() {
    let mut verification = Verification::new();
    verification.add_wal(segment(3), segment(5), keys(1), content(10));
    verification.add_wal(segment(5), segment(6), keys(2), content(20));
    let now = |which: u8| move |_: SegmentName, _: SegmentName| Some(keys(which));
    assert_eq!(verification.segment(segment(5), |_, _| None), Some(content(20)));
    assert_eq!(verification.segment(segment(5), now(1)), Some(content(10)));
    assert_eq!(verification.segment(segment(6), now(1)), None);
    assert_eq!(verification.segment(segment(7), |_, _| None), None);
}

#[test]
fn what_was_found_damaged_is_so_until_a_look_as_deep_finds_it_sound() {
    let mut verification = Verification::new();
    verification.add_damaged(pack_key(1), at(10), Depth::Content);
    for (sound, is_damaged) in [
        (None, true),
        (Some(content(9)), true),
        (Some(content(10)), true),
        (Some(Proof::at(at(11), Depth::Stored)), true),
        (Some(content(11)), false),
    ] {
        assert_eq!(verification.is_damaged(&pack_key(1), sound), is_damaged, "{sound:?}");
    }
    assert!(!verification.is_damaged(&pack_key(2), None));
}

#[test]
fn a_backup_was_verified_when_the_last_thing_that_it_needs_was() {
    let summary: BackupSummary =
        serde_json::from_slice(include_bytes!("../../../../agent/tests/fixtures/backup.json")).unwrap();
    let layout = Layout::new(summary.system_identifier);
    let pack = summary.packs[0].key.clone();
    let backup = summary.into_head(&layout);
    let needed: Vec<SegmentName> = {
        let size = backup.segment_size;
        let first = backup.redo.segment_number(size);
        let last = Lsn(backup.stop.lsn.0 - 1).segment_number(size);
        (first..=last).map(|it| SegmentName::from_number(backup.timeline, it, size).unwrap()).collect()
    };
    let mut verification = Verification::new();
    let of = |verification: &Verification| verification.of_backup(&layout, &backup);
    assert_eq!(of(&verification), None);
    verification.add_manifest(&backup.id, content(30));
    verification.add_packs(&backup.id, 0, 1000, content(20));
    assert_eq!(of(&verification), None, "its WAL was never read");
    verification.add_wal(needed[0], *needed.last().unwrap(), keys(1), Proof::at(at(10), Depth::Stored));
    assert_eq!(of(&verification), Some(Proof::at(at(10), Depth::Stored)));
    verification.add_wal(needed[0], *needed.last().unwrap(), keys(1), content(40));
    assert_eq!(of(&verification), Some(content(20)));
    verification.add_damaged(pack, at(25), Depth::Stored);
    assert_eq!((of(&verification), verification.damaged_of(&layout, &backup)), (None, 1));
    verification.add_packs(&backup.id, 0, 1000, content(26));
    assert_eq!((of(&verification), verification.damaged_of(&layout, &backup)), (Some(content(26)), 0));
}

#[test]
fn a_backup_is_damaged_with_its_packs_its_manifest_and_the_wal_to_its_end() {
    let summary: BackupSummary =
        serde_json::from_slice(include_bytes!("../../../../agent/tests/fixtures/backup.json")).unwrap();
    let layout = Layout::new(summary.system_identifier);
    let pack = summary.packs[0].key.clone();
    let backup = summary.into_head(&layout);
    let size = backup.segment_size;
    let name =
        |lsn: Lsn, timeline| SegmentName::from_number(timeline, lsn.segment_number(size), size).unwrap();
    let wal = |lsn, timeline| layout.wal(&WalFileName::Segment(name(lsn, timeline)), keys(1), false);
    let other = TimelineId::new(backup.timeline.get() + 1).unwrap();
    let behind = Lsn(backup.stop.lsn.0 + size.bytes());
    let needed = [wal(backup.redo, backup.timeline), backup.manifest.key.clone(), pack];
    let not_needed = [wal(behind, backup.timeline), wal(backup.redo, other), pack_key(7)];
    for (keys, is_damaged) in [(needed, true), (not_needed, false)] {
        for key in keys {
            let mut verification = Verification::new();
            verification.add_damaged(key.clone(), at(10), Depth::Content);
            assert_eq!(verification.has_damage_in(&layout, &backup), is_damaged, "{key}");
        }
    }
    let (mut verification, first) = (Verification::new(), name(backup.redo, backup.timeline));
    verification.add_damaged(wal(backup.redo, backup.timeline), at(10), Depth::Content);
    verification.add_wal(first, first, keys(1), content(11));
    assert!(!verification.has_damage_in(&layout, &backup), "it was mended since");
}

fn any_proof() -> impl Strategy<Value = Proof> {
    (0..5i64, prop::bool::ANY)
        .prop_map(|(second, deep)| Proof::at(at(second), if deep { Depth::Content } else { Depth::Stored }))
}

fn any_record() -> impl Strategy<Value = VerificationRecord> {
    let wal = prop::collection::vec((0..6u32, 0..3u32, 0..2u8, any_proof()), 0..4);
    let packs = prop::collection::vec((0..6u32, 0..3u32, any_proof()), 0..4);
    let damaged = prop::collection::vec((0..3u32, 0..5i64), 0..3);
    (wal, packs, damaged).prop_map(|(wal, packs, damaged)| {
        let mut verification = Verification::new();
        for (first, more, of, proof) in wal {
            verification.add_wal(segment(first), segment(first + more), keys(of), proof);
        }
        for (first, more, proof) in packs {
            verification.add_packs(&id(), first, first + more, proof);
        }
        for (number, second) in damaged {
            verification.add_damaged(pack_key(number), at(second), Depth::Stored);
        }
        verification.to_record(Some(at(0)), true)
    })
}

fn merged<'a>(records: impl IntoIterator<Item = &'a VerificationRecord>) -> Verification {
    let mut verification = Verification::new();
    records.into_iter().for_each(|record| verification.merge(record));
    verification
}

proptest! {
    #[test]
    fn records_may_be_put_together_in_any_order_and_more_than_once(
        records in prop::collection::vec(any_record(), 0..5),
    ) {
        let all = merged(&records);
        prop_assert_eq!(&merged(records.iter().rev().chain(&records)), &all);
        let together = all.to_record(Some(at(0)), true);
        prop_assert_eq!(&merged(records.iter().chain([&together])), &all);
        prop_assert_eq!(&merged([&together]), &all);
    }

    #[test]
    fn tidying_changes_nothing_that_is_known(records in prop::collection::vec(any_record(), 0..5)) {
        let all = merged(&records);
        let mut tidy = all.clone();
        tidy.tidy(at(0), |_| true, |_, _| true, |_| true);
        for number in 0..9 {
            prop_assert_eq!(tidy.pack(&id(), number), all.pack(&id(), number));
            let known = |of: &Verification| of.segment(segment(number), |_, _| None);
            prop_assert_eq!(known(&tidy), known(&all));
        }
        prop_assert_eq!(tidy.found_damaged().count(), all.found_damaged().count());
    }
}

/// Whoever may write below `verify/` could say that everything will be found sound in a hundred years.
#[test]
fn what_a_record_says_of_the_time_after_it_is_not_believed() {
    let mut verification = Verification::new();
    verification.add_wal(segment(3), segment(5), keys(1), content(100));
    verification.add_manifest(&id(), Proof { stored_at: at(5), content_at: Some(at(100)) });
    verification.add_packs(&id(), 0, 41, content(100));
    verification.add_packs(&id(), 42, 43, content(10));
    verification.add_object(pack_key(7), content(100));
    verification.add_damaged(pack_key(42), at(100), Depth::Stored);
    let record = verification.to_record(Some(at(100)), false);
    let mut known = Verification::new();
    known.merge(&record.clone().not_after(Some(at(10))));
    assert_eq!(known.manifest(&id()), Some(Proof::at(at(5), Depth::Stored)));
    assert_eq!((known.pack(&id(), 0), known.pack(&id(), 42)), (None, Some(content(10))));
    assert_eq!((known.segment(segment(4), |_, _| None), known.object(&pack_key(7))), (None, None));
    // That something is damaged is believed at once.
    assert!(known.is_damaged(&pack_key(42), known.pack(&id(), 42)));
    assert_eq!(record.clone().not_after(Some(at(10))).pass, None);
    assert_eq!(record.clone().not_after(None), record);
}

/// That as many bytes came as were stored proves nothing; it says when they were read.
#[test]
fn of_wal_of_which_only_the_length_was_seen_nothing_is_proven() {
    let mut known = Verification::new();
    known.add_wal_lengths(segment(3), segment(9), keys(1), at(20));
    assert_eq!(known.segment(segment(4), |_, _| None), None);
    assert_eq!(known.lengths(TimelineId::FIRST, 0).count(), 1);
    known.add_wal(segment(4), segment(5), keys(1), content(10));
    known.tidy(at(0), |_| true, |_, _| true, |_| true);
    assert_eq!(known.segment(segment(4), |_, _| None), Some(content(10)));
    assert_eq!(known.segment(segment(6), |_, _| None), None);
    let record = known.to_record(None, true);
    let json = record.to_json().unwrap();
    assert_eq!(String::from_utf8_lossy(&json).matches("length_only").count(), 1);
    let mut again = Verification::new();
    again.merge(&VerificationRecord::parse("key", &json).unwrap());
    assert_eq!(again, known);
}

#[test]
fn damage_is_not_older_than_what_a_clock_ahead_said() {
    let mut known = Verification::new();
    known.add_packs(&id(), 42, 42, content(100));
    let mut found = Verification::new();
    found.add_damaged(pack_key(42), at(50), Depth::Stored);
    known.insist_on_damage(&Layout::new(LAYOUT), &found);
    assert!(known.is_damaged(&pack_key(42), known.pack(&id(), 42)));
    known.forget_damage(&Layout::new(LAYOUT), at(0), |_| true);
    assert_eq!(known.found_damaged().count(), 1);
}

/// Of a backup, WAL and an object that came after somebody looked, who then tidies up.
#[test]
fn what_was_said_after_the_look_is_not_forgotten_for_its_sake() {
    let (layout, aside) = (Layout::new(LAYOUT), ObjectKey::new("7/conflict/x").unwrap());
    for (said, stays) in [(9, false), (10, true), (11, true)] {
        let mut known = Verification::new();
        known.add_wal(segment(3), segment(4), keys(1), content(said));
        known.add_manifest(&id(), content(said));
        known.add_object(aside.clone(), content(said));
        known.add_damaged(pack_key(42), at(said), Depth::Stored);
        known.tidy(at(10), |_| false, |_, _| false, |_| false);
        known.forget_damage(&layout, at(10), |_| false);
        assert_eq!(known.segment(segment(3), |_, _| None).is_some(), stays, "{said}");
        assert_eq!(known.manifest(&id()).is_some(), stays, "{said}");
        assert_eq!(known.object(&aside).is_some(), stays, "{said}");
        assert_eq!(known.is_damaged(&pack_key(42), None), stays, "{said}");
    }
}
