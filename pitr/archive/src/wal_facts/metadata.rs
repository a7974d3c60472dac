//! The facts of a segment as object metadata, both ways. FORMAT.md has the names.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use walpoint_wal::{Lsn, RestorePoint, TimelineId};

use super::{MAX_LISTED_POINTS, MAX_METADATA_BYTES, WalEnding, WalFacts};
use crate::facts::{Common, FactsError, optional, put, required, time_text, unreadable};
use crate::run_facts::RunFacts;
use crate::store::{Metadata, MetadataError};

impl WalFacts {
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
