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
    /// SIGKILL of the postmaster; its children notice and end.
    Kill,
    /// SIGKILL of every process at once, in the midst of whatever they write.
    Crash,
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
        if how == Stop::Crash {
            self.kill_children()?;
        }
        let orphans = if how == Stop::Kill { self.hold_and_list_children()? } else { Vec::new() };
        self.signal(match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
            Stop::Kill | Stop::Crash => Signal::KILL,
        })?;
        let ended = wait::until_true("the server to stop", STOP_LIMIT, || Ok(!self.is_running()?));
        if ended.is_err() {
            self.signal(Signal::KILL)?;
            self.child.wait()?;
        }
        if matches!(how, Stop::Kill | Stop::Crash) {
            self.remove_socket();
        }
        ended?;
        // The next server refuses to start while one of them has the old shared memory.
        wait::until_true("the killed server's children to notice", STOP_LIMIT, || {
            Ok(!orphans.iter().any(|pid| parent_of_living(*pid).is_some()))
        })
    }

    /// Holds the postmaster, so that it starts nobody anew.
    fn hold_and_list_children(&self) -> Result<Vec<i32>> {
        self.signal(Signal::STOP)?;
        Ok(children_of(self.child.id()))
    }

    /// Kills the children and waits for their ends, for the same reason.
    fn kill_children(&self) -> Result<()> {
        for pid in self.hold_and_list_children()?.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            // One that has gone by itself is as dead as it should be.
            let _ = kill_process(pid, Signal::KILL);
        }
        wait::until_true("the server's children to be dead", STOP_LIMIT, || {
            Ok(children_of(self.child.id()).is_empty())
        })
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

/// The living children of a process.
fn children_of(parent: u32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of_living(*pid) == Some(parent)).collect()
}

/// Of a process that lives, by /proc/<pid>/stat: `pid (name) state ppid …`.
fn parent_of_living(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let is_alive = fields.next().is_some_and(|state| !matches!(state, "Z" | "X"));
    fields.next()?.parse().ok().filter(|_| is_alive)
}
