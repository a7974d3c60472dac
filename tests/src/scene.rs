//! The stage that most scenarios begin with: a cluster that archives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cluster::{Cluster, ClusterOptions};
use crate::garage::Garage;
use crate::oracle::Moment;
use crate::process::Outcome;
use crate::programs::Postgres;
use crate::walpoint::{ArchivePlace, Walpoint};

/// How long recovery of a scenario's few megabytes may take.
pub const RECOVERY_LIMIT: Duration = Duration::from_secs(180);
pub const ARCHIVING_LIMIT: Duration = Duration::from_secs(120);

/// A running cluster, walpoint configured for it, and where it archives to.
#[derive(Debug)]
pub struct Scene {
    pub cluster: Cluster,
    pub walpoint: Walpoint,
    pub place: ArchivePlace,
    restored: u32,
}

impl Scene {
    /// Archives to a directory.
    pub fn on_directory(postgres: &Postgres, options: ClusterOptions) -> Result<Scene> {
        let cluster = Cluster::init(postgres, options)?;
        let place = ArchivePlace::directory(cluster.scratch())?;
        Scene::start(cluster, place)
    }

    /// Archives to a bucket of its own.
    pub fn on_garage(postgres: &Postgres, garage: &Garage, options: ClusterOptions) -> Result<Scene> {
        Scene::start(Cluster::init(postgres, options)?, garage.archive()?)
    }

    /// Archives to a place that the scenario prepared.
    pub fn start(mut cluster: Cluster, place: ArchivePlace) -> Result<Scene> {
        let walpoint = cluster.archive_to(&place)?;
        // The hooks must not make a broken scenario wait for the defaults.
        walpoint.configure("[archive_get]\nretry_for = \"20s\"\nstandby_retry_for = \"2s\"\n")?;
        cluster.start()?;
        Ok(Scene { cluster, walpoint, place, restored: 0 })
    }

    /// From parts that a scenario put together itself.
    pub fn of_parts(cluster: Cluster, walpoint: Walpoint, place: ArchivePlace) -> Scene {
        Scene { cluster, walpoint, place, restored: 0 }
    }

    /// The same configuration for a restored cluster: its directory, its
    /// socket.
    pub fn walpoint_for(&self, restored: &Cluster) -> Result<Walpoint> {
        self.walpoint.with_config(|text| {
            text.replace(&self.cluster.data().display().to_string(), &restored.data().display().to_string())
                .replace(&self.cluster.connection("walpoint"), &restored.connection("walpoint"))
        })
    }

    /// The directory that is the archive.
    pub fn archive_directory(&self) -> Result<&Path> {
        match &self.place {
            ArchivePlace::Directory(directory) => Ok(directory),
            ArchivePlace::S3 { url, .. } => bail!("{url} is no directory"),
        }
    }

    /// Takes a backup and returns its id, the last line on stdout.
    pub fn backup(&self) -> Result<String> {
        Ok(self.walpoint.ok(&["backup"])?.last_line()?.to_owned())
    }

    /// The LSN at which a backup ends, as `list` says it.
    pub fn backup_stop(&self, id: &str) -> Result<u64> {
        Ok(self.backup_end(id)?.0)
    }

    /// The LSN and the time at which a backup ends, as `list` says them.
    pub fn backup_end(&self, id: &str) -> Result<(u64, Moment)> {
        let (_, listing) = self.walpoint.json(&["list"])?;
        let backups = listing["backups"].as_array().context("list has no backups")?;
        let found = backups.iter().find(|backup| backup["id"] == id);
        let stop = &found.with_context(|| format!("list lacks {id}: {listing}"))?["stop"];
        let lsn = stop["lsn"].as_str().and_then(crate::wal_dump::parse_lsn).context("no stop LSN")?;
        Ok((lsn, Moment::parse(stop["time"].as_str().context("no stop time")?)?))
    }

    /// A directory that does not exist yet, beside the cluster's.
    pub fn fresh_directory(&mut self) -> PathBuf {
        self.restored += 1;
        self.cluster.scratch().path().join(format!("restored-{}", self.restored))
    }

    /// Restores to a new directory. The cluster is not started.
    pub fn restore(&mut self, target: &[&str]) -> Result<Cluster> {
        let directory = self.fresh_directory();
        self.restore_into(&directory, target)?.success()?;
        Cluster::restored(&directory, &self.cluster)
    }

    /// Restores, then has an operator replace the recovery settings by hand:
    /// no contract, no target, a timeline. The cluster is not started.
    pub fn restore_by_hand(&mut self, timeline: &str) -> Result<Cluster> {
        let restored = self.restore(&["--target-immediate"])?;
        restored.override_settings(&format!(
            "recovery_target = ''\nrecovery_target_lsn = ''\nrecovery_target_timeline = '{timeline}'\n\
             restore_command = '{} archive-get %f %p'",
            self.walpoint.hook_prefix()
        ))?;
        Ok(restored)
    }

    /// Calls `restore` for a directory, whatever comes of it.
    pub fn restore_into(&self, directory: &Path, target: &[&str]) -> Result<Outcome> {
        let directory = directory.to_str().context("the directory's name is not UTF-8")?;
        let mut args = vec!["restore", "--data-directory", directory];
        args.extend_from_slice(target);
        self.walpoint.run(&args)
    }

    /// Restores, starts, and waits until the cluster takes writes.
    pub fn recover(&mut self, target: &[&str]) -> Result<Cluster> {
        let mut restored = self.restore(target)?;
        restored.start_expect_ready(RECOVERY_LIMIT)?;
        Ok(restored)
    }

    /// Has everything written so far in the archive.
    pub fn archive_everything(&self) -> Result<String> {
        self.cluster.switch_and_wait_archived(ARCHIVING_LIMIT)
    }
}
