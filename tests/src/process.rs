//! Runs a program to its end, within a limit of time.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a program left behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run, for messages.
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    /// The most memory that the program itself had resident, in bytes, its children not counted. 0 when it
    /// ended before it could be looked at.
    pub peak_memory: u64,
}

impl Outcome {
    /// The exit status as a shell sees it: 128 + the signal when it was killed.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    /// Fails with everything that was printed unless the status is `expected`.
    pub fn expect(self, expected: i32) -> Result<Outcome> {
        if self.code() != expected {
            bail!("expected status {expected}\n{self}");
        }
        Ok(self)
    }

    pub fn success(self) -> Result<Outcome> {
        self.expect(0)
    }

    /// Standard output as one JSON document.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("stdout is not one JSON document\n{self}"))
    }

    pub fn last_line(&self) -> Result<&str> {
        self.stdout.trim_end().lines().last().with_context(|| format!("nothing on stdout\n{self}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  status {} after {:.1} s\n  stdout: {}\n  stderr: {}",
            self.command,
            self.code(),
            self.elapsed.as_secs_f64(),
            self.stdout.trim_end(),
            self.stderr.trim_end()
        )
    }
}

/// Runs to the end with stdout and stderr captured; killed and an error after
/// `limit`.
pub fn run(command: Command, limit: Duration) -> Result<Outcome> {
    run_with_stderr(command, None, limit)
}

/// As [`run`], with standard error connected to something else.
pub fn run_with_stderr(mut command: Command, other: Option<Stdio>, limit: Duration) -> Result<Outcome> {
    // Files, not pipes: a grandchild that keeps a pipe open must not make the
    // test wait for it.
    let stdout = tempfile::tempfile().context("make a file for stdout")?;
    let stderr = tempfile::tempfile().context("make a file for stderr")?;
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone()?);
    command.stderr(match other {
        Some(other) => other,
        None => Stdio::from(stderr.try_clone()?),
    });
    let name = describe(&command);
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("start {name}"))?;
    let mut peak_memory = 0;
    let status = wait_limited(child, limit, &mut peak_memory)?;
    let outcome = |status| -> Result<Outcome> {
        Ok(Outcome {
            command: name.clone(),
            status,
            stdout: content(stdout)?,
            stderr: content(stderr)?,
            elapsed: start.elapsed(),
            peak_memory,
        })
    };
    match status {
        Ended::ByItself(status) => outcome(status),
        Ended::Killed(status) => {
            bail!("still running after {:.0} s\n{}", limit.as_secs_f64(), outcome(status)?)
        }
    }
}

enum Ended {
    ByItself(ExitStatus),
    Killed(ExitStatus),
}

fn wait_limited(mut child: Child, limit: Duration, peak_memory: &mut u64) -> Result<Ended> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ended::ByItself(status));
        }
        if start.elapsed() > limit {
            child.kill().context("kill a program that ran too long")?;
            return Ok(Ended::Killed(child.wait()?));
        }
        *peak_memory = peak_memory_of(child.id()).unwrap_or(*peak_memory);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `VmHWM` of /proc/<pid>/status, which never falls. None once the process has ended.
fn peak_memory_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn content(mut file: File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The command line, quoted only as far as a reader needs.
pub fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}
