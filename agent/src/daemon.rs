//! `walpoint agent`: ships ahead of the hook, and answers it. It keeps nothing that must survive: killed at any
//! moment it costs time, and without it everything works as before.

mod account;
pub mod clock;
mod flight;
mod left_behind;
mod lock;
mod measured;
mod ready;
pub mod report;
mod serve;
mod service;
mod tail;
mod work;

use crate::config::{Settings, durations};
use crate::data_directory;
use crate::exit::{Ending, Failure, Status};
use crate::ship::cluster::HookCluster;
use crate::ship::protocol::archive_mark;
use crate::ship::socket::Socket;
use lock::Lock;
use ready::Watch;
use serve::Orders;
use service::Service;
use std::path::PathBuf;
use std::time::Instant;
use tail::LiveTail;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use work::Work;

/// Carries out `walpoint agent`.
///
/// # Errors
/// Status 1 when another agent is there, status 2 for a configuration that cannot be used, status 4 when the data
/// directory becomes another cluster's.
pub async fn run(settings: &Settings, config: Option<PathBuf>) -> Result<Ending, Failure> {
    let (cluster, socket) = find(settings)?;
    socket.make_directory()?;
    let _lock = Lock::take(&socket.lock_path())?;
    let mut signals = Signals::new()?;
    let service = Service::from_environment();
    let mark = archive_mark(settings)?;
    let work = Work::new(settings.clone(), &cluster, &mark).await?;
    let (hello, mark) = watch::channel(mark);
    let orders = serve::listen(&socket, mark)?;
    tracing::info!(
        "shipping the WAL of \"{}\", cluster {}; listening at \"{}\"",
        cluster.path.display(),
        cluster.system_identifier,
        socket.path().display()
    );
    service.say("READY=1");
    let tail = LiveTail::begin(work.settings());
    let agent = Agent { work, tail, orders, watch: Watch::new(&cluster.path), hello, config, service };
    let ended = agent.run(&mut signals).await;
    // Whoever asks from now on goes by itself at once.
    let _gone = std::fs::remove_file(socket.path());
    ended
}

fn find(settings: &Settings) -> Result<(HookCluster, Socket), Failure> {
    let path = settings.postgres.data_directory.as_deref().ok_or_else(data_directory::not_configured)?;
    data_directory::refuse_root(path)?;
    let cluster = HookCluster::in_directory(path)?;
    let socket = Socket::of(settings, cluster.system_identifier, path)
        .map_err(|error| Failure::failed(format!("could not look at \"{}\": {error}", path.display())))?;
    Ok((cluster, socket))
}

/// The agent at work.
struct Agent {
    work: Work,
    tail: LiveTail,
    orders: Orders,
    watch: Watch,
    /// What those who connect are told of the archive.
    hello: watch::Sender<String>,
    config: Option<PathBuf>,
    service: Service,
}

impl Agent {
    async fn run(mut self, signals: &mut Signals) -> Result<Ending, Failure> {
        let mut swept = Instant::now();
        self.sweep();
        let mut beat = tokio::time::interval(self.service.beat());
        let leave_by = loop {
            let now = Instant::now();
            let mut next_sweep = swept + self.work.sweep_pause();
            if now >= next_sweep {
                self.sweep();
                swept = now;
                next_sweep = swept + self.work.sweep_pause();
            }
            let wake = self.work.begin_what_may(now).map_or(next_sweep, |wake| wake.min(next_sweep));
            tokio::select! {
                Some(order) = self.orders.recv() => self.work.take(order, self.tail.state()),
                Some(landing) = self.work.flights.join_next() => self.work.land(landing)?,
                seen = self.watch.next() => self.work.see(seen),
                () = tokio::time::sleep_until(wake.into()) => {}
                _ = beat.tick() => self.service.say("WATCHDOG=1"),
                _ = signals.hangup.recv() => self.reload().await,
                () = Signals::leave(&mut signals.terminate, &mut signals.interrupt) => {
                    break Instant::now() + self.work.drain();
                }
            }
        };
        self.service.say("STOPPING=1");
        self.tail.end().await;
        self.drain(leave_by).await
    }

    fn sweep(&mut self) {
        self.watch.renew();
        self.work.sweep();
    }

    /// Lets what is under way end, and begins nothing new.
    async fn drain(mut self, leave_by: Instant) -> Result<Ending, Failure> {
        self.work.stop_beginning();
        let waits = durations::render(self.work.drain());
        tracing::info!("leaving: waiting up to {waits} for {} files under way", self.work.count_under_way());
        while self.work.is_busy() {
            tokio::select! {
                Some(order) = self.orders.recv() => self.work.take(order, self.tail.state()),
                Some(landing) = self.work.flights.join_next() => self.work.land(landing)?,
                () = tokio::time::sleep_until(leave_by.into()) => {
                    tracing::warn!("leaving before {} files were archived; they are offered again", self.work.count_under_way());
                    break;
                }
            }
        }
        Ok(Ending::DONE)
    }

    /// Reads the configuration again. What cannot be used is said, and the agent goes on as it was.
    async fn reload(&mut self) {
        self.service.say("RELOADING=1");
        match self.read_again().await {
            Ok(()) => tracing::info!("the configuration was read again"),
            Err(failure) => tracing::error!(
                hint = failure.hint.as_deref(),
                "could not use the configuration, going on with the one before: {failure}"
            ),
        }
        self.service.say("READY=1");
    }

    async fn read_again(&mut self) -> Result<(), Failure> {
        let settings = Settings::load(self.config.as_deref())?;
        let mark = archive_mark(&settings)?;
        self.work.reload(settings, &mark).await?;
        self.hello.send_replace(mark);
        self.tail.end().await;
        self.tail = LiveTail::begin(self.work.settings());
        Ok(())
    }
}

/// What an operator and a service manager say.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("could not listen for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn leave(terminate: &mut Signal, interrupt: &mut Signal) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// That the data directory has become another cluster's: nothing that this agent knows is of it.
fn replaced(path: &std::path::Path) -> Failure {
    Failure::new(
        Status::WrongCluster,
        format!("could not go on: \"{}\" holds another cluster now", path.display()),
    )
    .with_hint("start the agent again, for the cluster that is there now")
}
