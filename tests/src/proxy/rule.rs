//! Which requests a fault befalls.

use hyper::Request;

use super::fault::Fault;

/// A request as the proxy saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    /// Path and query, still percent-encoded.
    pub target: String,
    pub headers: Vec<(String, String)>,
}

impl Seen {
    pub(super) fn of<B>(request: &Request<B>) -> Seen {
        let text =
            |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Seen {
            method: request.method().to_string(),
            target: request.uri().path_and_query().map_or(String::from("/"), ToString::to_string),
            headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A fault and the requests it befalls: by default all of them.
#[derive(Debug, Clone)]
pub struct Rule {
    method: Option<String>,
    target_contains: String,
    /// Matching requests that pass first.
    skip: usize,
    /// Matching requests that are hit after those.
    times: usize,
    /// Of so many matching requests the last is hit.
    every: usize,
    /// Of these, how many have passed.
    passed: usize,
    fault: Fault,
}

impl Rule {
    pub fn new(fault: Fault) -> Rule {
        Rule {
            method: None,
            target_contains: String::new(),
            skip: 0,
            times: usize::MAX,
            every: 1,
            passed: 0,
            fault,
        }
    }

    #[must_use]
    pub fn method(self, method: &str) -> Rule {
        Rule { method: Some(method.to_owned()), ..self }
    }

    /// Only requests whose path and query contain this text.
    #[must_use]
    pub fn target(self, contains: &str) -> Rule {
        Rule { target_contains: contains.to_owned(), ..self }
    }

    /// Lets this many matching requests pass first.
    #[must_use]
    pub fn after(self, skip: usize) -> Rule {
        Rule { skip, ..self }
    }

    /// Hits only so many matching requests.
    #[must_use]
    pub fn times(self, times: usize) -> Rule {
        Rule { times, ..self }
    }

    /// Hits only each `every`-th matching request.
    #[must_use]
    pub fn every(self, every: usize) -> Rule {
        Rule { every, ..self }
    }

    /// The fault, when this request is hit; counts the request either way.
    pub(super) fn take(&mut self, seen: &Seen) -> Option<Fault> {
        let method = self.method.as_ref().is_none_or(|method| *method == seen.method);
        if !method || !seen.target.contains(&self.target_contains) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.passed += 1;
        if self.passed < self.every {
            return None;
        }
        self.passed = 0;
        self.times = self.times.checked_sub(1)?;
        Some(self.fault.clone())
    }
}
