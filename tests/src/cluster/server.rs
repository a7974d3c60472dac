//! One run of a server: the postmaster as our own child.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::layout::Layout;
use crate::programs::Postgres;
use crate::user::User;
use crate::wait;

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGINT: a checkpoint, and the archiver drains its queue.
    Fast,
    /// SIGQUIT: no checkpoint, crash recovery next time.
    Immediate,
    /// SIGKILL of the postmaster.
    Kill,
}

const STOP_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Server {
    child: Child,
    sockets: std::path::PathBuf,
}

impl Server {
    pub(super) fn start(
        postgres: &Postgres,
        layout: &Layout,
        environment: &[(String, String)],
    ) -> Result<Server> {
        let mut command = User::current()?.command(&postgres.tool("postgres"));
        command.arg("-D").arg(&layout.data);
        command.arg("-c").arg(format!("config_file={}/postgresql.conf", layout.configuration.display()));
        // On the command line, so that a restored directory does not listen
        // where the cluster it came from listens.
        command.arg("-c").arg(format!("unix_socket_directories={}", layout.sockets.display()));
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        let log =
            OpenOptions::new().create(true).append(true).open(&layout.log).context("open the server log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        // A process group of its own: Ctrl-C on the test run is the keeper's.
        command.process_group(0);
        let child = command.spawn().context("start postgres")?;
        Ok(Server { child, sockets: layout.sockets.clone() })
    }

    pub(super) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("ask for the server")?.is_none())
    }

    pub(super) fn stop(mut self, how: Stop) -> Result<()> {
        if !self.is_running()? {
            return Ok(());
        }
        self.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill => Signal::KILL,
        })?;
        let ended = wait::until_true("the server to stop", STOP_LIMIT, || Ok(!self.is_running()?));
        if ended.is_err() {
            self.signal(Signal::KILL)?;
            self.child.wait()?;
        }
        if how == Stop::Kill {
            self.remove_socket();
        }
        ended
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("the server has no pid")?;
        kill_process(pid, signal).context("signal the server")
    }

    // A killed postmaster leaves its socket; a client would find nobody there.
    fn remove_socket(&self) {
        for name in [".s.PGSQL.5432", ".s.PGSQL.5432.lock"] {
            let _ = std::fs::remove_file(self.sockets.join(name));
        }
    }
}
