//! `archive-get`: the hook around [`walpoint_pitr::get`]. It finds out for whom the file is, waits while
//! waiting can help, and turns what is left into the one answer that PostgreSQL must not misread.

use super::cluster::HookCluster;
use super::prefetch::Ahead;
use crate::cli::GetArgs;
use crate::config::{Settings, StandbyOnOutage, durations};
use crate::data_directory;
use crate::exit::{Ending, Failure, Status};
use crate::open::{self, Patience};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use walpoint_archive::store::StoreErrorKind;
use walpoint_archive::{Archive, ArchiveError};
use walpoint_pitr::contract::Contract;
use walpoint_pitr::get::{
    Asker, GetError, GetOutcome, GetRequest, can_do_without, deliver_known, deliver_own_history, get,
};
use walpoint_pitr::recovery_settings::{RECOVERY_SIGNAL, STANDBY_SIGNAL};
use walpoint_wal::{SegmentSize, SystemIdentifier, Timestamp, WalFileName};

/// Pause before the second try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A wait longer than this is said in the server's log, and again every [`FURTHER_WORDS_EVERY`].
const FIRST_WORD_AFTER: Duration = Duration::from_secs(5);
const FURTHER_WORDS_EVERY: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a file is looked for that recovery can do without. PostgreSQL waits meanwhile, at its target.
const PATIENCE_WITHOUT: Duration = Duration::from_secs(15);

/// Carries out `archive-get` by the rules of `recovery.signal`.
///
/// # Errors
/// Everything but "here it is" and "there is no such file". Recovery must stop.
pub async fn run(settings: &Settings, args: &GetArgs, started: Instant) -> Result<Ending, Failure> {
    let question = Question::of(settings, args)?;
    let patience = match is_standby(&args.destination) {
        true => settings.archive_get.standby_retry_for,
        false => settings.archive_get.retry_for,
    };
    if question.is_answered_by_pg_wal()? {
        return Ok(Ending::DONE);
    }
    let outcome = match question.dispensable() {
        Some(why) => ask_in_passing(settings, &question, why).await,
        None => {
            let answering = async {
                match question.is_answered_by_the_spool().await {
                    true => Ok(GetOutcome::Delivered),
                    false => ask_again(settings, &question, patience, started).await,
                }
            };
            saying_that_it_waits(&question, patience, answering).await?
        }
    };
    match outcome {
        GetOutcome::Delivered => {
            question.have_fetched_ahead(settings);
            Ok(Ending::DONE)
        }
        GetOutcome::NoSuchFile { why } => {
            tracing::info!("\"{}\" is not in the archive: {why}", question.name);
            Ok(Ending::NotAvailable)
        }
    }
}

/// What PostgreSQL is told when the run ended so. A standby asks again by itself and would go down by
/// anything that stops recovery: it hears "not available", unless the operator chose otherwise or the WAL is
/// another cluster's.
pub fn told(
    args: &GetArgs,
    settings: Option<&Settings>,
    ended: Result<Ending, Failure>,
) -> Result<Ending, Failure> {
    let failure = match ended {
        Err(failure) if is_standby(&args.destination) => failure,
        ended => return ended,
    };
    let on_outage =
        settings.map_or(StandbyOnOutage::Retry, |settings| settings.archive_get.standby_on_outage);
    if failure.status == Status::WrongCluster || on_outage == StandbyOnOutage::Stop {
        return Err(failure);
    }
    tracing::error!(
        hint = failure.hint.as_deref(),
        "this standby goes on without \"{}\" and asks again: {}",
        args.name.to_string_lossy(),
        failure.error
    );
    Ok(Ending::NotAvailable)
}

/// `standby.signal` wins where both signal files are (`readRecoverySignalFile`, xlogrecovery.c, 13–18).
fn is_standby(destination: &Path) -> bool {
    data_directory::of_wal_path(destination).is_some_and(|directory| directory.join(STANDBY_SIGNAL).exists())
}

/// `standby.signal` wins here, too.
fn asker(data_directory: &Path) -> Asker {
    let has = |signal: &str| data_directory.join(signal).exists();
    match (has(STANDBY_SIGNAL), has(RECOVERY_SIGNAL)) {
        (true, _) => Asker::Standby,
        (false, true) => Asker::Recovery,
        (false, false) => Asker::Other,
    }
}

/// What PostgreSQL asks for.
struct Question {
    name: WalFileName,
    destination: PathBuf,
    system_identifier: SystemIdentifier,
    /// None when only the archive can tell: PostgreSQL is later than this program, and there is no contract.
    segment_size: Option<SegmentSize>,
    contract: Option<Contract>,
    asker: Asker,
    /// Who fetches ahead for this recovery, where somebody is to.
    ahead: Option<Ahead>,
}

impl Question {
    fn of(settings: &Settings, args: &GetArgs) -> Result<Self, Failure> {
        let text = args.name.to_string_lossy();
        let name: WalFileName =
            text.parse().map_err(|error| Failure::usage(format!("could not get \"{text}\": {error}")))?;
        let cluster = HookCluster::of(&args.destination, settings)?;
        let beside = data_directory::of_wal_path(&args.destination).unwrap_or_else(|| cluster.path.clone());
        let contract = args.contract.as_deref().map(|file| read_contract(&beside.join(file))).transpose()?;
        let promised = contract.as_ref().map(|contract| contract.segment_size);
        let segment_size = cluster.segment_size().or(promised);
        let contract_file = args.contract.as_deref().map(|file| beside.join(file));
        Ok(Self {
            name,
            destination: args.destination.clone(),
            system_identifier: cluster.system_identifier,
            segment_size,
            contract,
            asker: asker(&beside),
            ahead: match name {
                WalFileName::Segment(_) => {
                    Ahead::of(settings, &cluster, &args.destination, segment_size, contract_file)
                }
                _ => None,
            },
        })
    }

    /// Whether the file could be handed over without the archive: recovery has it already.
    fn is_answered_by_pg_wal(&self) -> Result<bool, Failure> {
        match self.segment_size {
            Some(size) => Ok(deliver_own_history(&self.with(size))?),
            None => Ok(false),
        }
    }

    /// Whether the file was handed over as it was fetched ahead.
    async fn is_answered_by_the_spool(&self) -> bool {
        match self.segment_size {
            Some(size) if self.ahead.is_some() => deliver_known(&self.with(size)).await,
            _ => false,
        }
    }

    /// Why recovery can do without the file, whatever the archive has, when it can.
    fn dispensable(&self) -> Option<&'static str> {
        can_do_without(&self.with(self.segment_size?))
    }

    fn with(&self, segment_size: SegmentSize) -> GetRequest {
        GetRequest {
            name: self.name,
            destination: self.destination.clone(),
            system_identifier: self.system_identifier,
            segment_size,
            contract: self.contract.clone(),
            asker: self.asker,
            spool: self.ahead.as_ref().map(|ahead| ahead.spool().clone()),
        }
    }

    /// Sees to it that what follows is fetched before it is asked for.
    fn have_fetched_ahead(&self, settings: &Settings) {
        if let Some(ahead) = &self.ahead {
            ahead.see_to_it(settings);
        }
    }

    async fn put_to(&self, archive: &Archive) -> Result<GetOutcome, GetError> {
        let size = match self.segment_size {
            Some(size) => size,
            None => archive.segment_size().await?.ok_or(ArchiveError::NoCluster(self.system_identifier))?,
        };
        get(archive, &self.with(size)).await
    }
}

pub(super) fn read_contract(path: &Path) -> Result<Contract, Failure> {
    let failure = |why: String| {
        Failure::usage(format!("could not use the recovery contract \"{}\": {why}", path.display()))
            .with_hint("it is written by walpoint restore, and named in restore_command")
    };
    let text = std::fs::read(path).map_err(|error| failure(error.to_string()))?;
    Contract::from_json(&text).map_err(|error| failure(error.to_string()))
}

/// Says now and then that recovery waits for the archive: without it the server's log shows nothing at all.
async fn saying_that_it_waits<T>(
    question: &Question,
    patience: Duration,
    work: impl Future<Output = T>,
) -> T {
    let started = Instant::now();
    tokio::pin!(work);
    let mut next = FIRST_WORD_AFTER;
    loop {
        tokio::select! {
            result = &mut work => return result,
            () = tokio::time::sleep(next) => tracing::warn!(
                "waiting for \"{}\" for {} s; a failing archive is tried again for up to {}",
                question.name,
                started.elapsed().as_secs(),
                durations::render(patience)
            ),
        }
        next = FURTHER_WORDS_EVERY;
    }
}

/// Asks once, for a file that recovery can do without: it is a favour, and no failure of the archive stops a
/// recovery for it.
async fn ask_in_passing(settings: &Settings, question: &Question, why: &str) -> GetOutcome {
    let asking = ask(settings, question, PATIENCE_WITHOUT);
    let failure = match tokio::time::timeout(PATIENCE_WITHOUT, asking).await {
        Ok(Ok(outcome)) => return outcome,
        Ok(Err(unanswered)) => unanswered.failure.to_string(),
        Err(_) => "the archive did not answer in time".to_owned(),
    };
    tracing::warn!("recovery goes on without \"{}\", which it does not need: {failure}", question.name);
    GetOutcome::NoSuchFile { why: why.to_owned() }
}

async fn ask_again(
    settings: &Settings,
    question: &Question,
    patience: Duration,
    started: Instant,
) -> Result<GetOutcome, Failure> {
    let mut pause = FIRST_PAUSE;
    let mut tries: u32 = 0;
    loop {
        tries += 1;
        let unanswered = match ask(settings, question, patience.saturating_sub(started.elapsed())).await {
            Ok(outcome) => return Ok(outcome),
            Err(unanswered) => unanswered,
        };
        let worth = match unanswered.again {
            Again::MayPass => true,
            Again::Once => tries == 1,
            Again::No => false,
        };
        if !worth || started.elapsed() + pause >= patience {
            return Err(unanswered.failure);
        }
        if tries == 1 {
            tracing::warn!("{}; trying again", unanswered.failure);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A question without an answer.
struct Unanswered {
    failure: Failure,
    again: Again,
}

/// Whether asking again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It is a state of the world that can end.
    MayPass,
    /// It may have been the way from the store to here.
    Once,
    /// It will be the same.
    No,
}

async fn ask(settings: &Settings, question: &Question, left: Duration) -> Result<GetOutcome, Unanswered> {
    let opened = open::archive(settings, question.system_identifier, Patience::For(left)).await;
    let in_flight = settings.check.in_flight;
    let archive = opened.map_err(|failure| {
        let again = if failure.status == Status::Failed { Again::MayPass } else { Again::No };
        Unanswered { failure, again }
    })?;
    question
        .put_to(&archive)
        .await
        .map_err(|error| Unanswered { again: again_after(&error, in_flight, now()), failure: error.into() })
}

fn again_after(error: &GetError, in_flight: Duration, now: Timestamp) -> Again {
    let error = match error {
        // Segments are pushed several at a time: one before what came a moment ago may be on its way.
        GetError::Gap { followed_since: Some(since), .. } if is_younger(*since, in_flight, now) => {
            return Again::MayPass;
        }
        GetError::Archive(error) => error,
        _ => return Again::No,
    };
    match error {
        ArchiveError::Store(error) => match error.kind {
            StoreErrorKind::Damaged => Again::Once,
            // A disk that is not mounted yet, a credential that is being renewed, a name that does not
            // resolve: all of these end.
            StoreErrorKind::NotFound
            | StoreErrorKind::NoArchive
            | StoreErrorKind::Denied
            | StoreErrorKind::Transient
            | StoreErrorKind::Other => Again::MayPass,
        },
        ArchiveError::Damaged { .. } => Again::Once,
        _ => Again::No,
    }
}

fn is_younger(since: Timestamp, age: Duration, now: Timestamp) -> bool {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    now.0.saturating_sub(since.0) < age
}

#[expect(clippy::disallowed_methods, reason = "how old an object is can be told by a clock only")]
fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = i64::try_from(since_1970.as_micros()).ok();
    micros.and_then(Timestamp::from_unix_micros).unwrap_or(Timestamp(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walpoint_archive::store::StoreError;

    const MINUTE: Duration = Duration::from_secs(60);

    fn store(kind: StoreErrorKind) -> GetError {
        GetError::Archive(ArchiveError::Store(StoreError::new("get", "key", kind, "detail")))
    }

    #[test]
    fn waiting_is_for_what_can_pass() {
        for (kind, again) in [
            (StoreErrorKind::Transient, Again::MayPass),
            (StoreErrorKind::Denied, Again::MayPass),
            (StoreErrorKind::NoArchive, Again::MayPass),
            (StoreErrorKind::Damaged, Again::Once),
        ] {
            assert_eq!(again_after(&store(kind), MINUTE, Timestamp(0)), again, "{kind:?}");
        }
        let no_key = GetError::Archive(ArchiveError::NoKey { key: "k".to_owned() });
        assert_eq!(again_after(&no_key, MINUTE, Timestamp(0)), Again::No);
    }

    #[test]
    fn a_hole_before_what_came_a_moment_ago_is_waited_for_until_it_is_a_gap() {
        let gap = |followed_since| GetError::Gap {
            name: "000000010000000000000001".parse().unwrap(),
            proof: "needed".to_owned(),
            followed_since,
        };
        let second = 1_000_000;
        for (since, again) in [
            (None, Again::No),
            (Some(Timestamp(41 * second)), Again::MayPass),
            (Some(Timestamp(40 * second)), Again::No),
            (Some(Timestamp(101 * second)), Again::MayPass),
        ] {
            assert_eq!(again_after(&gap(since), MINUTE, Timestamp(100 * second)), again, "{since:?}");
        }
    }

    #[test]
    fn a_standby_is_told_to_ask_again_unless_the_wal_is_foreign() {
        let directory = tempfile::tempdir().unwrap();
        let args = GetArgs {
            contract: None,
            name: "000000010000000000000001".into(),
            destination: directory.path().join("pg_wal/RECOVERYXLOG"),
        };
        let failed = |status| Err(Failure::new(status, "could not"));
        assert!(told(&args, None, failed(Status::Failed)).is_err(), "no standby");
        std::fs::write(directory.path().join(STANDBY_SIGNAL), "").unwrap();
        std::fs::write(directory.path().join("recovery.signal"), "").unwrap();
        for status in [Status::Failed, Status::Usage, Status::Damaged, Status::Conflict] {
            assert_eq!(told(&args, None, failed(status)), Ok(Ending::NotAvailable), "{status:?}");
        }
        assert!(told(&args, None, failed(Status::WrongCluster)).is_err());
    }
}
