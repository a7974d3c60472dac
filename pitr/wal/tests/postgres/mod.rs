//! A PostgreSQL cluster of our own, with whatever version is installed.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the newest installed PostgreSQL has its programs. `None`, said on stderr, when
/// there is none; where everything must run (`CI`, `WALPOINT_TEST_STRICT`) that is a failure, since a skipped
/// proof proves nothing.
pub fn programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(version, bin)| (13..=18).contains(version) && bin.join("pg_waldump").exists())
        .collect();
    found.sort();
    let newest = found.pop().map(|(_, bin)| bin);
    if newest.is_none() {
        let strict = std::env::var("CI").is_ok_and(|value| value == "true")
            || std::env::var_os("WALPOINT_TEST_STRICT").is_some();
        assert!(!strict, "no PostgreSQL 13 to 18 under /usr/lib/postgresql");
        eprintln!("skipped: no PostgreSQL 13 to 18 under /usr/lib/postgresql");
    }
    newest
}

pub struct Cluster {
    bin: PathBuf,
    pub root: PathBuf,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Cluster {
    /// `initdb` with these options besides ours. Every full segment is copied to `archive()`.
    pub fn create(bin: &Path, options: &[&str], settings: &str) -> Cluster {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("walpoint-wal-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        if is_root() {
            check(Command::new("chown").arg("postgres:postgres").arg(&root));
        }
        let cluster = Cluster { bin: bin.to_owned(), root };
        check(cluster.as_owner("mkdir").arg(cluster.archive()));
        check(
            cluster
                .program("initdb")
                .args(["-U", "postgres", "-A", "trust", "-N", "-D"])
                .arg(cluster.data())
                .args(options),
        );
        let socket = cluster.root.display();
        let archive = cluster.archive();
        cluster.configure(&format!(
            "listen_addresses = ''\nunix_socket_directories = '{socket}'\narchive_mode = on\n\
             archive_command = 'cp %p {}/%f.tmp && mv {}/%f.tmp {}/%f'\nfsync = off\n{settings}\n",
            archive.display(),
            archive.display(),
            archive.display(),
        ));
        cluster
    }

    /// Its major version, running or not.
    pub fn major(&self) -> u32 {
        std::fs::read_to_string(self.data().join("PG_VERSION")).unwrap().trim().parse().unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub fn archive(&self) -> PathBuf {
        self.root.join("archive")
    }

    /// Adds lines to `postgresql.conf`.
    pub fn configure(&self, settings: &str) {
        let path = self.data().join("postgresql.conf");
        let old = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{old}\n{settings}\n")).unwrap();
    }

    /// Makes an empty file in the data directory.
    pub fn touch(&self, name: &str) {
        check(self.as_owner("touch").arg(self.data().join(name)));
    }

    pub fn start(&self) {
        let log = self.root.join("log");
        check(self.program("pg_ctl").args(["-w", "-D"]).arg(self.data()).arg("-l").arg(log).arg("start"));
    }

    pub fn stop(&self, mode: &str) {
        check(self.program("pg_ctl").args(["-w", "-m", mode, "-D"]).arg(self.data()).arg("stop"));
    }

    /// Runs a script in one session; returns what it prints, unaligned, without headers.
    pub fn sql(&self, script: &str) -> String {
        let psql = &mut self.program("psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]).arg(&self.root);
        let path = self.root.join("script.sql");
        std::fs::write(&path, script).unwrap();
        let output = check(psql.arg("-f").arg(path).arg("postgres"));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn pgbench(&self, arguments: &[&str]) {
        check(
            self.program("pgbench")
                .args(["-U", "postgres", "-h"])
                .arg(&self.root)
                .args(arguments)
                .arg("postgres"),
        );
    }

    /// One of PostgreSQL's programs, run as the cluster's owner.
    pub fn program(&self, name: &str) -> Command {
        let mut command = self.as_owner(self.bin.join(name));
        command.env("TZ", "UTC").env("LC_ALL", "C");
        command
    }

    /// PostgreSQL refuses to run as root.
    fn as_owner(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.root);
        command
    }

    /// The archived segments, in order.
    pub fn segments(&self) -> Vec<(walpoint_wal::SegmentName, Vec<u8>)> {
        let mut segments: Vec<_> = std::fs::read_dir(self.archive())
            .unwrap()
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
            .collect();
        segments.sort();
        segments.into_iter().map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.data().join("postmaster.pid").exists() {
            let _ = self
                .program("pg_ctl")
                .args(["-w", "-m", "immediate", "-D"])
                .arg(self.data())
                .arg("stop")
                .output();
        }
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0)
}

pub fn check(command: &mut Command) -> Output {
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    output
}
