//! How the agent is: what `walpoint status` asks for. The names are an interface.

use serde::{Deserialize, Serialize};
use walpoint_wal::Timestamp;

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The process.
    pub agent: AgentFacts,
    /// Names of the files that are being shipped.
    pub shipping: Vec<String>,
    /// Files that are not in the archive yet.
    pub waiting: Waiting,
    /// Files that are, since the agent started.
    pub shipped: ShippedFacts,
    /// How the store answers.
    pub store: StoreFacts,
    /// Seconds since nothing can be archived; null when all is well.
    pub failing_seconds: Option<f64>,
    /// The last failure, also when it is over.
    pub last_error: Option<LastError>,
    /// The disk of `pg_wal`.
    pub pg_wal: Disk,
    /// The live tail; null when it is not shipped.
    pub tail: Option<Tail>,
}

/// The process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentFacts {
    /// Its number.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// When it started.
    pub since: Timestamp,
}

/// Files that are not in the archive yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// How many, those under way included.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How long the oldest has been waiting.
    pub oldest_seconds: Option<f64>,
}

/// Files that are in the archive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ShippedFacts {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The last one.
    pub last: Option<String>,
    /// How many of them PostgreSQL has not asked for yet.
    pub ahead: usize,
    /// Files a second, over the last minute.
    pub files_per_second: f64,
}

/// How the store answers, on average and lately.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreFacts {
    /// A request.
    pub latency_ms: Option<f64>,
    /// The body of one file.
    pub bytes_per_second: Option<f64>,
}

/// A failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub time: Timestamp,
    /// What.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// The disk of `pg_wal`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes that PostgreSQL can still write.
    pub free_bytes: Option<u64>,
    /// How long they last if what waits grows as it did lately; null when it does not grow.
    pub hours_left: Option<f64>,
}

/// The live tail.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tail {
    /// The timeline that is followed.
    pub timeline: Option<u32>,
    /// Up to where it is durable.
    pub lsn: Option<String>,
    /// Bytes that the server has flushed beyond.
    pub behind_bytes: Option<u64>,
    /// Since when the oldest of them is there.
    pub behind_seconds: Option<f64>,
    /// Why it is not shipped.
    pub error: Option<String>,
}
