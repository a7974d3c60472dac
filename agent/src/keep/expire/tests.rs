//! Marks, grace, deletion, on an archive in a directory: what is killed, raced, left out or held on to.

use super::*;
use crate::keep::policy::Calendar;
use bytes::Bytes;
use jiff::tz::TimeZone;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::store::faulty::{Fault, Faulty, Verb};
use walpoint_archive::store::{Metadata, PutMode, StoreErrorKind};
use walpoint_archive::summary::{BackupSummary, StoredObject};
use walpoint_archive::verification::{Depth, Proof, RecordId};
use walpoint_archive::{ContentHash, KeyRing, ObjectKey, Sealer, StoredHash, Verification};
use walpoint_wal::{Lsn, SegmentName, TimelineId, WalFileName};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A day's length, and a day more than the time of grace.
fn days(days: u32) -> Duration {
    DAY * days
}

struct Stage {
    root: TempDir,
    store: Faulty,
    archive: Archive,
    cluster: Cluster,
    policy: Policy,
}

fn policy(last: u32) -> Policy {
    let calendar = Calendar { daily: 0, weekly: 0, monthly: 0, yearly: 0, zone: TimeZone::UTC };
    Policy { last, window: None, calendar, wal: None, min_verified: 0, grace: days(2) }
}

/// A backup of day `day`: it begins in segment `day` × 10.
fn id(day: u64, kind: &str) -> BackupId {
    format!("202611{day:02}T000000Z-{kind}-{day:06x}").parse().unwrap()
}

impl Stage {
    async fn new(last: u32) -> Stage {
        let root = TempDir::new().unwrap();
        let store = Faulty::new(Arc::new(DirStore::open(root.path()).await.unwrap()));
        let summary: BackupSummary =
            serde_json::from_str(include_str!("../../../tests/fixtures/backup.json")).unwrap();
        let cluster = Cluster {
            system_identifier: summary.system_identifier,
            segment_size: summary.segment_size,
            block_size: 8192,
            wal_block_size: 8192,
            major: 15,
        };
        let sealer = Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default()));
        let archive = Archive::new(Arc::new(store.clone()), cluster.system_identifier, sealer);
        archive.ensure_cluster(&cluster).await.unwrap();
        Stage { root, store, archive, cluster, policy: policy(last) }
    }

    /// Backups on these days and WAL of sixty segments, ten a day.
    async fn with_backups(last: u32, on: &[u64]) -> Stage {
        let stage = Stage::new(last).await;
        for number in 10..=69 {
            stage.segment(number, 70 - number).await;
        }
        for day in on {
            stage.backup(&id(*day, "full"), *day, &[]).await;
        }
        stage
    }

    fn name(&self, number: u64) -> SegmentName {
        SegmentName::from_number(TimelineId::FIRST, number, self.cluster.segment_size).unwrap()
    }

    /// An object that was stored so many tenths of a day ago.
    async fn put(&self, key: &ObjectKey, tenths_ago: u64) {
        let _ =
            self.archive.store().put(key, Bytes::new(), &Metadata::new(), PutMode::CreateOnly).await.unwrap();
        self.make_old(key, DAY * tenths_ago as u32 / 10);
    }

    #[expect(clippy::disallowed_methods, reason = "the files are to be as old as that")]
    fn make_old(&self, key: &ObjectKey, age: Duration) {
        let file = std::fs::File::options().append(true).open(self.root.path().join(key.as_str())).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    /// Time passes, and each day leaves a sign.
    async fn wait(&self, time: Duration) {
        self.jump(time);
        for day in (1..).take_while(|day| DAY * *day < time) {
            let sign = self.archive.layout().idle(TimelineId::new(100 + day).unwrap());
            self.put(&sign, u64::from(day) * 10).await;
        }
    }

    /// Makes everything that is there older.
    fn jump(&self, time: Duration) {
        for key in self.keys() {
            let path = self.root.path().join(&key);
            let file = std::fs::File::options().append(true).open(path).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - time).unwrap();
        }
    }

    async fn segment(&self, number: u64, tenths_ago: u64) {
        let content = ContentHash::of(&number.to_le_bytes()).id();
        let key = self.archive.layout().wal(&WalFileName::Segment(self.name(number)), content, false);
        self.put(&key, tenths_ago).await;
    }

    /// Two packs, a manifest and a summary that names packs of other backups as well.
    async fn backup(&self, id: &BackupId, day: u64, others: &[(&BackupId, u32)]) -> BackupSummary {
        let tenths = 70_u64.saturating_sub(day * 10 + 2);
        let mut packs: Vec<StoredObject> = Vec::new();
        for number in 0..2 {
            let key = self.pack(id, number);
            self.put(&key, tenths).await;
            packs.push(StoredObject { key, size: 0, sha256: StoredHash::of(b"") });
        }
        for (of, number) in others {
            packs.push(StoredObject { key: self.pack(of, *number), size: 0, sha256: StoredHash::of(b"") });
        }
        let mut summary: BackupSummary =
            serde_json::from_str(include_str!("../../../tests/fixtures/backup.json")).unwrap();
        let size = self.cluster.segment_size.bytes();
        let content = ContentHash::of(id.as_str().as_bytes());
        summary.manifest.key = self.archive.layout().manifest(id, content.id(), false);
        summary.manifest.content = content;
        summary.manifest.size = 0;
        self.put(&summary.manifest.key, tenths).await;
        (summary.id, summary.kind, summary.packs) = (id.clone(), id.kind(), packs);
        summary.redo = Lsn(day * 10 * size + 40);
        (summary.start.lsn, summary.stop.lsn) = (summary.redo, Lsn(summary.redo.0 + size));
        let now = jiff::Timestamp::now().as_microsecond() - (tenths as i64) * 8_640_000_000;
        summary.stop.time = walpoint_wal::Timestamp::from_unix_micros(now).unwrap();
        self.archive.put_summary(&summary).await.unwrap();
        self.make_old(&self.archive.layout().summary(id), DAY * tenths as u32 / 10);
        summary
    }

    fn pack(&self, id: &BackupId, number: u32) -> ObjectKey {
        let content = ContentHash::of(format!("{id} {number}").as_bytes()).id();
        self.archive.layout().pack(id, number, content, false)
    }

    fn expiry(&self) -> Expiry<'_> {
        let Stage { archive, cluster, policy, .. } = self;
        Expiry { archive, cluster, policy, clock: Clock::OfAPut }
    }

    async fn apply(&self) -> Applied {
        let seen = self.expiry().see().await.unwrap();
        assert_eq!(seen.decision.obstacles, Vec::<String>::new());
        self.expiry().apply(&seen).await.unwrap()
    }

    /// All keys of the cluster.
    fn keys(&self) -> Vec<String> {
        fn below(folder: PathBuf, into: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => below(path, into),
                    path => into.push(path),
                }
            }
        }
        let mut files = Vec::new();
        below(self.root.path().to_owned(), &mut files);
        let relative =
            |path: PathBuf| path.strip_prefix(self.root.path()).unwrap().to_str().unwrap().to_owned();
        let mut keys: Vec<String> =
            files.into_iter().map(relative).filter(|key| !key.ends_with(".meta")).collect();
        keys.sort();
        keys
    }

    fn holds(&self, part: &str) -> usize {
        self.keys().iter().filter(|key| key.contains(part)).count()
    }

    async fn backups(&self) -> Vec<BackupId> {
        self.archive.backups().await.unwrap().sound.into_iter().map(|summary| summary.id).collect()
    }
}

#[tokio::test]
async fn what_goes_is_marked_and_goes_after_its_grace_with_its_wal() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    let before = stage.keys().len();
    let applied = stage.apply().await;
    assert_eq!(applied.marked.backups, [id(1, "full"), id(3, "full")]);
    assert_eq!((applied.objects, stage.keys().len()), (0, before + 2), "only the mark is new, and the clock");
    // A second run marks nothing anew and deletes nothing before its time.
    let applied = stage.apply().await;
    assert!(applied.marked.is_empty() && applied.objects == 0);
    stage.wait(days(1)).await;
    assert_eq!(stage.apply().await.objects, 0);
    stage.wait(days(1)).await;
    let applied = stage.apply().await;
    assert_eq!((applied.backups, applied.failed), (2, Vec::new()));
    assert_eq!(stage.backups().await, [id(5, "full")]);
    // Segments 10 to 49, and four objects of each backup.
    assert_eq!((applied.objects, stage.holds("/wal/")), (48, 20));
    // What it named is gone, so the mark goes, too.
    stage.apply().await;
    assert_eq!((stage.holds("/expire/"), stage.holds("/expire/clock.json")), (1, 1));
    let applied = stage.apply().await;
    assert!(applied.marked.is_empty() && applied.objects == 0);
}

#[tokio::test]
async fn packs_that_a_newer_backup_names_stay_when_their_own_goes() {
    let stage = Stage::with_backups(1, &[1]).await;
    stage.backup(&id(5, "incr"), 5, &[(&id(1, "full"), 1)]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    let applied = stage.apply().await;
    assert_eq!(applied.backups, 1);
    let pack = |number| stage.holds(&format!("{}/pack-00000{number}", id(1, "full")));
    assert_eq!((pack(0), pack(1), stage.holds("-full-000001/")), (0, 1, 1));
    let seen = stage.expiry().see().await.unwrap();
    let folder = &seen.decision.folders[0];
    assert_eq!((folder.needed_packs, folder.packs, folder.goes()), (1, 1, false));
    // That is no backup which was given up.
    assert_eq!(stage.archive.backups().await.unwrap().unfinished, []);
}

#[tokio::test]
async fn a_mark_that_is_wanted_again_starts_anew() {
    let mut stage = Stage::with_backups(1, &[1, 3, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    stage.policy = policy(2);
    let applied = stage.apply().await;
    // The third of the month is wanted again; the first is marked anew.
    assert_eq!((applied.objects, applied.marked.backups), (0, vec![id(1, "full")]));
    stage.policy = policy(1);
    assert_eq!(stage.apply().await.objects, 0);
    assert_eq!(stage.backups().await.len(), 3);
}

/// The store may hold on to marks as to anything else.
#[tokio::test]
async fn a_mark_that_was_wanted_again_and_could_not_be_taken_away_starts_anew() {
    let mut stage = Stage::with_backups(1, &[1, 3, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    stage.policy = policy(3);
    let call = stage.store.calls(Verb::Delete);
    stage.store.fail(Verb::Delete, call, Fault::Before(StoreErrorKind::Denied));
    assert_eq!(stage.apply().await.failed.len(), 1);
    stage.policy = policy(1);
    let applied = stage.apply().await;
    assert_eq!((applied.objects, stage.backups().await.len()), (0, 3));
    stage.wait(days(3)).await;
    assert_eq!(stage.apply().await.backups, 2);
}

#[tokio::test]
async fn a_backup_that_was_running_when_its_parent_was_marked_keeps_what_it_names() {
    let stage = Stage::with_backups(1, &[1, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    // It is complete between the two looks: the first sees that all of its parent goes.
    let seen = stage.expiry().see().await.unwrap();
    stage.backup(&id(6, "incr"), 6, &[(&id(1, "full"), 0)]).await;
    let applied = stage.expiry().apply(&seen).await.unwrap();
    assert_eq!(applied.backups, 1);
    assert_eq!((stage.holds("-full-000001/pack-000000"), stage.holds("-full-000001/pack-000001")), (1, 0));
}

#[tokio::test]
async fn a_backup_that_is_complete_after_the_last_look_keeps_what_it_names() {
    let stage = Stage::with_backups(1, &[1, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    let seen = stage.expiry().see().await.unwrap();
    let ripe = Ripe::of(
        &seen.marks.iter().collect::<Vec<_>>(),
        stage.cluster.segment_size,
        &seen.decision,
        &seen.decision,
    );
    assert_eq!(ripe.backups.len(), 1);
    stage.backup(&id(6, "incr"), 6, &[(&id(1, "full"), 0)]).await;
    let mut applied = Applied::default();
    let deletion = delete::Deletion::new(stage.expiry(), &seen.snapshot, &seen.decision, &ripe);
    deletion.run(&mut applied).await.unwrap();
    assert_eq!((stage.holds("-full-000001/pack-000000"), stage.holds("-full-000001/pack-000001")), (1, 0));
}

#[tokio::test]
async fn packs_of_a_backup_that_was_given_up_go_and_those_of_a_running_one_stay() {
    let stage = Stage::with_backups(1, &[5]).await;
    let (dead, running) = (id(1, "full"), id(6, "full"));
    stage.put(&stage.pack(&dead, 0), 50).await;
    stage.put(&stage.pack(&running, 0), 5).await;
    stage.apply().await;
    stage.wait(days(1)).await;
    // It still stores something now and then.
    stage.put(&stage.pack(&running, 1), 0).await;
    stage.wait(days(1) + DAY / 2).await;
    assert_eq!(stage.apply().await.failed, []);
    assert_eq!((stage.holds(dead.as_str()), stage.holds(running.as_str())), (0, 2));
}

/// Deletes fail one after the other, as when the run is killed at each of them; the next runs go on.
#[tokio::test]
async fn a_run_that_ends_anywhere_leaves_no_backup_half_there_and_is_gone_on_with() {
    for killed_at in 0..12 {
        let stage = Stage::with_backups(1, &[1, 3, 5]).await;
        stage.apply().await;
        stage.wait(days(3)).await;
        let done = stage.store.calls(Verb::Delete);
        for call in done + killed_at..done + 100 {
            stage.store.fail(Verb::Delete, call, Fault::Before(StoreErrorKind::Denied));
        }
        let applied = stage.apply().await;
        assert!(
            !applied.failed.is_empty() && applied.failed.iter().all(|stuck| stuck.why.contains("scripted"))
        );
        for summary in stage.archive.backups().await.unwrap().sound {
            let summary = stage.archive.whole(&summary).await.unwrap();
            for object in summary.packs.iter().map(|pack| &pack.key).chain([&summary.manifest.key]) {
                stage.archive.store().head(object).await.unwrap();
            }
            let first = summary.redo.segment_number(stage.cluster.segment_size);
            for number in [first, first + 1] {
                assert_eq!(stage.holds(&format!("{}-", stage.name(number))), 1, "killed at {killed_at}");
            }
        }
        let left = stage.store.calls(Verb::Delete);
        for call in left..done + 200 {
            stage.store.fail(Verb::Delete, call, Fault::Delay(Duration::ZERO));
        }
        assert_eq!(stage.apply().await.failed, []);
        assert_eq!((stage.backups().await, stage.holds("/wal/")), (vec![id(5, "full")], 20));
        assert_eq!((stage.holds("000001/"), stage.holds("000003/")), (0, 0));
    }
}

#[tokio::test]
async fn a_summary_that_the_store_holds_on_to_keeps_all_that_its_backup_needs() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    // The first delete is that of the oldest summary.
    let call = stage.store.calls(Verb::Delete);
    stage.store.fail(Verb::Delete, call, Fault::Before(StoreErrorKind::Denied));
    let applied = stage.apply().await;
    assert_eq!((applied.backups, applied.failed.len()), (1, 1));
    assert_eq!(stage.backups().await, [id(1, "full"), id(5, "full")]);
    assert_eq!(stage.holds("-full-000001/"), 4);
    // Its own two segments stay, the others went.
    assert_eq!(stage.holds("/wal/"), 22);
}

#[tokio::test]
async fn a_store_that_deletes_nothing_is_not_asked_a_million_times() {
    let stage = Stage::with_backups(1, &[1, 5]).await;
    for number in 10..=49 {
        for rival in [1_u64, 2, 3] {
            let content = ContentHash::of(&rival.to_le_bytes()).id();
            let name = WalFileName::Segment(stage.name(number));
            stage.put(&stage.archive.layout().refused(&name, content), 70).await;
        }
    }
    stage.apply().await;
    stage.wait(days(3)).await;
    let done = stage.store.calls(Verb::Delete);
    // The summary goes; nothing else does.
    for call in done + 1..done + 300 {
        stage.store.fail(Verb::Delete, call, Fault::Before(StoreErrorKind::Denied));
    }
    let applied = stage.apply().await;
    assert_eq!((applied.backups, applied.failed.len(), applied.notes.len()), (1, 100, 1));
    assert!(stage.store.calls(Verb::Delete) < done + 130);
}

#[tokio::test]
async fn wal_that_is_far_apart_is_not_looked_for_in_between() {
    let stage = Stage::new(1).await;
    for number in [10, 900_000, 1_000_000, 1_000_001] {
        stage.segment(number, 70).await;
    }
    stage.backup(&id(9, "full"), 100_000, &[]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    let before = stage.store.calls(Verb::List);
    assert_eq!(stage.apply().await.objects, 2);
    assert!(stage.store.calls(Verb::List) - before < 60);
}

#[tokio::test]
async fn wal_of_a_backup_that_is_completed_while_wal_is_deleted_stays() {
    let stage = Stage::new(1).await;
    for number in [10, 900_000, 900_001, 1_000_000, 1_000_001] {
        stage.segment(number, 70).await;
    }
    stage.backup(&id(9, "full"), 100_000, &[]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    let first = stage.name(10).to_string();
    // So that there is time between the deletion in one folder and the next.
    stage.store.fail_every(Verb::List, Some(Fault::Delay(Duration::from_millis(200))));
    let completed_meanwhile = async {
        while stage.holds(&first) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stage.backup(&id(6, "full"), 90_000, &[]).await
    };
    let (applied, _) = tokio::join!(stage.apply(), completed_meanwhile);
    assert_eq!((applied.failed, applied.objects), (vec![], 1));
    assert_eq!(
        (stage.holds(&stage.name(900_000).to_string()), stage.holds(&stage.name(900_001).to_string())),
        (1, 1)
    );
}

#[tokio::test]
async fn what_a_listing_leaves_out_costs_nothing() {
    let child = id(5, "incr");
    for hidden in [child.to_string(), format!("{child}/backup.json")] {
        // Only while it is looked at again, or from the beginning on.
        for from_the_beginning in [false, true] {
            let mut stage = Stage::with_backups(0, &[1, 2, 6]).await;
            stage.backup(&child, 5, &[(&id(1, "full"), 1)]).await;
            // The second day's serves the oldest moment, so the first day's goes, whatever is seen of the others.
            stage.policy.window = Some(days(3));
            assert_eq!(stage.apply().await.marked.backups, [id(1, "full")]);
            stage.wait(days(3)).await;
            let before = stage.keys();
            let hide = || stage.store.fail_every(Verb::List, Some(Fault::LeaveOut(hidden.clone())));
            if from_the_beginning {
                hide();
            }
            let seen = stage.expiry().see().await.unwrap();
            hide();
            let applied = match seen.decision.obstacles.is_empty() {
                true => stage.expiry().apply(&seen).await.unwrap(),
                false => Applied { obstacles: seen.decision.obstacles, ..Applied::default() },
            };
            assert!(applied.obstacles.iter().any(|it| it.contains("left out")), "{hidden}: {applied:?}");
            assert_eq!((applied.objects, stage.keys()), (0, before));
            // With all of it in sight the pack that the child names stays, and the rest goes.
            stage.store.fail_every(Verb::List, None);
            assert_eq!(stage.apply().await.backups, 1);
            assert_eq!((stage.holds("full-000001/"), stage.holds("full-000001/pack-000001")), (1, 1));
        }
    }
}

#[tokio::test]
async fn what_came_after_the_mark_does_not_go_by_it() {
    let stage = Stage::with_backups(1, &[1, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    // A late segment in the midst of those that were marked, and a new object in a marked folder.
    let late = ContentHash::of(b"late").id();
    let name = WalFileName::Segment(stage.name(20));
    stage.put(&stage.archive.layout().refused(&name, late), 0).await;
    let applied = stage.apply().await;
    assert_eq!(stage.holds(".refused"), 1);
    // All that was marked together waits anew.
    assert!(applied.objects == 0 && !applied.marked.is_empty());
}

#[tokio::test]
async fn a_segment_is_decided_while_one_content_of_it_stands() {
    let stage = Stage::with_backups(1, &[5]).await;
    let is_decided = async || {
        let seen = stage.expiry().see().await.unwrap();
        let own = &seen.snapshot.wal[&TimelineId::FIRST];
        own.iter().find(|segment| segment.number == 50).unwrap().is_decided
    };
    assert!(is_decided().await);
    let (name, rival) = (WalFileName::Segment(stage.name(50)), ContentHash::of(b"rival").id());
    let layout = stage.archive.layout();
    stage.put(&layout.wal(&name, rival, false), 1).await;
    assert!(!is_decided().await);
    stage.put(&layout.refused(&name, rival), 1).await;
    assert!(is_decided().await);
    stage.put(&layout.refused(&name, ContentHash::of(&50_u64.to_le_bytes()).id()), 1).await;
    assert!(!is_decided().await);
}

#[tokio::test]
async fn histories_and_what_is_not_ours_never_go() {
    let stage = Stage::with_backups(1, &[1, 5]).await;
    let root = stage.cluster.system_identifier.to_string();
    let foreign = [format!("{root}/wal/0000000100000000/notes.txt"), format!("{root}/backup/of-mine/file")];
    for key in &foreign {
        stage.put(&ObjectKey::new(key).unwrap(), 60).await;
    }
    let layout = stage.archive.layout();
    let two = TimelineId::new(2).unwrap();
    let refused = layout.conflict(&WalFileName::History(two), ContentHash::of(b"x").id(), false);
    let aside = layout.conflict(&WalFileName::Segment(stage.name(11)), ContentHash::of(b"x").id(), false);
    stage.put(&refused, 60).await;
    stage.put(&aside, 60).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    let applied = stage.apply().await;
    assert!(applied.objects > 0);
    for key in foreign.iter().map(String::as_str).chain([refused.as_str()]) {
        assert_eq!(stage.holds(key), 1, "{key}");
    }
    assert_eq!(stage.holds(aside.as_str()), 0, "what was put aside of a segment goes with it");
    let seen = stage.expiry().see().await.unwrap();
    assert!(seen.snapshot.unknown.contains(&foreign[0]), "{:?}", seen.snapshot.unknown);
}

#[tokio::test]
async fn what_cannot_be_read_keeps_everything() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    let summary = stage.root.path().join(stage.archive.layout().summary(&id(3, "full")).as_str());
    let text = std::fs::read_to_string(&summary).unwrap();
    std::fs::write(&summary, text.replace("full", "fulk")).unwrap();
    let seen = stage.expiry().see().await.unwrap();
    assert!(seen.decision.obstacles[0].contains("cannot be read"), "{:?}", seen.decision.obstacles);
    // WAL of a timeline that nothing leads to.
    let stage = Stage::with_backups(1, &[1, 5]).await;
    let name = SegmentName { timeline: TimelineId::new(3).unwrap(), ..stage.name(30) };
    let key = stage.archive.layout().wal(&WalFileName::Segment(name), ContentHash::of(b"x").id(), false);
    stage.put(&key, 5).await;
    let seen = stage.expiry().see().await.unwrap();
    assert!(seen.decision.obstacles[0].contains("00000003.history"), "{:?}", seen.decision.obstacles);
}

/// What `verify` read of it says nothing of what has come since.
#[tokio::test]
async fn a_backup_is_not_verified_while_its_wal_has_what_came_after_it_was_read() {
    let stage = Stage::with_backups(1, &[5]).await;
    let id = id(5, "full");
    let hour_ago = jiff::Timestamp::now().as_microsecond() - 3_600_000_000;
    let proof = Proof::at(Timestamp::from_unix_micros(hour_ago).unwrap(), Depth::Content);
    let mut known = Verification::new();
    known.add_manifest(&id, proof);
    known.add_packs(&id, 0, 1, proof);
    known.add_wal(stage.name(50), stage.name(51), ContentHash::of(b"keys").id(), proof);
    stage.archive.put_verification(RecordId::random(), &known.to_record(None, true)).await.unwrap();
    let verified_at = async || stage.expiry().see().await.unwrap().snapshot.backups[0].verified_at;
    assert_eq!(verified_at().await, Some(proof.stored_at));
    // Behind its end; then another content of a segment that it needs.
    stage.segment(70, 0).await;
    assert_eq!(verified_at().await, Some(proof.stored_at));
    let name = WalFileName::Segment(stage.name(51));
    let other = stage.archive.layout().wal(&name, ContentHash::of(b"another").id(), false);
    stage.put(&other, 0).await;
    assert_eq!(verified_at().await, None);
}

#[tokio::test]
async fn a_backup_of_which_an_object_has_another_size_or_content_is_not_whole() {
    let stage = Stage::with_backups(1, &[3, 5]).await;
    let is_whole = async || {
        let snapshot = stage.expiry().see().await.unwrap().snapshot;
        snapshot.backups.iter().map(|backup| snapshot.is_whole(backup)).collect::<Vec<bool>>()
    };
    assert_eq!(is_whole().await, [true, true]);
    // One that a backup which was taken up again stored besides.
    let pack = stage.pack(&id(3, "full"), 1);
    let other = stage.archive.layout().pack(&id(3, "full"), 1, ContentHash::of(b"other").id(), false);
    stage.put(&other, 5).await;
    assert_eq!(is_whole().await, [true, true]);
    stage.archive.store().delete(&pack).await.unwrap();
    assert_eq!(is_whole().await, [false, true]);
    std::fs::write(stage.root.path().join(stage.pack(&id(5, "full"), 0).as_str()), "longer").unwrap();
    assert_eq!(is_whole().await, [false, false]);
}

/// Damage that only it tells of would be forgotten.
#[tokio::test]
async fn a_note_of_verify_that_cannot_be_read_keeps_everything() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    let (before, note) = (stage.backups().await, RecordId::random());
    stage.archive.put_verification(note, &Verification::new().to_record(None, true)).await.unwrap();
    let key = stage.archive.layout().verification(note);
    std::fs::write(stage.root.path().join(key.as_str()), "{").unwrap();
    let seen = stage.expiry().see().await.unwrap();
    let [obstacle] = &seen.decision.obstacles[..] else { panic!("{:?}", seen.decision.obstacles) };
    assert!(obstacle.contains(key.as_str()) && obstacle.contains("hint: "), "{obstacle}");
    let applied = stage.expiry().apply(&seen).await.unwrap();
    assert!(!applied.obstacles.is_empty());
    assert_eq!(stage.backups().await, before);
}

#[tokio::test]
async fn two_runs_at_the_same_time_do_what_one_does() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    let _ = tokio::join!(stage.apply(), stage.apply());
    stage.wait(days(3)).await;
    let (one, other) = tokio::join!(stage.apply(), stage.apply());
    assert_eq!((one.failed, other.failed), (Vec::new(), Vec::new()));
    assert_eq!((stage.backups().await, stage.holds("/wal/")), (vec![id(5, "full")], 20));
}

#[tokio::test]
async fn a_clock_that_jumps_three_days_ripens_no_mark_and_daily_runs_do() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    stage.apply().await;
    stage.jump(days(3));
    assert_eq!(stage.apply().await.objects, 0);
    // At rest nothing but the runs shows that time passes.
    stage.jump(days(1));
    assert_eq!(stage.apply().await.backups, 2);
}

#[tokio::test]
async fn a_mark_that_another_run_took_away_lets_nothing_go() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    stage.apply().await;
    stage.wait(days(3)).await;
    let seen = stage.expiry().see().await.unwrap();
    stage.archive.store().delete(&seen.marks[0].key).await.unwrap();
    assert_eq!(stage.expiry().apply(&seen).await.unwrap().objects, 0);
}

#[tokio::test]
async fn a_mark_that_cannot_be_read_is_left_alone_and_said() {
    let stage = Stage::with_backups(1, &[1, 5]).await;
    let key = stage.archive.layout().expiry_mark("of-a-newer-version");
    stage.put(&key, 5).await;
    stage.apply().await;
    assert_eq!(stage.holds(key.as_str()), 1);
    let seen = stage.expiry().see().await.unwrap();
    assert!(
        seen.decision.notes.iter().any(|note| note.contains("of-a-newer-version")),
        "{:?}",
        seen.decision.notes
    );
}

#[tokio::test]
async fn a_clock_that_jumps_ripens_no_mark() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    stage.apply().await;
    let mut kept = stage.keys();
    kept.retain(|key| !key.contains("/expire/"));
    // The clock is a year ahead: everything seems to be that old, and nothing came since.
    stage.jump(days(365));
    let seen = stage.expiry().see().await.unwrap();
    assert!(!seen.marks[0].is_ripe && seen.decision.obstacles.is_empty());
    assert_eq!(stage.apply().await.objects, 0);
    // A server that writes on by that clock shows a day that passed, and no year.
    stage.segment(70, 10).await;
    assert_eq!(stage.apply().await.objects, 0);
    // The clock is two years behind: all that is there comes from the future.
    for key in stage.keys() {
        let file = std::fs::File::options().append(true).open(stage.root.path().join(&key)).unwrap();
        file.set_modified(file.metadata().unwrap().modified().unwrap() + days(730)).unwrap();
    }
    assert_eq!(stage.apply().await.objects, 0);
    let seen = stage.expiry().see().await.unwrap();
    assert!(seen.decision.backups.iter().all(|backup| !backup.stays.is_empty()));
    assert!(kept.iter().all(|key| stage.keys().contains(key)));
}

/// docs/operating.md counts with these.
#[tokio::test]
async fn a_look_asks_once_for_each_backup_and_lists_each_folder_of_wal_once() {
    let stage = Stage::with_backups(1, &[1, 3, 5]).await;
    let count = |verb| stage.store.calls(verb);
    let before = (count(Verb::List), count(Verb::Get), count(Verb::Head));
    stage.expiry().see().await.unwrap();
    // Marks, cluster.json, backups twice, WAL's folders, the one folder, conflicts, proofs of rest, histories, and
    // what was verified.
    assert_eq!(count(Verb::List) - before.0, 10);
    assert_eq!(count(Verb::Get) - before.1, 3);
    assert_eq!(count(Verb::Head) - before.2, 1);
}
