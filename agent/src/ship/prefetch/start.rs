//! What `archive-get` does to have somebody fetch ahead. Nothing here can fail as far as PostgreSQL is concerned.

use super::place::{is_in_recovery, spool_of};
use crate::config::Settings;
use crate::data_directory;
use crate::exit::Failure;
use crate::postgres_command::this_program;
use crate::ship::cluster::HookCluster;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use walpoint_pitr::spool::Spool;
use walpoint_wal::SegmentSize;

/// Its first line is the server's process.
const POSTMASTER_PID: &str = "postmaster.pid";

/// Fetching ahead for the recovery that asks.
#[derive(Debug)]
pub struct Ahead {
    spool: Spool,
    data_directory: PathBuf,
    contract: Option<PathBuf>,
}

impl Ahead {
    /// For who asks for this file. None for people, who ask for one, for `pg_rewind`, which goes backwards, and
    /// where it is switched off.
    pub fn of(
        settings: &Settings,
        cluster: &HookCluster,
        destination: &Path,
        segment_size: Option<SegmentSize>,
        contract: Option<PathBuf>,
    ) -> Option<Self> {
        let is_of_cluster = data_directory::of_wal_path(destination).as_ref() == Some(&cluster.path);
        let has_room = segment_size.is_none_or(|size| size.bytes() <= settings.agent.spool);
        if settings.agent.spool == 0 || !has_room || !is_of_cluster || !is_in_recovery(&cluster.path) {
            return None;
        }
        match spool_of(settings, cluster) {
            Ok(spool) => Some(Self { spool, data_directory: cluster.path.clone(), contract }),
            Err(failure) => {
                tracing::debug!("nothing can be fetched ahead: {failure}");
                None
            }
        }
    }

    /// Where it is put.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Starts somebody who does it, when nobody does and there is a place for it. He is not waited for.
    pub fn see_to_it(&self, settings: &Settings) {
        if self.spool.make_own().is_err() || self.spool.is_tended() || is_first_process(&self.data_directory)
        {
            return;
        }
        if let Err(failure) = self.start(settings) {
            tracing::debug!("nobody fetches ahead: {failure}");
        }
    }

    fn start(&self, settings: &Settings) -> Result<(), Failure> {
        let about = |error| Failure::failed(format!("could not start another process: {error}"));
        let mut command = Command::new(this_program()?);
        if let Some(config) = &settings.source {
            command.arg("--config").arg(config);
        }
        command.arg("prefetch").arg(&self.data_directory);
        if let Some(contract) = &self.contract {
            command.arg("--contract").arg(contract);
        }
        // It is there longer than we are: nothing of PostgreSQL's may stay open, busy or in the way for it.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        walpoint_inherited::keep_from_children().map_err(about)?;
        command.spawn().map(drop).map_err(about)
    }
}

/// Whether the server is the first process of its container. The kernel gives it whatever is left running then, and
/// it takes the death of one, by the kernel for want of memory say, for a crash of its own.
fn is_first_process(data_directory: &Path) -> bool {
    let text = std::fs::read_to_string(data_directory.join(POSTMASTER_PID)).unwrap_or_default();
    text.lines().next().is_some_and(|pid| pid.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_the_first_process_is_left_alone_with_processes() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_first_process(directory.path()), "no server");
        for (text, is_first) in [("1\n/data\n1700000000\n", true), ("17\n/data\n", false), ("", false)] {
            std::fs::write(directory.path().join(POSTMASTER_PID), text).unwrap();
            assert_eq!(is_first_process(directory.path()), is_first, "{text}");
        }
    }
}
