//! The file that is written before it gets the name PostgreSQL asked for.
//!
//! It lies in the same directory, so that it can be renamed in one step, under a
//! name that PostgreSQL passes over. It is not made durable: PostgreSQL does that
//! itself when it takes the file over, and asks again after a crash.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use walpoint_archive::fault_point::step;

use super::error::GetError;
use super::from_spool;

const PREFIX: &str = ".walpoint.get.";

/// A file under a passing name; removed unless it is put in place.
#[derive(Debug)]
pub(super) struct Temporary {
    path: Option<PathBuf>,
    file: File,
}

impl Temporary {
    /// Makes an empty one beside `destination`.
    pub(super) fn beside(destination: &Path) -> Result<Temporary, GetError> {
        let path = path_beside(destination);
        let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let opened = step("create a file", create);
        let file = opened.map_err(|source| GetError::Io { path: path.clone(), verb: "create", source })?;
        Ok(Temporary { path: Some(path), file })
    }

    /// One whose file was another one's until now, on the same file system.
    #[expect(clippy::disallowed_methods, reason = "PostgreSQL makes the file durable itself")]
    pub(super) fn taken_from(other: &Path, destination: &Path) -> io::Result<Temporary> {
        let path = path_beside(destination);
        step("rename", || std::fs::rename(other, &path))?;
        match from_spool::open(&path) {
            Ok(file) => Ok(Temporary { path: Some(path), file }),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    /// The file, to write to.
    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// An error about this file.
    pub(super) fn error(&self, verb: &'static str, source: io::Error) -> GetError {
        GetError::Io { path: self.path.clone().unwrap_or_default(), verb, source }
    }

    /// Gives it its name, replacing what is there.
    #[expect(clippy::disallowed_methods, reason = "PostgreSQL makes the file durable itself")]
    pub(super) fn place(mut self, destination: &Path) -> Result<(), GetError> {
        if let Some(path) = &self.path {
            step("rename", || std::fs::rename(path, destination))
                .map_err(|source| self.error("rename", source))?;
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // Nothing can be done about it here; the next run removes what stays.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The passing name beside `destination`; what killed runs left is removed.
fn path_beside(destination: &Path) -> PathBuf {
    let directory = match destination.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    remove_leftovers(directory);
    directory.join(format!("{PREFIX}{}", std::process::id()))
}

/// Removes what runs left that are no more, this process number's earlier owner's
/// included. Failing to is no reason not to go on.
fn remove_leftovers(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|it| it.parse().ok());
        if number.is_some_and(|number: u32| number == std::process::id() || !is_alive(number)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn is_alive(process: u32) -> bool {
    let id = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    // Any other answer than "no such process" means that there is one.
    id.is_some_and(|id| rustix::process::test_kill_process(id) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_name_appears_with_the_whole_content_or_not_at_all() {
        let scratch = tempfile::tempdir().unwrap();
        let destination = scratch.path().join("RECOVERYXLOG");
        let mut temporary = Temporary::beside(&destination).unwrap();
        temporary.file().write_all(b"whole").unwrap();
        assert!(!destination.exists());
        temporary.place(&destination).unwrap();
        assert_eq!(std::fs::read(&destination).unwrap(), b"whole");
        drop(Temporary::beside(&destination).unwrap());
        assert_eq!(names(scratch.path()), ["RECOVERYXLOG"]);
    }

    #[test]
    fn what_killed_runs_left_goes_and_what_others_write_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        let dead = gone.id();
        gone.wait().unwrap();
        let ours = format!("{PREFIX}{}", std::process::id());
        for name in [
            &ours,
            &format!("{PREFIX}{dead}"),
            &format!("{PREFIX}1"),
            &format!("{PREFIX}x"),
            &"other".to_owned(),
        ] {
            std::fs::write(scratch.path().join(name), "old").unwrap();
        }
        let temporary = Temporary::beside(&scratch.path().join("RECOVERYXLOG")).unwrap();
        assert_eq!(names(scratch.path()), [".walpoint.get.1", &ours, ".walpoint.get.x", "other"]);
        assert_eq!(std::fs::metadata(scratch.path().join(&ours)).unwrap().len(), 0);
        drop(temporary);
    }
}
