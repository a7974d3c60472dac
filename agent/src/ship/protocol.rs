//! What the agent and those who ask it say to each other: one JSON object a line over a Unix stream.
//!
//! The agent speaks first, so that whoever connects knows whom it has before it says anything. Names of files go
//! over the line and never paths: the agent looks for them where it looks for all of them.

use crate::config::Settings;
use crate::exit::Failure;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use walpoint_archive::ContentHash;
use walpoint_wal::WalFileName;

/// Number of this protocol. Another one is another language: nobody guesses at it.
pub const PROTOCOL: u32 = 1;

/// How often the agent says that it is still at work.
pub const BEAT: Duration = Duration::from_millis(500);

/// No line is longer.
const LONGEST_LINE: u64 = 256 << 10;

/// The agent's first line.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Number of the protocol.
    pub walpoint: u32,
    /// The program's version, for people.
    pub version: String,
    /// What archive the agent ships to, by [`archive_mark`].
    pub archive: String,
}

/// The one question that is asked over a connection.
#[derive(Debug, Serialize, Deserialize)]
pub struct Question {
    /// Number of the protocol.
    pub walpoint: u32,
    /// Archive this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<WalFileName>,
    /// Say how you are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub status: bool,
}

impl Question {
    /// That a file be archived.
    pub fn push(name: WalFileName) -> Self {
        Self { walpoint: PROTOCOL, push: Some(name), status: false }
    }

    /// How the agent is.
    pub fn status() -> Self {
        Self { walpoint: PROTOCOL, push: None, status: true }
    }
}

/// One line of the answer to a push.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Answer {
    /// It is being worked on.
    Working {
        /// Always true.
        working: bool,
    },
    /// It has ended.
    Ended {
        /// 0: the file is durable in the archive.
        status: u8,
        /// Why it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

impl Answer {
    /// Still at work.
    pub const WORKING: Self = Self::Working { working: true };

    /// How a push ended.
    pub fn ended(ended: Result<(), Failure>) -> Self {
        match ended {
            Ok(()) => Self::Ended { status: 0, error: None, hint: None },
            Err(failure) => Self::Ended {
                // A failure never looks like success.
                status: failure.status.code().max(1),
                error: Some(failure.error),
                hint: failure.hint,
            },
        }
    }
}

/// What tells one archive, and the way of writing to it, from another: the agent must not say "it is there" of a
/// place that the hook was not told to write to.
pub fn archive_mark(settings: &Settings) -> Result<String, Failure> {
    let archive = settings.archive()?;
    let place = [
        archive.url.to_string(),
        archive.endpoint.clone().unwrap_or_default(),
        archive.region.clone().unwrap_or_default(),
    ];
    let mut recipients = settings.encryption.recipients.clone();
    recipients.sort();
    let text = [place.join("\n"), recipients.join("\n")].join("\n\n");
    Ok(ContentHash::of(text.as_bytes()).id().to_string())
}

/// Writes one line.
///
/// # Errors
/// When the other end is gone.
pub async fn say(to: &mut (impl AsyncWrite + Unpin), line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    to.write_all(text.as_bytes()).await
}

/// Reads one line; none when the other end has closed.
///
/// # Errors
/// When it cannot be read, is too long, or is not what was expected.
pub async fn hear<T: DeserializeOwned>(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<T>> {
    let mut line = String::new();
    let count = from.take(LONGEST_LINE).read_line(&mut line).await?;
    if count == 0 {
        return Ok(None);
    }
    if !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line is not whole"));
    }
    Ok(Some(serde_json::from_str(&line)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_the_interface() {
        let line = |value: &dyn erased::Line| value.line();
        let hello = Hello { walpoint: 1, version: "0.1.0".into(), archive: "00".into() };
        assert_eq!(line(&hello), r#"{"walpoint":1,"version":"0.1.0","archive":"00"}"#);
        let name = "00000002.history".parse().unwrap();
        assert_eq!(line(&Question::push(name)), r#"{"walpoint":1,"push":"00000002.history"}"#);
        assert_eq!(line(&Question::status()), r#"{"walpoint":1,"status":true}"#);
        assert_eq!(line(&Answer::WORKING), r#"{"working":true}"#);
        assert_eq!(line(&Answer::ended(Ok(()))), r#"{"status":0}"#);
        let refused = Failure::new(crate::exit::Status::Conflict, "could not").with_hint("decide");
        let expected = r#"{"status":3,"error":"could not","hint":"decide"}"#;
        assert_eq!(line(&Answer::ended(Err(refused))), expected);
    }

    mod erased {
        pub trait Line {
            fn line(&self) -> String;
        }
        impl<T: serde::Serialize> Line for T {
            fn line(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }

    #[tokio::test]
    async fn paths_and_what_is_no_line_of_ours_are_not_understood() {
        for line in [
            "{\"walpoint\":1,\"push\":\"../global/pg_control\"}\n",
            "{\"walpoint\":1,\"push\":\"pg_wal/00000002.history\"}\n",
            "{\"walpoint\":1,\"push\":\"00000002.history\"}",
            "nonsense\n",
            "\n",
        ] {
            assert!(hear::<Question>(&mut line.as_bytes()).await.is_err(), "{line:?}");
        }
        assert!(hear::<Question>(&mut &b""[..]).await.unwrap().is_none());
        let endless = vec![b' '; 2 * LONGEST_LINE as usize];
        assert!(hear::<Question>(&mut &endless[..]).await.is_err());
    }

    #[tokio::test]
    async fn a_later_agent_is_understood_as_far_as_its_number() {
        let line = b"{\"walpoint\":7,\"speaks\":\"otherwise\"}\n";
        assert_eq!(hear::<Hello>(&mut &line[..]).await.unwrap().unwrap().walpoint, 7);
    }
}
