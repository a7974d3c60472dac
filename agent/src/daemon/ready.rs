//! What PostgreSQL has for its archiver: the `.ready` files of `archive_status`. Events say at once what came and
//! went; reading the whole directory now and then finds what no event told. Nothing here is ever touched.

use crate::exit::Failure;
use crate::ship::cluster::HookCluster;
use crate::ship::ground::PG_WAL;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{Notify, mpsc};
use walpoint_wal::{DbState, SystemIdentifier, TimelineId, WalFileName};

/// Where PostgreSQL notes what is to be archived, within `pg_wal`.
const STATUS: &str = "archive_status";
/// The end of a note that a file is to be archived.
const READY: &str = ".ready";
/// The end of a note that it was, or need not be.
const DONE: &str = ".done";
/// Events that may wait; more of them mean reading the directory.
const EVENTS: usize = 1024;

/// The directory of the notes.
pub fn directory(data_directory: &Path) -> PathBuf {
    data_directory.join(PG_WAL).join(STATUS)
}

/// The note that this file is to be archived.
pub fn note(data_directory: &Path, name: WalFileName) -> PathBuf {
    directory(data_directory).join(format!("{name}{READY}"))
}

/// What one reading of the directory found, and the cluster as it is now.
#[derive(Debug)]
pub struct Sweep {
    /// Which cluster it is.
    pub cluster: SystemIdentifier,
    /// The timeline that the server writes, when it is not in recovery.
    pub written_timeline: Option<TimelineId>,
    /// The files that are to be archived.
    pub ready: Vec<WalFileName>,
    /// How long that took.
    pub took: Duration,
}

impl Sweep {
    /// Reads the directory once.
    ///
    /// # Errors
    /// Status 1 or 5 when it cannot be read.
    pub fn read(data_directory: &Path) -> Result<Self, Failure> {
        let started = Instant::now();
        let cluster = HookCluster::in_directory(data_directory)?;
        let (mut ready, mut newest) = (Vec::new(), None);
        let path = directory(data_directory);
        let about = |error: std::io::Error| {
            Failure::failed(format!("could not read the directory \"{}\": {error}", path.display()))
        };
        for entry in std::fs::read_dir(&path).map_err(about)? {
            let entry = entry.map_err(about)?.file_name();
            let Some((name, is_ready)) = entry.to_str().and_then(parse) else { continue };
            if let WalFileName::History(timeline) = name {
                newest = newest.max(Some((timeline, is_ready)));
            }
            if is_ready {
                ready.push(name);
            }
        }
        let written_timeline = written_timeline(&cluster, newest);
        Ok(Self { cluster: cluster.system_identifier, written_timeline, ready, took: started.elapsed() })
    }
}

/// The timeline that the server writes. `pg_control` tells of a promotion only with the checkpoint that removes
/// what the parent timeline left; the note for the new history is there before.
fn written_timeline(cluster: &HookCluster, newest: Option<(TimelineId, bool)>) -> Option<TimelineId> {
    let control = &cluster.known.as_ref()?.control;
    let is_in_production = control.state == DbState::InProduction;
    let newest = newest.filter(|(_, is_ready)| is_in_production || *is_ready).map(|(timeline, _)| timeline);
    newest.max(is_in_production.then_some(control.timeline))
}

/// The file that a note is about, and whether it is to be archived.
fn parse(note: &str) -> Option<(WalFileName, bool)> {
    let (name, is_ready) = match note.strip_suffix(READY) {
        Some(name) => (name, true),
        None => (note.strip_suffix(DONE)?, false),
    };
    Some((name.parse().ok()?, is_ready))
}

/// What an event told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file is to be archived.
    Ready(WalFileName),
    /// It is not, any more.
    Gone(WalFileName),
    /// There was more than could be told: read the directory.
    Much,
}

/// The directory, watched.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// The directory that is watched; another one may come in its place, and with its number.
    watched: Option<(u64, u64, Option<SystemTime>)>,
    sender: mpsc::Sender<Seen>,
    events: mpsc::Receiver<Seen>,
    much: Arc<Notify>,
}

impl Watch {
    /// Of a data directory. Where watching is not possible, reading the directory must do.
    pub fn new(data_directory: &Path) -> Self {
        let (sender, events) = mpsc::channel(EVENTS);
        Self {
            path: directory(data_directory),
            watcher: None,
            watched: None,
            sender,
            events,
            much: Arc::default(),
        }
    }

    /// Makes sure that the directory which is there now is the one that is watched.
    pub fn renew(&mut self) {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino(), metadata.created().ok());
        let found = std::fs::metadata(&self.path).ok().map(identity);
        if found.is_none() || found == self.watched {
            return;
        }
        self.watched = found;
        let (sender, much) = (self.sender.clone(), Arc::clone(&self.much));
        let watcher = notify::recommended_watcher(move |event| tell(event, &sender, &much));
        let started = watcher
            .and_then(|mut watcher| watcher.watch(&self.path, RecursiveMode::NonRecursive).map(|()| watcher));
        match started {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => {
                self.watcher = None;
                tracing::warn!("could not watch \"{}\", reading it instead: {error}", self.path.display());
            }
        }
    }

    /// The next thing that is seen.
    pub async fn next(&mut self) -> Seen {
        tokio::select! {
            Some(seen) = self.events.recv() => seen,
            () = self.much.notified() => Seen::Much,
        }
    }
}

/// On the watcher's own thread.
fn tell(event: notify::Result<Event>, sender: &mpsc::Sender<Seen>, much: &Notify) {
    let event = match event {
        Ok(event) if event.need_rescan() => return much.notify_one(),
        Ok(event) => event,
        Err(_) => return much.notify_one(),
    };
    // Opening and closing a note changes nothing.
    if let EventKind::Access(_) = event.kind {
        return;
    }
    for path in event.paths {
        let note = path.file_name().and_then(|note| note.to_str()).and_then(parse);
        let Some((name, true)) = note else { continue };
        // An event says that something happened to the note; the note itself says how it is now.
        let seen = if path.exists() { Seen::Ready(name) } else { Seen::Gone(name) };
        if sender.try_send(seen).is_err() {
            much.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
