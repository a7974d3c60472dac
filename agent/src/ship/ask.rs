//! Asking the agent. Only a plain yes counts; whatever else comes, or does not come, the hook goes on by itself as
//! if there were no agent.

use super::protocol::{Answer, Hello, PROTOCOL, Question, archive_mark, hear, say};
use super::socket::Socket;
use crate::config::Settings;
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use walpoint_wal::WalFileName;

/// The agent of this host takes a connection at once, or not at all.
const CONNECT: Duration = Duration::from_millis(200);
/// An agent that is silent for so long hangs.
const SILENCE: Duration = Duration::from_secs(2);

/// Why there is no yes.
#[derive(Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody listens: there is no agent.
    Nobody,
    /// Somebody does, and is of no help.
    Unusable(String),
    /// It tried, and says that it failed.
    Failed(String),
}

/// Asks the agent to archive a file. `Ok` means that it is durable in the archive.
///
/// # Errors
/// Why that is not known.
pub async fn push(settings: &Settings, socket: &Socket, name: WalFileName) -> Result<(), Unanswered> {
    let mut line = Line::open(socket).await?;
    let mark = archive_mark(settings).map_err(|failure| Unanswered::Unusable(failure.error))?;
    if line.hello.archive != mark {
        let why = "it ships to another archive, or with other keys; have it read its configuration again";
        return Err(Unanswered::Unusable(why.to_owned()));
    }
    line.say(&Question::push(name)).await?;
    loop {
        match line.hear::<Answer>().await? {
            Answer::Working { .. } => {}
            Answer::Ended { status: 0, .. } => return Ok(()),
            Answer::Ended { error, .. } => {
                return Err(Unanswered::Failed(error.unwrap_or_else(|| "it gives no reason".to_owned())));
            }
        }
    }
}

/// Asks the agent how it is.
///
/// # Errors
/// Why it does not say.
pub async fn status(socket: &Socket) -> Result<Value, Unanswered> {
    let mut line = Line::open(socket).await?;
    line.say(&Question::status()).await?;
    line.hear().await
}

/// A connection to the agent that has said who it is.
struct Line {
    stream: BufReader<UnixStream>,
    hello: Hello,
}

impl Line {
    async fn open(socket: &Socket) -> Result<Self, Unanswered> {
        let path = socket.path();
        if !path.exists() {
            return Err(Unanswered::Nobody);
        }
        socket.check_directory().map_err(Unanswered::Unusable)?;
        let stream = match tokio::time::timeout(CONNECT, UnixStream::connect(&path)).await {
            Ok(Ok(stream)) => stream,
            // The socket of an agent that was killed.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(Unanswered::Nobody);
            }
            Ok(Err(error)) => return Err(Unanswered::Unusable(format!("could not connect to it: {error}"))),
            Err(_) => return Err(Unanswered::Unusable("it does not take connections".to_owned())),
        };
        let peer = stream.peer_cred().map_err(|error| Unanswered::Unusable(error.to_string()))?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            return Err(Unanswered::Unusable(format!("what listens there belongs to uid {peer}")));
        }
        let mut line = Self { stream: BufReader::new(stream), hello: Hello::default() };
        line.hello = line.hear().await?;
        if line.hello.walpoint != PROTOCOL {
            let Hello { walpoint, version, .. } = &line.hello;
            return Err(Unanswered::Unusable(format!(
                "it speaks protocol {walpoint} (version {version}), this is protocol {PROTOCOL}; restart it"
            )));
        }
        Ok(line)
    }

    async fn say(&mut self, question: &Question) -> Result<(), Unanswered> {
        let said = tokio::time::timeout(SILENCE, say(&mut self.stream, question)).await;
        said.map_err(|_| silent())?.map_err(|error| broken(&error))
    }

    async fn hear<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Unanswered> {
        let heard = tokio::time::timeout(SILENCE, hear(&mut self.stream)).await;
        let heard = heard.map_err(|_| silent())?.map_err(|error| broken(&error))?;
        heard.ok_or_else(|| Unanswered::Unusable("it closed the connection".to_owned()))
    }
}

fn silent() -> Unanswered {
    Unanswered::Unusable(format!("it has said nothing for {} s", SILENCE.as_secs()))
}

fn broken(error: &io::Error) -> Unanswered {
    Unanswered::Unusable(format!("could not understand it: {error}"))
}

#[cfg(test)]
mod tests;
