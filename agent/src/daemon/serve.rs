//! Answering those who connect: one question each.

use super::flight;
use super::report::Report;
use crate::exit::Failure;
use crate::ship::protocol::{Answer, BEAT, Hello, PROTOCOL, Question, hear, say};
use crate::ship::socket::Socket;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use walpoint_wal::WalFileName;

/// Connections at a time: PostgreSQL's archiver asks for one file at a time.
const CONNECTIONS: usize = 32;
/// How long whoever connected may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after connections cannot be taken, for want of descriptors say.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What the agent is asked to do.
#[derive(Debug)]
pub enum Order {
    /// Archive a file.
    Push {
        /// Which.
        name: WalFileName,
        /// The archive that whoever asks was told of.
        mark: String,
        /// Where the answer goes. Closed without one, it means: do it yourself.
        reply: oneshot::Sender<Result<(), Failure>>,
    },
    /// Say how it is.
    Status(oneshot::Sender<Status>),
}

/// How the agent is, and what is left to look at.
#[derive(Debug)]
pub struct Status {
    /// As far as the agent knows.
    pub report: Report,
    /// The file that waits longest, and where.
    pub oldest: Option<(PathBuf, WalFileName)>,
}

/// What was asked for.
pub type Orders = mpsc::Receiver<Order>;

/// Listens, in the place of whoever listened there before: the lock says that it is gone.
///
/// # Errors
/// Status 1.
pub fn listen(socket: &Socket, mark: watch::Receiver<String>) -> Result<Orders, Failure> {
    let path = socket.path();
    let about = |error: io::Error| {
        Failure::failed(format!("could not listen at \"{}\": {error}", path.display()))
            .with_hint("set socket_directory in section [agent] to a short path that can be written")
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(about(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(about)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(about)?;
    let (sender, orders) = mpsc::channel(CONNECTIONS);
    tokio::spawn(accept(listener, sender, mark));
    Ok(orders)
}

async fn accept(listener: UnixListener, orders: mpsc::Sender<Order>, mark: watch::Receiver<String>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (orders, mark) = (orders.clone(), mark.borrow().clone());
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = answer(stream, &orders, mark).await {
                        tracing::debug!("a conversation ended early: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("could not take a connection: {error}");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, orders: &mpsc::Sender<Order>, mark: String) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != rustix::process::geteuid().as_raw() {
        tracing::warn!("refused to speak with uid {peer}");
        return Ok(());
    }
    let mut stream = BufReader::new(stream);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    say(&mut stream, &Hello { walpoint: PROTOCOL, version, archive: mark.clone() }).await?;
    let question: Option<Question> = tokio::time::timeout(PATIENCE, hear(&mut stream)).await??;
    match question {
        Some(Question { walpoint: PROTOCOL, push: Some(name), status: false }) => {
            push(&mut stream, orders, name, mark).await
        }
        Some(Question { walpoint: PROTOCOL, push: None, status: true }) => status(&mut stream, orders).await,
        // Whoever speaks otherwise goes on by itself.
        _ => Ok(()),
    }
}

async fn push(
    stream: &mut BufReader<UnixStream>,
    orders: &mpsc::Sender<Order>,
    name: WalFileName,
    mark: String,
) -> io::Result<()> {
    let (reply, mut ended) = oneshot::channel();
    if orders.send(Order::Push { name, mark, reply }).await.is_err() {
        return Ok(());
    }
    loop {
        say(stream, &Answer::WORKING).await?;
        match tokio::time::timeout(BEAT, &mut ended).await {
            Ok(Ok(ended)) => return say(stream, &Answer::ended(ended)).await,
            // Nobody does it here.
            Ok(Err(_)) => return Ok(()),
            Err(_) => {}
        }
    }
}

async fn status(stream: &mut BufReader<UnixStream>, orders: &mpsc::Sender<Order>) -> io::Result<()> {
    let (reply, status) = oneshot::channel();
    if orders.send(Order::Status(reply)).await.is_err() {
        return Ok(());
    }
    let Ok(Status { mut report, oldest }) = status.await else { return Ok(()) };
    if let Some((data_directory, name)) = oldest {
        report.waiting.oldest_seconds = flight::age(data_directory, name).await;
    }
    say(stream, &report).await
}
