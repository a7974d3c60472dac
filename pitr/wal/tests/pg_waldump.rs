//! What is read from real WAL equals what PostgreSQL's own `pg_waldump` prints.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod postgres;

use std::collections::BTreeMap;

use postgres::Cluster;
use walpoint_wal::{
    Carry, Edge, Ending, Event, Lsn, Reader, ReaderStart, Record, SegmentName, SegmentSize, Start, Step,
    Survey, SurveyOf, Surveyor, TimelineHistory, TimelineId, Timestamp,
};

const RMGRS: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

/// One line of `pg_waldump`.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    rmid: u8,
    total_len: u32,
    xid: u32,
    lsn: Lsn,
    prev: Lsn,
    /// Of commits and aborts.
    time: Option<String>,
    desc: String,
}

fn parse_line(line: &str) -> Option<Line> {
    let rest = line.strip_prefix("rmgr: ")?;
    let (rmgr, rest) = rest.split_once(" len (rec/tot):")?;
    let rmid = RMGRS.iter().position(|name| *name == rmgr.trim()).expect(rmgr) as u8;
    let (lens, rest) = rest.split_once(", tx:")?;
    let total_len = lens.split_once('/')?.1.trim().parse().unwrap();
    let (xid, rest) = rest.split_once(", lsn:")?;
    let (lsn, rest) = rest.split_once(", prev ")?;
    let (prev, desc) = rest.split_once(", desc: ")?;
    let (xid, lsn, prev) = (xid.trim().parse().unwrap(), lsn.trim().parse().unwrap(), prev.parse().unwrap());
    let ends = rmid == 1 && (desc.starts_with("COMMIT") || desc.starts_with("ABORT"));
    let time = if ends { Some(time_in(desc)) } else { None };
    Some(Line { rmid, total_len, xid, lsn, prev, time, desc: desc.to_owned() })
}

/// `COMMIT 2026-11-21 00:17:00.123456 UTC…`, `COMMIT_PREPARED 741: 2026-…`.
fn time_in(desc: &str) -> String {
    let words: Vec<&str> = desc.split_whitespace().collect();
    let date = words.iter().position(|word| word.len() == 10 && word.as_bytes()[4] == b'-').unwrap();
    format!("{} {}+00", words[date], words[date + 1])
}

fn waldump(cluster: &Cluster, first: SegmentName, last: SegmentName) -> Vec<Line> {
    let mut command = cluster.program("pg_waldump");
    command.arg("-p").arg(cluster.archive()).arg(first.to_string()).arg(last.to_string());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(parse_line).collect()
}

fn read_all(segments: &[(SegmentName, Vec<u8>)], size: SegmentSize, all_bodies: bool) -> Vec<Record> {
    let start = ReaderStart { size, system_identifier: None, carry: None, at: Start::SegmentStart };
    let mut reader = Reader::new(start);
    if all_bodies {
        reader = reader.keeping_all_bodies();
    }
    let mut records = Vec::new();
    let mut segments = segments.iter();
    loop {
        match reader.next().unwrap() {
            Step::Record(record) => records.push(record),
            Step::NeedSegment(_) => match segments.next() {
                Some((name, bytes)) => reader.feed(*name, bytes.clone()).unwrap(),
                None => return records,
            },
            Step::EndOfWal { at } => panic!("WAL of archived segments ends at {at}"),
        }
    }
}

fn survey_all(segments: &[(SegmentName, Vec<u8>)]) -> Vec<Survey> {
    let mut carry = Carry::Unknown;
    let mut surveys = Vec::new();
    for (name, bytes) in segments {
        let of =
            SurveyOf { name: *name, partial: false, file_size: bytes.len() as u64, expected: None, carry };
        let mut surveyor = Surveyor::new(of);
        bytes.chunks(100_003).for_each(|chunk| surveyor.feed(chunk));
        let survey = surveyor.finish().unwrap();
        carry = survey.carry_out.clone().map_or(Carry::Unknown, Carry::Known);
        surveys.push(survey);
    }
    surveys
}

/// Every kind of record that we look into, and sizes that cross pages and segments.
const WORKLOAD: &str = "
CREATE TABLE t (i int, x text);
INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 5000) i;
BEGIN; INSERT INTO t VALUES (1, 'rolled back'); ROLLBACK;
BEGIN; INSERT INTO t VALUES (2, 'a'); SAVEPOINT s; INSERT INTO t VALUES (3, 'b'); ROLLBACK TO s;
SAVEPOINT s2; INSERT INTO t VALUES (4, 'c'); RELEASE s2; COMMIT;
BEGIN; INSERT INTO t VALUES (5, 'p'); SAVEPOINT s; INSERT INTO t VALUES (6, 'p'); PREPARE TRANSACTION 'first';
BEGIN; INSERT INTO t VALUES (7, 'p'); PREPARE TRANSACTION 'second';
COMMIT PREPARED 'first';
ROLLBACK PREPARED 'second';
SELECT pg_create_restore_point('before the big ones');
SELECT pg_switch_wal();
BEGIN; INSERT INTO t VALUES (8, 'm'); SELECT length(pg_logical_emit_message(true, 'big', repeat('y', 5000000))::text); COMMIT;
SELECT length(pg_logical_emit_message(false, 'big', repeat('z', 5000000))::text);
DO $$ BEGIN FOR i IN 1..6000 LOOP BEGIN INSERT INTO t VALUES (i, 'sub'); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$;
DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE u%s (i int primary key, x text)', i); END LOOP; END $$;
CHECKPOINT;
SET wal_compression = on;
UPDATE t SET x = x || 'z';
BEGIN; SELECT 1; DROP TABLE t; COMMIT;
BEGIN; CREATE TABLE v (i serial primary key, x text); DROP TABLE u1, u2, u3; ROLLBACK;
BEGIN; DROP TABLE u4, u5; PREPARE TRANSACTION 'drops';
COMMIT PREPARED 'drops';
SELECT pg_create_restore_point('after the big ones');
CREATE DATABASE copied;
";

fn busy_cluster() -> Option<Cluster> {
    let bin = postgres::programs()?;
    let settings = "wal_level = logical\nmax_prepared_transactions = 5\nmax_connections = 30\n\
                    max_wal_size = 64MB\nmin_wal_size = 8MB\n";
    let cluster = Cluster::create(&bin, &["--wal-segsize=1", "-k"], settings);
    cluster.start();
    cluster.sql(WORKLOAD);
    if cluster.major() >= 15 {
        cluster.sql("CREATE DATABASE copied_files STRATEGY file_copy");
    }
    compress_images(&cluster);
    cluster.pgbench(&["-i", "-q", "-s", "1"]);
    cluster.pgbench(&["-c", "4", "-j", "2", "-T", "2"]);
    cluster.stop("fast");
    cluster.configure("max_connections = 40");
    cluster.start();
    cluster.sql("SELECT pg_create_restore_point('last'); SELECT pg_switch_wal();");
    cluster.stop("fast");
    Some(cluster)
}

/// How this server can compress full-page images; until 14 there is one way, without a name.
fn compressions(cluster: &Cluster) -> &'static [&'static str] {
    if cluster.major() >= 15 { &["pglz", "lz4", "zstd"] } else { &["on"] }
}

/// Right after a checkpoint every page that is touched comes with its image.
fn compress_images(cluster: &Cluster) {
    cluster.sql("CREATE TABLE images AS SELECT i, repeat('image', 40) AS x FROM generate_series(1, 2000) i");
    for compression in compressions(cluster) {
        cluster
            .sql(&format!("CHECKPOINT; SET wal_compression = {compression}; UPDATE images SET i = i + 1;"));
    }
}

/// Says `pg_waldump`, so that nobody compares records without them.
fn every_compression_is_there(cluster: &Cluster, first: SegmentName, last: SegmentName) {
    let mut command = cluster.program("pg_waldump");
    command
        .arg("--bkp-details")
        .arg("-p")
        .arg(cluster.archive())
        .arg(first.to_string())
        .arg(last.to_string());
    let text = String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned();
    for compression in compressions(cluster) {
        let words = match *compression {
            "on" => "compression saved: ".to_owned(),
            method => format!("method: {method}"),
        };
        assert!(text.lines().any(|line| line.contains(&words)), "no image with {compression}");
    }
}

#[test]
fn every_record_equals_what_pg_waldump_prints() {
    let Some(cluster) = busy_cluster() else { return };
    let segments = cluster.segments();
    let size = SegmentSize::new(1 << 20).unwrap();
    let lines = waldump(&cluster, segments[0].0, segments[segments.len() - 1].0);
    every_compression_is_there(&cluster, segments[0].0, segments[segments.len() - 1].0);
    let records = read_all(&segments, size, false);
    compare_records(&records, &lines);
    compare_times(&records, &lines);
    the_workload_is_all_there(&records);
    every_body_is_understood(&segments, size, &records);
    surveys_equal_brute_force(&segments, size, &records, &lines);
    eprintln!("{} records in {} segments", records.len(), segments.len());
}

fn compare_records(records: &[Record], lines: &[Line]) {
    assert!(lines.len() > 20_000, "only {} records", lines.len());
    for (record, line) in records.iter().zip(lines) {
        let ours = (record.lsn, record.prev, record.total_len, record.rmid, record.xid);
        assert_eq!(ours, (line.lsn, line.prev, line.total_len, line.rmid, line.xid), "{line:?}");
    }
    assert_eq!(records.len(), lines.len());
    assert!(records.windows(2).all(|pair| pair[0].end.0 <= pair[1].lsn.0 && pair[0].lsn == pair[1].prev));
}

fn compare_times(records: &[Record], lines: &[Line]) {
    let mut compared = 0;
    for (record, line) in records.iter().zip(lines) {
        let event = record.event().unwrap();
        let ended = event.as_ref().and_then(Event::ends_transaction);
        let time = ended.map(|(_, time, _)| time.to_string());
        assert_eq!(time, line.time, "{line:?}");
        let Some((xid, _, commit)) = ended else { continue };
        compared += 1;
        assert_eq!(commit, line.desc.starts_with("COMMIT"));
        if let Some(prepared) = line.desc.split_once("_PREPARED ").and_then(|(_, rest)| rest.split_once(':'))
        {
            assert_eq!(xid.to_string(), prepared.0);
        } else {
            assert_eq!(xid, line.xid);
        }
        if let Some(Event::Commit { subxids, .. } | Event::Abort { subxids, .. }) = event {
            assert_eq!(subxids, subxids_in(&line.desc), "{line:?}");
        }
    }
    assert!(compared > 500, "only {compared} commits and aborts");
}

/// `…; subxacts: 741 742; …`
fn subxids_in(desc: &str) -> Vec<u32> {
    let list = desc.split_once("; subxacts:").map_or("", |(_, list)| list.split(';').next().unwrap());
    list.split_whitespace().map(|xid| xid.parse().unwrap()).collect()
}

fn the_workload_is_all_there(records: &[Record]) {
    let events: Vec<Event> = records.iter().filter_map(|record| record.event().unwrap()).collect();
    let has = |wanted: &dyn Fn(&Event) -> bool| assert!(events.iter().any(wanted));
    has(&|event| matches!(event, Event::Commit { subxids, .. } if subxids.len() == 6000));
    has(&|event| matches!(event, Event::Commit { prepared: true, subxids, .. } if subxids.len() == 1));
    has(&|event| matches!(event, Event::Abort { prepared: true, .. }));
    has(&|event| matches!(event, Event::Abort { prepared: false, .. }));
    has(
        &|event| matches!(event, Event::Prepare { gid: Some(gid), subxids, .. } if gid == "first" && subxids.len() == 1),
    );
    has(&|event| matches!(event, Event::Prepare { gid: Some(gid), .. } if gid == "drops"));
    has(&|event| matches!(event, Event::RestorePoint { name, .. } if name == "before the big ones"));
    has(
        &|event| matches!(event, Event::ParameterChange(change) if change.max_connections == 40 && change.wal_level == 2),
    );
    has(&|event| matches!(event, Event::Checkpoint { shutdown: true, .. }));
    has(&|event| matches!(event, Event::Checkpoint { shutdown: false, time: Some(_), .. }));
    has(&|event| matches!(event, Event::FileCopy));
    has(&|event| matches!(event, Event::Switch));
}

/// Block headers too, compressed images among them, add up in every record.
fn every_body_is_understood(segments: &[(SegmentName, Vec<u8>)], size: SegmentSize, records: &[Record]) {
    let whole = read_all(segments, size, true);
    assert_eq!(whole.len(), records.len());
    for record in &whole {
        assert_eq!(record.bytes.len(), record.total_len as usize);
        record.main_data().unwrap_or_else(|error| panic!("{error}: {record:?}"));
    }
    assert!(whole.iter().any(|record| record.total_len > 5_000_000));
}

fn surveys_equal_brute_force(
    segments: &[(SegmentName, Vec<u8>)],
    size: SegmentSize,
    records: &[Record],
    lines: &[Line],
) {
    let surveys = survey_all(segments);
    let mut by_segment: BTreeMap<u64, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_segment.entry((record.end.0 - 1) / size.bytes()).or_default().push(record);
    }
    for (index, survey) in surveys.iter().enumerate() {
        let number = survey.name.number(size).unwrap();
        let ended = by_segment.get(&number).map_or(&[][..], |records| records);
        compare_survey(survey, ended);
        let started: Vec<Lsn> = records
            .iter()
            .map(|record| record.lsn)
            .filter(|lsn| lsn.segment_number(size) == number)
            .collect();
        assert_eq!(survey.first_record, started.first().copied());
        assert_eq!(
            survey.last_start,
            started.last().copied().or_else(|| survey.last_start.filter(|_| index + 1 == surveys.len()))
        );
        assert_eq!(matches!(survey.edge, Edge::Unchecked { .. }), index == 0 && survey.edge != Edge::Clean);
        assert_eq!(survey.carry_out.is_some(), !(survey.first_record.is_none() && index == 0));
    }
    assert!(surveys.iter().any(|survey| survey.first_record.is_none()), "no record spans a whole segment");
    assert!(surveys.iter().any(|survey| survey.edge == Edge::Checked));
    assert!(surveys.iter().any(|survey| matches!(survey.ending, Ending::Switched { .. })));
    assert!(surveys.iter().any(|survey| survey.file_copy));
    let dumped = |what: &str| lines.iter().filter(|line| line.desc.starts_with(what)).count() as u64;
    let prepares: u64 = surveys.iter().map(|survey| survey.prepares).sum();
    let changes: u64 = surveys.iter().map(|survey| survey.parameter_changes).sum();
    assert_eq!((prepares, changes), (dumped("PREPARE "), dumped("PARAMETER_CHANGE ")));
    assert!(prepares >= 3 && changes >= 1, "{prepares} {changes}");
}

fn compare_survey(survey: &Survey, records: &[&Record]) {
    let events: Vec<Event> = records.iter().filter_map(|record| record.event().unwrap()).collect();
    let ended: Vec<(u32, Timestamp, bool)> = events.iter().filter_map(Event::ends_transaction).collect();
    let times: Vec<Timestamp> = ended.iter().map(|(_, time, _)| *time).collect();
    assert_eq!(survey.times, times.iter().min().copied().zip(times.iter().max().copied()));
    assert_eq!((survey.first_time, survey.last_time), (times.first().copied(), times.last().copied()));
    assert_eq!(survey.known_time, events.iter().filter_map(Event::time).max());
    assert_eq!(survey.commits, ended.iter().filter(|(_, _, commit)| *commit).count() as u64);
    assert_eq!(survey.aborts, ended.iter().filter(|(_, _, commit)| !commit).count() as u64);
    let count = |wanted: &dyn Fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count() as u64;
    assert_eq!(survey.prepares, count(&|event| matches!(event, Event::Prepare { .. })));
    assert_eq!(survey.parameter_changes, count(&|event| matches!(event, Event::ParameterChange(_))));
    assert_eq!(survey.last_complete, records.last().map(|record| record.lsn));
    assert!(matches!(survey.ending, Ending::Full | Ending::Switched { .. }), "{:?}", survey.ending);
    let names: Vec<&str> = survey.restore_points.iter().map(|point| point.name.as_str()).collect();
    let expected: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            Event::RestorePoint { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn a_promoted_cluster_goes_on_where_its_parent_stopped() {
    let Some(bin) = postgres::programs() else { return };
    let cluster = Cluster::create(&bin, &["--wal-segsize=1"], "");
    cluster.start();
    cluster.sql("CREATE TABLE t AS SELECT i FROM generate_series(1, 30000) i;");
    cluster.stop("fast");
    cluster.configure(&format!("restore_command = 'cp {}/%f %p'", cluster.archive().display()));
    cluster.touch("recovery.signal");
    cluster.start();
    while cluster.sql("SELECT pg_is_in_recovery()").trim() == "t" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    cluster.sql("INSERT INTO t SELECT i FROM generate_series(1, 30000) i; SELECT pg_switch_wal();");
    cluster.stop("fast");

    let history = std::fs::read(cluster.archive().join("00000002.history")).unwrap();
    let child = TimelineId::new(2).unwrap();
    let fork = TimelineHistory::parse(child, &history).unwrap().fork_from(TimelineId::FIRST).unwrap();
    let size = SegmentSize::new(1 << 20).unwrap();
    the_partial_reaches_to_the_fork(&cluster, SegmentName::containing(TimelineId::FIRST, fork, size), fork);

    let segments = cluster.segments();
    let (parents, children): (Vec<_>, Vec<_>) =
        segments.iter().cloned().partition(|(name, _)| name.timeline == TimelineId::FIRST);
    let before =
        parents.into_iter().filter(|(name, _)| name.next(size).unwrap().start(size).unwrap() <= fork);
    let path: Vec<_> = before.chain(children.clone()).collect();
    let records = read_all(&path, size, false);
    let begins = records.iter().find(|record| record.lsn >= fork).unwrap();
    let event = begins.event().unwrap();
    let switches = matches!(event, Some(Event::EndOfRecovery { timeline, previous_timeline, .. }
        | Event::Checkpoint { shutdown: true, timeline, previous_timeline, .. })
        if timeline == child && previous_timeline == TimelineId::FIRST);
    assert!(switches, "{event:?}");
    let surveys = survey_all(&path);
    let first = surveys.iter().find(|survey| survey.name.timeline == child).unwrap();
    assert_eq!(first.first_page_timeline, TimelineId::FIRST);
    assert!(surveys.iter().all(|survey| matches!(survey.ending, Ending::Full | Ending::Switched { .. })));
    let lines = waldump(&cluster, children[0].0, children[children.len() - 1].0);
    let ours: Vec<Lsn> = records.iter().map(|record| record.lsn).filter(|lsn| *lsn >= lines[0].lsn).collect();
    assert_eq!(ours, lines.iter().map(|line| line.lsn).collect::<Vec<_>>());
}

fn the_partial_reaches_to_the_fork(cluster: &Cluster, name: SegmentName, fork: Lsn) {
    let bytes = std::fs::read(cluster.archive().join(format!("{name}.partial"))).unwrap();
    let file_size = bytes.len() as u64;
    let of = SurveyOf { name, partial: true, file_size, expected: None, carry: Carry::Unknown };
    let mut surveyor = Surveyor::new(of);
    surveyor.feed(&bytes);
    let survey = surveyor.finish().unwrap();
    assert_eq!((survey.ending, survey.end), (Ending::Open { at: fork }, fork));
}
