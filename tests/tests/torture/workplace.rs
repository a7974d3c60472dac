//! Directories that are made anew for every trial, always under the same names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use walpoint_tests::process::run;
use walpoint_tests::scratch::{Scratch, make_private_dir};

/// Where one operation is tried over and over.
pub struct Workplace {
    pub scratch: Scratch,
}

impl Workplace {
    pub fn new() -> Result<Workplace> {
        Ok(Workplace { scratch: Scratch::new("t")? })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// An empty directory of this name.
    pub fn empty(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        remove(&path)?;
        make_private_dir(&path)?;
        Ok(path)
    }

    /// A copy of a directory under this name.
    pub fn copy(&self, template: &Path, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        remove(&path)?;
        copy(template, &path)?;
        Ok(path)
    }
}

pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path")
}

/// Removes a directory with what is in it; one that is not there is removed already.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Copies a file or a directory with owners, modes and times.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to);
    run(command, Duration::from_secs(60))?.success().map(drop)
}
