//! The facts of a segment as object metadata, both ways. FORMAT.md has the names.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use walpoint_wal::{Lsn, RestorePoint, TimelineId};

use super::{MAX_LISTED_POINTS, MAX_METADATA_BYTES, WalEnding, WalFacts};
use crate::description::{Described, Description};
use crate::facts::{Common, FactsError, time_text, unreadable};
use crate::run_facts::RunFacts;
use crate::store::{Metadata, MetadataError};

impl WalFacts {
    /// As object metadata. Restore points are listed when they are at most
    /// [`MAX_LISTED_POINTS`] and all fit.
    pub fn to_metadata(&self) -> Result<Metadata, MetadataError> {
        self.describe_within(0)?.finish()
    }

    /// The same, to which so many bytes are to come.
    pub(crate) fn describe_within(&self, reserved: usize) -> Result<Description, MetadataError> {
        let mut description = self.common.describe()?;
        self.put_shape(&mut description)?;
        self.put_transactions(&mut description)?;
        if let Some(run) = &self.run {
            put_run(&mut description, run)?;
        }
        let points = self.restore_points.as_deref().unwrap_or_default();
        if !points.is_empty() && points.len() <= MAX_LISTED_POINTS {
            let listed = list_points(points);
            if description.size() + POINTS.len() + listed.len() + reserved <= MAX_METADATA_BYTES {
                description.put(POINTS, Some(listed))?;
            }
        }
        Ok(description)
    }

    fn put_shape(&self, description: &mut Description) -> Result<(), MetadataError> {
        description.put("timeline", Some(self.timeline))?;
        description.put("validated", Some(yes_no(self.validated)))?;
        description.put("magic", self.page_magic.map(|magic| format!("{magic:04x}")))?;
        description.put("start", Some(self.start))?;
        description.put("end", Some(self.end))?;
        description.put("first-record", self.first_record)?;
        description.put("first-prev", self.first_prev)?;
        description.put("last-start", self.last_start)?;
        description.put("ending", Some(self.ending.word()))?;
        description.put("ending-at", self.ending.at())?;
        description.put("edge-checked", Some(yes_no(self.edge_checked)))
    }

    fn put_transactions(&self, description: &mut Description) -> Result<(), MetadataError> {
        description.put("time-low", self.time_low.map(time_text))?;
        description.put("time-high", self.time_high.map(time_text))?;
        description.put("time-first", self.time_first.map(time_text))?;
        description.put("time-last", self.time_last.map(time_text))?;
        description.put("time-known", self.time_known.map(time_text))?;
        description.put("commits", Some(self.commits))?;
        description.put("aborts", Some(self.aborts))?;
        description.put("steps-back", Some(self.steps_back))?;
        description.put("point-count", Some(self.point_count))?;
        description.put("xids", self.xids.map(|(low, high)| format!("{low}-{high}")))?;
        description.put("file-copy", Some(yes_no(self.file_copy)))?;
        description.put("next-xid", self.next_xid)
    }

    /// From object metadata.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, FactsError> {
        let described = Described::verified(metadata)?;
        let common = Common::of_description(described)?;
        let timeline = described.required("timeline")?;
        let timeline = TimelineId::new(timeline).ok_or_else(|| unreadable("timeline", "0"))?;
        let point_count = described.required("point-count")?;
        Ok(Self {
            common,
            timeline,
            validated: flag(described, "validated")?,
            page_magic: read_magic(described)?,
            start: described.required("start")?,
            end: described.required("end")?,
            first_record: described.optional("first-record")?,
            first_prev: described.optional("first-prev")?,
            last_start: described.optional("last-start")?,
            ending: read_ending(described)?,
            edge_checked: flag(described, "edge-checked")?,
            time_low: described.optional("time-low")?,
            time_high: described.optional("time-high")?,
            time_first: described.optional("time-first")?,
            time_last: described.optional("time-last")?,
            time_known: described.optional("time-known")?,
            commits: described.required("commits")?,
            aborts: described.required("aborts")?,
            steps_back: described.required("steps-back")?,
            point_count,
            restore_points: read_points(described, point_count)?,
            xids: read_xids(described)?,
            file_copy: flag(described, "file-copy")?,
            next_xid: described.optional("next-xid")?,
            run: read_run(described)?,
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

fn put_run(description: &mut Description, run: &RunFacts) -> Result<(), MetadataError> {
    description.put("run-start", Some(run.run_start))?;
    description.put("run-high", run.run_high.map(time_text))?;
    description.put("run-last-time", run.run_last_time.map(time_text))?;
    description.put("run-commits", Some(run.run_commits))?;
    description.put("run-steps", Some(run.run_steps))?;
    description.put("run-points", Some(run.run_points))?;
    description.put("run-prepares", run.run_prepares)?;
    description.put("run-parameter-changes", run.run_parameter_changes)?;
    description.put("run-last-start", run.last_start)
}

fn read_run(described: Described<'_>) -> Result<Option<RunFacts>, FactsError> {
    let Some(run_start) = described.optional("run-start")? else { return Ok(None) };
    Ok(Some(RunFacts {
        run_start,
        run_high: described.optional("run-high")?,
        run_last_time: described.optional("run-last-time")?,
        run_commits: described.required("run-commits")?,
        run_steps: described.required("run-steps")?,
        run_points: described.required("run-points")?,
        run_prepares: described.optional("run-prepares")?,
        run_parameter_changes: described.optional("run-parameter-changes")?,
        last_start: described.optional("run-last-start")?,
    }))
}

fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn flag(described: Described<'_>, name: &'static str) -> Result<bool, FactsError> {
    match described.get(name) {
        Some("yes") => Ok(true),
        Some("no") => Ok(false),
        Some(value) => Err(unreadable(name, value)),
        None => Err(FactsError::Missing(name)),
    }
}

fn read_magic(described: Described<'_>) -> Result<Option<u16>, FactsError> {
    let read = |text| u16::from_str_radix(text, 16).map_err(|_| unreadable("magic", text));
    described.get("magic").map(read).transpose()
}

fn read_ending(described: Described<'_>) -> Result<WalEnding, FactsError> {
    let at = || described.required("ending-at");
    match described.get("ending") {
        Some("full") => Ok(WalEnding::Full),
        Some("switched") => Ok(WalEnding::Switched { at: at()? }),
        Some("open") => Ok(WalEnding::Open { at: at()? }),
        Some("damaged") => Ok(WalEnding::Damaged { at: at()? }),
        Some("unknown") => Ok(WalEnding::Unknown),
        Some(value) => Err(unreadable("ending", value)),
        None => Err(FactsError::Missing("ending")),
    }
}

fn read_xids(described: Described<'_>) -> Result<Option<(u32, u32)>, FactsError> {
    let read = |text: &str| {
        let (low, high) = text.split_once('-')?;
        Some((low.parse().ok()?, high.parse().ok()?))
    };
    let Some(text) = described.get("xids") else { return Ok(None) };
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

fn read_points(described: Described<'_>, count: u64) -> Result<Option<Vec<RestorePoint>>, FactsError> {
    let Some(text) = described.get(POINTS) else {
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
