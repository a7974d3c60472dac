//! `archive-push`: one finished WAL file into the archive, durable before the status is 0. The agent does it, where
//! there is one; whatever is wrong with the agent, the hook does it by itself.

use super::ask::{self, Unanswered};
use super::ground::{Ground, PG_WAL, aside};
use super::push::{Shipper, about, deadline, within};
use super::socket::Socket;
use super::source::Identity;
use crate::cli::PushArgs;
use crate::config::Settings;
use crate::exit::{Ending, Failure};
use crate::open::{self, Patience};
use std::path::Path;
use std::time::{Duration, Instant};
use walpoint_wal::WalFileName;

/// Carries out `archive-push`, from the process's start to the deadline.
///
/// # Errors
/// Status 1 to 4. Whatever it is, the file stays where it is and PostgreSQL offers it again.
pub async fn run(settings: &Settings, args: &PushArgs, started: Instant) -> Result<Ending, Failure> {
    let name = file_name(&args.path)?;
    push_within(settings, args, name, started).await.map_err(|failure| about(name, failure))
}

async fn push_within(
    settings: &Settings,
    args: &PushArgs,
    name: WalFileName,
    started: Instant,
) -> Result<Ending, Failure> {
    let looking = Ground::of_path(settings, &args.path);
    let ground = within(name, settings.archive_push.deadline, started, looking).await?;
    let deadline = deadline(settings, ground.source.size());
    let pushing = async {
        if is_done_by_agent(settings, name, &ground).await {
            return Ok(Ending::DONE);
        }
        let left = deadline.saturating_sub(started.elapsed());
        push(settings, name, ground, left).await
    };
    within(name, deadline, started, pushing).await
}

/// Has the agent archive the file. False when there is none, or anything at all is not as it should be.
async fn is_done_by_agent(settings: &Settings, name: WalFileName, ground: &Ground) -> bool {
    let Some(socket) = socket(settings, name, ground).await else { return false };
    match ask::push(settings, &socket, name).await {
        Ok(()) => {
            tracing::debug!("the agent archived \"{name}\"");
            true
        }
        Err(Unanswered::Nobody) => false,
        Err(Unanswered::Failed(why)) => {
            tracing::debug!("the agent could not archive \"{name}\": {why}; archiving it without the agent");
            false
        }
        Err(Unanswered::Unusable(why)) => {
            tracing::warn!("the agent is of no help: {why}; archiving \"{name}\" without it");
            false
        }
    }
}

fn file_name(path: &Path) -> Result<WalFileName, Failure> {
    let text = path.file_name().unwrap_or_default().to_string_lossy();
    text.parse().map_err(|error| {
        Failure::usage(format!("could not archive \"{}\": {error}", path.display()))
            .with_hint("archive-push takes finished WAL files from pg_wal, as %p in archive_command")
    })
}

async fn push(
    settings: &Settings,
    name: WalFileName,
    ground: Ground,
    left: Duration,
) -> Result<Ending, Failure> {
    let identifier = ground.cluster.system_identifier;
    let archive = open::archive_to_write(settings, identifier, Patience::For(left)).await?;
    Shipper::one_by_one(archive).ship(name, ground, None).await?;
    Ok(Ending::DONE)
}

/// Where the agent of the file's cluster listens. None when the file is not where the agent would look for it: it is
/// told a name, and knows one place for that.
async fn socket(settings: &Settings, name: WalFileName, ground: &Ground) -> Option<Socket> {
    let directory = ground.cluster.path.clone();
    let (settings, identifier) = (settings.clone(), ground.cluster.system_identifier);
    let place = aside(move || {
        let there = Identity::at(&directory.join(PG_WAL).join(name.to_string()));
        Ok((there, Socket::of(&settings, identifier, &directory).ok()))
    });
    let (there, socket) = place.await.ok()?;
    socket.filter(|_| there == Some(ground.source.identity()))
}
