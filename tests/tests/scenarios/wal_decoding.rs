//! Real WAL of every supported major: every checksum and every link to the
//! record before holds, and every commit that the server acknowledged is seen.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use walpoint_tests::cluster::{Cluster, ClusterOptions, Stop};
use walpoint_tests::ledger::Ledger;
use walpoint_tests::programs::{self, Postgres};
use walpoint_wal::{Event, Reader, ReaderStart, SegmentName, SegmentSize, Start, Step};

#[test]
fn every_record_of_every_major_is_sound_and_every_commit_is_seen() -> Result<()> {
    for major in programs::MAJORS {
        let Some(postgres) = programs::postgres(major)? else { continue };
        read_everything(&postgres).with_context(|| format!("PostgreSQL {major}"))?;
    }
    Ok(())
}

fn read_everything(postgres: &Postgres) -> Result<()> {
    let options =
        ClusterOptions { configuration: "wal_keep_size = '4GB'".into(), ..ClusterOptions::default() };
    let mut cluster = Cluster::init(postgres, options)?;
    cluster.start()?;
    let ledger = Ledger::start(&cluster, 3, u64::from(postgres.major))?;
    ledger.wait_for_commits(150, Duration::from_secs(60))?;
    // A record that spans whole segments, checkpoints, a switch, a database
    // made from a template.
    cluster.execute("select pg_logical_emit_message(false, 'big', repeat('x', 5000000))")?;
    cluster.execute("create database copied")?;
    cluster.execute("checkpoint; select pg_create_restore_point('here'); select pg_switch_wal()")?;
    ledger.wait_for_commits(50, Duration::from_secs(60))?;
    let notes = ledger.finish()?;
    let open: SegmentName = cluster.value("select pg_walfile_name(pg_current_wal_insert_lsn())")?.parse()?;
    cluster.stop(Stop::Fast)?;

    let read = read(&cluster.data().join("pg_wal"), open)?;
    let acknowledged: BTreeSet<u32> = notes.acknowledged_xids().into_iter().collect();
    let unseen: Vec<&u32> = acknowledged.difference(&read.committed).collect();
    assert!(unseen.is_empty(), "acknowledged commits that were not read: {unseen:?}");
    assert!(read.restore_points.contains(&"here".to_owned()), "{:?}", read.restore_points);
    println!("PostgreSQL {}: {} records in {} segments", postgres.major, read.records, read.segments);
    assert!(read.records > 1000 && read.segments > 5);
    Ok(())
}

#[derive(Default)]
struct Read {
    records: u64,
    segments: usize,
    committed: BTreeSet<u32>,
    restore_points: Vec<String>,
}

/// Feeds every segment from the first one on until WAL ends, from `open` on as
/// segments that are not full; an error of the reader is damage, and there is
/// none.
fn read(directory: &Path, open: SegmentName) -> Result<Read> {
    let size = SegmentSize::new(1 << 20)?;
    let mut reader =
        Reader::new(ReaderStart { size, system_identifier: None, carry: None, at: Start::SegmentStart });
    let mut names = segment_names(directory)?.into_iter();
    let mut read = Read::default();
    loop {
        match reader.next()? {
            Step::EndOfWal { .. } => return Ok(read),
            Step::NeedSegment(_) => {
                let Some(name) = names.next() else { return Ok(read) };
                let bytes = std::fs::read(directory.join(name.to_string()))?;
                if name < open {
                    reader.feed(name, bytes)?;
                } else {
                    reader.feed_open(name, bytes)?;
                }
                read.segments += 1;
            }
            Step::Record(record) => {
                read.records += 1;
                match record.event()? {
                    Some(Event::Commit { xid, .. }) => drop(read.committed.insert(xid)),
                    Some(Event::RestorePoint { name, .. }) => read.restore_points.push(name),
                    _ => {}
                }
            }
        }
        if read.records > 10_000_000 {
            bail!("the reader does not come to an end");
        }
    }
}

fn segment_names(directory: &Path) -> Result<Vec<SegmentName>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        if let Ok(name) = entry?.file_name().to_string_lossy().parse() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
