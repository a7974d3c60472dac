//! The live tail: what the server has made durable of the segment that it is writing goes into the archive
//! every second, so that losing the whole machine costs about that second and not a segment.
//!
//! Bytes before the flush position never change on an honest disk, so they are read straight from `pg_wal`.
//! Pieces become durable strictly in the order of addresses, the first of a timeline after its history. Each
//! says what comes before it, so whoever reads takes only what continues.

mod begin;
mod idle;
mod merge;
mod open_segment;
mod shipment;
mod state;
mod sweep;

use crate::config::{Connection, Settings};
use crate::data_directory;
use crate::exit::{Failure, Status};
use crate::open::{self, Patience};
use crate::session::{Flushed, Session};
use crate::writer_id;
use idle::IdleWatch;
use shipment::{More, Shipment};
pub use state::TailState;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use walpoint_archive::{Archive, Cluster, IdleProof, WriterId};
use walpoint_wal::SegmentSize;

/// How long the server has for an answer to a question that costs it nothing.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long one request is tried again; then what keeps the tail is said, and all begins anew.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the last bytes may take when the agent leaves.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// All that following a server needs.
#[derive(Debug, Clone)]
pub struct Follow {
    /// How the server is reached; none for the one that runs in the data directory.
    pub connection: Option<Connection>,
    pub data_directory: PathBuf,
    /// Its cluster, as the archive is to know it.
    pub cluster: Cluster,
    /// Opened for writing.
    pub archive: Archive,
    pub writer: WriterId,
    /// How often what came is shipped.
    pub interval: Duration,
}

impl Follow {
    /// What the configuration says: the server of its data directory, and its archive.
    ///
    /// # Errors
    /// Status 1 or 2 when one of them cannot be used.
    pub async fn of(settings: &Settings) -> Result<Follow, Failure> {
        let directory = data_directory::configured(settings)?;
        let cluster = directory.as_cluster()?;
        let patience = Patience::For(PATIENCE);
        let archive = open::archive_to_write(settings, cluster.system_identifier, patience).await?;
        Ok(Follow {
            connection: settings.postgres.connection.clone(),
            writer: writer_id::of(&directory.path),
            data_directory: directory.path,
            cluster,
            archive,
            interval: settings.agent.live_tail_interval,
        })
    }
}

/// Where the WAL is and where it goes.
#[derive(Debug, Clone)]
struct Ground {
    archive: Archive,
    cluster: Cluster,
    pg_wal: PathBuf,
    size: SegmentSize,
    writer: WriterId,
}

/// Follows the server until it is told to stop, through outages of both sides. What it comes to is said in
/// `state`.
pub async fn follow(follow: Follow, state: watch::Sender<TailState>, mut stop: watch::Receiver<bool>) {
    let mut follower = Follower::new(follow, state);
    loop {
        let pause = follower.round().await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = told_to_stop(&mut stop) => break,
        }
    }
    let _ = tokio::time::timeout(LAST_WORDS, follower.look_and_ship()).await;
}

/// Returns when the agent leaves, or nobody is left to say so.
async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}

struct Follower {
    follow: Follow,
    ground: Ground,
    shipment: Shipment,
    idle: IdleWatch,
    session: Option<Session>,
    state: watch::Sender<TailState>,
    pause: Duration,
}

impl Follower {
    fn new(follow: Follow, state: watch::Sender<TailState>) -> Follower {
        let ground = Ground {
            archive: follow.archive.clone(),
            cluster: follow.cluster,
            pg_wal: follow.data_directory.join("pg_wal"),
            size: follow.cluster.segment_size,
            writer: follow.writer,
        };
        let shipment = Shipment::new(ground.clone());
        let idle = IdleWatch::default();
        Follower { follow, ground, shipment, idle, session: None, state, pause: FIRST_PAUSE }
    }

    /// Looks once and ships what there is; says how long to wait then.
    async fn round(&mut self) -> Duration {
        let began = Instant::now();
        let failure = self.look_and_ship().await.err();
        let failed = failure.is_some();
        self.tell(failure);
        if !failed {
            self.pause = FIRST_PAUSE;
            return self.follow.interval.saturating_sub(began.elapsed());
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    async fn look_and_ship(&mut self) -> Result<(), Failure> {
        let Some(now) = self.flushed().await? else {
            self.shipment.forget();
            self.idle.forget();
            self.state.send_modify(|state| {
                *state = TailState::in_recovery(state.alarm.take());
            });
            return Ok(());
        };
        self.state.send_modify(|state| {
            (state.is_in_recovery, state.timeline) = (false, Some(now.timeline));
            state.flushed = Some(now.flush);
        });
        loop {
            let more = self.shipment.advance(now).await;
            let (shipped, alarm) = (self.shipment.shipped(), self.shipment.alarm().map(str::to_owned));
            self.state.send_modify(|state| {
                state.reached(shipped, Instant::now());
                state.alarm = alarm.or(state.alarm.take());
            });
            if more? == More::No {
                break;
            }
        }
        self.prove_idleness(now).await?;
        self.shipment.sweep(Instant::now()).await
    }

    /// Asks the server over the one connection that is kept.
    async fn flushed(&mut self) -> Result<Option<Flushed>, Failure> {
        let asked = tokio::time::timeout(ANSWER_WITHIN, self.ask()).await;
        let answer = asked.unwrap_or_else(|_| {
            Err(Failure::failed("could not ask the server how far its WAL is flushed: no answer in time"))
        });
        if answer.is_err() {
            self.session = None;
            self.idle.forget();
        }
        answer
    }

    async fn ask(&mut self) -> Result<Option<Flushed>, Failure> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.connect().await?,
        };
        let flushed = session.flushed().await?;
        self.session = Some(session);
        Ok(flushed)
    }

    async fn connect(&self) -> Result<Session, Failure> {
        let connection = self.follow.connection.as_ref().map(Connection::reveal);
        let session = Session::open(connection, Some(&self.follow.data_directory)).await?;
        let (found, expected) = (session.server.system_identifier, self.ground.archive.system_identifier());
        if found != expected {
            return Err(Failure::new(
                Status::WrongCluster,
                format!(
                    "could not follow the server that answered: it is of cluster {found}, not of {expected}"
                ),
            ));
        }
        Ok(session)
    }

    async fn prove_idleness(&mut self, now: Flushed) -> Result<(), Failure> {
        let at = Instant::now();
        if let Some(time) = self.idle.look(now, self.shipment.shipped(), at) {
            let (timeline, flush_lsn, writer) = (now.timeline, now.flush, self.ground.writer);
            self.ground.archive.put_idle(&IdleProof { timeline, flush_lsn, time, writer }).await?;
            self.idle.renewed(at);
        }
        Ok(())
    }

    /// Says what keeps the tail once when it begins, and once when it ends.
    fn tell(&mut self, failure: Option<Failure>) {
        let before = self.state.borrow().error.is_some();
        match &failure {
            Some(failure) if !before => {
                tracing::warn!(hint = failure.hint.as_deref(), "{failure}; trying again")
            }
            None if before => tracing::info!("the tail of the WAL is shipped again"),
            _ => {}
        }
        self.state.send_modify(|state| state.error = failure);
    }
}

#[cfg(test)]
mod tests;
