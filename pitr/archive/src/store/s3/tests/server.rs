//! A server that answers what a test tells it to, and keeps what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is(&self, method: &str, target_contains: &str) -> bool {
        self.method == method && self.target.contains(target_contains)
    }
}

/// An answer, sent as it is.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    announced: Option<usize>,
}

impl Answer {
    pub(super) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), announced: None }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Announces another length than the body has.
    pub(super) fn announce(mut self, length: usize) -> Self {
        self.announced = Some(length);
        self
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut text = format!("HTTP/1.1 {} answer\r\nconnection: close\r\n", self.status);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if self.status != 204 {
            text += &format!("content-length: {}\r\n", self.announced.unwrap_or(self.body.len()));
        }
        stream.write_all(text.as_bytes())?;
        stream.write_all(b"\r\n")?;
        stream.write_all(&self.body)
    }
}

/// An S3 error.
pub(super) fn s3_error(status: u16, code: &str) -> Answer {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>so it is</Message></Error>");
    Answer::new(status).header("content-type", "application/xml").body(body)
}

/// A listing with this between its bucket's name and its end.
pub(super) fn listing(inside: &str) -> Answer {
    let body =
        format!("<?xml version=\"1.0\"?><ListBucketResult><Name>bucket</Name>{inside}</ListBucketResult>");
    Answer::new(200).header("content-type", "application/xml").body(body)
}

/// A server on a free port, until the process ends.
#[derive(Clone, Debug)]
pub(super) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request as the script says.
    pub(super) fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, script) = (Arc::clone(&server.seen), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
                // A client that went away is the test's business, not ours.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, &seen, &*script)));
            }
        });
        server
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request of this kind.
    pub(super) fn only(&self, method: &str, target_contains: &str) -> Request {
        let mut found = self.requests();
        found.retain(|request| request.is(method, target_contains));
        assert_eq!(found.len(), 1, "{method} {target_contains}: {found:#?}");
        found.remove(0)
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    script: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let request = receive(&mut stream)?;
    let answer = script(&request);
    seen.lock().unwrap().push(request);
    answer.send(&mut stream)
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers: Vec<(String, String)> = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let value = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if value("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Request { method, target, headers, body })
}
