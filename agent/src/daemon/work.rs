//! The agent's work: one owner of all that is known, who decides what begins, and tells those who asked. It waits for
//! nothing itself; whatever takes time is a flight.

use super::account::Account;
use super::clock;
use super::flight::{self, Base, Landing};
use super::measured::{Gauge, Measured};
use super::ready::{Seen, Sweep};
use super::replaced;
use super::report::{AgentFacts, Disk, Report, StoreFacts, Tail, Waiting};
use super::serve::{Order, Status};
use crate::config::Settings;
use crate::data_directory::free_bytes;
use crate::exit::{Failure, Status as ExitStatus};
use crate::open;
use crate::ship::cluster::HookCluster;
use crate::ship::ground::PG_WAL;
use crate::ship::look_ahead::LookAhead;
use crate::ship::pace::Pace;
use crate::ship::push::{Shipper, deadline};
use crate::ship::shipped::Shipped;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinSet};
use walpoint_wal::{SegmentSize, SystemIdentifier, TimelineId, Timestamp, WalFileName};

/// How often the whole directory is read, in case that an event was lost.
const RESCAN: Duration = Duration::from_secs(5);
/// Reading it may take one part in so many of the time.
const RESCAN_SHARE: u32 = 50;
/// The same for a reading that an event asks for, and the pause before it.
const EVENT_SHARE: u32 = 5;
const EVENT_PAUSE: Duration = Duration::from_millis(100);

/// More than this that comes and goes meanwhile means reading it again.
const SEEN_MEANWHILE: usize = 1024;

/// Where an answer goes.
type Reply = oneshot::Sender<Result<(), Failure>>;

/// All that the agent knows.
#[derive(Debug)]
pub struct Work {
    /// What is under way, to be landed.
    pub flights: JoinSet<Landing>,
    settings: Arc<Settings>,
    base: Base,
    mark: String,
    gauge: Gauge,
    segment_size: Option<SegmentSize>,
    since: Timestamp,
    ahead: LookAhead,
    pace: Pace,
    askers: BTreeMap<WalFileName, Vec<Reply>>,
    checking: BTreeSet<WalFileName>,
    account: Account,
    sweeping: bool,
    /// What came and went while the directory was read: the reading may have missed it.
    seen_meanwhile: Vec<Seen>,
    sweep_soon: bool,
    sweep_took: Duration,
    /// The timeline whose parents were looked at.
    looked_behind: Option<TimelineId>,
    looking_behind: bool,
    is_leaving: bool,
}

impl Work {
    /// For a cluster, with the archive opened once.
    ///
    /// # Errors
    /// As for any command that writes to the archive.
    pub async fn new(settings: Settings, cluster: &HookCluster, mark: &str) -> Result<Self, Failure> {
        let gauge = Gauge::default();
        let shipper = open_archive(&settings, cluster.system_identifier, &gauge).await?;
        let base = Base {
            data_directory: cluster.path.clone(),
            cluster: cluster.system_identifier,
            shipper: Arc::new(shipper),
            generation: 0,
        };
        Ok(Self {
            flights: JoinSet::new(),
            pace: Pace::new(settings.workers().get()),
            settings: Arc::new(settings),
            base,
            mark: mark.to_owned(),
            gauge,
            segment_size: cluster.segment_size(),
            since: clock::now(),
            ahead: LookAhead::default(),
            askers: BTreeMap::new(),
            checking: BTreeSet::new(),
            account: Account::default(),
            sweeping: false,
            seen_meanwhile: Vec::new(),
            sweep_soon: false,
            sweep_took: Duration::ZERO,
            looked_behind: None,
            looking_behind: false,
            is_leaving: false,
        })
    }

    /// Takes another configuration.
    ///
    /// # Errors
    /// As [`Work::new`]; nothing is changed then.
    pub async fn reload(&mut self, settings: Settings, mark: &str) -> Result<(), Failure> {
        if settings.postgres.data_directory.as_deref() != Some(self.base.data_directory.as_path())
            || settings.agent.socket_directory != self.settings.agent.socket_directory
        {
            return Err(Failure::usage("another data directory or socket directory needs another agent")
                .with_hint("restart the agent"));
        }
        let shipper = open_archive(&settings, self.base.cluster, &self.gauge).await?;
        self.base.shipper = Arc::new(shipper);
        if self.mark != mark {
            // What is there is not here.
            self.base.generation += 1;
            self.ahead.forget_all();
            mark.clone_into(&mut self.mark);
        }
        self.pace.set_limit(settings.workers().get());
        self.settings = Arc::new(settings);
        Ok(())
    }

    /// What is configured now.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings)
    }

    /// How long the agent may take to leave.
    pub fn drain(&self) -> Duration {
        self.settings.agent.drain
    }

    /// Begins nothing any more, unless it is known already.
    pub fn stop_beginning(&mut self) {
        self.is_leaving = true;
    }

    /// Whether anything is under way that somebody may be waiting for.
    pub fn is_busy(&self) -> bool {
        self.count_under_way() > 0 || !self.checking.is_empty()
    }

    /// Files that are being shipped.
    pub fn count_under_way(&self) -> usize {
        self.ahead.under_way().count()
    }

    /// Begins whatever may be begun now. Says when to come again, when it is only the time that is in the way.
    pub fn begin_what_may(&mut self, now: Instant) -> Option<Instant> {
        while !self.is_leaving && self.pace.may_begin(self.count_under_way(), now) {
            self.begin(self.ahead.next()?);
        }
        self.pace.not_before().filter(|not_before| *not_before > now && !self.is_leaving)
    }

    fn begin(&mut self, name: WalFileName) {
        self.ahead.begin(name);
        // Here and now, in order: whatever begins next may follow on it.
        let announced = self.base.shipper.announce(name);
        self.flights.spawn(flight::push(self.base.clone(), Arc::clone(&self.settings), name, announced));
    }

    /// Reads the directory, unless that is under way.
    pub fn sweep(&mut self) {
        if !self.sweeping {
            (self.sweeping, self.sweep_soon) = (true, false);
            self.flights.spawn(flight::sweep(self.base.clone()));
        }
    }

    /// How long after the last reading of the directory comes the next.
    pub fn sweep_pause(&self) -> Duration {
        if self.sweep_soon && !self.sweeping {
            EVENT_PAUSE.max(self.sweep_took * EVENT_SHARE)
        } else {
            RESCAN.max(self.sweep_took * RESCAN_SHARE)
        }
    }

    /// Something came or went.
    pub fn see(&mut self, seen: Seen) {
        if self.sweeping {
            if self.seen_meanwhile.len() < SEEN_MEANWHILE {
                self.seen_meanwhile.push(seen);
            } else {
                self.sweep_soon = true;
            }
        }
        match seen {
            Seen::Ready(name) => {
                self.ahead.appeared(name);
                // A new timeline: its parents' last segments are about to go.
                self.sweep_soon |= matches!(name, WalFileName::History(_));
            }
            Seen::Gone(name) => self.ahead.is_gone(name),
            Seen::Much => self.sweep_soon = true,
        }
    }

    /// Does what somebody asks for, or begins to.
    pub fn take(&mut self, order: Order, tail: Option<Tail>) {
        match order {
            Order::Status(reply) => drop(reply.send(self.status(tail))),
            // Told of another archive than the one that is shipped to by now.
            Order::Push { mark, .. } if mark != self.mark => {}
            Order::Push { name, reply, .. } => self.asked_for(name, reply),
        }
    }

    fn asked_for(&mut self, name: WalFileName, reply: Reply) {
        let is_at_work = self.ahead.is_under_way(name) || self.checking.contains(&name);
        let shipped = self.ahead.shipped(name);
        if self.is_leaving && !is_at_work && shipped.is_none() {
            return;
        }
        self.askers.entry(name).or_default().push(reply);
        match shipped {
            _ if is_at_work => {}
            Some(shipped) => self.check(name, shipped),
            None => self.begin(name),
        }
    }

    fn check(&mut self, name: WalFileName, shipped: Shipped) {
        self.checking.insert(name);
        let limit = self.settings.archive_push.deadline;
        self.flights.spawn(flight::check(self.base.clone(), name, shipped, limit));
    }

    /// Takes in what came of a flight.
    ///
    /// # Errors
    /// Status 4 when the data directory has become another cluster's.
    pub fn land(&mut self, landing: Result<Landing, JoinError>) -> Result<(), Failure> {
        match landing {
            Ok(Landing::Pushed { name, generation, outcome, is_there }) => {
                if generation == self.base.generation {
                    self.pushed(name, outcome, is_there);
                } else {
                    // Wherever it went, it is not there.
                    self.ahead.failed(name, true);
                    self.askers.remove(&name);
                }
            }
            Ok(Landing::Checked(name, outcome)) => self.checked(name, outcome),
            Ok(Landing::Swept(outcome)) => self.swept(outcome)?,
            Ok(Landing::LeftBehind(timeline, outcome)) => self.looked_behind(timeline, outcome),
            Err(error) => {
                return Err(Failure::failed(format!("an internal error ended a part of the work: {error}")));
            }
        }
        Ok(())
    }

    fn pushed(&mut self, name: WalFileName, outcome: Result<(Shipped, u64), Failure>, is_there: bool) {
        let now = Instant::now();
        match outcome {
            Ok((shipped, bytes)) => {
                tracing::debug!("\"{name}\" is in the archive");
                self.ahead.landed(name, shipped);
                self.account.archived(name, bytes, now);
                if let Some(away) = self.pace.succeeded(now) {
                    tracing::info!("archiving goes on with \"{name}\", after {:.0} s", away.as_secs_f64());
                }
                if self.askers.contains_key(&name) {
                    // Asked for while it was under way: is it still what was shipped?
                    self.check(name, shipped);
                }
            }
            Err(failure) => {
                self.ahead.failed(name, is_there);
                if failure.status == ExitStatus::WrongCluster {
                    self.sweep_soon = true;
                }
                // One that has gone was archived by somebody else, or is not wanted any more.
                if is_there {
                    self.say(name, &failure, now);
                }
                self.tell(name, &Err(failure));
            }
        }
    }

    /// Says the first failure of many; what fails then fails for the same reason, as a rule. While the oldest file
    /// fails, so do those that follow on it: they have nothing to add.
    fn say(&mut self, name: WalFileName, failure: &Failure, now: Instant) {
        if self.pace.away_since().is_some() && self.ahead.oldest() != Some(name) {
            return;
        }
        self.account.failed(failure);
        if self.pace.failed(now, rand::random()) {
            let hint = failure.hint.as_deref();
            tracing::error!(hint, "{failure}; going on trying, and PostgreSQL keeps the files meanwhile");
        }
    }

    fn checked(&mut self, name: WalFileName, outcome: Result<bool, Failure>) {
        self.checking.remove(&name);
        match outcome {
            Ok(true) => self.tell(name, &Ok(())),
            Ok(false) => {
                tracing::warn!(
                    "\"{name}\" is not the file that was archived under this name; archiving it anew"
                );
                self.ahead.forget(name);
                if self.is_leaving {
                    self.askers.remove(&name);
                } else {
                    self.begin(name);
                }
            }
            Err(failure) => {
                self.ahead.forget(name);
                self.sweep_soon = true;
                self.tell(name, &Err(failure));
            }
        }
    }

    fn tell(&mut self, name: WalFileName, outcome: &Result<(), Failure>) {
        for reply in self.askers.remove(&name).into_iter().flatten() {
            // One that does not wait any more is offered the file again.
            let _gone = reply.send(outcome.clone());
        }
    }

    fn swept(&mut self, outcome: Result<Sweep, Failure>) -> Result<(), Failure> {
        self.sweeping = false;
        let sweep = match outcome {
            Ok(sweep) => sweep,
            Err(failure) => {
                self.seen_meanwhile.clear();
                self.account.failed(&failure);
                tracing::warn!("{failure}");
                return Ok(());
            }
        };
        if sweep.cluster != self.base.cluster {
            return Err(replaced(&self.base.data_directory));
        }
        self.sweep_took = sweep.took;
        self.ahead.swept(sweep.ready);
        for seen in std::mem::take(&mut self.seen_meanwhile) {
            self.see(seen);
        }
        self.account.waits(self.bytes_outside(), Instant::now());
        self.look_behind(sweep.written_timeline);
        Ok(())
    }

    fn look_behind(&mut self, written: Option<TimelineId>) {
        let Some(timeline) = written.filter(|written| self.looked_behind != Some(*written)) else { return };
        if timeline != TimelineId::FIRST && !self.looking_behind && !self.is_leaving {
            self.looking_behind = true;
            self.flights.spawn(flight::look_behind(self.base.clone(), timeline));
        }
    }

    fn looked_behind(&mut self, timeline: TimelineId, outcome: Result<Vec<WalFileName>, Failure>) {
        self.looking_behind = false;
        match outcome {
            Ok(names) => {
                self.looked_behind = Some(timeline);
                if let (Some(first), Some(last)) = (names.first(), names.last()) {
                    let count = names.len();
                    tracing::warn!(
                        "the archive lacks {count} segments of what timeline {timeline} came from, from \
                         \"{first}\" to \"{last}\"; archiving them from pg_wal"
                    );
                }
                self.ahead.left_behind(names);
            }
            // The next reading of the directory comes back to it.
            Err(failure) => {
                tracing::debug!("could not look for what the parents of timeline {timeline} left: {failure}");
            }
        }
    }

    fn bytes_outside(&self) -> u64 {
        let size = self.segment_size.map_or(0, SegmentSize::bytes);
        let is_large = |name: &WalFileName| matches!(name, WalFileName::Segment(_) | WalFileName::Partial(_));
        self.ahead.outside().filter(is_large).count() as u64 * size
    }

    fn status(&mut self, tail: Option<Tail>) -> Status {
        let now = Instant::now();
        let speed = self.gauge.read();
        let free = free_bytes(&self.base.data_directory.join(PG_WAL));
        let report = Report {
            agent: AgentFacts {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                since: self.since,
            },
            shipping: self.ahead.under_way().map(|name| name.to_string()).collect(),
            waiting: Waiting {
                files: self.ahead.count_outside(),
                bytes: self.bytes_outside(),
                oldest_seconds: None,
            },
            shipped: self.account.shipped(self.ahead.count_ahead(), now),
            store: StoreFacts {
                latency_ms: speed.latency.map(|seconds| seconds * 1000.0),
                bytes_per_second: speed.rate,
            },
            failing_seconds: self.pace.away_since().map(|since| (now - since).as_secs_f64()),
            last_error: self.account.last_error(),
            pg_wal: Disk {
                free_bytes: free,
                hours_left: free.and_then(|free| self.account.hours_left(free)),
            },
            tail,
        };
        let oldest = self.ahead.oldest().map(|name| (self.base.data_directory.clone(), name));
        Status { report, oldest }
    }
}

async fn open_archive(
    settings: &Settings,
    cluster: SystemIdentifier,
    gauge: &Gauge,
) -> Result<Shipper, Failure> {
    let largest = settings.postgres.data_directory.as_deref().and_then(segment_bytes).unwrap_or_default();
    let patience = open::Patience::Agent { request: deadline(settings, largest) };
    let gauge = gauge.clone();
    let measured = |store| Arc::new(Measured::new(store, gauge)) as Arc<_>;
    Ok(Shipper::several_at_once(open::archive_to_write_through(settings, cluster, patience, measured).await?))
}

fn segment_bytes(data_directory: &Path) -> Option<u64> {
    HookCluster::in_directory(data_directory).ok()?.segment_size().map(SegmentSize::bytes)
}
