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
        if self.spool.is_tended() || self.spool.make().is_err() {
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
