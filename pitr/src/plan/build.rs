//! Builds the plan for a record that was found.

use walpoint_archive::{ArchiveError, BackupHead, Catalog, Variant};
use walpoint_wal::{Lsn, SegmentName, TimelineId};

use super::backup::{Fit, Need, fit, newest_serving, why};
use super::copies::Planned;
use super::replay::{Replay, raised, replay};
use super::{PlanOutcome, RecoveryPlan, SegmentPlan, Segments, refuse, words};
use crate::coverage::last_segment_before;
use crate::locate::{Content, Finder, Hit, Located, Missing, Search};
use crate::path::{Chosen, TimelinePath, rival_parent};
use crate::target::{Target, TargetRequest, TargetTimeline};

/// What a plan is built from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builder<'b> {
    pub catalog: &'b Catalog,
    pub request: &'b TargetRequest,
    pub chosen: &'b Chosen,
    pub finder: Finder<'b>,
}

/// The timeline to hand to PostgreSQL and its file of the last segment.
pub(super) struct Handed<'b> {
    pub path: TimelinePath,
    last: SegmentName,
    variant: &'b Variant,
}

impl<'b> Builder<'b> {
    pub async fn build(&self, hit: Hit) -> Result<PlanOutcome, ArchiveError> {
        let Some(search) = self.search(hit) else { return self.refuse(words::no_wal(), hit.last.end).await };
        let located = self.locate(search, hit).await?;
        let need = self.need(search, &located).await?;
        let Some((backup, count)) = newest_serving(self.finder.backups, &need) else {
            let missing = self.no_backup(hit.chain, hit.last.end, &need);
            return refuse(self.finder, self.of_the_target(missing)).await;
        };
        let Some(handed) = self.handed(&located, Content::Read).await? else {
            return self.refuse(words::no_wal(), hit.last.end).await;
        };
        let replay = replay(self.finder, backup, located.last_record).await?;
        if let Some(minimal) = replay.minimal {
            return self.refuse(words::minimal_wal(minimal.lsn), minimal.prev).await;
        }
        let plan = self.plan(&located, backup, count, handed, replay).await?;
        Ok(PlanOutcome::Reachable(Box::new(plan)))
    }

    fn search(&self, hit: Hit) -> Option<Search<'b>> {
        self.finder.chains.get(hit.chain).map(|chain| Search { wal: self.finder.wal, chain })
    }

    async fn locate(&self, search: Search<'b>, hit: Hit) -> Result<Located, ArchiveError> {
        let last = hit.last;
        let number = last_segment_before(last.end, self.finder.wal.size());
        let path = &self.chosen.path;
        Ok(Located {
            timeline: path.step_at(last.lsn).map_or(path.timeline, |step| step.timeline),
            last_record: last.lsn,
            last_record_end: last.end,
            last_included: search.last_commit_until(last.lsn, number).await?,
            first_excluded: search.first_commit_after(last.lsn, number).await?,
        })
    }

    /// A record of which only bounds are known.
    pub fn located_between(&self, start: Lsn, end: Lsn) -> Located {
        let path = &self.chosen.path;
        Located {
            timeline: path.step_at(start).map_or(path.timeline, |step| step.timeline),
            last_record: start,
            last_record_end: end,
            last_included: None,
            first_excluded: None,
        }
    }

    /// What a backup must fit, for a target that is no time.
    pub fn need_of(chain_start: Option<Lsn>, located: &Located) -> Need {
        Need {
            chain_start: chain_start.unwrap_or(located.last_record),
            last_record: located.last_record,
            last_record_end: located.last_record_end,
            time: None,
            last_included: None,
        }
    }

    /// Why no backup serves, what to do about it, and where to look for what can be reached instead.
    pub fn no_backup(&self, chain: usize, end: Lsn, need: &Need) -> Missing {
        let (reason, hint) = self.why_no_backup(chain, need);
        Missing { reason, near: Some(self.place(end, need)), hint, candidates: Vec::new() }
    }

    /// A plan that names no record.
    pub async fn without_record(
        &self,
        located: &Located,
        backup: &BackupHead,
        count: usize,
        handed: Handed<'b>,
    ) -> Result<SegmentPlan, ArchiveError> {
        let mut plan = self.plan(located, backup, count, handed, Replay::default()).await?;
        plan.warnings.push(words::to_the_segment());
        Ok(SegmentPlan(plan))
    }

    async fn need(&self, search: Search<'b>, located: &Located) -> Result<Need, ArchiveError> {
        let time = match self.request.target {
            Target::Time(time) => Some(time),
            _ => None,
        };
        Ok(Need {
            chain_start: search.first_record().await?.unwrap_or(located.last_record),
            last_record: located.last_record,
            last_record_end: located.last_record_end,
            time,
            last_included: located.last_included.map(|commit| commit.lsn),
        })
    }

    fn why_no_backup(&self, chain: usize, need: &Need) -> (String, Option<String>) {
        let fits = |wanted| self.finder.backups.iter().find(move |backup| fit(backup, need) == wanted);
        let cut_off = fits(Fit::CutOff).is_some();
        let before = chain.checked_sub(1).and_then(|before| self.finder.break_after(before));
        match (before, fits(Fit::TooLate)) {
            (Some((reason, hint)), _) if cut_off => (words::no_backup_in_chain(&reason), hint),
            (_, Some(first)) => (words::before_first_backup(first), None),
            _ => (words::no_backup_on_path(), None),
        }
    }

    /// Where to look for what can be reached instead. A target that comes too early for a
    /// backup lies before that backup's end, also where its last record would not.
    fn place(&self, end: Lsn, need: &Need) -> Lsn {
        let too_late = self.finder.backups.iter().filter(|backup| fit(backup, need) == Fit::TooLate);
        let first = too_late.map(|backup| Lsn(backup.stop.lsn.0.saturating_sub(1))).min();
        first.map_or(end, |before_stop| before_stop.min(end))
    }

    async fn refuse(&self, reason: String, near: Lsn) -> Result<PlanOutcome, ArchiveError> {
        let missing = Missing { reason, near: Some(near), hint: None, candidates: Vec::new() };
        refuse(self.finder, self.of_the_target(missing)).await
    }

    fn of_the_target(&self, missing: Missing) -> Missing {
        let reason = format!("could not recover to {}: {}", self.request.target, missing.reason);
        Missing { reason, ..missing }
    }

    /// The oldest timeline from the record's own on whose file of the last segment holds
    /// the record. `None` too where only the content can tell and it is not to be read.
    pub(super) async fn handed(
        &self,
        located: &Located,
        content: Content,
    ) -> Result<Option<Handed<'b>>, ArchiveError> {
        let (wal, until) = (self.finder.wal, located.last_record_end);
        let number = last_segment_before(until, wal.size());
        let Some(link) = wal.link(number) else { return Ok(None) };
        let planned = Planned { wal, link, until };
        for (timeline, variant) in wal.coverage.holders(self.catalog, located.timeline, number) {
            let Some(holds) = planned.is_in(timeline, variant, content).await? else { return Ok(None) };
            let path = TimelinePath::to(self.catalog, timeline).ok();
            let last = SegmentName::from_number(timeline, number, wal.size());
            if let (true, Some(path), Some(last)) = (holds, path, last) {
                return Ok(Some(Handed { path, last, variant }));
            }
        }
        Ok(None)
    }

    async fn plan(
        &self,
        located: &Located,
        backup: &BackupHead,
        count: usize,
        handed: Handed<'b>,
        replay: Replay,
    ) -> Result<RecoveryPlan, ArchiveError> {
        let segments = self.segments(backup, &handed);
        let packs = backup.packs.bytes();
        Ok(RecoveryPlan {
            system_identifier: self.catalog.cluster.system_identifier,
            segment_size: self.catalog.cluster.segment_size,
            // Only of the one that is restored need it be known what its packs are.
            backup: self.finder.wal.source.whole(backup).await?,
            why_backup: why(backup, count, self.request.backup.is_some()),
            timeline: handed.path.timeline,
            record_timeline: located.timeline,
            last_record: located.last_record,
            last_record_end: located.last_record_end,
            segments,
            last_included: located.last_included,
            first_excluded: located.first_excluded,
            measured: None,
            bytes_to_fetch: segments.bytes.saturating_add(packs).saturating_add(backup.manifest.size),
            target: self.request.target.clone(),
            exclusive: self.request.exclusive,
            warnings: self.warnings(backup, &replay, located),
            notes: self.notes(located, backup, &replay, &handed),
            prepared_open: replay.prepared_open,
            path: handed.path.steps,
        })
    }

    fn segments(&self, backup: &BackupHead, handed: &Handed<'b>) -> Segments {
        let wal = self.finder.wal;
        let first = backup.redo.segment_number(wal.size());
        let last = handed.last.number(wal.size()).unwrap_or(first);
        let before_last = (first..last).filter_map(|number| wal.link(number));
        let bytes: u64 = before_last.map(|link| link.variant.stored_size).sum();
        let first_name = if first == last { None } else { wal.link(first).map(|link| link.name) };
        Segments {
            first: first_name.unwrap_or(handed.last),
            last: handed.last,
            count: (last - first.min(last)).saturating_add(1),
            bytes: bytes.saturating_add(handed.variant.stored_size),
        }
    }

    /// Settings come from the WAL that was read and from later backups on the path.
    fn warnings(&self, backup: &BackupHead, replay: &Replay, located: &Located) -> Vec<String> {
        let mut warnings = Vec::new();
        let later = self.finder.backups.iter().filter(|it| it.stop.lsn > backup.stop.lsn);
        let later = later.filter(|it| it.start.lsn <= located.last_record);
        let mut all = replay.raised.clone();
        all.extend(later.flat_map(|it| raised(&backup.settings, &it.settings)));
        all.sort_by_key(|it| (it.setting, -i64::from(it.primary)));
        all.dedup_by_key(|it| it.setting);
        warnings.extend(all.iter().map(words::raised_setting));
        if backup.damaged_pages > 0 {
            warnings.push(words::damaged_pages(backup.damaged_pages));
        }
        warnings.extend(self.chosen.without_history.iter().map(|timeline| words::without_history(*timeline)));
        warnings.extend(self.left_out(located));
        warnings
    }

    /// Nobody who did not name a timeline has chosen to leave a living one.
    fn left_out(&self, located: &Located) -> Option<String> {
        let path = &self.chosen.path;
        let rival = rival_parent(self.catalog, path)?;
        let is_chosen = matches!(self.request.timeline, TargetTimeline::Latest);
        let reaches_it = located.last_record_end >= rival.fork;
        (is_chosen && reaches_it).then(|| words::left_out(path.timeline, rival))
    }

    fn notes(
        &self,
        located: &Located,
        backup: &BackupHead,
        replay: &Replay,
        handed: &Handed<'b>,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        let chosen: TimelineId = self.chosen.path.timeline;
        if self.request.target == Target::Latest && located.timeline != chosen {
            notes.push(words::ends_at_fork(chosen, located.last_record_end));
        }
        if handed.path.timeline != located.timeline {
            notes.push(words::handed_child(located.timeline, handed.path.timeline, &handed.last.to_string()));
        }
        notes.extend(handed.variant.tail.as_ref().map(|_| words::from_tail(handed.last)));
        notes.extend(replay.read_from.map(words::read_from));
        if backup.settings.max_prepared_xacts > 0 {
            let replayed = backup.redo..located.last_record_end;
            let mut forks = handed.path.steps.iter().filter_map(|step| step.end);
            notes.extend(forks.find(|fork| replayed.contains(fork)).map(words::prepared_at_fork));
            notes.push(words::prepared_before(backup));
        }
        if backup.tablespaces > 0 {
            notes.push(words::tablespaces(backup.tablespaces));
        }
        notes
    }
}
