//! A data directory and a directory archive to run the built program on, without a server. The control file
//! and the segments are a real PostgreSQL 15's, with segments of 1 MiB:
//!
//! - `…08` is full; its last record goes on in `…09`
//! - `…09` ends with a commit (xid 726), restore point `fixture`, and a switch
//! - `…0A` and `…0B` hold one commit each (727, 728) and a switch
//! - `…0C` is still open

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, dead_code)]

use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub const FULL: &str = "000000010000000000000008";
pub const SPANNED: &str = "000000010000000000000009";
pub const SMALL: &str = "00000001000000000000000A";
pub const LAST: &str = "00000001000000000000000B";
pub const OPEN: &str = "00000001000000000000000C";

/// The recovery contract's file in the data directory.
pub const CONTRACT: &str = "walpoint.recovery.json";

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Standard output as the one JSON object that it must be.
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    #[track_caller]
    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(self.stderr.contains(what), "\"{what}\" is not said: {self:#?}");
        self
    }
}

/// One cluster and one archive.
#[derive(Debug)]
pub struct Stage {
    pub root: tempfile::TempDir,
}

impl Stage {
    /// With a configuration, an empty archive, and `…08` to `…0C` in `pg_wal`.
    pub fn new() -> Self {
        let stage = Self { root: tempfile::tempdir().unwrap() };
        std::fs::create_dir(stage.archive()).unwrap();
        stage.make_data_directory("data", "pg_control");
        for name in [FULL, SPANNED, SMALL, LAST, OPEN] {
            std::fs::write(stage.wal(name), fixture(name)).unwrap();
        }
        stage.configure("");
        stage
    }

    /// The same, with `…08` to `…0B` archived.
    pub fn archived() -> Self {
        let stage = Self::new();
        for name in [FULL, SPANNED, SMALL, LAST] {
            stage.push(name).expect(0);
        }
        stage
    }

    pub fn make_data_directory(&self, name: &str, control: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.join("global")).unwrap();
        std::fs::create_dir_all(path.join("pg_wal")).unwrap();
        std::fs::write(path.join("global/pg_control"), fixture(control)).unwrap();
        path
    }

    /// Writes the configuration: the archive, short waits, and `more`.
    pub fn configure(&self, more: &str) {
        let text = format!(
            "[archive]\nurl = \"file://{}\"\n[archive_get]\nretry_for = \"300ms\"\nstandby_retry_for = \"200ms\"\n{more}",
            self.archive().display()
        );
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn archive(&self) -> PathBuf {
        self.path("archive")
    }

    pub fn config(&self) -> PathBuf {
        self.path("walpoint.toml")
    }

    /// A file in `pg_wal`.
    pub fn wal(&self, name: &str) -> PathBuf {
        self.data().join("pg_wal").join(name)
    }

    /// The program in the data directory, with the configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.current_dir(self.data()).arg("--config").arg(self.config()).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// `archive-push`, as PostgreSQL calls it.
    pub fn push(&self, name: &str) -> Ran {
        self.run(&["archive-push", &format!("pg_wal/{name}")])
    }

    /// `archive-get`, as PostgreSQL calls it.
    pub fn get(&self, name: &str) -> Ran {
        self.run(&["archive-get", name, "pg_wal/RECOVERYXLOG"])
    }

    /// `archive-get`, as PostgreSQL calls it in a cluster that was restored.
    pub fn get_by_contract(&self, name: &str) -> Ran {
        self.run(&["archive-get", "--contract", CONTRACT, name, "pg_wal/RECOVERYXLOG"])
    }

    /// Writes the contract of a recovery along these timelines that needs `…08` to `last`.
    pub fn promise(&self, path: Value, last: &str) {
        let contract = serde_json::json!({
            "format": 1, "system_identifier": self.system_identifier(), "segment_size": 1 << 20, "path": path,
            "first_segment": FULL, "last_segment": last, "last_record": "0/A00028",
            "target": "test", "restored_at": "2026-11-21T00:00:00.000000Z", "writer": "0000000000000000",
        });
        std::fs::write(self.data().join(CONTRACT), contract.to_string()).unwrap();
    }

    /// Moves the archive away, as when its disk is not mounted.
    #[expect(clippy::disallowed_methods, reason = "nothing has to be durable here")]
    pub fn take_archive_away(&self) {
        std::fs::rename(self.archive(), self.path("moved away")).unwrap();
    }

    /// The cluster's, as its `pg_control` has it.
    pub fn system_identifier(&self) -> String {
        let control = std::fs::read(self.data().join("global/pg_control")).unwrap();
        u64::from_le_bytes(control[..8].try_into().unwrap()).to_string()
    }

    /// What `archive-get` brought.
    pub fn delivered(&self) -> Vec<u8> {
        std::fs::read(self.wal("RECOVERYXLOG")).unwrap()
    }

    /// Keys in the archive, in order, without those that describe others.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        collect(&self.archive(), &self.archive(), &mut keys);
        keys.retain(|key| !key.ends_with(".meta"));
        keys.sort();
        keys
    }
}

fn collect(root: &Path, directory: &Path, keys: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, keys);
        } else {
            keys.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

/// The built program, with nothing of ours in its environment.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walpoint"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WALPOINT_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs the program alone.
pub fn run(arguments: &[&str]) -> Ran {
    Ran::of(program().args(arguments).output().unwrap())
}

/// Runs a command to its end.
pub fn ran(command: &mut Command) -> Ran {
    Ran::of(command.output().unwrap())
}

/// A fixture's content.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.zst"));
    let mut bytes = Vec::new();
    zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}
