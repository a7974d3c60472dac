//! How far a long piece of work is: written by the work, read by whoever draws it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What the work is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Looking before anything is written or read.
    Preparing,
    /// Bytes go from one place to the other.
    Copying,
    /// What is stored is read back.
    Reading,
    /// What is there is compared with what should be.
    Comparing,
    /// What was written is made durable.
    Syncing,
    /// Waiting for WAL to arrive in the archive.
    Waiting,
    /// The last steps.
    Finishing,
}

/// Counters that the work and the display share.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    total_files: AtomicU64,
    done_files: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressNow {
    /// What the work is doing.
    pub phase: Phase,
    /// Bytes in all; 0 while unknown.
    pub total_bytes: u64,
    /// Bytes done.
    pub done_bytes: u64,
    /// Files in all; 0 while unknown.
    pub total_files: u64,
    /// Files done.
    pub done_files: u64,
}

const PHASES: [Phase; 7] = [
    Phase::Preparing,
    Phase::Copying,
    Phase::Reading,
    Phase::Comparing,
    Phase::Syncing,
    Phase::Waiting,
    Phase::Finishing,
];

impl Progress {
    /// Nothing done yet, nothing known.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Goes over to another phase.
    pub fn enter(&self, phase: Phase) {
        let index = PHASES.iter().position(|it| *it == phase).unwrap_or_default();
        self.phase.store(u8::try_from(index).unwrap_or_default(), Ordering::Relaxed);
    }

    /// Says how much there is to do.
    pub fn expect(&self, bytes: u64, files: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
        self.total_files.store(files, Ordering::Relaxed);
    }

    /// Begins to count anew, with so much to do.
    pub fn begin(&self, bytes: u64, files: u64) {
        self.expect(bytes, files);
        self.done_bytes.store(0, Ordering::Relaxed);
        self.done_files.store(0, Ordering::Relaxed);
    }

    /// Adds bytes done.
    pub fn add_bytes(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds files done.
    pub fn add_files(&self, files: u64) {
        self.done_files.fetch_add(files, Ordering::Relaxed);
    }

    /// The counters now. They are read one by one: good enough to draw, not to decide by.
    pub fn now(&self) -> ProgressNow {
        let phase = PHASES.get(usize::from(self.phase.load(Ordering::Relaxed)));
        ProgressNow {
            phase: phase.copied().unwrap_or(Phase::Preparing),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            done_bytes: self.done_bytes.load(Ordering::Relaxed),
            total_files: self.total_files.load(Ordering::Relaxed),
            done_files: self.done_files.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_reported_is_what_is_shown() {
        let progress = Progress::new();
        assert_eq!(progress.now().phase, Phase::Preparing);
        progress.expect(100, 3);
        for phase in PHASES {
            progress.enter(phase);
            assert_eq!(progress.now().phase, phase);
        }
        progress.add_bytes(40);
        progress.add_bytes(2);
        progress.add_files(1);
        let now = progress.now();
        assert_eq!((now.done_bytes, now.total_bytes, now.done_files, now.total_files), (42, 100, 1, 3));
    }
}
