//! Sums up the events of a segment.

use crate::event::Event;
use crate::lsn::Lsn;
use crate::stream::Found;
use crate::survey::{RestorePoint, STEP_BACK_MICROS};
use crate::timestamp::Timestamp;

/// The sums; for the fields see [`crate::Survey`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) last_complete: Option<Lsn>,
    pub(crate) times: Option<(Timestamp, Timestamp)>,
    pub(crate) first_time: Option<Timestamp>,
    pub(crate) last_time: Option<Timestamp>,
    pub(crate) known_time: Option<Timestamp>,
    pub(crate) commits: u64,
    pub(crate) aborts: u64,
    pub(crate) prepares: u64,
    pub(crate) parameter_changes: u64,
    pub(crate) steps_back: u64,
    pub(crate) restore_points: Vec<RestorePoint>,
    pub(crate) xids: Option<(u32, u32)>,
    pub(crate) file_copy: bool,
    pub(crate) next_xid: Option<u64>,
    /// Start of a record that stands for an unfinished one, and of that one.
    overwrote: Option<(Lsn, Lsn)>,
}

impl Tally {
    /// Takes the next record in order of address.
    pub(crate) fn count(&mut self, found: &Found<'_>, event: Option<&Event>) {
        self.last_complete = Some(found.lsn);
        let Some(event) = event else { return };
        self.known_time = self.known_time.max(event.time());
        match event {
            Event::Commit { xid, time, subxids, .. } => {
                self.commits += 1;
                self.transaction(*xid, subxids, *time);
            }
            Event::Abort { xid, time, subxids, .. } => {
                self.aborts += 1;
                self.transaction(*xid, subxids, *time);
            }
            Event::RestorePoint { name, time } => {
                let point = RestorePoint { name: name.clone(), lsn: found.lsn, time: *time };
                self.restore_points.push(point);
            }
            Event::Checkpoint { next_xid, .. } => self.next_xid = Some(*next_xid),
            Event::OverwriteContrecord { overwritten, .. } => {
                self.overwrote = Some((found.lsn, *overwritten))
            }
            Event::FileCopy => self.file_copy = true,
            Event::Prepare { .. } => self.prepares += 1,
            Event::ParameterChange(_) => self.parameter_changes += 1,
            Event::BackupEnd { .. } | Event::EndOfRecovery { .. } | Event::Switch => {}
        }
    }

    /// What the segment's first record overwrites.
    pub(crate) fn overwrites(&self, first_record: Option<Lsn>) -> Option<Lsn> {
        let (by, overwritten) = self.overwrote?;
        if Some(by) == first_record { Some(overwritten) } else { None }
    }

    fn transaction(&mut self, xid: u32, subxids: &[u32], time: Timestamp) {
        for &xid in std::iter::once(&xid).chain(subxids) {
            // A commit without a transaction (of a message, say) has none to be found by.
            if xid != 0 {
                self.xids = Some(self.xids.map_or((xid, xid), |(low, high)| (low.min(xid), high.max(xid))));
            }
        }
        self.first_time.get_or_insert(time);
        if self.last_time.is_some_and(|last| time.0 < last.0.saturating_sub(STEP_BACK_MICROS)) {
            self.steps_back += 1;
        }
        self.last_time = Some(time);
        self.times = Some(self.times.map_or((time, time), |(low, high)| (low.min(time), high.max(time))));
    }
}
