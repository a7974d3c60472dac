//! What the metadata of a segment's object says: enough to plan a recovery to
//! a segment without reading, and without a key for, any content.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use walpoint_wal::{Edge, Ending, Lsn, RestorePoint, Survey, TimelineId, Timestamp};

use crate::facts::{Common, FactsError, optional, put, required, time_text, unreadable};
use crate::run_facts::RunFacts;
use crate::store::{Metadata, MetadataError};

/// Most restore points that are listed; of more only the number is kept.
pub const MAX_LISTED_POINTS: usize = 8;

/// Most bytes of metadata written. A little below what a store takes, to leave
/// room for a signature.
pub const MAX_METADATA_BYTES: usize = 1400;

/// What is known of a segment, or of a partial one.
#[derive(Clone, PartialEq, Debug)]
pub struct WalFacts {
    /// What all objects have.
    pub common: Common,
    /// The timeline in its name.
    pub timeline: TimelineId,
    /// False when the page magic is unknown (a newer PostgreSQL): then nothing
    /// below is known but the start and the end of the file.
    pub validated: bool,
    /// Page magic of the first page.
    pub page_magic: Option<u16>,
    /// Address of the first byte.
    pub start: Lsn,
    /// How far the WAL in it reaches: the end of the segment or, when it is open or
    /// damaged, the end of the last complete record.
    pub end: Lsn,
    /// The first record that starts here.
    pub first_record: Option<Lsn>,
    /// What that record says of the start of the record before it.
    pub first_prev: Option<Lsn>,
    /// The last record that starts here, whole or not.
    pub last_start: Option<Lsn>,
    /// How the WAL in it ends.
    pub ending: WalEnding,
    /// False when a record spans in whose beginning was not at hand, so that
    /// its checksum is not verified and what it did is not known.
    pub edge_checked: bool,
    /// Lowest time of the commit and abort records that end here.
    pub time_low: Option<Timestamp>,
    /// Highest time of these.
    pub time_high: Option<Timestamp>,
    /// Time of the first of these.
    pub time_first: Option<Timestamp>,
    /// Time of the last of these.
    pub time_last: Option<Timestamp>,
    /// Highest time that any record carries that ends here.
    pub time_known: Option<Timestamp>,
    /// Number of commits.
    pub commits: u64,
    /// Number of aborts.
    pub aborts: u64,
    /// Times that the clock went back by more than a second.
    pub steps_back: u64,
    /// Number of restore points.
    pub point_count: u64,
    /// The restore points; `None` when they were too many or too long to list.
    pub restore_points: Option<Vec<RestorePoint>>,
    /// Lowest and highest xid committed or aborted, subtransactions included.
    pub xids: Option<(u32, u32)>,
    /// A database or tablespace was made or dropped by file copy.
    pub file_copy: bool,
    /// The next xid (64 bits) as of the last checkpoint record in it.
    pub next_xid: Option<u64>,
    /// The run it belongs to; `None` when not validated.
    pub run: Option<RunFacts>,
}

/// How the WAL in a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WalEnding {
    /// Records to the last byte.
    Full,
    /// `XLOG_SWITCH`; the rest is zero.
    Switched {
        /// Start of the switch record.
        at: Lsn,
    },
    /// Zeros without a switch: still being written when it was read.
    Open {
        /// Where the WAL ends.
        at: Lsn,
    },
    /// A record that is not valid.
    Damaged {
        /// Where.
        at: Lsn,
    },
    /// Nobody looked: the page magic is unknown.
    Unknown,
}

impl WalEnding {
    fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Switched { .. } => "switched",
            Self::Open { .. } => "open",
            Self::Damaged { .. } => "damaged",
            Self::Unknown => "unknown",
        }
    }

    fn at(self) -> Option<Lsn> {
        match self {
            Self::Switched { at } | Self::Open { at } | Self::Damaged { at } => Some(at),
            Self::Full | Self::Unknown => None,
        }
    }
}

impl From<&Ending> for WalEnding {
    fn from(ending: &Ending) -> Self {
        match ending {
            Ending::Full => Self::Full,
            Ending::Switched { at } => Self::Switched { at: *at },
            Ending::Open { at } => Self::Open { at: *at },
            Ending::Damaged { at, .. } => Self::Damaged { at: *at },
        }
    }
}

impl WalFacts {
    /// The facts of a surveyed segment that continues `run`.
    pub fn of_survey(common: Common, survey: &Survey, run: RunFacts) -> Self {
        Self {
            common,
            timeline: survey.name.timeline,
            validated: true,
            page_magic: Some(survey.major.page_magic()),
            start: survey.start,
            end: survey.end,
            first_record: survey.first_record,
            first_prev: survey.first_prev,
            last_start: survey.last_start,
            ending: WalEnding::from(&survey.ending),
            edge_checked: !matches!(survey.edge, Edge::Unchecked { .. }),
            time_low: survey.times.map(|(low, _)| low),
            time_high: survey.times.map(|(_, high)| high),
            time_first: survey.first_time,
            time_last: survey.last_time,
            time_known: survey.known_time,
            commits: survey.commits,
            aborts: survey.aborts,
            steps_back: survey.steps_back,
            point_count: survey.restore_points.len() as u64,
            restore_points: Some(survey.restore_points.clone()),
            xids: survey.xids,
            file_copy: survey.file_copy,
            next_xid: survey.next_xid,
            run: Some(run),
        }
    }

    /// The facts of a segment whose page magic no one here knows.
    pub fn unvalidated(common: Common, timeline: TimelineId, start: Lsn, page_magic: u16) -> Self {
        Self {
            common,
            timeline,
            validated: false,
            page_magic: Some(page_magic),
            start,
            end: start.checked_add(common.plain_size).unwrap_or(start),
            first_record: None,
            first_prev: None,
            last_start: None,
            ending: WalEnding::Unknown,
            edge_checked: false,
            time_low: None,
            time_high: None,
            time_first: None,
            time_last: None,
            time_known: None,
            commits: 0,
            aborts: 0,
            steps_back: 0,
            point_count: 0,
            restore_points: None,
            xids: None,
            file_copy: false,
            next_xid: None,
            run: None,
        }
    }

    /// Where it is damaged, if it is.
    pub fn damaged_at(&self) -> Option<Lsn> {
        match self.ending {
            WalEnding::Damaged { at } => Some(at),
            _ => None,
        }
    }

    /// As object metadata. Restore points are listed when they are at most
    /// [`MAX_LISTED_POINTS`] and all fit.
    pub fn to_metadata(&self) -> Result<Metadata, MetadataError> {
        let mut metadata = self.common.to_metadata()?;
        self.put_shape(&mut metadata)?;
        self.put_transactions(&mut metadata)?;
        if let Some(run) = &self.run {
            put_run(&mut metadata, run)?;
        }
        let points = self.restore_points.as_deref().unwrap_or_default();
        if !points.is_empty() && points.len() <= MAX_LISTED_POINTS {
            let listed = list_points(points);
            if metadata.size() + POINTS.len() + listed.len() <= MAX_METADATA_BYTES {
                put(&mut metadata, POINTS, Some(listed))?;
            }
        }
        Ok(metadata)
    }

    fn put_shape(&self, metadata: &mut Metadata) -> Result<(), MetadataError> {
        put(metadata, "timeline", Some(self.timeline))?;
        put(metadata, "validated", Some(yes_no(self.validated)))?;
        put(metadata, "magic", self.page_magic.map(|magic| format!("{magic:04x}")))?;
        put(metadata, "start", Some(self.start))?;
        put(metadata, "end", Some(self.end))?;
        put(metadata, "first-record", self.first_record)?;
        put(metadata, "first-prev", self.first_prev)?;
        put(metadata, "last-start", self.last_start)?;
        put(metadata, "ending", Some(self.ending.word()))?;
        put(metadata, "ending-at", self.ending.at())?;
        put(metadata, "edge-checked", Some(yes_no(self.edge_checked)))
    }

    fn put_transactions(&self, metadata: &mut Metadata) -> Result<(), MetadataError> {
        put(metadata, "time-low", self.time_low.map(time_text))?;
        put(metadata, "time-high", self.time_high.map(time_text))?;
        put(metadata, "time-first", self.time_first.map(time_text))?;
        put(metadata, "time-last", self.time_last.map(time_text))?;
        put(metadata, "time-known", self.time_known.map(time_text))?;
        put(metadata, "commits", Some(self.commits))?;
        put(metadata, "aborts", Some(self.aborts))?;
        put(metadata, "steps-back", Some(self.steps_back))?;
        put(metadata, "point-count", Some(self.point_count))?;
        put(metadata, "xids", self.xids.map(|(low, high)| format!("{low}-{high}")))?;
        put(metadata, "file-copy", Some(yes_no(self.file_copy)))?;
        put(metadata, "next-xid", self.next_xid)
    }

    /// From object metadata.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, FactsError> {
        let common = Common::from_metadata(metadata)?;
        let timeline = required(metadata, "timeline")?;
        let timeline = TimelineId::new(timeline).ok_or_else(|| unreadable("timeline", "0"))?;
        let point_count = required(metadata, "point-count")?;
        Ok(Self {
            common,
            timeline,
            validated: flag(metadata, "validated")?,
            page_magic: read_magic(metadata)?,
            start: required(metadata, "start")?,
            end: required(metadata, "end")?,
            first_record: optional(metadata, "first-record")?,
            first_prev: optional(metadata, "first-prev")?,
            last_start: optional(metadata, "last-start")?,
            ending: read_ending(metadata)?,
            edge_checked: flag(metadata, "edge-checked")?,
            time_low: optional(metadata, "time-low")?,
            time_high: optional(metadata, "time-high")?,
            time_first: optional(metadata, "time-first")?,
            time_last: optional(metadata, "time-last")?,
            time_known: optional(metadata, "time-known")?,
            commits: required(metadata, "commits")?,
            aborts: required(metadata, "aborts")?,
            steps_back: required(metadata, "steps-back")?,
            point_count,
            restore_points: read_points(metadata, point_count)?,
            xids: read_xids(metadata)?,
            file_copy: flag(metadata, "file-copy")?,
            next_xid: optional(metadata, "next-xid")?,
            run: read_run(metadata)?,
        })
    }
}

const POINTS: &str = "points";

fn put_run(metadata: &mut Metadata, run: &RunFacts) -> Result<(), MetadataError> {
    put(metadata, "run-start", Some(run.run_start))?;
    put(metadata, "run-high", run.run_high.map(time_text))?;
    put(metadata, "run-last-time", run.run_last_time.map(time_text))?;
    put(metadata, "run-commits", Some(run.run_commits))?;
    put(metadata, "run-steps", Some(run.run_steps))?;
    put(metadata, "run-points", Some(run.run_points))?;
    put(metadata, "run-last-start", run.last_start)
}

fn read_run(metadata: &Metadata) -> Result<Option<RunFacts>, FactsError> {
    let Some(run_start) = optional(metadata, "run-start")? else { return Ok(None) };
    Ok(Some(RunFacts {
        run_start,
        run_high: optional(metadata, "run-high")?,
        run_last_time: optional(metadata, "run-last-time")?,
        run_commits: required(metadata, "run-commits")?,
        run_steps: required(metadata, "run-steps")?,
        run_points: required(metadata, "run-points")?,
        last_start: optional(metadata, "run-last-start")?,
    }))
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn flag(metadata: &Metadata, name: &'static str) -> Result<bool, FactsError> {
    match metadata.get(name) {
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        Some(value) => Err(unreadable(name, value)),
        None => Err(FactsError::Missing(name)),
    }
}

fn read_magic(metadata: &Metadata) -> Result<Option<u16>, FactsError> {
    let read = |text| u16::from_str_radix(text, 16).map_err(|_| unreadable("magic", text));
    metadata.get("magic").map(read).transpose()
}

fn read_ending(metadata: &Metadata) -> Result<WalEnding, FactsError> {
    let at = || required(metadata, "ending-at");
    match metadata.get("ending") {
        Some("full") => Ok(WalEnding::Full),
        Some("switched") => Ok(WalEnding::Switched { at: at()? }),
        Some("open") => Ok(WalEnding::Open { at: at()? }),
        Some("damaged") => Ok(WalEnding::Damaged { at: at()? }),
        Some("unknown") => Ok(WalEnding::Unknown),
        Some(value) => Err(unreadable("ending", value)),
        None => Err(FactsError::Missing("ending")),
    }
}

fn read_xids(metadata: &Metadata) -> Result<Option<(u32, u32)>, FactsError> {
    let read = |text: &str| {
        let (low, high) = text.split_once('-')?;
        Some((low.parse().ok()?, high.parse().ok()?))
    };
    let Some(text) = metadata.get("xids") else { return Ok(None) };
    read(text).map(Some).ok_or_else(|| unreadable("xids", text))
}

/// A restore point's name may hold any bytes that the database encoding allows.
/// These stay as they are, which leaves ASCII names readable.
const KEPT_IN_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// `name@lsn@time`, comma-separated, in LSN order.
fn list_points(points: &[RestorePoint]) -> String {
    let listed: Vec<_> = points
        .iter()
        .map(|point| {
            let name = utf8_percent_encode(&point.name, KEPT_IN_NAMES);
            format!("{name}@{}@{}", point.lsn, time_text(point.time))
        })
        .collect();
    listed.join(",")
}

fn read_points(metadata: &Metadata, count: u64) -> Result<Option<Vec<RestorePoint>>, FactsError> {
    let Some(text) = metadata.get(POINTS) else {
        return Ok((count == 0).then(Vec::new));
    };
    let points: Option<Vec<_>> = text.split(',').map(read_point).collect();
    match points {
        Some(points) if points.len() as u64 == count => Ok(Some(points)),
        _ => Err(unreadable(POINTS, text)),
    }
}

fn read_point(text: &str) -> Option<RestorePoint> {
    let mut parts = text.split('@');
    let (name, lsn, time) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    Some(RestorePoint {
        name: percent_decode_str(name).decode_utf8().ok()?.into_owned(),
        lsn: lsn.parse().ok()?,
        time: time.parse().ok()?,
    })
}

#[cfg(test)]
#[path = "wal_facts/tests.rs"]
mod tests;
