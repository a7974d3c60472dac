//! What the clients wrote down, by transaction.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// One row's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The row has this content now, new or not.
    Put {
        id: i64,
        client: u32,
        payload: String,
    },
    Delete {
        id: i64,
    },
}

/// One transaction, noted before its end was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// In the order in which they apply; what a savepoint rolled back is not
    /// among them.
    pub changes: Vec<Change>,
    /// The name it was prepared under.
    pub prepared: Option<String>,
    /// The server said COMMIT.
    pub acknowledged: bool,
}

/// All transactions by top-level xid.
#[derive(Debug, Default)]
pub struct Notes {
    transactions: Mutex<BTreeMap<u32, Noted>>,
}

impl Notes {
    pub(super) fn note(&self, xid: u32, changes: Vec<Change>, prepared: Option<String>) {
        self.lock().insert(xid, Noted { changes, prepared, acknowledged: false });
    }

    pub(super) fn acknowledge(&self, xid: u32) {
        if let Some(noted) = self.lock().get_mut(&xid) {
            noted.acknowledged = true;
        }
    }

    pub fn get(&self, xid: u32) -> Option<Noted> {
        self.lock().get(&xid).cloned()
    }

    /// The top-level xids of acknowledged commits, ascending.
    pub fn acknowledged_xids(&self) -> Vec<u32> {
        self.lock().iter().filter(|(_, noted)| noted.acknowledged).map(|(xid, _)| *xid).collect()
    }

    pub fn acknowledged(&self) -> usize {
        self.lock().values().filter(|noted| noted.acknowledged).count()
    }

    /// Those of one branch: of these notes the transactions that `ended_before` its beginning, and all of
    /// `since`. Both branches of a fork go on with the same xids.
    pub fn of_branch(&self, ended_before: impl Fn(u32) -> bool, since: &Notes) -> Notes {
        let mut transactions = self.lock().clone();
        transactions.retain(|xid, _| ended_before(*xid));
        transactions.extend(since.lock().clone());
        Notes { transactions: Mutex::new(transactions) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Noted>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
