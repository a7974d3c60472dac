//! `walpoint prefetch`: fetches ahead of one recovery, for as long as that asks for WAL. `archive-get` starts it
//! and never waits for it; whether an agent runs makes no difference. It keeps nothing that anybody would miss.

use super::cluster::HookCluster;
use super::get::read_contract;
use crate::cli::PrefetchArgs;
use crate::config::Settings;
use crate::exit::{Ending, Failure};
use crate::open::{self, Patience};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use walpoint_archive::{Archive, ArchiveError};
use walpoint_pitr::contract::Contract;
use walpoint_pitr::prefetch::{Limits, Prefetch};
use walpoint_pitr::spool::{Asked, Spool, Tended, remove_abandoned};
use walpoint_wal::SegmentSize;

mod place;
mod start;

use place::{is_in_recovery, spool_of};
pub use start::Ahead;

/// Pause between two looks for a question while they come …
const LOOK: Duration = Duration::from_millis(10);
/// … and when none has come for a while.
const LOOK_QUIETLY: Duration = Duration::from_millis(100);
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// It ends when nothing was asked for so long.
const END_AFTER: Duration = Duration::from_secs(60);
/// How often it is seen whether there still is a recovery.
const RECOVERY_LOOK: Duration = Duration::from_secs(1);
/// How long a request is tried again; who is asked to fetch the same waits longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Carries out `walpoint prefetch`.
///
/// # Errors
/// Status 1 to 5 when it cannot begin. Nobody waits for it, or hears of it.
pub async fn run(settings: &Settings, args: &PrefetchArgs) -> Result<Ending, Failure> {
    // What befalls the server's processes as a group, and a terminal, is not for this one.
    let _leads_one_already = rustix::process::setsid();
    let recovery = Recovery::of(settings, &args.data_directory)?;
    let about = |error: std::io::Error| {
        let path = recovery.spool.directory().display();
        Failure::failed(format!("could not use \"{path}\": {error}"))
    };
    let Some(tended) = Tended::take_over(recovery.spool.clone()).map_err(about)? else {
        return Ok(Ending::DONE);
    };
    remove_abandoned(&settings.agent.spool_directory, &recovery.spool);
    match source(settings, args, &recovery.cluster).await {
        Ok((archive, contract, size)) => {
            let limits = Limits { spool: settings.agent.spool, at_once: settings.workers().get() };
            let prefetch = Prefetch::new(archive, tended, contract, size, limits);
            recovery.fetch_ahead(settings, prefetch).await
        }
        Err(failure) => {
            tended.clear();
            Err(failure)
        }
    }
}

/// Where it comes from, and what is needed of it.
async fn source(
    settings: &Settings,
    args: &PrefetchArgs,
    cluster: &HookCluster,
) -> Result<(Archive, Option<Contract>, SegmentSize), Failure> {
    let contract = args.contract.as_deref().map(read_contract).transpose()?;
    let archive = open::archive(settings, cluster.system_identifier, Patience::For(PATIENCE)).await?;
    let size = match cluster.segment_size().or(contract.as_ref().map(|contract| contract.segment_size)) {
        Some(size) => size,
        None => size_in(&archive).await?,
    };
    Ok((archive, contract, size))
}

async fn size_in(archive: &Archive) -> Result<SegmentSize, Failure> {
    let unknown = ArchiveError::NoCluster(archive.system_identifier());
    Ok(archive.segment_size().await?.ok_or(unknown)?)
}

/// The recovery that WAL is fetched for.
struct Recovery {
    cluster: HookCluster,
    spool: Spool,
}

impl Recovery {
    fn of(settings: &Settings, data_directory: &Path) -> Result<Self, Failure> {
        let cluster = HookCluster::in_directory(data_directory)?;
        let spool = spool_of(settings, &cluster)?;
        Ok(Self { cluster, spool })
    }

    /// Whether it is still there, and still the same one.
    fn goes_on(&self, settings: &Settings) -> bool {
        is_in_recovery(&self.cluster.path)
            && Self::of(settings, &self.cluster.path).is_ok_and(|now| now.spool == self.spool)
    }

    async fn fetch_ahead(self, settings: &Settings, mut prefetch: Prefetch) -> Result<Ending, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("could not listen for signals: {error}")))
        };
        let (mut terminate, mut interrupt) =
            (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        let mut asked: Option<Asked> = None;
        let (mut asked_at, mut looked_at) = (Instant::now(), Instant::now());
        loop {
            let pause = if asked_at.elapsed() < QUIET_AFTER { LOOK } else { LOOK_QUIETLY };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = prefetch.land() => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
            let now = Instant::now();
            if let Some(question) = self.spool.asked().filter(|question| asked.as_ref() != Some(question)) {
                prefetch.asked(question.segment, now);
                (asked, asked_at) = (Some(question), now);
            }
            if now.saturating_duration_since(asked_at) > END_AFTER {
                break;
            }
            if now.saturating_duration_since(looked_at) > RECOVERY_LOOK {
                looked_at = now;
                if !self.goes_on(settings) {
                    break;
                }
            }
            prefetch.begin_what_may(now);
        }
        prefetch.end().await;
        Ok(Ending::DONE)
    }
}
