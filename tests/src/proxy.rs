//! An HTTP/1.1 proxy in front of the store that breaks what a test tells it to.
//!
//! Requests pass through unchanged, the Host header too: S3 signatures cover
//! it, and Garage checks the one it is sent. Rules are tried in order; the
//! first that matches a request decides its fate.

mod fault;
mod forward;
mod rule;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub use fault::Fault;
pub use rule::{Rule, Seen};

use crate::runtime;
use crate::wait;
use forward::{Body, Dropped};

/// A proxy for one upstream address. Stops with the value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    serving: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct State {
    upstream: SocketAddr,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
}

impl Proxy {
    pub fn start(upstream: SocketAddr) -> Result<Proxy> {
        let state = Arc::new(State { upstream, rules: Mutex::default(), seen: Mutex::default() });
        let listener = runtime::block_on(async {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen on a free port")
        })?;
        let address = listener.local_addr()?;
        let serving = runtime::shared()?.spawn(serve(listener, state.clone()));
        Ok(Proxy { address, state, serving: Mutex::new(Some(serving)) })
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        lock(&self.state.rules).push(rule);
    }

    /// Everything passes again.
    pub fn clear(&self) {
        lock(&self.state.rules).clear();
    }

    /// Every request so far, broken ones too, in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    pub fn forget_requests(&self) {
        lock(&self.state.seen).clear();
    }

    /// How many requests had this method and this text in their target.
    pub fn count(&self, method: &str, target_contains: &str) -> usize {
        let matches = |seen: &&Seen| seen.method == method && seen.target.contains(target_contains);
        lock(&self.state.seen).iter().filter(matches).count()
    }

    /// The whole store is gone: open connections break, new ones are refused.
    pub fn take_down(&self) -> Result<()> {
        let Some(serving) = lock(&self.serving).take() else { return Ok(()) };
        serving.abort();
        let address = self.address;
        wait::until_true("the proxy to refuse connections", std::time::Duration::from_secs(10), || {
            Ok(std::net::TcpStream::connect(address).is_err())
        })
    }

    /// The store is back at the same address.
    pub fn bring_back(&self) -> Result<()> {
        let address = self.address;
        let listener = runtime::block_on(async {
            TcpListener::bind(address).await.with_context(|| format!("listen on {address} again"))
        })?;
        let serving = runtime::shared()?.spawn(serve(listener, self.state.clone()));
        *lock(&self.serving) = Some(serving);
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(serving) = lock(&self.serving).take() {
            serving.abort();
        }
    }
}

/// Accepts until it is aborted; its connections end with it.
async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            connections.spawn(connection(stream, state.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| answer(request, state.clone()));
    // A broken connection is what the proxy is for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, state: Arc<State>) -> Result<Response<Body>, Dropped> {
    let seen = Seen::of(&request);
    let fault = lock(&state.rules).iter_mut().find_map(|rule| rule.take(&seen));
    lock(&state.seen).push(seen);
    match fault {
        None => forward::pass(request, state.upstream).await,
        Some(fault) => fault.answer(request, state.upstream).await,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
