//! The program under test: its configuration file and its calls.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::process::{Outcome, run, run_with_stderr};
use crate::programs;
use crate::scratch::{Scratch, write_private};
use crate::user::User;

/// No call of a scenario takes this long; one that does is stuck.
pub const CALL_LIMIT: Duration = Duration::from_secs(300);

/// Where an archive lies, as the configuration says it.
#[derive(Debug, Clone)]
pub enum ArchivePlace {
    Directory(PathBuf),
    S3 { url: String, endpoint: String, environment: Vec<(String, String)> },
}

impl ArchivePlace {
    /// A fresh directory in the scratch.
    pub fn directory(scratch: &Scratch) -> Result<ArchivePlace> {
        Ok(ArchivePlace::Directory(scratch.make_dir("archive")?))
    }

    /// What the hooks find in the server's environment: credentials are not
    /// part of the configuration file.
    pub fn environment(&self) -> Vec<(String, String)> {
        match self {
            ArchivePlace::Directory(_) => Vec::new(),
            ArchivePlace::S3 { environment, .. } => environment.clone(),
        }
    }

    fn toml(&self) -> String {
        match self {
            ArchivePlace::Directory(path) => format!("url = \"file://{}\"\n", path.display()),
            ArchivePlace::S3 { url, endpoint, .. } => {
                format!(
                    "url = \"{url}\"\nendpoint = \"{endpoint}\"\nregion = \"garage\"\npath_style = true\n"
                )
            }
        }
    }
}

/// walpoint with one configuration file.
#[derive(Debug, Clone)]
pub struct Walpoint {
    binary: PathBuf,
    pub config: PathBuf,
    environment: Vec<(String, String)>,
}

/// What standard error is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    Captured,
    /// `/dev/full`: every write fails with ENOSPC.
    Full,
    /// Not open at all.
    Closed,
    /// A pipe whose reader is gone: EPIPE.
    BrokenPipe,
}

impl Walpoint {
    /// Writes a configuration into the scratch directory. Short retries: a
    /// test that takes the store away does not want to wait ten minutes.
    pub fn new(scratch: &Scratch, place: &ArchivePlace, cluster: Option<&Cluster>) -> Result<Walpoint> {
        let postgres = cluster.map_or(String::new(), |cluster| {
            format!(
                "[postgres]\ndata_directory = \"{}\"\nconnection = \"{}\"\n",
                cluster.data().display(),
                cluster.connection("walpoint")
            )
        });
        let text = format!("{postgres}[archive]\n{}", place.toml());
        let config = free_name(scratch.path());
        write_private(&config, &text)?;
        Ok(Walpoint { binary: programs::walpoint()?, config, environment: place.environment() })
    }

    /// Appends to the configuration file. Sections must be new ones.
    pub fn configure(&self, toml: &str) -> Result<()> {
        let text = std::fs::read_to_string(&self.config)?;
        write_private(&self.config, &format!("{text}\n{toml}\n"))
    }

    /// The same program with an edited configuration, in a file beside.
    pub fn with_config(&self, edit: impl FnOnce(String) -> String) -> Result<Walpoint> {
        let text = edit(std::fs::read_to_string(&self.config)?);
        let directory = self.config.parent().context("the configuration has no directory")?;
        let config = free_name(directory);
        write_private(&config, &text)?;
        Ok(Walpoint { config, ..self.clone() })
    }

    pub fn with_environment(&self, key: &str, value: &str) -> Walpoint {
        let mut changed = self.clone();
        changed.environment.push((key.to_owned(), value.to_owned()));
        changed
    }

    /// The same configuration for another build of the program.
    pub fn with_binary(&self, binary: PathBuf) -> Walpoint {
        Walpoint { binary, ..self.clone() }
    }

    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The beginning of a hook's command line: what postgres-conf/ has as the
    /// bare word `walpoint`.
    pub fn hook_prefix(&self) -> String {
        format!("{} --config {}", self.binary.display(), self.config.display())
    }

    /// Runs to the end and returns whatever happened.
    pub fn run(&self, args: &[&str]) -> Result<Outcome> {
        self.run_in(Path::new("/"), args)
    }

    /// Runs in a directory, as PostgreSQL runs the hooks in the data directory.
    pub fn run_in(&self, directory: &Path, args: &[&str]) -> Result<Outcome> {
        let mut command = self.command(&self.binary)?;
        command.arg("--config").arg(&self.config).args(args).current_dir(directory);
        run(command, CALL_LIMIT)
    }

    /// Runs and expects status 0.
    pub fn ok(&self, args: &[&str]) -> Result<Outcome> {
        self.run(args)?.success()
    }

    /// Runs with `--json` and returns the object, whatever the status.
    pub fn json(&self, args: &[&str]) -> Result<(i32, serde_json::Value)> {
        let mut with_json = vec!["--json"];
        with_json.extend_from_slice(args);
        let outcome = self.run(&with_json)?;
        Ok((outcome.code(), outcome.json()?))
    }

    /// Runs in a directory with a standard error that cannot be written to.
    pub fn run_with_stderr(&self, directory: &Path, stderr: Stderr, args: &[&str]) -> Result<Outcome> {
        let mut command = match stderr {
            // Only a shell can start a program without the descriptor.
            Stderr::Closed => {
                let mut shell = self.command(Path::new("/bin/sh"))?;
                shell.args(["-c", "exec \"$@\" 2>&-", "sh"]).arg(&self.binary);
                shell
            }
            _ => self.command(&self.binary)?,
        };
        command.arg("--config").arg(&self.config).args(args).current_dir(directory);
        let target = match stderr {
            Stderr::Captured | Stderr::Closed => None,
            Stderr::Full => Some(Stdio::from(File::options().write(true).open("/dev/full")?)),
            // The reader is dropped here, before the program starts.
            Stderr::BrokenPipe => Some(Stdio::from(std::io::pipe()?.1)),
        };
        run_with_stderr(command, target, CALL_LIMIT)
    }

    /// Starts without waiting, output to a file; for calls that a test
    /// interrupts.
    pub fn spawn(&self, directory: &Path, args: &[&str], output: &File) -> Result<std::process::Child> {
        let mut command = self.command(&self.binary)?;
        command.arg("--config").arg(&self.config).args(args).current_dir(directory);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        command.spawn().context("start walpoint")
    }

    fn command(&self, program: &Path) -> Result<Command> {
        let mut command = User::current()?.command(program);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        Ok(command)
    }
}

fn free_name(directory: &Path) -> PathBuf {
    (0u32..)
        .map(|number| directory.join(format!("walpoint-{number}.toml")))
        .find(|path| !path.exists())
        .unwrap_or_else(|| directory.join("walpoint.toml"))
}
