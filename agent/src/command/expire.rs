//! `expire`: what the retention policy lets go and why the rest stays; with `--apply`, letting it go.

mod report;
mod words;

use crate::cli::ExpireArgs;
use crate::config::{Settings, sizes};
use crate::exit::{Ending, Failure, Status};
use crate::keep::expire::{Applied, Expiry, Seen};
use crate::keep::look::Clock;
use crate::keep::policy::Policy;
use crate::open::Patience;
use crate::{cluster_choice, open, output};
use walpoint_wal::Timestamp;

/// Carries out `expire`.
pub async fn run(settings: &Settings, args: &ExpireArgs, as_json: bool) -> Result<Ending, Failure> {
    let policy = Policy::of(&settings.retention, args)?;
    if args.apply {
        open::refuse_root(settings)?;
    }
    let chosen = cluster_choice::open(settings, args.cluster).await?;
    let archive = match args.apply {
        true => open::again(settings, &chosen.archive, Patience::Work).await?,
        false => chosen.archive,
    };
    let clock = if args.apply { Clock::OfAPut } else { Clock::OfTheHost(now()) };
    let expiry = Expiry { archive: &archive, cluster: &chosen.cluster, policy: &policy, clock };
    let seen = expiry.see().await?;
    let applied = match args.apply && !policy.is_empty() && seen.decision.obstacles.is_empty() {
        true => Some(expiry.apply(&seen).await?),
        false => None,
    };
    let told =
        report::Report { cluster: &chosen.cluster, policy: &policy, seen: &seen, applied: applied.as_ref() };
    let text = if as_json { output::json_line(&told.json())? } else { told.text() };
    match applied {
        // What is gone is gone, whether anybody could be told or not.
        Some(_) => output::result_of_work(&text),
        None => output::result(&text)?,
    }
    Ok(Ending::Status(status(&seen, applied.as_ref())))
}

/// What time this host says it is.
fn now() -> Timestamp {
    Timestamp::from_unix_micros(jiff::Timestamp::now().as_microsecond()).unwrap_or(Timestamp(i64::MIN))
}

fn status(seen: &Seen, applied: Option<&Applied>) -> Status {
    let obstacles = applied.map_or(0, |applied| applied.obstacles.len()) + seen.decision.obstacles.len();
    let stuck = applied.is_some_and(|applied| !applied.failed.is_empty());
    match (obstacles, stuck) {
        (0, false) => Status::Done,
        (0, true) => Status::Failed,
        _ => Status::Refused,
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    sizes::human(bytes)
}
