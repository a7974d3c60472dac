//! Archives as large as they get: 10,000 backups and 1,000,000 segments, made as empty objects in a directory.
//! Every command that looks at all of it answers within 5 s and 256 MiB, and says how many requests it would send
//! to S3. And 30 backups of a large cluster, each of which names 100,000 packs: a summary is then 23 MB, and every
//! command that reads them stays within 256 MiB all the same. Run by scripts/scale, which builds the program as it is shipped:
//!
//!     WALPOINT_TEST_BINARY=target/release/walpoint cargo test --test scale -- --ignored --nocapture
//!
//! The WAL is encrypted and there is no key: so all is planned by names and metadata, as objects without content
//! allow. Each segment has metadata of its own, as real segments have them; the objects are one empty file under
//! many names, which is what a listing shows of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::StreamExt;
use walpoint_archive::compress::CompressionLevel;
use walpoint_archive::store::dir::DirStore;
use walpoint_archive::store::{Metadata, ObjectStore};
use walpoint_archive::summary::{BackupSummary, StoredObject};
use walpoint_archive::{
    Archive, BackupId, BackupKind, Cluster, Common, ContentHash, KeyRing, Layout, ObjectKey, RunFacts,
    Sealer, StoredHash, WalEnding, WalFacts, WriterId,
};
use walpoint_wal::{Lsn, SegmentName, SegmentSize, SystemIdentifier, TimelineId, Timestamp, WalFileName};

mod stage;

/// That of the control file that `check` finds.
const SYSTEM: SystemIdentifier = SystemIdentifier(7_710_420_414_003_038_903);
/// Most names that one file may have (ext4: 65000).
const NAMES: u64 = 50_000;
const TIME_LIMIT: Duration = Duration::from_secs(5);
const MEMORY_LIMIT: u64 = 256 * 1024 * 1024;
const DAYS: u64 = 100;

fn size() -> SegmentSize {
    SegmentSize::new(16 << 20).unwrap()
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

struct Large {
    root: PathBuf,
    backups: u64,
    /// Of each backup.
    packs: u64,
    segments: u64,
    begin: i64,
}

impl Large {
    fn layout(&self) -> Layout {
        Layout::new(SYSTEM)
    }

    fn file(&self, key: &ObjectKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// When the segment was stored, and everything of its time.
    fn time_of(&self, number: u64) -> i64 {
        self.begin + (DAYS * 86_400 * 1_000_000 / self.segments * number) as i64
    }

    fn set_time(&self, path: &Path, micros: i64) {
        let time = Timestamp(micros).to_unix_micros().unwrap() as u64;
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_micros(time)).unwrap();
    }

    /// An empty object.
    fn put(&self, key: &ObjectKey, metadata: &Metadata, micros: i64) {
        let path = self.file(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        self.describe(&path, metadata);
        std::fs::write(&path, "").unwrap();
        self.set_time(&path, micros);
    }

    /// What a directory keeps beside an object.
    fn describe(&self, path: &Path, metadata: &Metadata) {
        // Written by hand, for there are a million: names and values need no escape.
        let mut meta = String::from("{\"size\":0,\"metadata\":{");
        for (at, (name, value)) in metadata.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            meta.extend([comma, "\"", name, "\":\"", value, "\""]);
        }
        meta += "}}";
        std::fs::write(format!("{}.meta", path.display()), meta).unwrap();
    }

    fn segment_key(&self, number: u64) -> ObjectKey {
        let name = SegmentName::from_number(TimelineId::FIRST, number, size()).unwrap();
        let content = ContentHash::of(&number.to_le_bytes()).id();
        self.layout().wal(&WalFileName::Segment(name), content, true)
    }

    fn make_wal(&self) {
        let parts = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let each = self.segments.div_ceil(parts).next_multiple_of(NAMES);
        std::thread::scope(|scope| {
            for part in 0..parts {
                scope.spawn(move || self.make_segments(1 + part * each, (part + 1) * each));
            }
        });
    }

    /// Makes segments, each under a name of the file of one in so many.
    fn make_segments(&self, first: u64, last: u64) {
        let mut model = PathBuf::new();
        for number in first..=last.min(self.segments) {
            let (key, metadata) = (self.segment_key(number), self.facts(number).to_metadata().unwrap());
            let path = self.file(&key);
            if number == first || number % NAMES == 0 {
                self.put(&key, &metadata, self.time_of(number));
                model = path;
                continue;
            }
            if number % 256 == 0 {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            self.describe(&path, &metadata);
            std::fs::hard_link(&model, &path).unwrap();
        }
    }

    fn facts(&self, number: u64) -> WalFacts {
        let bytes = size().bytes();
        let (start, end) = (Lsn(number * bytes), Lsn((number + 1) * bytes));
        let hash = ContentHash::of(&number.to_le_bytes());
        let common = Common::new(hash, bytes, WriterId::random(), SYSTEM);
        let time = Some(Timestamp(self.time_of(number)));
        let last_start = Some(Lsn(end.0 - 80));
        let run = RunFacts {
            run_start: Lsn(bytes),
            run_high: time,
            run_last_time: time,
            run_commits: number,
            run_steps: 0,
            run_points: 0,
            run_prepares: Some(0),
            run_parameter_changes: Some(0),
            last_start,
        };
        WalFacts {
            common,
            timeline: TimelineId::FIRST,
            validated: true,
            page_magic: Some(0xD110),
            start,
            end,
            first_record: Some(Lsn(start.0 + 40)),
            first_prev: Some(Lsn(start.0 - 80)),
            last_start,
            ending: WalEnding::Full,
            edge_checked: true,
            time_low: time,
            time_high: time,
            time_first: time,
            time_last: time,
            time_known: time,
            commits: 1,
            aborts: 0,
            steps_back: 0,
            point_count: 0,
            restore_points: Some(Vec::new()),
            xids: Some((number as u32, number as u32)),
            file_copy: false,
            next_xid: Some(number + 1),
            run: Some(run),
        }
    }

    async fn make_backups(&self, archive: &Archive) {
        let made = (0..self.backups).map(|index| self.make_backup(archive, index));
        // Each waits for the disk, and large ones have the memory to themselves.
        let at_once = if self.packs > 1 { 1 } else { 64 };
        futures::stream::iter(made).buffer_unordered(at_once).collect::<Vec<()>>().await;
    }

    async fn make_backup(&self, archive: &Archive, index: u64) {
        let every = ((self.segments - 10) / self.backups).max(1);
        let redo = 2 + index * every;
        let time = self.time_of(redo + 1);
        let id = BackupId::new(Timestamp(time - 1_000_000), BackupKind::Full);
        let mut summary: BackupSummary = serde_json::from_str(include_str!("fixtures/backup.json")).unwrap();
        let content = ContentHash::of(id.as_str().as_bytes());
        (summary.manifest.content, summary.manifest.size) = (content, 0);
        summary.manifest.key = self.layout().manifest(&id, content.id(), true);
        (summary.system_identifier, summary.segment_size) = (SYSTEM, size());
        summary.redo = Lsn(redo * size().bytes() + 40);
        summary.start.lsn = summary.redo;
        (summary.stop.lsn, summary.stop.time) = (Lsn(summary.redo.0 + size().bytes()), Timestamp(time));
        let pack = |number: u64| StoredObject {
            key: self.layout().pack(&id, number as u32, content.id(), true),
            size: 0,
            sha256: StoredHash::of(&number.to_le_bytes()),
        };
        summary.packs = (0..self.packs).map(pack).collect();
        // Who looks at summaries does not look at packs; all of many would be millions of files more.
        self.put(&summary.packs[0].key, &Metadata::new(), time);
        self.put(&summary.manifest.key, &Metadata::new(), time);
        summary.id = id;
        archive.put_summary(&summary).await.unwrap();
        self.set_time(&self.file(&self.layout().summary(&summary.id)), time);
    }
}

/// What one run took.
struct Took {
    time: Duration,
    memory: u64,
    said: String,
    status: Option<i32>,
}

fn measured(arguments: &[&str], config: &Path) -> Took {
    let program = std::env::var("WALPOINT_TEST_BINARY").unwrap_or(env!("CARGO_BIN_EXE_walpoint").to_owned());
    let output = config.with_extension("out");
    let file = std::fs::File::create(&output).unwrap();
    let begun = Instant::now();
    let mut child = Command::new(program)
        .arg("--config")
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(file.try_clone().unwrap())
        .stdout(file)
        .spawn()
        .unwrap();
    let mut memory = 0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        memory = memory.max(peak.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let said = std::fs::read_to_string(&output).unwrap();
    Took { time: begun.elapsed(), memory, said, status: status.code() }
}

#[test]
#[ignore = "makes two million files; scripts/scale runs it"]
fn every_command_that_looks_at_all_of_a_large_archive_is_quick_and_small() {
    let temporary = tempfile::tempdir().unwrap();
    let place = place(&temporary);
    let large = Large {
        root: place.join("archive"),
        backups: from_environment("WALPOINT_TEST_SCALE_BACKUPS", 10_000),
        packs: 1,
        segments: from_environment("WALPOINT_TEST_SCALE_SEGMENTS", 1_000_000),
        begin: ago(DAYS + 1),
    };
    let config = large.made(&place);
    let half = Lsn(large.segments / 2 * size().bytes() + 4096).to_string();
    // It marks, and then finds what is marked; what is ripe takes as long as its deletion.
    let policy = "--keep-last 100 --keep-window 30d --keep-daily 30 --keep-monthly 12";
    let commands = [
        ("list".to_owned(), 0),
        ("list --wal".to_owned(), 0),
        ("window".to_owned(), 0),
        ("plan --latest".to_owned(), 0),
        (format!("plan --target-lsn {half}"), 0),
        ("check".to_owned(), 2),
        (format!("expire {policy}"), 0),
        (format!("expire --apply {policy}"), 0),
        (format!("expire --apply {policy}"), 0),
    ];
    let bad = those_beyond(TIME_LIMIT, &commands, &config);
    // An archive that is kept is not to be older by what was tried on it.
    std::fs::remove_dir_all(large.root.join(SYSTEM.to_string()).join("expire")).unwrap();
    assert!(bad.is_empty(), "too slow, too large or wrong: {bad:#?}");
}

/// All lists of packs together would be 700 MB, and more than half of that in memory.
#[test]
#[ignore = "writes 700 MB; scripts/scale runs it"]
fn of_backups_of_a_large_cluster_few_lists_of_packs_are_in_memory_at_once() {
    let temporary = tempfile::tempdir().unwrap();
    let place = place(&temporary);
    let large = Large {
        root: place.join("archive-of-large-backups"),
        backups: 30,
        packs: from_environment("WALPOINT_TEST_SCALE_PACKS", 100_000),
        segments: 10_000,
        begin: ago(DAYS + 1),
    };
    let config = large.made(&place);
    let half = Lsn(large.segments / 2 * size().bytes() + 4096).to_string();
    let commands = [
        ("list".to_owned(), 0),
        ("window".to_owned(), 0),
        ("plan --latest".to_owned(), 0),
        (format!("plan --target-lsn {half}"), 0),
        ("check".to_owned(), 2),
        ("expire --keep-last 10".to_owned(), 0),
    ];
    // 700 MB are read and parsed: how long that takes is shown and not judged.
    let bad = those_beyond(Duration::MAX, &commands, &config);
    assert!(bad.is_empty(), "too large or wrong: {bad:#?}");
}

/// Where the archives are made.
fn place(temporary: &tempfile::TempDir) -> PathBuf {
    let kept = std::env::var_os("WALPOINT_TEST_SCALE_DIRECTORY").map(PathBuf::from);
    kept.unwrap_or_else(|| temporary.path().to_owned())
}

impl Large {
    /// Made, when it is not there yet; the configuration for it.
    fn made(&self, place: &Path) -> PathBuf {
        if !self.root.exists() {
            let begun = Instant::now();
            make(self);
            println!("made in {:?}", begun.elapsed());
        }
        let config = self.root.with_extension("toml");
        // Of a server that does not answer `check` knows the cluster all the same, and looks into its archive.
        let data = place.join("data");
        std::fs::create_dir_all(data.join("global")).unwrap();
        std::fs::write(data.join("global/pg_control"), stage::fixture("pg_control")).unwrap();
        let settings = format!(
            "[archive]\nurl = \"file://{}\"\n[postgres]\ndata_directory = \"{}\"\n",
            self.root.display(),
            data.display()
        );
        std::fs::write(&config, settings).unwrap();
        config
    }
}

/// Runs the commands, and says which of them took longer than that, or more memory than they may, or ended otherwise.
fn those_beyond(time_limit: Duration, commands: &[(String, i32)], config: &Path) -> Vec<String> {
    let mut bad = Vec::new();
    for (command, status) in commands {
        let arguments: Vec<&str> = command.split(' ').collect();
        let took = measured(&arguments, config);
        let mib = took.memory >> 20;
        println!("{command:<88} {:>8.2?} {mib:>5} MiB  status {:?}", took.time, took.status);
        if std::env::var_os("WALPOINT_TEST_SCALE_VERBOSE").is_some() {
            println!("{}", took.said.chars().take(600).collect::<String>());
        }
        if took.time > time_limit || took.memory > MEMORY_LIMIT || took.status != Some(*status) {
            bad.push(format!("{command}: {}", took.said.chars().take(300).collect::<String>()));
        }
    }
    bad
}

/// So many days before now.
#[expect(clippy::disallowed_methods, reason = "the archive is to be as old as it would be")]
fn ago(days: u64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64;
    Timestamp::from_unix_micros(now - days as i64 * 86_400_000_000).unwrap().0
}

#[tokio::main(flavor = "current_thread")]
async fn make(large: &Large) {
    std::fs::create_dir_all(&large.root).unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(DirStore::open(&large.root).await.unwrap());
    let archive =
        Archive::new(store, SYSTEM, Sealer::new(CompressionLevel::default(), Arc::new(KeyRing::default())));
    let cluster = Cluster {
        system_identifier: SYSTEM,
        segment_size: size(),
        block_size: 8192,
        wal_block_size: 8192,
        major: 15,
    };
    archive.ensure_cluster(&cluster).await.unwrap();
    large.make_wal();
    large.make_backups(&archive).await;
}
