//! Histories and summaries that are there and cannot be read.

use bytes::Bytes;
use walpoint_archive::store::{Metadata, PutMode};
use walpoint_archive::{ArchiveError, ObjectKey};
use walpoint_wal::WalFileName;

use super::*;

async fn spoil(test: &TestArchive, key: &ObjectKey) {
    let nonsense = Bytes::from_static(b"nonsense");
    let put = test.archive.store().put(key, nonsense, &Metadata::new(), PutMode::Overwrite).await;
    let _ = put.unwrap();
}

/// The object that planning stops at.
async fn damage_met(test: &TestArchive, request: &TargetRequest) -> String {
    match plan(&test.archive, &test.catalog().await, request).await {
        Err(PlanError::Archive(ArchiveError::Damaged { key, .. })) => key,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn latest_takes_no_older_timeline_for_one_whose_history_is_damaged() {
    let (mut test, _, last) = three_commits().await;
    test.history(2, &[(1, last.lsn.0)]).await;
    let stored = test.archive.wal_variants(&WalFileName::History(tli(2))).await.unwrap();
    spoil(&test, &stored.variants[0].key()).await;
    let latest = request(Target::Latest);
    assert!(damage_met(&test, &latest).await.contains("00000002.history"));
    let named =
        |timeline| TargetRequest { timeline: TargetTimeline::Number(tli(timeline)), ..latest.clone() };
    assert!(damage_met(&test, &named(2)).await.contains("00000002.history"));
    assert_eq!(reach(&test, &named(1)).await.last_record, last.lsn);
}

#[tokio::test]
async fn a_damaged_summary_hides_no_other_backup_and_is_told_of() {
    let (test, _, _) = three_commits().await;
    let sound = test.catalog().await.backups[0].clone();
    let other = "20301121T214500Z-full-abcdef".parse().unwrap();
    spoil(&test, &test.archive.layout().summary(&other)).await;
    let latest = request(Target::Latest);
    let plan = reach(&test, &latest).await;
    assert_eq!(plan.backup.id, sound.id);
    assert!(
        plan.warnings.iter().any(|it| it.contains("20301121T214500Z-full-abcdef")),
        "{:?}",
        plan.warnings
    );
    let why = refused(&test, &request(time(1))).await;
    assert!(why.reason.contains("20301121T214500Z-full-abcdef"), "{}", why.reason);
    let asked_for = TargetRequest { backup: Some(other), ..latest.clone() };
    assert!(damage_met(&test, &asked_for).await.contains("abcdef"));
    spoil(&test, &test.archive.layout().summary(&sound.id)).await;
    assert!(damage_met(&test, &latest).await.contains("backup.json"));
}
