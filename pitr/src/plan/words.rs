//! What planning says to people, in one place: reasons are one sentence without a full
//! stop, hints are the next step.

use walpoint_archive::BackupHead;
use walpoint_wal::{Lsn, SegmentName, TimelineId, Timestamp};

use super::replay::Raised;
use super::{Candidate, Moment, Nearest};
use crate::coverage::{Gap, WhyGap};
use crate::locate::{ChainEnd, EventAt};
use crate::path::{NoPath, Rival};

pub(crate) fn before_all_wal(target: Timestamp) -> String {
    format!("{target} lies before the WAL that the archive has on this timeline")
}

pub(crate) fn after_all_known(target: Timestamp, known: Option<Timestamp>) -> String {
    let known = match known {
        Some(known) => format!("the last time that the archive's WAL shows, {known}"),
        None => "the end of the archive's WAL, which shows no time".to_owned(),
    };
    format!("{target} lies after {known}: the archive cannot tell whether anything was committed after it")
}

pub(crate) fn try_latest() -> String {
    "recover everything that the archive has with --latest, or archive the WAL that is missing and plan again"
        .to_owned()
}

pub(crate) fn time_in_break(target: Timestamp, known: Option<Timestamp>, reason: &str) -> String {
    let known = known.map(|known| format!(" ({known})")).unwrap_or_default();
    format!("{target} lies behind the last time{known} before a break in the WAL: {reason}")
}

pub(crate) fn two_readings(
    target: Timestamp,
    first: &EventAt,
    step: &EventAt,
    second: Option<&EventAt>,
) -> String {
    let second = match second {
        Some(second) => format!("before the {}", end_of_transaction(second)),
        None => "to the end of the WAL".to_owned(),
    };
    let back = step.event.time().map(|time| format!(" to {time}")).unwrap_or_default();
    format!(
        "{target} came twice, because the clock was set back{back} at {}: \
         it can mean everything before the {}, or everything {second}",
        step.spot.lsn,
        end_of_transaction(first),
    )
}

pub(crate) fn choose_reading(first: &EventAt, second: Option<&EventAt>) -> String {
    let other = match second {
        Some(second) => format!("--target-lsn {} --exclusive", second.spot.lsn),
        None => "--latest".to_owned(),
    };
    format!("choose one: --target-lsn {} --exclusive, or {other}", first.spot.lsn)
}

fn end_of_transaction(event: &EventAt) -> String {
    match event.event.ends_transaction() {
        Some((xid, time, committed)) => {
            let what = if committed { "commit" } else { "rollback" };
            format!("{what} of transaction {xid} at {} ({time})", event.spot.lsn)
        }
        None => format!("record at {}", event.spot.lsn),
    }
}

pub(crate) fn no_record_before(lsn: Lsn) -> String {
    format!("no record before {lsn} is in the archive without a break in between")
}

pub(crate) fn no_wal() -> String {
    "the archive has no WAL that can be read on this timeline".to_owned()
}

pub(crate) fn lsn_beyond(lsn: Lsn) -> String {
    format!("{lsn} lies behind the end of the WAL that the archive has on this timeline")
}

pub(crate) fn lsn_before_all(lsn: Lsn) -> String {
    format!("{lsn} lies before the WAL that the archive has on this timeline")
}

pub(crate) fn lsn_in_break(lsn: Lsn, reason: &str) -> String {
    format!("{lsn} lies behind a break in the WAL: {reason}")
}

pub(crate) fn latest_in_break(reason: &str) -> String {
    format!("the end of the WAL lies behind a break in it: {reason}")
}

pub(crate) fn no_such_transaction(xid: u64) -> String {
    format!("no commit or rollback of transaction {xid} is in the archive's WAL on this timeline")
}

pub(crate) fn only_looked_at(timeline: TimelineId) -> String {
    format!(
        "timeline {timeline} and its ancestors were looked at; name another with --target-timeline, \
         \"walpoint window\" shows them"
    )
}

pub(crate) fn several_transactions(xid: u64, count: usize) -> String {
    format!("transaction {xid} ends {count} times in the archive's WAL on this timeline")
}

pub(crate) fn no_such_point(name: &str) -> String {
    format!("no restore point \"{name}\" is in the archive's WAL on this timeline")
}

pub(crate) fn several_points(name: &str, count: usize) -> String {
    format!("there are {count} restore points \"{name}\" in the archive's WAL on this timeline")
}

pub(crate) fn choose_candidate(candidates: &[Candidate]) -> String {
    let lsns: Vec<_> = candidates.iter().take(10).map(|it| format!("--target-lsn {}", it.lsn)).collect();
    format!("choose one: {}", lsns.join(" or "))
}

pub(crate) fn no_backup_with_its_wal() -> String {
    "no base backup on this timeline has all the WAL from its beginning to its end in the archive".to_owned()
}

/// Why WAL by these names cannot be had, and what to do.
pub(crate) fn gap(gap: &Gap) -> (String, Option<String>) {
    let names = if gap.first == gap.last {
        format!("segment {} is", gap.first)
    } else {
        format!("segments {} to {} are", gap.first, gap.last)
    };
    match &gap.why {
        WhyGap::Missing => (format!("{names} not in the archive"), Some(push_what_is_left())),
        WhyGap::OnlyPartial => {
            let what = "in the archive only as .partial, which PostgreSQL does not read, and no later timeline has a copy";
            (format!("{names} {what}"), Some(push_what_is_left()))
        }
        WhyGap::Ambiguous(contents) => {
            let hint = format!("decide which one is right: walpoint resolve {} --keep CONTENT_ID", gap.first);
            (format!("{names} in the archive with {} different contents", contents.len()), Some(hint))
        }
        WhyGap::OnlyBeginning(to) => (
            format!("of segment {} only the beginning is in the archive, up to {to}", gap.first),
            Some(push_what_is_left()),
        ),
        WhyGap::Illegible(why) => (
            format!("{names} in the archive and cannot be read: {why}"),
            Some("if the store keeps versions or replicas, put an intact copy in its place".to_owned()),
        ),
    }
}

fn push_what_is_left() -> String {
    "if a server still has it in pg_wal, push it from there: walpoint archive-push pg_wal/SEGMENT".to_owned()
}

fn only_before_or_a_later_backup() -> String {
    "what lies before it, or behind the next backup, can be reached: walpoint window shows it".to_owned()
}

/// Why WAL that is there cannot be replayed on from here, and what to do.
pub(crate) fn chain_end(end: &ChainEnd) -> (String, Option<String>) {
    match end {
        ChainEnd::Names => ("the WAL ends".to_owned(), None),
        ChainEnd::Damaged { name, at } => {
            (format!("segment {name} is damaged at {at}"), Some(only_before_or_a_later_backup()))
        }
        ChainEnd::Open { name, at } => (
            format!("segment {name} ends at {at} although WAL goes on after it"),
            Some(only_before_or_a_later_backup()),
        ),
        ChainEnd::Unlinked { name, reason } => (
            format!("segment {name} does not continue the one before it: {reason}"),
            Some(format!(
                "whose it is shows walpoint list --wal {name}; {}",
                only_before_or_a_later_backup()
            )),
        ),
        ChainEnd::Sealed { name } => (continues_unknown(*name), None),
        ChainEnd::UnknownVersion { name } => (
            format!("segment {name} was written by a PostgreSQL version that this walpoint does not know"),
            Some("use a later walpoint".to_owned()),
        ),
    }
}

pub(crate) fn continues_unknown(name: SegmentName) -> String {
    format!(
        "whether segment {name} continues the one before it shows only in its content, which is encrypted"
    )
}

pub(crate) fn record_unknown(lsn: Lsn) -> String {
    format!("whether a whole record begins at or after {lsn} shows only in the content of the WAL")
}

pub(crate) fn end_unknown() -> String {
    "where the last whole record ends shows only in the content of the WAL".to_owned()
}

pub(crate) fn exact_record_asked_for() -> String {
    "which record it means shows only in the content of the WAL".to_owned()
}

pub(crate) fn near_backup_or_fork() -> String {
    "which backup or timeline serves depends on the exact record, which shows only in the content of the WAL"
        .to_owned()
}

pub(crate) fn settings_unseen() -> String {
    "settings were changed on the way, and without the key it is not seen to what: where wal_level was minimal, \
     recovery does not get past"
        .to_owned()
}

pub(crate) fn to_the_segment() -> String {
    "planned without the key: to the segment, not to the record; restore needs the identity".to_owned()
}

pub(crate) fn no_path(why: &NoPath) -> (String, Option<String>) {
    match why {
        NoPath::Unknown(timeline) => (format!("the archive knows no timeline {timeline}"), None),
        NoPath::NoHistory(timeline) => (
            format!("the history of timeline {timeline} is not in the archive"),
            Some(format!(
                "push it from a server that has it: walpoint archive-push pg_wal/{}.history",
                timeline.hex8()
            )),
        ),
        NoPath::HistoryConflict(timeline) => (
            format!("the archive has different histories of timeline {timeline}"),
            Some(format!(
                "decide which one is right: walpoint resolve {}.history --keep CONTENT_ID; \
                 or name another timeline with --target-timeline",
                timeline.hex8()
            )),
        ),
        NoPath::NoBackup(None) => (
            "the archive has no complete base backup".to_owned(),
            Some("take one: walpoint backup".to_owned()),
        ),
        NoPath::NoBackup(Some(timeline)) => (
            format!("no base backup lies on the way to timeline {timeline}"),
            Some("show what can be reached: walpoint window".to_owned()),
        ),
    }
}

pub(crate) fn before_first_backup(first: &BackupHead) -> String {
    let (id, stop) = (&first.id, first.stop);
    format!(
        "it lies before the end of the first base backup that could serve, {id}, which ended at {} ({})",
        stop.lsn, stop.time
    )
}

pub(crate) fn no_backup_in_chain(break_before: &str) -> String {
    format!(
        "no base backup can be replayed to it: every one that ended before it lies before a break in the WAL: {break_before}"
    )
}

pub(crate) fn no_backup_on_path() -> String {
    "no base backup on the way to it ended before it".to_owned()
}

pub(crate) fn ends_at_fork(newest: TimelineId, fork: Lsn) -> String {
    format!("timeline {newest} has no WAL of its own in the archive: its end is where it begins, at {fork}")
}

pub(crate) fn from_tail(segment: SegmentName) -> String {
    format!(
        "segment {segment} is not in the archive as a whole: it comes from what was shipped of it while it was being written"
    )
}

pub(crate) fn handed_child(record: TimelineId, handed: TimelineId, segment: &str) -> String {
    format!(
        "the last record is on timeline {record}, whose own segment is not in the archive with that record; \
         timeline {handed} has a copy in {segment} and is named to PostgreSQL"
    )
}

pub(crate) fn without_history(timeline: TimelineId) -> String {
    format!(
        "timeline {timeline} is in the archive without its history file, so it cannot be recovered and was not considered"
    )
}

pub(crate) fn raised_setting(raised: &Raised) -> String {
    let Raised { setting, backup, primary } = raised;
    format!(
        "{setting} was raised from {backup} to {primary} after the backup: recovery stops there unless the \
         restored server is set to at least {primary}"
    )
}

pub(crate) fn minimal_wal(at: Lsn) -> String {
    format!(
        "the server ran with wal_level = minimal from {at} on, and PostgreSQL does not recover past that; only a \
         backup taken since can be recovered"
    )
}

pub(crate) fn left_out(chosen: TimelineId, rival: Rival) -> String {
    let Rival { timeline, fork } = rival;
    format!(
        "timeline {timeline} goes on behind {fork}, where timeline {chosen} forks off, and what it wrote there is \
         left out: recover that with --target-timeline {timeline}"
    )
}

pub(crate) fn damaged_pages(count: u64) -> String {
    format!("the backup holds {count} pages that were damaged on disk when it was taken")
}

pub(crate) fn read_from(lsn: Lsn) -> String {
    format!("prepared transactions and changed settings were looked for from {lsn} on, not in all of the WAL")
}

pub(crate) fn prepared_at_fork(fork: Lsn) -> String {
    format!(
        "PostgreSQL cannot replay over the fork at {fork} when a transaction that was prepared in that segment is \
         still open there; when it ends with \"has already been removed\", set hot_standby = off and start it again"
    )
}

pub(crate) fn prepared_before(backup: &BackupHead) -> String {
    format!(
        "transactions that were prepared before {} and neither committed nor rolled back by the target \
         stay open too; they are in the backup and not listed here",
        backup.redo
    )
}

pub(crate) fn tablespaces(count: u64) -> String {
    let what = if count == 1 { "1 tablespace".to_owned() } else { format!("{count} tablespaces") };
    format!("the backup has {what} outside the data directory; see --tablespace")
}

pub(crate) fn instead(nearest: &Nearest) -> Option<String> {
    let moment = |moment: Moment| match moment.time {
        Some(time) => format!("--target-lsn {} ({time})", moment.lsn),
        None => format!("--target-lsn {}", moment.lsn),
    };
    let said = match (nearest.before.map(moment), nearest.after.map(moment)) {
        (Some(before), Some(after)) => {
            format!("the nearest that can be reached: {before} before it, {after} after it")
        }
        (Some(before), None) => format!("the nearest that can be reached: {before}"),
        (None, Some(after)) => format!("the first that can be reached: {after}"),
        (None, None) => return None,
    };
    Some(said)
}
