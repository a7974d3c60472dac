//! Planning without the key: to a segment, by what metadata show, with no content read.
//!
//! It never says more than planning with the key would: where what is known does not decide
//! whether and how a target can be reached, that is an error.

use walpoint_archive::{Archive, ArchiveError, BackupHead, Catalog};

use super::backup::{Fit, fit, newest_serving};
use super::build::Builder;
use super::unreadable::Unreadable;
use super::{
    PlanError, SegmentOutcome, Unreachable, Way, minimal, nearest, reachable_by_metadata, way, words,
};
use crate::coverage::{Coverage, Illegible};
use crate::locate::{
    Bounds, ChainEnd, Content, Finder, Missing, PathWal, Search, Shown, WalSource, chains, show,
};
use crate::path::Chosen;
use crate::target::TargetRequest;

/// Plans a recovery to an LSN, the end of a backup or the end of the WAL, to the segment.
///
/// Reads metadata of objects and the content of none. What they leave open, and any other
/// target, is [`PlanError::NeedsKey`].
pub async fn plan_to_segment(
    archive: &Archive,
    catalog: &Catalog,
    request: &TargetRequest,
) -> Result<SegmentOutcome, PlanError> {
    let Way { unreadable, chosen, backups } = match way(archive, catalog, request)? {
        Ok(way) => way,
        Err(why) => return Ok(SegmentOutcome::Unreachable(why)),
    };
    let source = WalSource::new(archive, catalog.cluster.system_identifier, catalog.cluster.segment_size);
    let mut illegible = Illegible::default();
    loop {
        let coverage = Coverage::without(catalog, chosen.path.clone(), &illegible);
        let wal = PathWal::new(&source, &coverage);
        match plan_with(catalog, request, &chosen, &wal, &backups).await {
            Ok(answer) => return decided(answer, request, &unreadable),
            Err(error) if illegible.learns(&source, catalog, &error).await => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// An answer, or what would have to be known for one.
type Answer = Result<SegmentOutcome, String>;

fn decided(
    answer: Answer,
    request: &TargetRequest,
    unreadable: &Unreadable<'_>,
) -> Result<SegmentOutcome, PlanError> {
    match answer {
        Ok(outcome) => Ok(unreadable.told_in_segments(request, outcome)),
        Err(why) => Err(PlanError::NeedsKey { target: request.target.clone(), why }),
    }
}

async fn plan_with(
    catalog: &Catalog,
    request: &TargetRequest,
    chosen: &Chosen,
    wal: &PathWal<'_>,
    backups: &[&BackupHead],
) -> Result<Answer, ArchiveError> {
    let chains = chains(wal, Content::Sealed).await?;
    let finder = Finder { wal, chains: &chains, backups, idle: &catalog.idle };
    match show(finder, &request.target, request.exclusive).await? {
        Shown::Between(bounds) => build(Builder { catalog, request, chosen, finder }, bounds).await,
        Shown::Missing(missing) => refuse(finder, request, missing).await,
        Shown::Unknown(why) => Ok(Err(why)),
    }
}

/// The plan, when the same backup and the same timeline serve whichever record it is.
async fn build(builder: Builder<'_>, bounds: Bounds) -> Result<Answer, ArchiveError> {
    let finder = builder.finder;
    let Some(chain) = finder.chains.get(bounds.chain) else { return Ok(Err(words::no_wal())) };
    let search = Search { wal: finder.wal, chain };
    let start = search.first_record().await?;
    let undecided = || Ok(Err(words::near_backup_or_fork()));
    let [low, high] = [bounds.low, bounds.high].map(|it| builder.located_between(it.start, it.end));
    let [low_need, high_need] = [&low, &high].map(|it| Builder::need_of(start, it));
    let served = [&low_need, &high_need].map(|need| newest_serving(finder.backups, need));
    let (backup, count) = match served {
        [Some((low, _)), Some((high, count))] if low.id == high.id => (high, count),
        [None, None] => {
            let missing = builder.no_backup(bounds.chain, high.last_record_end, &high_need);
            return refuse(finder, builder.request, missing).await;
        }
        _ => return undecided(),
    };
    // A break that may be none may hide that a newer backup serves.
    let newer = finder.backups.iter().filter(|it| (it.stop.lsn, &it.id) > (backup.stop.lsn, &backup.id));
    if sealed(finder).is_some() && newer.into_iter().any(|it| fit(it, &high_need) == Fit::CutOff) {
        return undecided();
    }
    let handed = builder.handed(&low, Content::Sealed).await?;
    let (Some(handed), Some(other)) = (handed, builder.handed(&high, Content::Sealed).await?) else {
        return undecided();
    };
    if handed.path.timeline != other.path.timeline || low.timeline != high.timeline {
        return undecided();
    }
    let mut plan = builder.without_record(&high, backup, count, handed).await?;
    let [from, to] = [backup.redo, high.last_record].map(|lsn| lsn.segment_number(finder.wal.size()));
    if minimal::may_be_between(search, from, to).await? {
        plan.bounds_mut().warnings.push(words::settings_unseen());
    }
    Ok(Ok(SegmentOutcome::Reachable(Box::new(plan))))
}

/// Says no, unless a break that may be none is what stands in the way.
async fn refuse(
    finder: Finder<'_>,
    request: &TargetRequest,
    missing: Missing,
) -> Result<Answer, ArchiveError> {
    if let Some(why) = sealed(finder) {
        return Ok(Err(why));
    }
    let nearest = match missing.near {
        Some(place) => nearest(&reachable_by_metadata(finder).await?, place),
        None => super::Nearest::default(),
    };
    let reason = format!("could not recover to {}: {}", request.target, missing.reason);
    let hint = missing.hint.or_else(|| words::instead(&nearest));
    let candidates = missing.candidates;
    Ok(Ok(SegmentOutcome::Unreachable(Unreachable { reason, nearest, hint, candidates })))
}

/// A place where the WAL may go on or not.
fn sealed(finder: Finder<'_>) -> Option<String> {
    finder.chains.iter().find_map(|chain| match &chain.ends {
        ChainEnd::Sealed { name } => Some(words::continues_unknown(*name)),
        _ => None,
    })
}
