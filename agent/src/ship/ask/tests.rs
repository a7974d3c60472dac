#![allow(clippy::unwrap_used)]

use super::*;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use walpoint_wal::SystemIdentifier;

/// A place for an agent, and the hook's settings.
struct Place {
    root: tempfile::TempDir,
    settings: Settings,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let settings = Settings::from_text(
            Path::new("/x.toml"),
            &format!(
                "[archive]\nurl = \"file:///archive\"\n[agent]\nsocket_directory = \"{}/s\"",
                root.path().display()
            ),
        )
        .unwrap();
        Self { root, settings }
    }

    fn socket(&self) -> Socket {
        let socket = Socket::of(&self.settings, SystemIdentifier(7), self.root.path()).unwrap();
        socket.make_directory().unwrap();
        socket
    }

    fn path(&self) -> PathBuf {
        self.socket().path()
    }

    /// An agent that says these lines, the first at once and the others after it was asked.
    fn agent(&self, lines: &[&str]) {
        let listener = UnixListener::bind(self.path()).unwrap();
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\n")).collect();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let (first, rest) = lines.split_first().unwrap();
            stream.write_all(first.as_bytes()).await.unwrap();
            let mut question = String::new();
            stream.read_line(&mut question).await.unwrap();
            for line in rest {
                if line == "SILENCE\n" {
                    tokio::time::sleep(2 * SILENCE).await;
                } else {
                    stream.write_all(line.as_bytes()).await.unwrap();
                }
            }
        });
    }

    fn hello(&self) -> String {
        let mark = archive_mark(&self.settings).unwrap();
        format!("{{\"walpoint\":1,\"version\":\"9\",\"archive\":\"{mark}\"}}")
    }

    async fn push(&self) -> Result<(), Unanswered> {
        push(&self.settings, &self.socket(), "000000010000000000000001".parse().unwrap()).await
    }
}

fn is_unusable(answer: &Result<(), Unanswered>, why: &str) -> bool {
    matches!(answer, Err(Unanswered::Unusable(said)) if said.contains(why))
}

#[tokio::test]
async fn only_a_plain_yes_counts() {
    let yes = Place::new();
    yes.agent(&[&yes.hello(), r#"{"working":true}"#, r#"{"working":true}"#, r#"{"status":0}"#]);
    assert_eq!(yes.push().await, Ok(()));

    let no = Place::new();
    no.agent(&[&no.hello(), r#"{"status":3,"error":"could not","hint":"decide"}"#]);
    assert_eq!(no.push().await, Err(Unanswered::Failed("could not".to_owned())));

    for lines in [&["{\"working\":true}"][..], &[], &["nonsense"], &["{\"status\":\"0\"}"], &["{}"]] {
        let place = Place::new();
        place.agent(&[&[place.hello().as_str()], lines].concat());
        assert!(matches!(place.push().await, Err(Unanswered::Unusable(_))), "{lines:?}");
    }
}

#[tokio::test]
async fn without_an_agent_nobody_waits() {
    let place = Place::new();
    let started = Instant::now();
    assert_eq!(place.push().await, Err(Unanswered::Nobody));
    // The socket of one that was killed.
    drop(UnixListener::bind(place.path()).unwrap());
    assert!(place.path().exists());
    assert_eq!(place.push().await, Err(Unanswered::Nobody));
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn another_protocol_and_another_archive_are_not_asked() {
    let place = Place::new();
    place.agent(&[r#"{"walpoint":2,"version":"9","speaks":"otherwise"}"#, r#"{"status":0}"#]);
    assert!(is_unusable(&place.push().await, "protocol 2"));

    let place = Place::new();
    place.agent(&[r#"{"walpoint":1,"version":"9","archive":"0000000000000000"}"#, r#"{"status":0}"#]);
    assert!(is_unusable(&place.push().await, "another archive"));
}

#[tokio::test]
async fn an_agent_that_hangs_is_waited_for_two_seconds() {
    let place = Place::new();
    // Takes the connection, as the kernel does for one that is stopped, and says nothing.
    let _listener = UnixListener::bind(place.path()).unwrap();
    let started = Instant::now();
    assert!(is_unusable(&place.push().await, "has said nothing"));
    assert!(started.elapsed() < SILENCE + Duration::from_secs(1), "{:?}", started.elapsed());

    let place = Place::new();
    place.agent(&[&place.hello(), r#"{"working":true}"#, "SILENCE", r#"{"status":0}"#]);
    assert!(is_unusable(&place.push().await, "has said nothing"));
}

#[tokio::test]
async fn what_others_may_have_put_there_is_not_asked() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let socket = place.socket();
    place.agent(&[&place.hello(), r#"{"status":0}"#]);
    std::fs::set_permissions(&socket.directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    let name = "000000010000000000000001".parse().unwrap();
    assert!(is_unusable(&push(&place.settings, &socket, name).await, "open to other users"));
}

#[test]
fn the_mark_tells_archives_and_keys_apart_and_nothing_else() {
    let mark = |text: &str| archive_mark(&Settings::from_text(Path::new("/x.toml"), text).unwrap()).unwrap();
    let one = mark("[archive]\nurl = \"file:///archive\"");
    assert_eq!(
        one,
        mark("[archive]\nurl = \"file:///archive\"\nrequest_timeout = \"3s\"\n[compression]\nlevel = 3")
    );
    assert_ne!(one, mark("[archive]\nurl = \"file:///other\""));
    let key = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";
    assert_ne!(
        one,
        mark(&format!("[archive]\nurl = \"file:///archive\"\n[encryption]\nrecipients = [\"{key}\"]"))
    );
}
