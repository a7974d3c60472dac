//! One agent for each data directory. The lock is the kernel's and ends with the process, however that ends.

use crate::exit::Failure;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Held as long as it lives. The file stays: who removed it would let two hold a lock on two files of one name.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and writes down who holds it.
    ///
    /// # Errors
    /// Status 1, naming the process that holds it.
    pub fn take(path: &Path) -> Result<Self, Failure> {
        let about = |what: &str, error: &dyn std::fmt::Display| {
            Failure::failed(format!("could not {what} \"{}\": {error}", path.display()))
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|error| about("open", &error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held_by(&mut file)),
            Err(errno) => return Err(about("lock", &errno)),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| about("write", &error))?;
        Ok(Self { _file: file })
    }
}

fn held_by(file: &mut File) -> Failure {
    let mut text = String::new();
    let _whole = file.rewind().and_then(|()| file.take(32).read_to_string(&mut text));
    let who = match text.trim() {
        "" => "another process".to_owned(),
        pid => format!("process {pid}"),
    };
    Failure::failed(format!("could not start: an agent for this data directory runs already, {who}"))
        .with_hint("\"walpoint status\" asks it how it is; a second one would do the same work twice")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is_and_can_follow_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.lock");
        let first = Lock::take(&path).unwrap();
        let refused = Lock::take(&path).unwrap_err();
        assert!(refused.error.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(first);
        Lock::take(&path).unwrap();
    }
}
