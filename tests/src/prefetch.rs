//! The process that fetches ahead of a recovery, and its files, as one sees them from outside.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::Cluster;
use crate::scratch::make_private_dir;
use crate::walpoint::Walpoint;

/// Where everything that is fetched ahead goes, in a scenario of its own.
#[derive(Debug, Clone)]
pub struct Spools {
    directory: PathBuf,
}

impl Spools {
    /// Has the configuration name this directory, which is made, and further keys of the agent.
    pub fn configure(walpoint: &Walpoint, directory: &Path, more: &str) -> Result<Spools> {
        if !directory.exists() {
            make_private_dir(directory)?;
        }
        walpoint.configure(&format!("[agent]\nspool_directory = \"{}\"\n{more}", directory.display()))?;
        Ok(Spools { directory: directory.to_owned() })
    }

    /// The spools that are there now, one for each recovery.
    pub fn list(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten().map(|it| it.path());
        let mut spools: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
        spools.sort();
        spools
    }

    /// The only one.
    pub fn only(&self) -> Result<PathBuf> {
        let spools = self.list();
        ensure!(spools.len() == 1, "not one spool: {spools:?}");
        spools.into_iter().next().context("a spool")
    }

    /// The whole segments in all of them: files that are named by their segment and a hash.
    pub fn segments(&self) -> Vec<PathBuf> {
        let files = self.list().into_iter().flat_map(std::fs::read_dir).flatten().flatten();
        let is_whole = |name: &str| {
            let is_digits = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            name.split_once('-').is_some_and(|(segment, hash)| {
                (segment.len(), hash.len()) == (24, 64) && is_digits(segment) && is_digits(hash)
            })
        };
        let mut files: Vec<PathBuf> =
            files.filter(|it| it.file_name().to_str().is_some_and(is_whole)).map(|it| it.path()).collect();
        files.sort();
        files
    }

    /// The one that holds what the archive's object of this segment holds.
    pub fn segment(&self, object: &Path) -> Option<PathBuf> {
        // Both begin with the segment and the content's id.
        let alike = object.file_name()?.to_str()?.get(..24 + 1 + 16)?;
        self.segments().into_iter().find(|path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(alike))
        })
    }
}

/// The processes that fetch ahead for the cluster in this directory.
pub fn processes(data_directory: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let directory = data_directory.as_os_str().as_encoded_bytes();
        words.contains(&b"prefetch".as_slice()) && words.contains(&directory)
    })
    .collect()
}

/// Sends a signal to all of them; none at all is an error of the test.
pub fn signal(data_directory: &Path, signal: Signal) -> Result<()> {
    let pids = processes(data_directory);
    ensure!(!pids.is_empty(), "nobody fetches ahead for {}", data_directory.display());
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        kill_process(pid, signal).context("signal who fetches ahead")?;
    }
    Ok(())
}

/// Has a restored cluster's hook say which segments were fetched ahead.
pub fn log_it(walpoint: &Walpoint, restored: &Cluster, options: &str) -> Result<()> {
    restored.override_settings(&format!(
        "restore_command = '{} --log-level debug archive-get {options} %f %p'",
        walpoint.hook_prefix()
    ))
}

/// How many of the segments that the server got were fetched ahead, and how many it got, by its log.
pub fn counts(log: &str) -> (usize, usize) {
    (log.matches(" was fetched ahead").count(), log.matches("restored log file").count())
}
