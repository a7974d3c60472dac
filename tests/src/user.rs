//! The operating system user that servers and walpoint run as.
//!
//! PostgreSQL refuses to run as root, so as root everything drops to
//! `postgres`, or `nobody` where there is no such user.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// Who runs the programs under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// True when this process is root and drops to the user.
    pub dropped: bool,
}

impl User {
    /// The user of this process, or the one that root drops to.
    pub fn current() -> Result<&'static User> {
        static USER: OnceLock<User> = OnceLock::new();
        if let Some(user) = USER.get() {
            return Ok(user);
        }
        let found = find()?;
        Ok(USER.get_or_init(|| found))
    }

    /// A command that runs as this user, with an environment that holds no
    /// more than a service manager would give.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        if self.dropped {
            // std clears the supplementary groups when root sets a uid.
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file or directory (not its contents) to this user.
    pub fn own(&self, path: &Path) -> Result<()> {
        if self.dropped {
            std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
                .with_context(|| format!("give {} to {}", path.display(), self.name))?;
        }
        Ok(())
    }
}

fn find() -> Result<User> {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    if uid != 0 {
        let gid = rustix::process::getegid().as_raw();
        let name = entries(&passwd).find(|entry| entry.1 == uid).map_or(uid.to_string(), |entry| entry.0);
        return Ok(User { name, uid, gid, dropped: false });
    }
    for wanted in ["postgres", "nobody"] {
        if let Some((name, uid, gid)) = entries(&passwd).find(|entry| entry.0 == wanted) {
            return Ok(User { name, uid, gid, dropped: true });
        }
    }
    bail!("could not drop from root: neither postgres nor nobody is a user here")
}

fn entries(passwd: &str) -> impl Iterator<Item = (String, u32, u32)> + '_ {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else { return None };
        Some((name.to_owned(), uid.parse().ok()?, gid.parse().ok()?))
    })
}
