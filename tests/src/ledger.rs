//! A ledger of what clients committed, kept outside the database.
//!
//! Several clients write at once in all the forms a transaction can end in.
//! Before it asks for the commit, a client notes what the transaction would
//! change; after the answer it notes that the server promised. Which of them
//! a recovery must show is then the oracle's question ([`crate::oracle`]),
//! answered from the WAL and not from these notes.

mod client;
mod notes;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::task::JoinHandle;

pub use notes::{Change, Noted, Notes};

use crate::cluster::{Cluster, SUPERUSER};
use crate::runtime;
use crate::wait;

/// The clients at work, and what they noted so far.
#[derive(Debug)]
pub struct Ledger {
    notes: Arc<Notes>,
    orders: Arc<Orders>,
    clients: Vec<JoinHandle<Result<()>>>,
}

/// What the clients are told.
#[derive(Debug, Default)]
struct Orders {
    stop: AtomicBool,
    pause: AtomicBool,
    /// Clients that wait between two transactions.
    paused: AtomicUsize,
}

impl Ledger {
    /// Makes the table and starts `clients` clients. Every random choice
    /// follows from `seed`, which a test prints.
    pub fn start(cluster: &Cluster, clients: u32, seed: u64) -> Result<Ledger> {
        Ledger::start_numbered(cluster, 0..clients, seed)
    }

    /// With clients of these numbers: each has rows of its own, also where other clients were at work before.
    pub fn start_numbered(cluster: &Cluster, numbers: Range<u32>, seed: u64) -> Result<Ledger> {
        cluster.execute(
            "create table if not exists ledger(id bigint primary key, client int not null, payload text not null)",
        )?;
        let notes = Arc::new(Notes::default());
        let orders = Arc::new(Orders::default());
        let connection = cluster.connection(SUPERUSER);
        let runtime = runtime::shared()?;
        let clients = numbers
            .map(|number| {
                let work = client::Client::new(number, seed, notes.clone());
                runtime.spawn(work.run(connection.clone(), orders.clone()))
            })
            .collect();
        Ok(Ledger { notes, orders, clients })
    }

    pub fn notes(&self) -> Arc<Notes> {
        self.notes.clone()
    }

    /// Waits until the server has acknowledged `count` more commits.
    pub fn wait_for_commits(&self, count: usize, limit: Duration) -> Result<()> {
        let goal = self.notes.acknowledged() + count;
        wait::until_true(&format!("{count} more commits"), limit, || {
            if self.clients.iter().any(JoinHandle::is_finished) {
                bail!("a client of the ledger stopped");
            }
            Ok(self.notes.acknowledged() >= goal)
        })
    }

    /// Holds all clients between two transactions; returns when nothing is being written any more.
    pub fn pause(&self) -> Result<()> {
        self.orders.pause.store(true, Ordering::Relaxed);
        wait::until_true("the clients to pause", Duration::from_secs(60), || {
            Ok(self.orders.paused.load(Ordering::Relaxed) == self.clients.len())
        })
    }

    pub fn resume(&self) {
        self.orders.pause.store(false, Ordering::Relaxed);
    }

    /// Ends all clients between two transactions and returns the notes.
    pub fn finish(self) -> Result<Arc<Notes>> {
        self.orders.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            runtime::block_on(async {
                let ended = tokio::time::timeout(Duration::from_secs(60), client).await;
                ended.context("a client of the ledger does not end")?.context("a client panicked")?
            })?;
        }
        Ok(self.notes)
    }

    /// After the server was killed under the clients: their errors are the
    /// expected end.
    pub fn abandon(self) -> Result<Arc<Notes>> {
        self.orders.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            runtime::block_on(async {
                let ended = tokio::time::timeout(Duration::from_secs(60), client).await;
                let _its_error =
                    ended.context("a client of the ledger does not end")?.context("a client panicked")?;
                Ok(())
            })?;
        }
        Ok(self.notes)
    }
}
