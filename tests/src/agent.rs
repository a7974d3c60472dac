//! `walpoint agent` as a process of its own, and the ways in which it dies.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::{Cluster, tail};
use crate::scratch::write_private;
use crate::wait;
use crate::walpoint::Walpoint;

const START_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(60);

/// One run of the agent, killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    walpoint: Walpoint,
    log: PathBuf,
}

impl Agent {
    /// Has the configuration name a directory for sockets in this scratch, where it names none.
    pub fn configure(walpoint: &Walpoint, scratch: &Path) -> Result<()> {
        let text = std::fs::read_to_string(&walpoint.config)?;
        if text.contains("[agent]") {
            return Ok(());
        }
        walpoint.configure(&format!("[agent]\nsocket_directory = \"{}/sockets\"", scratch.display()))
    }

    /// Starts it for a cluster and waits until it answers.
    pub fn start(walpoint: &Walpoint, cluster: &Cluster) -> Result<Agent> {
        Agent::configure(walpoint, cluster.scratch().path())?;
        let mut agent = Agent::launch(walpoint, cluster.scratch().path())?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts it without waiting.
    pub fn launch(walpoint: &Walpoint, scratch: &Path) -> Result<Agent> {
        let log = scratch.join("agent.log");
        let output = log_file(&log)?;
        let child = walpoint.spawn(Path::new("/"), &["--log-level", "debug", "agent"], &output)?;
        write_private(&scratch.join("agent.pid"), &format!("{}\n", child.id()))?;
        Ok(Agent { child, walpoint: walpoint.clone(), log })
    }

    /// Waits until it answers.
    pub fn wait_ready(&mut self) -> Result<()> {
        wait::until_true("the agent to answer", START_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status}\n{}", self.log());
            }
            Ok(self.walpoint.run(&["status"])?.code() == 0)
        })
    }

    /// What `status --json` says.
    pub fn status(&self) -> Result<Value> {
        let (code, report) = self.walpoint.json(&["status"])?;
        if code != 0 {
            bail!("status {code}: {report}\n{}", tail(&self.log(), 30));
        }
        Ok(report)
    }

    /// Waits until what it says of itself is so.
    pub fn wait_status(&self, what: &str, limit: Duration, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
        let found = wait::until(what, limit, || Ok(Some(self.status()?).filter(|report| is_so(report))));
        found.with_context(|| format!("the agent's log:\n{}", tail(&self.log(), 30)))
    }

    /// Everything that it has logged, earlier runs of the same cluster included.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("kill the agent")?;
        self.child.wait().context("wait for the agent").map(drop)
    }

    /// A signal that it may act on.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("the agent has no pid")?;
        kill_process(pid, signal).context("signal the agent")
    }

    /// Waits until it has ended by itself.
    pub fn wait_end(&mut self) -> Result<ExitStatus> {
        let ended = wait::until("the agent to end", END_LIMIT, || Ok(self.child.try_wait()?));
        ended.with_context(|| format!("the agent's log:\n{}", tail(&self.log(), 30)))
    }

    /// Asks it to leave, and waits.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait_end()
    }

    /// Bytes that it has resident, now and at most.
    pub fn memory(&self) -> Result<(u64, u64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        Ok((value("VmRSS:").context("no VmRSS")?, value("VmHWM:").context("no VmHWM")?))
    }

    /// Seconds of processor time that it has used.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, rest) = stat.rsplit_once(") ").context("no stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        let sum = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
        Ok(sum.context("no times in stat")? / 100.0)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that is stopped dies of SIGKILL all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_file(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).context("open the agent's log")
}
