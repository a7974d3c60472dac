//! Random targets within what a backup can reach.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use walpoint_tests::oracle::{Moment, Oracle, OracleTarget, TransactionEnd};
use walpoint_tests::wal_dump::format_lsn;

/// How far a time just off a commit is from it, in microseconds.
const OFF: i64 = 2;

/// Times on commits and just off them, LSNs of any record, xids of commits and
/// then of aborts too, restore points, a moment of the idle stretch; first
/// inclusive ones, then exclusive ones, and so on. All are behind the end of the
/// backup, by LSN and by time.
pub fn random(
    oracle: &Oracle,
    (first, first_time): (u64, Moment),
    count: usize,
    random: &mut StdRng,
) -> Vec<OracleTarget> {
    // A transaction takes its time before its record is written: one that ends behind the
    // backup can have a time before it, which cannot be told from one that is too early.
    let is_behind = |end: &&TransactionEnd| end.lsn > first && end.time > first_time.plus_micros(OFF);
    let ends: Vec<_> = oracle.ends().iter().filter(is_behind).collect();
    // The last ones stay out: a time after the last known commit cannot be
    // promised, whoever asks.
    let ends = &ends[..ends.len() - 5];
    let commits: Vec<_> = ends.iter().filter(|end| end.is_commit).collect();
    let records: Vec<u64> = oracle.record_lsns().iter().copied().filter(|lsn| *lsn > first).collect();
    let records = &records[..records.len() - 20];
    let points: Vec<_> = oracle.restore_points().iter().filter(|(lsn, _)| *lsn > first).collect();
    let mut targets = vec![OracleTarget::Latest];
    while targets.len() < count {
        let number = targets.len() - 1;
        let exclusive = number / 6 % 2 == 1;
        let end = ends.choose(random).unwrap();
        targets.push(match number % 6 {
            0 => OracleTarget::Time { at: end.time.plus_micros(random.random_range(-OFF..=OFF)), exclusive },
            1 if number < 12 => OracleTarget::Xid { xid: commits.choose(random).unwrap().xid, exclusive },
            1 => OracleTarget::Xid { xid: end.xid, exclusive },
            2 => OracleTarget::Lsn { lsn: *records.choose(random).unwrap(), exclusive },
            3 => OracleTarget::Time { at: end.time, exclusive },
            4 => OracleTarget::Name(points.choose(random).unwrap().1.clone()),
            _ => OracleTarget::Time { at: idle_moment(ends), exclusive },
        });
    }
    targets
}

/// The middle of the longest time without an end of a transaction.
fn idle_moment(ends: &[&TransactionEnd]) -> Moment {
    let pairs = ends.iter().zip(ends.iter().skip(1));
    let (before, after) = pairs.max_by_key(|(before, after)| after.time.0 - before.time.0).unwrap();
    before.time.plus_micros((after.time.0 - before.time.0) / 2)
}

/// As the command line takes it.
pub fn arguments(target: &OracleTarget) -> Vec<String> {
    let (flag, value, exclusive) = match target {
        OracleTarget::Latest => return vec!["--latest".into()],
        OracleTarget::Name(name) => return vec!["--target-name".into(), name.clone()],
        OracleTarget::Time { at, exclusive } => ("--target-time", at.to_string(), exclusive),
        OracleTarget::Lsn { lsn, exclusive } => ("--target-lsn", format_lsn(*lsn), exclusive),
        OracleTarget::Xid { xid, exclusive } => ("--target-xid", xid.to_string(), exclusive),
    };
    let mut arguments = vec![flag.to_owned(), value];
    if *exclusive {
        arguments.push("--exclusive".into());
    }
    arguments
}
